"""An error that one rank alone has ends all of them, soon, and is said; one that all have is raised on all."""

from __future__ import annotations

import pytest
from harness import mpirun

SCRIPT = """
import os

from mpi4py import MPI
from petsc4py import PETSc
from systems import poisson, right_hand_side, solve

from petsc_dcdm.solver import together
from petsc_dcdm.backends.cpu import hierarchy as cpu

together.PATIENCE = 1.0
original = cpu.CpuHierarchy.{method}


def failing(self, *arguments, **more):
    if MPI.COMM_WORLD.rank in {ranks}:
        raise MemoryError("no room left on rank %d" % MPI.COMM_WORLD.rank)
    return original(self, *arguments, **more)


cpu.CpuHierarchy.{method} = failing
A = poisson((9, 11, 12))
try:
    solve(A, right_hand_side(A), ksp_dcdm_operator="{operator}")
except Exception as error:
    os.write(1, b"all have heard of it: %s;" % str(error.__cause__ or error).encode())  # in one piece
"""


@pytest.mark.mpi
@pytest.mark.parametrize("method, operator", [("_count_flops", "auto"), ("direction", "stencil"), ("apply", "mat")])
def test_an_exception_in_one_rank(method: str, operator: str) -> None:
    said = mpirun(2, SCRIPT.format(method=method, operator=operator, ranks=(1,)), expect=1)
    assert "rank 1 of 2 has failed and the others have not" in said, said
    assert "MemoryError: no room left on rank 1" in said and "all have heard" not in said, said


@pytest.mark.mpi
def test_an_exception_in_all_ranks() -> None:
    said = mpirun(2, SCRIPT.format(method="direction", operator="auto", ranks=(0, 1)))
    assert said.count("all have heard of it: no room left on rank") == 2, said
