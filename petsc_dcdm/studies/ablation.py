"""What learning adds to the cycle: ``python -m petsc_dcdm.studies.ablation``.

The plugin with other weights: damped Jacobi, Chebyshev, only the constants learned, fields learned, each as V(p,p); and
the cycle with all its smoothing after the correction, (0, 2p), in torch. What has to be trained is kept in the folder
``--out`` and not trained again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.grid.shape import Shape, shape_argument, size_text
from petsc_dcdm.network import multigrid, weights
from petsc_dcdm.network.fields import no_exchange
from petsc_dcdm.network.initial import HYPER, chebyshev_weights, initial_tensors
from petsc_dcdm.network.multigrid import Smoother, apply_operator, spread_blocks, sum_blocks
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.stencil.plan import plan_coarsening
from petsc_dcdm.studies.robustness import TOLERANCES, Row, measure, system_argument
from petsc_dcdm.training import validation
from petsc_dcdm.training.losses import exact_solver
from petsc_dcdm.training.train import Settings, mean_conductances, train_multigrid

SYSTEMS = (
    "mixed", "tank", "dam_break", "porous", "smooth", "random_solids", "jumps", "axis_4", "axis_100", "plates",
)  # fmt: skip
INTERVALS = {1: 0.5, 2: 0.35, 3: 0.3, 4: 0.2}
"""p -> lower end of the Chebyshev interval for V(p,p): the best of 0.5, 0.35, 0.3, 0.2."""
UPPER_END = 1.95
JACOBI = 2 / 3
"""The weight of damped Jacobi."""
SCALARS = Settings(steps=150, batch=2)
FIELDS = Settings(steps=300)
TRIED = ("mixed", "random solids", "jumps")
"""Systems of :mod:`petsc_dcdm.training.validation` for the cycle (0, 2p)."""


def classical(steps: int, omega: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors whose fields are constants: smoothing weights ``omega`` and 1/2-scaled aggregation."""
    tensors = initial_tensors(steps, int(HYPER["hidden"]), 1)
    tensors["log_c"][:steps] = np.log(omega)
    return tensors


def chebyshev_candidates(steps: int) -> list[np.ndarray]:
    """Smoothing weights (steps,) of the Chebyshev polynomial on each of the intervals, float64."""
    return [chebyshev_weights(steps, (low, UPPER_END)) for low in INTERVALS.values()]


def variants() -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Name -> what makes its tensors."""
    found: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "jacobi-4": lambda: classical(4, np.full(4, JACOBI)),
        **{
            f"chebyshev-{p}": lambda p=p, low=low: classical(p, chebyshev_weights(p, (low, UPPER_END)))  # type: ignore[misc]
            for p, low in INTERVALS.items()
        },
        "scalars-4": lambda: train_multigrid(SCALARS, learn=("log_c",)),
    }
    for p in INTERVALS:
        settings = Settings(steps=FIELDS.steps, smoothing=p)
        found[f"fields-{p}"] = lambda settings=settings: train_multigrid(settings)  # type: ignore[misc]
    return found


def weights_file(name: str, folder: Path) -> str:
    """The value of ``-pc_dcdm_model`` for a variant; its file is made if it is not there yet."""
    if name == "shipped":
        return "multigrid"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        begun = time.perf_counter()
        tensors = variants()[name]()
        steps = steps_of(tensors)
        weights.save(
            path, "multigrid", (2, 3), tensors,
            training_domain="ablation", seed=1, command="python -m petsc_dcdm.studies.ablation",
            hyper={**HYPER, "steps": steps},
        )  # fmt: skip
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return str(path)


def count(model: str, system: str, shape: Shape, seeds: tuple[int, ...]) -> Row:
    """Iterations of the plugin with the weights ``model``."""
    from petsc4py import PETSc

    database = PETSc.Options()
    database["pc_dcdm_model"] = model
    row = measure(system, shape, seeds, ("random", "smooth"))
    del database["pc_dcdm_model"]
    return row


def cycle_after(
    smoothers: Sequence[Smoother],
    coarse_solve: Callable[[torch.Tensor], torch.Tensor],
    r: torch.Tensor,
    before: int,
    after: int,
) -> torch.Tensor:
    """One cycle with ``before`` steps before the correction and ``after`` behind it, of the fields' first numbers."""
    if not smoothers:
        return coarse_solve(r)
    level = smoothers[0]
    x = torch.zeros_like(r)
    for i in range(before):
        x = x + level.omega[i] * (r - apply_operator(level.op, x, no_exchange))
    residual = level.op.active * (r - apply_operator(level.op, x, no_exchange))
    e = cycle_after(smoothers[1:], coarse_solve, sum_blocks(residual, level.axes), before, after)
    x = x + level.op.active * spread_blocks(e, level.axes, level.op.shape)
    for i in reversed(range(after)):
        x = x + level.omega[i] * (r - apply_operator(level.op, x, no_exchange))
    return x


