"""The training loop of the `multigrid` network. torch and numpy only; one process, deterministic for a seed
and thread count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import torch

from petsc_dcdm.grid.faces import padded
from petsc_dcdm.grid.layout import Plan, SerialLayout, coarse_box
from petsc_dcdm.network import multigrid
from petsc_dcdm.network.fields import Exchange, no_exchange
from petsc_dcdm.network.initial import HYPER, initial_tensors
from petsc_dcdm.stencil.plan import VISITS, coarse_strength, plan_coarsening
from petsc_dcdm.stencil.walls import keep_walls
from petsc_dcdm.training.domains import System, random_system, smooth_noise
from petsc_dcdm.training.losses import exact_solver, unrolled_loss
from petsc_dcdm.training.media import random_medium

#: Sizes at which the hierarchy stops in training: deep enough to use every level's fields, small enough for
#: dense solves.
COARSE_LIMITS = (100, 600)

#: Cells from which on training coarsens further than a solve would, for the sake of the dense solve.
MOST_DENSE = 700


@dataclass(frozen=True)
class Settings:
    """How to train. `share_2d`: part of the systems that are 2D; `batch`: systems per step; `media`: how often there is
    a medium of high contrast beside them; `unroll`: DCDM steps in the loss.
    """

    steps: int = 3000
    seed: int = 1
    learning_rate: float = 3e-3
    batch: int = 3
    share_2d: float = 0.3
    media: float = 0.0
    unroll: int = 3
    smoothing: int = int(HYPER["steps"])
    hidden: int = int(HYPER["hidden"])
    threshold: float = float(HYPER["threshold"])

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting, its value and what it may be."""
        for name in ("steps", "batch", "unroll", "smoothing", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"The learning rate is {self.learning_rate:g}; it must be positive.")
        if not 0 <= self.share_2d <= 1:
            raise ValueError(f"The part of 2D systems is {self.share_2d:g}; it must lie in 0..1.")
        if not 0 <= self.media <= 1:
            raise ValueError(f"The part of steps with a medium is {self.media:g}; it must lie in 0..1.")
        if not self.threshold >= 1:
            raise ValueError(f"The threshold is {self.threshold:g}; it must be at least 1.")


def mean_conductances(system: System) -> list[float]:
    """Mean over the positive face conductances along x, y, z; 0 where there is none."""
    return [float(wa[wa > 0].mean()) if (wa > 0).any() else 0.0 for wa in system.w]


def solve_plan(system: System, threshold: float) -> Plan:
    """The coarsenings that a solve would make of the system if its grid were larger: none that merges what walls and
    jumps of the coefficient separate.
    """
    means = mean_conductances(system)
    plan = plan_coarsening(system.shape, means, threshold, min(COARSE_LIMITS))
    layout = SerialLayout(system.shape, plan, periodic=system.periodic)
    faces = [padded(face.astype(float), layout) for face in system.w]
    return keep_walls(faces, layout, plan, tuple(means), threshold, 1)[0]


def training_plan(system: System, threshold: float, coarse_limit: int) -> Plan:
    """How training coarsens a system to `coarse_limit` cells: by its means, or where it has a plan as that says, and by
    its means from there on only as long as more than `MOST_DENSE` cells are left.
    """
    shape, strength, plan = system.shape, mean_conductances(system), []
    for planned in system.plan or ():
        axes = tuple(a for a in planned if shape[2 - a] > 1)  # a piece may be shorter than what the plan is of
        if math.prod(shape) <= coarse_limit or not axes:
            break
        plan.append(axes)
        strength = coarse_strength(strength, axes)
        shape, _ = coarse_box(shape, (0, 0, 0), axes)
    return (*plan, *plan_coarsening(shape, strength, threshold, coarse_limit if system.plan is None else MOST_DENSE))


def draw_medium(rng: np.random.Generator, settings: Settings) -> System:
    """A random medium of high contrast, with the plan of a solve; seldom one on which a solve leaves the grid at once,
    as the network has no part in that.
    """
    for _ in range(3):
        system = random_medium(rng, bool(rng.random() < settings.share_2d))[1]
        plan = solve_plan(system, settings.threshold)
        if plan:
            break
    return replace(system, plan=plan)


