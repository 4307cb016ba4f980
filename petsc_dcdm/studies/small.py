"""Systems so small that what does not depend on their size counts, and sequences of them, in one warm process.

``python -m petsc_dcdm.studies.small mixed 32 [--flat] [--fluid-only] [--solver NAME ...] [--beside N]`` prints set-up
and solve in ms, medians, for matrices of the family whose geometry changes from one to the next: with a new KSP each
time, with the same one (where sizes allow), with the same pattern and other values, and with the same matrix. Several
solvers run one after the other in the same process. ``--beside``: beside so many processes that use a core each, on the
host of the first rank. Under mpirun the rivals run as in a comparison.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.compare import baselines
from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.compare.systems import Problem, build
from petsc_dcdm.poisson import dmda

GEOMETRIES, WARM = 3, 2


def main(argv: Sequence[str]) -> None:
    """Print a line for each way in which one matrix follows another. Collective."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.small", description=__doc__)
    parser.add_argument("family")
    parser.add_argument("size", type=int)
    parser.add_argument("--flat", action="store_true", help="a square in place of a cube")
    parser.add_argument("--fluid-only", action="store_true")
    parser.add_argument("--solver", default=[baselines.resolve("dcdm")], type=baselines.resolve, nargs="+")
    parser.add_argument("--times", type=int, default=11)
    parser.add_argument("--beside", type=int, default=0)
    asked = parser.parse_args(argv)
    shape = (1 if asked.flat else asked.size, asked.size, asked.size)
    specs = [SystemSpec("family", asked.family, shape, n, asked.fluid_only, "random") for n in range(GEOMETRIES)]
    problems = [build(spec) for spec in specs]
    same_size = len({problem.A.getSize() for problem in problems}) == 1
    with ExitStack() as busy:
        for _ in range(asked.beside if PETSc.COMM_WORLD.rank == 0 else 0):
            busy.callback(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
        for way in ("new", "changed" if same_size else "", "values", "same"):
            for number, solver in enumerate(asked.solver if way else ()):
                name = asked.family if len(asked.solver) == 1 else f"{solver.name}, {asked.family}"
                _report(way, name, asked.size, _times(way, problems, asked.times, solver, f"s{number}_"))


def _report(way: str, family: str, size: int, took: np.ndarray) -> None:
    set_up, solve = np.median(took, axis=0)
    if PETSc.COMM_WORLD.rank == 0:
        total = np.median(took.sum(axis=1))
        print(f"{family} {size}, {way:8s} set-up {set_up:8.2f}  solve {solve:8.2f}  total {total:8.2f} ms", flush=True)


def _times(way: str, problems: list[Problem], times: int, solver: baselines.Solver, prefix: str) -> np.ndarray:
    """Milliseconds of set-up and solve [times, 2], after some that do not count; ``prefix``: of the options of this
    solver alone. Collective.
    """
    database = PETSc.Options()
    database.prefixPush(prefix)
    database.insertString(solver.on(PETSc.COMM_WORLD.size, 1))
    database.prefixPop()
    took: list[tuple[float, float]] = []
    ksp: PETSc.KSP | None = None
    for n in range(times + WARM):
        problem = problems[n % GEOMETRIES if way in ("new", "changed") else 0]
        if problem.grid and solver.ours:
            database[f"{prefix}pc_dcdm_grid"] = problem.grid
        x = problem.A.createVecRight()
        if way == "values":
            problem.A.scale(1.5 if n % 2 else 1 / 1.5)
        PETSc.COMM_WORLD.barrier()
        start = time.perf_counter()
        if ksp is None or way == "new":
            if ksp is not None:
                ksp.destroy()
            ksp = PETSc.KSP().create()
            ksp.setOptionsPrefix(prefix)
            ksp.setTolerances(rtol=1e-6, atol=0.0)
            if problem.dm is not None:
                dmda.attach(ksp, problem.dm)
            ksp.setFromOptions()
        ksp.setOperators(problem.A)
        ksp.setUp()
        ready = time.perf_counter()
        ksp.solve(problem.b, x)
        took.append((1e3 * (ready - start), 1e3 * (time.perf_counter() - ready)))
        x.destroy()
    assert ksp is not None and ksp.getConvergedReason() > 0
    ksp.destroy()
    return np.array(took[WARM:])


if __name__ == "__main__":
    main(sys.argv[1:])