def split(before: int, after: int, system: validation.System) -> int:
    """Iterations to 1e-6 of a cycle with classical weights, the best of the intervals; random right-hand side."""
    op = validation.double_operator(system)
    b = torch.from_numpy(validation.right_hand_side(system, "random", 0))
    plan = plan_coarsening(system.shape, mean_conductances(system), float(HYPER["threshold"]), 1000)
    steps = max(before, after)
    best = validation.MOST_ITERATIONS + 1
    for omega in chebyshev_candidates(steps):
        tensors = classical(steps, omega)
        loaded = {name: torch.from_numpy(a) for name, a in tensors.items()}
        single = multigrid.operator_from_arrays(system.w, system.s, system.shape)
        smoothers, coarse, _ = multigrid.build(loaded, single, SerialLayout(system.shape, plan), no_exchange)
        solve = exact_solver(coarse, system.closed)

        def precondition(
            r: torch.Tensor, smoothers: list[Smoother] = smoothers, solve: Callable[..., torch.Tensor] = solve
        ) -> torch.Tensor:
            return cycle_after(smoothers, solve, r.float()[None], before, after)[0].double()

        best = min(best, validation.iterations(op, precondition, b, closed=system.closed, most=best)[0])
    return best


def main(argv: list[str]) -> int:
    """Print the Markdown tables."""
    from petsc_dcdm.commands.arguments import split_petsc_options

    argv, petsc_options = split_petsc_options(argv)
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.ablation", description=__doc__)
    names = [*variants(), "shipped"]
    parser.add_argument(
        "--size", type=shape_argument, nargs="+", default=[(64, 64, 64)], help="n or nx,ny[,nz] (default 64)"
    )
    parser.add_argument("--system", nargs="+", type=system_argument, default=list(SYSTEMS), help="default: ten of them")
    parser.add_argument("--variant", nargs="*", choices=names, default=names, help="default: all")
    parser.add_argument("--seed", type=int, nargs="+", default=[11], help="default: 11")
    parser.add_argument("--split", type=int, help="(0, 2p) against V(p,p) on a cube of so many cells instead, in torch")
    parser.add_argument("--out", type=Path, default=Path("out/ablation"), help="weights (default %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.split:
        pairs = [pair for p in INTERVALS for pair in ((p, p), (0, 2 * p))]
        _show(["system", *(f"({before},{after})" for before, after in pairs)])
        _show(["---"] * (1 + len(pairs)))
        for name in TRIED:
            system = validation.FAMILIES[name]((args.split,) * 3, 0)
            with torch.no_grad():
                _show([name, *(str(split(before, after, system)) for before, after in pairs)])
        return 0
    import petsc4py

    petsc4py.init([sys.argv[0], *petsc_options])
    models = {name: weights_file(name, args.out) for name in args.variant}
    for shape in args.size:
        _show([f"{size_text(shape, 'x')}, 1e-6", *args.variant])
        _show(["---"] * (1 + len(args.variant)))
        for name in args.system:
            rows = [count(model, name, shape, tuple(args.seed)) for model in models.values()]
            _show([name, *(row.text(TOLERANCES[0]) for row in rows)])
    return 0


def _show(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