def prepare(
    weights: dict[str, torch.Tensor], system: System, threshold: float, coarse_limit: int
) -> tuple[multigrid.Operator, Callable[[torch.Tensor], torch.Tensor]]:
    """The system as an operator, and its differentiable preconditioner: the cycle as solves run it, with an exact
    solve on the coarsest level.
    """
    plan = training_plan(system, threshold, coarse_limit)
    layout, exchange = SerialLayout(system.shape, plan, periodic=system.periodic), exchange_of(system)
    op = multigrid.operator_from_arrays(system.w, system.s, system.shape, exchange)
    smoothers, coarse, _ = multigrid.build(weights, op, layout, exchange)
    solve = exact_solver(coarse, system.closed)
    return op, lambda r: multigrid.cycle(smoothers, solve, r, exchange, VISITS)


def exchange_of(system: System) -> Exchange:
    """How halos are filled on the grid of a system."""
    return SerialLayout(system.shape, (), periodic=system.periodic).exchange if any(system.periodic) else no_exchange


def consistent(b: torch.Tensor, active: torch.Tensor, closed: bool) -> torch.Tensor:
    """`b` [B, nz, ny, nx] at active cells, freed of its mean where the system is closed, at a root mean
    square of 1.
    """
    b = b * active
    count = active.sum()
    if closed:
        b = b - active * (b.sum(dim=(-3, -2, -1), keepdim=True) / count)
    return b / (b.square().sum(dim=(-3, -2, -1), keepdim=True) / count).sqrt()


def right_hand_sides(
    op: multigrid.Operator,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    closed: bool,
    rng: np.random.Generator,
) -> torch.Tensor:
    """[3, nz, ny, nx]: white noise, a smooth field, and noise rich in low eigenvectors (the
    preconditioner's answer to noise).
    """
    noise = torch.from_numpy(rng.standard_normal((2, *op.shape)).astype(np.float32))
    smooth = torch.from_numpy(smooth_noise(op.shape, rng).astype(np.float32))
    with torch.no_grad():
        first = consistent(torch.stack([noise[0], smooth]), op.active, closed)
        rich = consistent(precondition(consistent(noise[1:], op.active, closed)), op.active, closed)
    return torch.cat([first, rich])


def train_multigrid(
    settings: Settings,
    report: Callable[[int, float], None] | None = None,
    start: dict[str, np.ndarray] | None = None,
    draw: Callable[[np.random.Generator], System] | None = None,
    learn: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Train a `multigrid` network on random systems.

    Parameters
    ----------
    settings
        length, seed and shape of the network.
    report
        called after every step with its number (from 1) and its loss.
    start
        tensors to start from; default: an untrained network.
    draw
        where the systems come from; default: `domains.random_system`, and `draw_medium` for media beside them.
    learn
        the tensors to train; default: all.

    Returns:
        The tensors of a weights file, float32.
    """
    initial = initial_tensors(settings.smoothing, settings.hidden, settings.seed) if start is None else start
    weights = {name: torch.from_numpy(a.copy()) for name, a in initial.items()}
    learned = [w.requires_grad_() for name, w in weights.items() if learn is None or name in learn]
    optimiser = torch.optim.Adam(learned, lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1.0, (step + 1) / 20),
    )
    for step in range(settings.steps):
        rng = np.random.default_rng([settings.seed, step])
        optimiser.zero_grad()
        total = 0.0
        # media have numbers of their own: the other systems are the same with and without them
        others = np.random.default_rng([settings.seed, step, 1])
        medium = draw is None and bool(others.random() < settings.media)
        for number in range(settings.batch + medium):
            if draw:
                system = draw(rng)
            elif number < settings.batch:
                system = random_system(rng, bool(rng.random() < settings.share_2d))[1]
            else:
                system = draw_medium(others, settings)
            op, precondition = prepare(weights, system, settings.threshold, int(rng.choice(COARSE_LIMITS)))
            b = right_hand_sides(op, precondition, system.closed, rng)
            loss = unrolled_loss(op, precondition, b, settings.unroll, exchange_of(system)) / settings.batch
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        schedule.step()
        if report:
            report(step + 1, total)
    return {name: w.detach().numpy().copy() for name, w in weights.items()}
