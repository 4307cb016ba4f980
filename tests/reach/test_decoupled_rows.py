"""Rows that are coupled to no other: any sign, any size, zero; they say nothing about the others."""

from __future__ import annotations

import numpy as np
import pytest
from lone_rows import CELLS, GRID, SHAPE, check, laplacian, set_alone, share, to_petsc, with_stored_zeros
from petsc4py import PETSc
from systems import solve

FIRST = np.arange(CELLS // 2)
SOME = np.array([0, 5, 50, CELLS - 1])
B = np.random.default_rng(1).standard_normal(CELLS)
Reason = PETSc.KSP.ConvergedReason


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("rows", [FIRST, SOME], ids=["half of them", "some"])
@pytest.mark.parametrize("diagonal", [1.0, -1.0, 1e30, -1e30, 1e-30, -1e-30, 1e300, 1e-300])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_any_sign_and_size(sign, diagonal, rows, both_ways):
    b = B.copy()
    b[rows] *= diagonal  # values of 1
    check(set_alone(laplacian(sign), rows, diagonal, both_ways), b)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("guess", [None, np.arange(CELLS) + 1.0], ids=["", "guess"])
@pytest.mark.parametrize("grid", [GRID, None])
def test_rows_that_are_all_zero(sign, guess, grid):
    """x stays what it was there."""
    rows = np.arange(0, CELLS, 7)
    b = B.copy()
    b[rows] = 0.0
    check(set_alone(laplacian(sign), rows, 0.0), b, grid, guess)


def test_an_all_zero_row_with_a_right_hand_side(capfd):
    M = to_petsc(set_alone(laplacian(-1.0), FIRST[3:], 0.0))
    ksp, _ = solve(M, share(M.createVecLeft(), B), pc_dcdm_grid=GRID)
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN
    assert "row 3 of the matrix is all zero and its right-hand side is not" in capfd.readouterr().err


@pytest.mark.parametrize("grid", [GRID, None])
@pytest.mark.parametrize("values", [(1e5, -3.0), (-2.0, -2.0)])
def test_no_row_is_coupled(values, grid):
    """There is no grid to be found, and none is needed."""
    A = set_alone(set_alone(laplacian(), np.arange(CELLS), values[0]), np.arange(0, CELLS, 2), values[1])
    ksp = check(with_stored_zeros(A, 100), B, grid)
    assert ksp.getIterationNumber() == 0


@pytest.mark.parametrize("grid", [GRID, None])
@pytest.mark.parametrize("count", [10, 2000])
def test_stored_zeros_anywhere(count, grid):
    """They are no couplings: neither of the stencil nor of the grid that offsets tell."""
    without = check(laplacian(-1.0), B, grid).getIterationNumber()
    assert check(with_stored_zeros(laplacian(-1.0), count), B, grid).getIterationNumber() == without
    lone = set_alone(laplacian(-1.0), np.arange(0, CELLS, 5), 7.0)
    check(with_stored_zeros(lone, count), B, grid)


@pytest.mark.parametrize("first", ["x only", "no couplings", "y only"])
def test_stored_zeros_that_become_couplings(first):
    """The pattern stays and the grid that the first values show does not."""
    whole = laplacian().tocoo()
    distance = np.abs(whole.row - whole.col)
    kept = {"x only": (0, 1), "no couplings": (0,), "y only": (0, SHAPE[1])}[first]
    few = whole.copy()
    few.data = np.where(np.isin(distance, kept), whole.data, 0.0)
    M, right = to_petsc(few.tocsr()), to_petsc(whole.tocsr()).createVecLeft()
    share(right, B)
    ksp, x = PETSc.KSP().create(), right.duplicate()
    ksp.setOperators(M)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    if first != "y only":  # which shows no grid
        ksp.solve(right, x)
        assert ksp.getConvergedReason() > 0
    to_petsc(whole.tocsr()).copy(M, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    for _ in range(2):
        ksp.solve(right, x)
        its = ksp.getIterationNumber()
        assert ksp.getConvergedReason() > 0 and its <= 4
    _, alone = solve(to_petsc(whole.tocsr()), right)
    x.axpy(-1.0, alone)
    assert x.norm() <= 1e-12 * alone.norm()
