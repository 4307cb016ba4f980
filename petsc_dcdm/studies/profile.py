"""Where the time of a solve goes, and what of the machine's memory bandwidth it uses:
``python -m petsc_dcdm.studies.profile mixed 128``, one rank with all threads.

Bytes are those that must move at least once for each pass over the finest grid, written lines being read first,
and 1/7 more for the coarser grids.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.cpu import backend, hierarchy
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.compare import baselines
from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.compare.systems import build
from petsc_dcdm.compare.tables import table
from petsc_dcdm.native.binding import ALIGN, OMEGA, Level, kernels
from petsc_dcdm.poisson.dmda import attach
from petsc_dcdm.solver import pc
from petsc_dcdm.solver.coarse import solver as coarse
from petsc_dcdm.solver.threads import threads_per_rank
from petsc_dcdm.stencil import system

COARSER = 8 / 7
Took = dict[str, list[float]]


def bandwidth(threads: int) -> float:
    """Bytes a second of c = a + b in double precision on all threads, arrays far larger than the caches."""
    a, b, c = np.ones((3, threads, 1 << 24))

    def add(n: int) -> None:
        np.add(a[n], b[n], out=c[n])

    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(6):
            start = time.perf_counter()
            list(pool.map(add, range(threads)))
            best = min(best, time.perf_counter() - start)
    return 4 * a.nbytes / best  # c is read before it is written


def timed(name: str, function: Callable[..., Any], took: Took) -> Callable[..., Any]:
    """The function, which adds its seconds to ``took``."""

    def run(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **more)
        took.setdefault(name, []).append(time.perf_counter() - start)
        return result

    return run


def watch(took: Took) -> list[CpuHierarchy]:
    """Time the kernels, and the parts of set-up, from now on; the list gets the networks as they are made."""
    made: list[CpuHierarchy] = []
    make = timed("CpuHierarchy", backend.CpuHierarchy, took)

    def remember(*arguments: Any, **more: Any) -> CpuHierarchy:
        made.append(make(*arguments, **more))
        return made[-1]

    library = kernels()
    for name in ("dcdm_dots", "dcdm_step", "dcdm_residual"):
        setattr(library, name, timed(name, getattr(library, name), took))
    for name in ("dcdm_down", "dcdm_up"):
        setattr(library, name, _leg(name, getattr(library, name), made, took))
    for module, name in ((pc, "find_grid"), (system, "extract"), (system, "keep_walls")):
        setattr(module, name, timed(name, getattr(module, name), took))
    pc.renewed = timed("CoarseSolver", pc.renewed, took)
    backend.CpuHierarchy = remember  # type: ignore[misc, assignment]
    hierarchy.recording = lambda: True  # for a cycle leg by leg
    calls = (
        (coarse.PetscCoarseSolver, "__call__"),
        (coarse.PartsCoarseSolver, "solve"),
        (coarse.BandCoarseSolver, "__call__"),
    )
    for solver, name in calls:
        setattr(solver, name, timed("coarse solve", getattr(solver, name), took))
    return made


def _leg(name: str, function: Callable[..., Any], made: list[CpuHierarchy], took: Took) -> Callable[..., Any]:
    """A leg of the cycle, timed; one that begins or ends at the second level apart from those of all levels."""
    whole, again = timed(name, function, took), timed("second visit", function, took)

    def run(levels: Any, parents: Any, work: Any, count: int, *more: Any) -> Any:
        return (whole if count == len(made[-1].levels) - 1 else again)(levels, parents, work, count, *more)

    return run


def bytes_of(level: Level, active: int) -> dict[str, list[float]]:
    """Least traffic of each kernel, by call; the last entry holds for all further calls."""
    blocks = level.n_w * level.n_r * -(-level.n_x // ALIGN)
    classes = np.ctypeslib.as_array((ctypes.c_uint8 * blocks).from_address(level.block_class))
    single = np.count_nonzero(classes == 0) * ALIGN * (OMEGA + level.steps) * 2
    words = active  # a byte for each cell
    return {
        "dcdm_down": [COARSER * (active * (8 + 8) + single)],
        "dcdm_up": [COARSER * (active * (4 + 8 + 0.5 + 8) + single)],
        "dcdm_dots": [active * (4 + 8 + 8 * h) + words for h in range(3)],
        "dcdm_step": [active * (4 + p + 16 + 16) + words for p in (16, 8 + 16, 16 + 8)],
        "dcdm_residual": [active * (8 + 8 + 16) + words],
    }


def main(argv: list[str]) -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.profile", description=__doc__)
    parser.add_argument("family", nargs="?", default="mixed", help="of systems (default mixed)")
    parser.add_argument("size", nargs="?", type=int, default=128, help="cells along each edge (default 128)")
    args = parser.parse_args(argv)
    family, size = args.family, args.size
    solver = baselines.resolve("dcdm")
    PETSc.Options().insertString(solver.options)
    problem = build(SystemSpec("family", family, (size,) * 3))
    took: Took = {}
    made = watch(took)
    x = problem.A.createVecRight()
    for warm in (True, False):
        ksp = PETSc.KSP().create()
        attach(ksp, problem.dm)
        ksp.setOperators(problem.A)
        ksp.setTolerances(rtol=1e-6)
        ksp.setFromOptions()
        took.clear()
        start = time.perf_counter()
        ksp.setUp()
        ready = time.perf_counter()
        ksp.solve(problem.b, x)
        end = time.perf_counter()
        if warm:
            ksp.destroy()
    setup, solve = ready - start, end - ready
    threads = threads_per_rank(MPI.COMM_WORLD)
    peak = bandwidth(threads)
    least = bytes_of(made[-1].finest, made[-1].levels[0].unknowns)
    print(f"{family} {size}^3, {ksp.getIterationNumber()} steps, {threads} threads; memory {peak / 1e9:.0f} GB/s\n")
    lines = []
    for name, moved in least.items():
        if name not in took:
            continue
        calls = took[name]
        total = sum(moved[min(n, len(moved) - 1)] for n in range(len(calls)))
        rate = total / sum(calls)
        lines.append(
            [
                name[5:],
                str(len(calls)),
                f"{1e3 * sum(calls):.1f}",
                f"{total / len(calls) / 1e6:.0f}",
                f"{rate / 1e9:.0f}",
            ]
        )
        lines[-1].append(f"{100 * rate / peak:.0f} %")
    rest = solve - sum(sum(took[name]) for name in least if name in took)
    for name in ("second visit", "coarse solve"):
        calls = took.get(name, [])
        rest -= sum(calls)
        lines += [[name, str(len(calls)), f"{1e3 * sum(calls):.1f}", "", "", ""]]
    lines += [
        ["all else", "", f"{1e3 * rest:.1f}", "", "", ""],
        ["**solve**", "", f"**{1e3 * solve:.1f}**", "", "", ""],
    ]
    print(table(["part of the solve", "calls", "ms", "MB a call", "GB/s", "of the bandwidth"], lines))
    names = ("find_grid", "extract", "keep_walls", "CpuHierarchy", "CoarseSolver")
    lines = [[name, f"{1e3 * sum(took.get(name, [0.0])):.1f}"] for name in names]
    rest = setup - sum(sum(took.get(name, [])) for name in names)
    print(
        table(
            ["part of set-up", "ms"],
            [*lines, ["all else", f"{1e3 * rest:.1f}"], ["**set-up**", f"**{1e3 * setup:.1f}**"]],
        )
    )
    ksp.destroy()


if __name__ == "__main__":
    main(sys.argv[1:])
