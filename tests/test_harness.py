"""The helpers of the other tests: mpirun neither hangs nor hides a failure, and options do not leak."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from harness import iterations, true_residuals

HANG = """
from mpi4py import MPI
if MPI.COMM_WORLD.rank == 0:
    {0}
MPI.COMM_WORLD.barrier()
"""


@pytest.mark.mpi
def test_all_ranks_run_and_arguments_arrive(mpirun):
    # One rank prints: mpirun may mix the lines of several.
    code = (
        "import sys\nfrom mpi4py import MPI\nworld = MPI.COMM_WORLD\n"
        "found = world.gather((world.rank, world.size, sys.argv[1]))\n"
        "if world.rank == 0: print(found)"
    )
    assert "[(0, 3, 'hello'), (1, 3, 'hello'), (2, 3, 'hello')]" in mpirun(3, code, "hello")


@pytest.mark.mpi
def test_an_exception_on_one_rank_ends_all(mpirun):
    start = time.monotonic()
    with pytest.raises(AssertionError, match="rank 0 of 2 failed") as failure:
        mpirun(2, HANG.format("raise ValueError('told you')"), timeout=60)
    assert "told you" in str(failure.value) and time.monotonic() - start < 50


@pytest.mark.mpi
@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_a_hang_is_ended(mpirun, tmp_path, deaf):
    note = f"open({str(tmp_path)!r} + '/pid', 'w').write(str(os.getpid()))"
    with pytest.raises(AssertionError, match="still running after 4 s"):
        mpirun(2, HANG.format(f"import os, time; {deaf}{note}; time.sleep(600)"), timeout=4)
    time.sleep(0.5)
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    assert not status.exists() or "zombie" in status.read_text()


@pytest.mark.mpi
def test_a_python_ksp_may_be_alive_at_exit(mpirun):
    code = """
from petsc4py import PETSc
class Solver:
    pass
ksp = PETSc.KSP().createPython(Solver(), comm=PETSc.COMM_WORLD)
def test_type():
    assert ksp.getType() == "python"
"""
    assert "test_type: ok" in mpirun(2, code)


@pytest.mark.parametrize("turn", [1, 2])
def test_options_do_not_leak(options, turn):
    assert not options.hasName("ksp_rtol")
    options["ksp_rtol"] = turn


def test_parsing():
    output = """
  0 KSP unpreconditioned resid norm 1.0e+00 true resid norm 1.0e+00 ||r(i)||/||b|| 1.000000000000e+00
  1 KSP unpreconditioned resid norm 2.5e-07 true resid norm 2.5e-07 ||r(i)||/||b|| 2.500000000000e-07
Linear solve converged due to CONVERGED_RTOL iterations 1
"""
    assert iterations(output) == 1
    assert true_residuals(output) == [1.0, 2.5e-7]
    with pytest.raises(AssertionError, match="did not converge"):
        iterations("Linear solve did not converge due to DIVERGED_ITS iterations 3")
