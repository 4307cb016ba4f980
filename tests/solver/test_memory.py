"""No rank holds the whole: on 4 ranks a rank's memory above its imports is that of a quarter, not of the system."""

from __future__ import annotations

import json

import pytest
from harness import mpirun

SCRIPT = """
import ctypes, json
from pathlib import Path

from mpi4py import MPI
from petsc4py import PETSc

import petsc_dcdm.backends.cpu.hierarchy, petsc_dcdm.backends.cpu.loop, petsc_dcdm.solver.pc, petsc_dcdm.solver.ksp
from petsc_dcdm.native.build import library
from petsc_dcdm.poisson import dmda, families, rhs
from petsc_dcdm.poisson.assemble import assemble
from petsc_dcdm.poisson.pockets import seal_pockets


def memory(key, file="status"):  # MB
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def of_others():  # pages that ranks share, but for this rank's part of them: any rank may come to work on any of them
    MPI.COMM_WORLD.barrier()
    found = memory("RssShmem") - memory("Pss_Shmem", "smaps_rollup")
    MPI.COMM_WORLD.barrier()
    return found


def start_peak():
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def solve(shape):
    # peaks above the imports: of the assembly, and of the solver, which begins with the matrix
    start_peak()
    dm = dmda.create(shape)
    world = families.make("mixed", shape, 0, dmda.box_of(dm))
    seal_pockets(world, dm)
    system = assemble(world, dm)
    peaks = [memory("VmHWM") - imports]
    start_peak()
    b = rhs.make("random", system, 0)
    x = b.duplicate()
    ksp = PETSc.KSP().create()
    system.attach(ksp)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-6)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    peaks.append(memory("VmHWM") - imports - of_others())
    ksp.destroy()
    system.destroy()
    return peaks


imports = 0
library()
solve((8, 8, 8))  # libraries that are loaded on first use
imports = memory("VmRSS")
worst = [max(MPI.COMM_WORLD.allgather(peak)) for peak in solve((128, 128, 128))]
if MPI.COMM_WORLD.rank == 0:
    print("peaks", json.dumps(worst))
"""


@pytest.mark.mpi
@pytest.mark.slow
def test_a_rank_of_four_holds_less_than_four_tenths() -> None:
    one, four = (
        json.loads(mpirun(ranks, SCRIPT, timeout=100).split("peaks", 1)[1].splitlines()[0]) for ranks in (1, 4)
    )
    assert four[0] < 0.4 * one[0], f"assembly: {one[0]:.0f} MB on one rank, {four[0]:.0f} MB on a rank of 4"
    assert four[1] < 0.4 * one[1], f"solver: {one[1]:.0f} MB on one rank, {four[1]:.0f} MB on a rank of 4"


MOVING = """
import ctypes
import numpy as np
from pathlib import Path
from petsc4py import PETSc
from petsc_dcdm.poisson import dmda, scene
from petsc_dcdm.poisson.assemble import assemble
from petsc_dcdm.poisson.flags import SOLID, sides_of

shape = (12, 14, 20)
dm = dmda.create(shape)
box = dmda.box_of(dm)


def memory():  # MB
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def system(step):
    flags = scene.all_fluid(box)
    k, j, i = box.grown().indices()
    at = 10 + 6 * np.sin(0.3 * step)
    flags[(i - at) ** 2 + (j - 7) ** 2 + (k - 6) ** 2 < 9.0] = SOLID
    return assemble(scene.build(shape, box, flags, sides_of("x+")), dm)


def solver():
    ksp = PETSc.KSP().create(dm.comm)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-6)
    return ksp


def run(steps, anew):
    ksp = solver()
    for step in steps:
        if anew:
            ksp.destroy()
            ksp = solver()
        one = system(step)
        one.attach(ksp)
        x, b = one.A.createVecs()
        b.set(1.0)
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0
        for thing in (x, b, one.A):
            thing.destroy()
    ksp.destroy()
    if hasattr(PETSc, "garbage_cleanup"):
        PETSc.garbage_cleanup()  # what Python has dropped is kept until then, from PETSc 3.18 on
    return memory()


before = [run(range(60), anew) for anew in (False, True)]
after = [run(range(60, 310), anew) for anew in (False, True)]
print("grown", max(after) - before[1])
"""


@pytest.mark.mpi
@pytest.mark.slow
def test_hundreds_of_solves_round_a_moving_body() -> None:
    """With one KSP, and with a new one for each matrix, 500 in all: less is kept than a vector for every ten."""
    grown = float(mpirun(1, MOVING, timeout=300).split("grown", 1)[1].split()[0])
    assert grown < 1.5, f"{grown:.1f} MB"
