"""The smallest residual that any x in double precision can have: ``python -m petsc_dcdm.studies.floor``.

The system is solved to some eighteen digits by refinement in extended precision, the solution is rounded to double
precision, and the residual of that is taken: no solver that returns doubles can be expected to do better. One rank.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.shape import shape_argument
from petsc_dcdm.poisson.solving import relative_residual
from petsc_dcdm.studies.robustness import problem_of, solver

ROWS = 500_000
"""Rows multiplied at a time, which bounds the memory."""
SWEEPS = 4


def multiply(rows: tuple[np.ndarray, np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    """A x in extended precision; ``rows`` is A in CSR, each row with its diagonal."""
    indptr, column, value = rows
    y = np.empty(indptr.size - 1, np.longdouble)
    for first in range(0, y.size, ROWS):
        last = min(first + ROWS, y.size)
        part = slice(indptr[first], indptr[last])
        products = value[part].astype(np.longdouble) * x[column[part]]
        y[first:last] = np.add.reduceat(products, indptr[first:last] - indptr[first])
    return y


def attainable(ksp: PETSc.KSP, A: PETSc.Mat, b: PETSc.Vec) -> tuple[float, float, float]:
    """|x| / |b| of the exact solution, and |b - A x| / |b| of its rounding: in extended precision, and with MatMult."""
    rows = A.getValuesCSR()
    right = b.getArray(readonly=True).astype(np.longdouble)
    size = np.linalg.norm(right.astype(float))
    x, r = np.zeros_like(right), right.copy()
    residual, correction = b.duplicate(), b.duplicate()
    for _ in range(SWEEPS):
        scale = np.linalg.norm(r.astype(float))
        residual.setArray((r / scale).astype(float))
        ksp.solve(residual, correction)
        x += scale * correction.getArray(readonly=True).astype(np.longdouble)
        r = right - multiply(rows, x)
    rounded = x.astype(float)
    exact = np.linalg.norm((right - multiply(rows, rounded.astype(np.longdouble))).astype(float)) / size
    correction.setArray(rounded)
    found = float(np.linalg.norm(rounded) / size), float(exact), relative_residual(A, correction, b)
    for vec in (residual, correction):
        vec.destroy()
    return found


def main(argv: list[str]) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.floor", description=__doc__)
    parser.add_argument(
        "--system", nargs="+", default=["plates"], help="families, see petsc-dcdm solve (default plates)"
    )
    parser.add_argument("--size", type=shape_argument, default=(1, 512, 512), help="n or nx,ny[,nz] (default 512,512)")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args(argv)
    print("| system | right-hand side | size of x | residual of x rounded, extended | the same, MatMult |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.system:
        problem, right = problem_of(SystemSpec("family", name, args.size, args.seed), ("random", "smooth"))
        ksp = solver(problem.A, problem.dm, 1e-6)
        for kind, b in right.items():
            numbers = attainable(ksp, problem.A, b)
            print(f"| {name} | {kind} | " + " | ".join(f"{v:.1e}" for v in numbers) + " |", flush=True)
        ksp.destroy()
        problem.destroy()


if __name__ == "__main__":
    main(sys.argv[1:])
