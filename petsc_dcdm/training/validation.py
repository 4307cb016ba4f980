"""Systems kept apart from training, and the DCDM iterations that a network needs on them.

The families are those of the project's promises (issue-sized: boxes, tank, dam break, porous, plates ...),
drawn from other generators and other seeds than the training systems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network.fields import no_exchange
from petsc_dcdm.network.multigrid import Operator, apply_operator, operator_from_arrays
from petsc_dcdm.training.dcdm import Recurrence
from petsc_dcdm.training.domains import System, assemble, ball, brick, grid, size, smooth_noise
from petsc_dcdm.training.media import correlated as correlated_field

#: Added to every seed here: training counts up from small ones.
SEED_OFFSET = 1_000_003
MOST_ITERATIONS = 60


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([SEED_OFFSET + seed, *name.encode()])


def _none(shape: Shape) -> np.ndarray:
    return np.zeros(shape, bool)


def _walls(open_sides: dict[tuple[int, int], float]) -> np.ndarray:
    sides = np.zeros((3, 2))
    for side, value in open_sides.items():
        sides[side] = value
    return sides


def _up(shape: Shape) -> int:
    """The vertical axis: z in 3D, y in 2D."""
    return 2 if shape[0] > 1 else 1


def _bodies(shape: Shape, rng: np.random.Generator, count: int, smallest: float, largest: float) -> np.ndarray:
    """Spheres and cubes of radii between two parts of the longest side."""
    solid = _none(shape)
    for _ in range(count):
        centre = rng.random(3) * size(shape)
        radius = np.full(3, rng.uniform(smallest, largest) * max(shape))
        solid |= ball(shape, centre, radius) if rng.random() < 0.6 else brick(shape, centre - radius, centre + radius)
    return solid


def box(shape: Shape, seed: int) -> System:
    """All walls Dirichlet, half a cell away."""
    return assemble(~_none(shape), _none(shape), np.full((3, 2), 2.0))


def vertex_box(shape: Shape, seed: int) -> System:
    """All walls Dirichlet, a cell away: the interior of a vertex-centred grid."""
    return assemble(~_none(shape), _none(shape), np.full((3, 2), 1.0))


def open_box(shape: Shape, seed: int) -> System:
    """Closed but for the top."""
    return assemble(~_none(shape), _none(shape), _walls({(_up(shape), 1): 2.0}))


def mixed(shape: Shape, seed: int) -> System:
    """Solid spheres and cubes under a wavy free surface, one side open."""
    rng = _rng("mixed", seed)
    solid = _bodies(shape, rng, 8, 0.05, 0.15)
    up = _up(shape)
    along, n = grid(shape)[up], shape[2 - up]
    x = grid(shape)[0]
    air = np.broadcast_to(along > n * (0.75 + 0.08 * np.sin(2 * np.pi * (2 * x / shape[2] + rng.random()))), shape)
    return assemble(~solid & ~air, air & ~solid, _walls({(0, int(rng.integers(2))): 2.0}))


def tank(shape: Shape, seed: int) -> System:
    """Closed tank, wavy free surface with bubbles below, no obstacle."""
    rng = _rng("tank", seed)
    up = _up(shape)
    along, n, x, y = grid(shape)[up], shape[2 - up], grid(shape)[0] / shape[2], grid(shape)[1] / shape[1]
    wave = np.sin(2 * np.pi * (3 * x + rng.random())) + (np.sin(2 * np.pi * (y + rng.random())) if up == 2 else 0)
    air = np.broadcast_to(along > n * (0.7 + 0.05 * wave), shape) | _bodies(shape, rng, 3, 0.02, 0.05)
    return assemble(~air, air, np.zeros((3, 2)))


def dam_break(shape: Shape, seed: int) -> System:
    """A column of fluid, a thin layer on the floor, and pillars; the rest is air."""
    rng = _rng("dam", seed)
    up = _up(shape)
    n = size(shape)
    high = n.copy()
    high[0], high[up] = 0.4 * n[0], 0.8 * n[up]
    layer = n.copy()
    layer[up] = max(2.0, 0.1 * n[up])
    fluid = brick(shape, np.zeros(3), high) | brick(shape, np.zeros(3), layer)
    solid = _none(shape)
    for _ in range(3):
        centre = rng.random(3) * n
        low, top = centre - 0.05 * n, centre + 0.05 * n
        low[up], top[up] = 0, 0.5 * n[up]
        solid |= brick(shape, low, top)
    return assemble(fluid & ~solid, ~fluid & ~solid, np.zeros((3, 2)))


def porous(shape: Shape, seed: int) -> System:
    """120 spheres (in 2D discs), open on two opposite sides."""
    rng = _rng("porous", seed)
    solid = _none(shape)
    for _ in range(120 if shape[0] > 1 else 60):
        solid |= ball(shape, rng.random(3) * size(shape), np.full(3, rng.uniform(0.03, 0.08) * max(shape)))
    return assemble(~solid, _none(shape), _walls({(0, 0): 2.0, (0, 1): 2.0}))


def ring(shape: Shape, seed: int) -> System:
    """Flow past a tilted ring on a stem: a body with a hole, as a surface mesh would give; inflow and
    outflow along x.
    """
    rng = _rng("ring", seed)
    tilt = rng.uniform(0.2, 1.2)
    half = size(shape) / 2
    x, y, z = (c - h for c, h in zip(grid(shape), half, strict=True))
    span = size(shape)[size(shape) > 1].min()
    u = np.cos(tilt) * x + np.sin(tilt) * y
    v = -np.sin(tilt) * x + np.cos(tilt) * y
    thick, radius = 0.09 * span, 0.25 * span
    if shape[0] > 1:
        body = (np.sqrt(v**2 + z**2) - radius) ** 2 + u**2 < thick**2
        body = body | ((u**2 + v**2 < (0.4 * thick) ** 2) & (z < -radius))
    else:
        body = (np.abs(np.sqrt(x**2 + y**2) - radius) < 0.4 * thick) & (np.arctan2(v, u) < 2.5)
        body = np.broadcast_to(body, shape)
    return assemble(~np.broadcast_to(body, shape), _none(shape), _walls({(0, 1): 2.0}))


def smooth_coefficients(shape: Shape, seed: int) -> System:
    """Coefficients over two decades, all walls Dirichlet."""
    k = 10.0 ** smooth_noise(shape, _rng("smooth", seed), modes=4)
    return assemble(~_none(shape), _none(shape), np.full((3, 2), 2.0), k)


def random_solids(shape: Shape, seed: int) -> System:
    """Every cell solid with a chance of 1/4, top open."""
    solid = _rng("solids", seed).random(shape) < 0.25
    return assemble(~solid, _none(shape), _walls({(_up(shape), 1): 2.0}))


def jumps(shape: Shape, seed: int) -> System:
    """Blocks of 8 cells whose coefficient is 1 or 1000, all walls Dirichlet."""
    index = [np.arange(n) // 8 for n in shape]
    stiff = (_rng("jumps", seed).random([int(i.max()) + 1 for i in index]) < 0.5)[np.ix_(*index)]
    return assemble(~_none(shape), _none(shape), np.full((3, 2), 2.0), np.where(stiff, 1000.0, 1.0))


def ratio(value: float) -> Callable[[Shape, int], System]:
    """Conductances along x `value` times the others, all walls Dirichlet."""
    return lambda shape, seed: assemble(~_none(shape), _none(shape), np.full((3, 2), 2.0), ratio=(value, 1.0, 1.0))


def thin_plates(shape: Shape, seed: int) -> System:
    """Plates one cell thick every 8 cells or so, each with a hole a tenth of the side wide, open at both
    ends.
    """
    rng = _rng("plates", seed)
    n = size(shape)
    solid = _none(shape)
    for at in np.arange(6, n[0] - 4, 8) + rng.integers(0, 3):
        low, high = np.zeros(3), n.copy()
        low[0], high[0] = at, at + 1
        centre, half = rng.uniform(0.2, 0.8, 3) * n, 0.05 * max(shape)
        hole_low, hole_high = centre - half, centre + half
        hole_low[0], hole_high[0] = 0, n[0]
        solid |= brick(shape, low, high) & ~brick(shape, hole_low, hole_high)
    return assemble(~solid, _none(shape), _walls({(0, 0): 2.0, (0, 1): 2.0}))


def neumann(shape: Shape, seed: int) -> System:
    """Closed, with obstacles: singular."""
    return assemble(~_bodies(shape, _rng("neumann", seed), 6, 0.05, 0.12), _none(shape), np.zeros((3, 2)))


FAMILIES: dict[str, Callable[[Shape, int], System]] = {
    "box": box,
    "vertex box": vertex_box,
    "open box": open_box,
    "mixed": mixed,
    "tank": tank,
    "dam break": dam_break,
    "porous": porous,
    "ring": ring,
    "smooth": smooth_coefficients,
    "neumann": neumann,
    "random solids": random_solids,
    "jumps": jumps,
    "ratio 4": ratio(4.0),
    "ratio 100": ratio(100.0),
    "thin plates": thin_plates,
}


def lognormal(shape: Shape, seed: int) -> System:
    """An independent log-normal coefficient of deviation 1 in every cell, the far end of x open."""
    k = np.exp(_rng("lognormal", seed).standard_normal(shape))
    return assemble(~_none(shape), _none(shape), _walls({(0, 1): 2.0}), k)


def correlated(shape: Shape, seed: int) -> System:
    """Log-normal of deviation 2, correlated over 12 cells along x and 4 along the others, open at both ends of x."""
    k = np.exp(2.0 * correlated_field(shape, _rng("correlated", seed), np.array([12.0, 4.0, 4.0])))
    return assemble(~_none(shape), _none(shape), _walls({(0, 0): 2.0, (0, 1): 2.0}), k)


def layers(shape: Shape, seed: int) -> System:
    """Layers of three cells of deviation 2, vertically a tenth, open at both ends of x."""
    up, conductances = _up(shape), np.ones(3)
    conductances[up] = 0.1
    logarithm = 2.0 * _rng("layers", seed).standard_normal(shape[2 - up] // 3 + 1).repeat(3)[: shape[2 - up]]
    k = np.exp(logarithm.reshape([-1 if i == 2 - up else 1 for i in range(3)]))
    x, y, z = conductances
    return assemble(~_none(shape), _none(shape), _walls({(0, 0): 2.0, (0, 1): 2.0}), k, (x, y, z))


MEDIA: dict[str, Callable[[Shape, int], System]] = {
    "log-normal": lognormal,
    "correlated": correlated,
    "layers": layers,
}
"""For trainings that draw media of high contrast."""


def right_hand_side(system: System, kind: str, seed: int) -> np.ndarray:
    """float64 (nz, ny, nx): ``"random"`` (white noise) or ``"smooth"``; consistent where the system is
    closed.
    """
    rng = _rng("rhs", seed)
    b = rng.standard_normal(system.shape) if kind == "random" else smooth_noise(system.shape, rng) + 0.3
    active = system.active
    b = np.where(active, b, 0.0)
    if system.closed:
        b -= active * (b.sum() / active.sum())
    return b


def double_operator(system: System) -> Operator:
    """The system as an operator in float64, for the loop around a float32 network."""
    return operator_from_arrays(system.w, system.s, system.shape, dtype=torch.float64)


def iterations(
    op: Operator,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    tolerances: Sequence[float] = (1e-6,),
    closed: bool = False,
    most: int = MOST_ITERATIONS,
) -> list[int]:
    """Steps of the DCDM loop until |b - A x| <= tolerance |b|, for each of the descending
    tolerances.

    `op` and `b` [nz, ny, nx] are float64; `precondition` takes and gives float64. Counts that were not
    reached are `most` + 1.
    """
    counts: list[int] = []
    x, r, norm = torch.zeros_like(b), b, b.norm()
    loop = Recurrence(lambda d: apply_operator(op, d, no_exchange))
    for step in range(1, most + 1):
        d = precondition(r / r.norm())
        if closed:
            d = d - op.active * (d.sum() / op.active.sum())
        change, r = loop.step(r, d)
        x = x + change
        while len(counts) < len(tolerances) and r.norm() <= tolerances[len(counts)] * norm:
            if (b - apply_operator(op, x, no_exchange)).norm() > 1.01 * tolerances[len(counts)] * norm:
                break
            counts.append(step)
        if len(counts) == len(tolerances):
            return counts
    return counts + [most + 1] * (len(tolerances) - len(counts))
