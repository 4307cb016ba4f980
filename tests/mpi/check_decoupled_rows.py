"""Rows without couplings, and a matrix that is still zero, where ranks hold nothing else."""

from __future__ import annotations

import numpy as np
from lone_rows import CELLS, GRID, check, laplacian, set_alone, share, to_petsc, with_stored_zeros
from petsc4py import PETSc

RANKS = (3,)
B = np.random.default_rng(1).standard_normal(CELLS)
THIRD, LAST = np.arange(CELLS // 2 + 3), np.arange(CELLS // 3, CELLS)


def test_any_sign_and_size():
    for sign in (1.0, -1.0):
        for diagonal in (1.0, -1.0, 1e30, -1e-30):
            for rows in (THIRD, LAST):
                b = B.copy()
                b[rows] *= diagonal
                check(set_alone(laplacian(sign), rows, diagonal), b)


def test_all_zero_rows_and_stored_zeros():
    for rows in (THIRD, LAST):
        b = B.copy()
        b[rows] = 0.0
        A = with_stored_zeros(set_alone(laplacian(-1.0), rows, 0.0), 500)
        check(A, b)
        check(A, b, guess=np.arange(CELLS) + 1.0)
    check(with_stored_zeros(laplacian(-1.0), 500), B, grid=None)
    check(set_alone(laplacian(-1.0), np.arange(CELLS), -3.0), B, grid=None)


def test_set_up_waits():
    """On all ranks or on none: one rank alone has values in the end."""
    M = to_petsc(laplacian(-1.0))
    M.zeroEntries()
    PETSc.Options()["pc_dcdm_grid"] = GRID
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    ksp.setUp()
    b, x = share(M.createVecLeft(), B), M.createVecRight()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_BREAKDOWN
    own = np.zeros(CELLS)
    own[: CELLS // M.getComm().getSize()] = -2.0
    M.setDiagonal(share(M.createVecLeft(), own))
    share(b, np.where(own, B, 0.0))
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert np.array_equal(x.getArray(), -0.5 * b.getArray())
    to_petsc(laplacian(-1.0)).copy(M, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    share(b, B)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and 0 < ksp.getIterationNumber() <= 5
