"""Systems whose null space is constant: with it attached and without, consistent and not."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

Reason = PETSc.KSP.ConvergedReason


@pytest.mark.parametrize("operator", ["mat", "stencil"])
@pytest.mark.parametrize("attach", [True, False])
def test_pure_neumann(attach, operator):
    A = matrix(*conductances((18, 20, 22), random_solids((18, 20, 22), fraction=0.05), walls=0.0), identity=1.0)
    if attach:
        A = matrix(*conductances((18, 20, 22), walls=0.0))
        A.setNullSpace(PETSc.NullSpace().create(constant=True))
    b = A.createVecLeft()
    A.mult(right_hand_side(A), b)  # consistent
    ksp, x = solve(A, b, ksp_rtol=1e-9, ksp_max_it=40, ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-9
    if attach:
        assert abs(x.sum()) < 1e-6 * x.norm()


@pytest.mark.parametrize("operator", ["mat", "stencil"])
def test_constants_in_the_residual_do_not_end_the_convergence_of_pure_neumann(operator):
    """Rounding leaves some, which outgrow what else is left; in r . d they would lead every step astray."""
    w, s = conductances((1, 128, 96), walls=0.0)
    A = matrix(w, s)
    A.setNullSpace(PETSc.NullSpace().create(constant=True))
    y, x = np.mgrid[0.0:1.0:128j, 0.0:1.0:96j]
    b = right_hand_side(A)
    b.setArray((np.sin(3 * x + 1) * np.cos(5 * y)).ravel())
    A.getNullSpace().remove(b)
    ksp, x = solve(A, b, ksp_rtol=1e-30, ksp_max_it=16, pc_dcdm_grid="96,128", ksp_dcdm_operator=operator)
    assert ksp.getIterationNumber() > 8 and relative_residual(A, x, b) < 1e-12


@pytest.mark.parametrize("nonzero_guess", [False, True])
def test_a_monitor_that_asks_for_the_solution_changes_nothing(nonzero_guess):
    """Rows that are not the box, with a null space: x goes to the grid and back in the middle of a solve."""
    shape = (18, 20, 22)
    active = random_solids(shape, fraction=0.02)
    cells = np.flatnonzero(active)
    A = matrix(*conductances(shape, active, walls=0.0), cells=cells)
    A.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType)))
    A.setNullSpace(PETSc.NullSpace().create(constant=True))
    b = right_hand_side(A)
    guess = right_hand_side(A, seed=2) if nonzero_guess else None
    histories = []
    for asks in (False, True):
        database = PETSc.Options()
        if asks:
            database["ksp_monitor_true_residual"] = "ascii:/dev/null"
        ksp, x = solve(A, b, guess.copy() if guess else None, ksp_rtol=1e-9, pc_dcdm_grid="22,20,18")
        assert ksp.getConvergedReason() > 0
        histories.append(ksp.getConvergenceHistory())
    np.testing.assert_allclose(*histories, rtol=1e-6)


@pytest.mark.parametrize("operator", ["mat", "stencil"])
def test_pure_neumann_whose_right_hand_side_is_not_in_the_range(operator, capsys):
    """With the null space attached the rest is solved, as PETSc's CG does; without, there is no answer to wait for."""
    A = matrix(*conductances((18, 20, 22), walls=0.0))
    b = right_hand_side(A)
    b.shift(0.5)
    ksp, _ = solve(A, b, ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN and ksp.getIterationNumber() == 0
    assert "attach the null space (MatSetNullSpace)" in capsys.readouterr().err
    A.setNullSpace(PETSc.NullSpace().create(constant=True))
    ksp, x = solve(A, b, ksp_rtol=1e-9, ksp_max_it=40, ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() > 0 and abs(x.sum()) < 1e-6 * x.norm()
    rest = b.copy()
    A.getNullSpace().remove(rest)
    assert relative_residual(A, x, rest) < 1e-9


def test_a_closed_pocket_of_small_conductances_is_no_zero_of_the_coarse_matrix():
    """Nothing holds it but what the coarse solver adds, which is small beside the rest of the matrix."""
    shape = (1, 12, 20)
    pocket = np.zeros(shape, bool)
    pocket[:, :2, 16:18] = True
    active = pocket | (np.arange(20) < 14)
    w, s = conductances(shape, active, np.where(pocket, 1e-9, 1.0))
    s[pocket] = 0.0
    A = matrix(w, s)
    b = right_hand_side(A)
    values = np.where(active, b.getArray().reshape(shape), 0.0)
    values[pocket] -= values[pocket].mean()
    b.setArray(values.ravel())
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid="20,12")
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-8
