"""What periodic sides and rows in any order cost: ``python -m petsc_dcdm.studies.reach``. One rank; needs scipy.

Every pair takes turns in one process, and the least of so many runs counts, so that a busy machine hits both. A run is
a new KSP: set-up and one solve to 1e-6 of a random right-hand side.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc
from scipy.sparse.csgraph import reverse_cuthill_mckee

from petsc_dcdm.grid.shape import Periodic, Shape, shape_argument, size_text
from petsc_dcdm.poisson import dmda, families
from petsc_dcdm.poisson.assemble import System, assemble, close_rings
from petsc_dcdm.poisson.pockets import seal_pockets

Made = tuple[PETSc.Mat, PETSc.DMDA | None]


def scene(name: str, shape: Shape, periodic: Periodic, fluid_only: bool = False) -> System:
    """A family whose sides meet along some axes."""
    dm = dmda.create(shape, PETSc.COMM_SELF, periodic=periodic)
    world = close_rings(families.make(name, shape, 11, dmda.box_of(dm)), dm)
    seal_pockets(world, dm)
    return assemble(world, dm, fluid_only)


def run(A: PETSc.Mat, dm: PETSc.DMDA | None) -> tuple[float, float, int]:
    """Seconds of set-up and of the solve, iterations; RuntimeError where it did not converge."""
    b = A.createVecLeft()
    b.setArray(np.random.default_rng(3).standard_normal(b.getLocalSize()))
    space = A.getNullSpace()
    if space:
        space.remove(b)
    x = b.duplicate()
    ksp = PETSc.KSP().create(A.comm)
    if dm is not None:
        dmda.attach(ksp, dm)
    ksp.setOperators(A)
    ksp.setType(PETSc.KSP.Type.PYTHON)
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-6)
    ksp.setFromOptions()
    start = time.perf_counter()
    ksp.setUp()
    ready = time.perf_counter()
    ksp.solve(b, x)
    end = time.perf_counter()
    found = ready - start, end - ready, ksp.getIterationNumber()
    if ksp.getConvergedReason() <= 0:
        raise RuntimeError(f"the solve ended with reason {ksp.getConvergedReason()}")
    for thing in (ksp, b, x):
        thing.destroy()
    return found


def least(systems: dict[str, Made], runs: int) -> dict[str, tuple[float, float, int]]:
    """The least times of each, taken in turns after one round that does not count."""
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in systems}
    for number, (name, system) in itertools.product(range(runs + 1), systems.items()):
        one = run(*system)
        if number:
            taken[name].append(one)
    return {name: (min(t[0] for t in all_), min(t[1] for t in all_), all_[0][2]) for name, all_ in taken.items()}


def show(title: str, found: dict[str, tuple[float, float, int]]) -> None:
    """Milliseconds, and the total relative to the first."""
    first = sum(next(iter(found.values()))[:2])
    print(f"\n{title}\n{'':22}{'set-up':>9}{'solve':>9}{'ratio':>8}  iterations")
    for name, (setup, solve, its) in found.items():
        print(f"{name:22}{1e3 * setup:9.1f}{1e3 * solve:9.1f}{(setup + solve) / first:8.2f}  {its}")
    sys.stdout.flush()


def rings(shape: Shape, runs: int) -> None:
    """A mixed domain, an open box and a closed one, and periodic along one axis and along all: the box that is periodic
    along all axes is singular, as the closed one.
    """
    every = [("walls", ""), ("periodic x", "x"), ("periodic, all axes", "xyz" if shape[0] > 1 else "xy")]
    for name in ("mixed", "box", "neumann"):
        systems: dict[str, Made] = {}
        for title, axes in every:
            z, y, x = (axis in axes for axis in "zyx")
            system = scene(name, shape, (z, y, x))
            systems[title] = system.A, system.dm
        show(f"{name}, {size_text(shape)}", least(systems, runs))


def orders(shape: Shape, runs: int) -> None:
    """Active cells only of a porous domain: with the index set, and with nothing said in several orders."""
    system = scene("mixed", shape, (False, False, False), fluid_only=True)
    cells = system.A.query("dcdm_cells").getIndices()
    system.A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    n = cells.size
    whole = sp.csr_matrix(system.A.getValuesCSR()[::-1], shape=(n, n))
    place = np.unravel_index(cells, shape)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "lexicographic": lambda: np.arange(n),
        "z fastest": lambda: np.lexsort(place),
        "red-black": lambda: np.argsort(sum(place) % 2, kind="stable"),
        "halves along x": lambda: np.argsort(place[2] >= shape[2] // 2, kind="stable"),
        "RCM": lambda: reverse_cuthill_mckee(whole, symmetric_mode=True),
        "random": lambda: np.random.default_rng(1).permutation(n),
    }
    PETSc.Options()["pc_dcdm_grid"] = size_text(shape, ",")
    told = least({"index set": (system.A, None)}, runs)
    PETSc.Options().delValue("pc_dcdm_grid")
    found = dict(told)
    for name, way in ways.items():
        order = way()
        B = whole[order][:, order].tocsr()
        B.sort_indices()
        A = PETSc.Mat().createAIJ((n, n), csr=(B.indptr, B.indices, B.data), comm=PETSc.COMM_SELF)
        found[name] = least({name: (A, None)}, runs)[name]
        A.destroy()
    show(f"mixed, {size_text(shape)}, {n} active cells, nothing said", found)


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What periodic sides and rows in any order cost.")
    parser.add_argument("--rings", type=shape_argument, nargs="*", default=[(64,) * 3, (128,) * 3, (1, 256, 256)])
    parser.add_argument("--orders", type=shape_argument, nargs="*", default=[(128,) * 3])
    parser.add_argument("--runs", type=int, default=5, help="that count (default 5)")
    args = parser.parse_args(argv)
    for shape in args.rings:
        rings(shape, args.runs)
    for shape in args.orders:
        orders(shape, args.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
