"""The coarse system on fewer ranks: the same answer, the user's options, and failures that nobody waits for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, right_hand_side, solve

from petsc_dcdm.solver.coarse import solver as coarse

RANKS = (4,)
COMM = PETSc.COMM_WORLD
SHAPE = (16, 24, 40)


def solved_by(workers, A, b, **options):
    """With so many ranks for the coarse system of 240 unknowns; None: a factorisation on every rank."""
    limit, each = coarse.DIRECT_LIMIT, coarse.UNKNOWNS_PER_RANK
    try:
        if workers:
            coarse.DIRECT_LIMIT, coarse.UNKNOWNS_PER_RANK = 10, 240 // workers
            options = {"pc_dcdm_coarse_ksp_type": "preonly"} | options  # one of PETSc's solvers
        ksp, x = solve(A, b, ksp_rtol=1e-10, **options)
    finally:
        coarse.DIRECT_LIMIT, coarse.UNKNOWNS_PER_RANK = limit, each
    solver = ksp.getPC().getPythonContext()._coarse
    working = COMM.tompi4py().allreduce(int(solver.ksp is not None))
    assert solver.unknowns == 240 and working == (workers or COMM.getSize()), (solver.unknowns, working)
    return ksp, x, solver


def test_the_answer_does_not_depend_on_who_solves():
    A = matrix(*conductances(SHAPE, random_solids(SHAPE, fraction=0.1)))
    b = right_hand_side(A)
    reference, x, _ = solved_by(None, A, b)
    for workers in (1, 2, 3, 4):
        ksp, y, solver = solved_by(workers, A, b)
        assert abs(ksp.getIterationNumber() - reference.getIterationNumber()) <= 1
        y.axpy(-1.0, x)
        assert y.norm() <= 1e-9 * x.norm()
        if solver.ksp is not None:
            assert solver.ksp.getPC().getType() in ("hypre", "gamg")
            assert solver.ksp.getComm().getSize() == workers


def test_options_reach_it_and_the_view_says_where_it_is():
    A = matrix(*conductances(SHAPE))
    ksp, _, solver = solved_by(2, A, right_hand_side(A), pc_dcdm_coarse_ksp_type="cg", pc_dcdm_coarse_pc_type="jacobi")
    assert ksp.getConvergedReason() > 0
    assert solver.ksp is None or solver.ksp.getType() == "cg"
    folder = COMM.tompi4py().bcast(tempfile.mkdtemp() if COMM.getRank() == 0 else None)
    viewer = PETSc.Viewer().createASCII(str(Path(folder) / "view"), comm=COMM)
    ksp.view(viewer)
    viewer.destroy()
    if COMM.getRank() == 0:
        text = (Path(folder) / "view").read_text()
        assert text.count("solver of the coarsest level, on 2 ranks") == 1, text
        assert text.count("(pc_dcdm_coarse_)") == 2, text  # its KSP and its PC, once each


def test_failures_end_all_ranks():
    A = matrix(*conductances(SHAPE))
    said = "nothing"
    try:
        solved_by(2, A, right_hand_side(A), pc_dcdm_coarse_pc_type="nonsense")
    except Exception as error:
        said = str(error.__cause__ or error)
    assert "the coarse solver (options prefix pc_dcdm_coarse_) can not be set up" in said, said
    assert len(set(COMM.tompi4py().allgather(said))) == 1

    class Failing:
        def apply(self, pc, x, y):
            raise RuntimeError("out of order")

    ksp, _, solver = solved_by(2, A, right_hand_side(A), pc_dcdm_net="none")  # which would go on without it
    if solver.ksp is not None:
        pc = solver.ksp.getPC()
        pc.setType("python")
        pc.setPythonContext(Failing())
    x = A.createVecRight()
    PETSc.Sys.pushErrorHandler("python")  # which prints nothing
    b = right_hand_side(A, 2)
    ksp.solve(b, x)
    PETSc.Sys.popErrorHandler()
    assert ksp.getConvergedReason() < 0, ksp.getConvergedReason()
    assert len(set(MPI.COMM_WORLD.allgather(ksp.getConvergedReason()))) == 1
    assert np.isfinite(x.norm())
