"""A lid-driven cavity run until it is steady, on grids one finer than the other, against a table of the literature.

python -m petsc_dcdm.studies.cavity [--reynolds 400] [--sizes 32,64,128]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.flow.scenes import Wishes, cavity

GHIA = {100: (-0.21090, 0.17527, -0.24533), 400: (-0.32726, 0.30203, -0.44993)}
"""By Reynolds number: least u on the vertical line through the centre, greatest and least v on the horizontal one.
Tables I and II of Ghia, Ghia, Shin, J. Comput. Phys. 48 (1982), computed on 129 x 129 points.
"""

STEADY = 2e-5
"""Of the lid's velocity: what may change while the lid crosses the cavity."""


def steady_extremes(
    n: int, reynolds: float, steady: float = STEADY, stream: np.ndarray | None = None
) -> tuple[tuple[float, float, float], int]:
    """Those of the table, on n x n cells (n even, one rank), and the steps taken; RuntimeError where a projection
    leaves more than 1e-6 of the divergence.

    The flow begins at rest, or from a stream function at the corners of the cells, (n + 1, n + 1), for a cavity and a
    lid's velocity of 1.
    """
    state = cavity(Wishes((1, n, n), reynolds=reynolds, comm=PETSc.COMM_SELF))
    if stream is not None:
        inner = state.grid.inner
        state.u[0][inner][0] = n * np.diff(stream, axis=0)[:, :-1]
        state.u[1][inner][0] = -n * np.diff(stream, axis=1)[:-1]
        state.grid.fill_faces(state.u)
    change = np.inf
    while change > steady:
        start = state.time
        solved = state.step()
        if solved.reason <= 0 or solved.divergence >= 1e-6:
            raise RuntimeError(f"Step {state.steps} leaves a share of {solved.divergence:.1e} of the divergence.")
        moved = max(float(np.abs(now - then).max()) for now, then in zip(state.u, state.before, strict=True))
        change = moved * n / (state.time - start)
    u, v = (state.u[a][state.grid.inner][0] for a in (0, 1))
    found = -peak(-u[:, n // 2]), peak(v[n // 2]), -peak(-v[n // 2])
    state.destroy()
    return found, state.steps


def peak(values: np.ndarray) -> float:
    """The top of the parabola through the greatest value and the two beside it."""
    i = int(np.clip(np.argmax(values), 1, values.size - 2))
    low, top, high = values[i - 1 : i + 2]
    return float(top - (high - low) ** 2 / (8.0 * (low + high - 2.0 * top)))


def main(argv: list[str] | None = None) -> int:
    """Print a table in Markdown: one row per grid and, from the last two, the values for cells of no size."""
    parser = argparse.ArgumentParser(description="A lid-driven cavity against Ghia, Ghia and Shin.")
    parser.add_argument("--reynolds", type=int, default=400, choices=sorted(GHIA), help="Reynolds number (default 400)")
    parser.add_argument("--sizes", default="32,64,128", help="even numbers of cells along a side (default 32,64,128)")
    args = parser.parse_args(argv)
    known = np.array(GHIA[args.reynolds])
    sizes = [int(size) for size in args.sizes.split(",")]
    found = []
    print(f"| Reynolds {args.reynolds} | steps | least u | greatest v | least v |\n|---|---|---|---|---|")
    for n in sizes:
        values, steps = steady_extremes(n, args.reynolds)
        found.append(np.array(values))
        print(_row(f"{n} x {n}", str(steps), found[-1], known), flush=True)
    if len(sizes) > 1:
        ratio = (sizes[-1] / sizes[-2]) ** 2
        print(_row("for cells of no size", "", (ratio * found[-1] - found[-2]) / (ratio - 1.0), known))
    if len(sizes) > 2 and sizes[-1] * sizes[-3] == sizes[-2] ** 2:
        orders = np.log(np.abs((found[-2] - found[-3]) / (found[-1] - found[-2]))) / np.log(sizes[-1] / sizes[-2])
        print("| order, from three grids | | " + " | ".join(f"{order:.1f}" for order in orders) + " |")
    return 0


def _row(name: str, steps: str, values: np.ndarray, known: np.ndarray) -> str:
    cells = (f"{value:.4f} ({100 * (value / given - 1):+.1f} %)" for value, given in zip(values, known, strict=True))
    return f"| {name} | {steps} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
