"""A preconditioner that is kept while matrices change: right answers, in more iterations."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side

SHAPE = (6, 18, 20)
OPERATORS = ["auto", "mat"]


def solver(operator="auto", rtol=1e-8):
    options = PETSc.Options()
    options["pc_dcdm_grid"] = "20,18,6"
    options["ksp_dcdm_operator"] = operator
    ksp = PETSc.KSP().create()
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=rtol, max_it=300)
    ksp.setFromOptions()
    return ksp


def check(ksp, A, b, rtol=1e-8):
    x = b.duplicate()
    x.set(0.0)
    ksp.setOperators(A)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0, ksp.getConvergedReason()
    assert relative_residual(A, x, b) <= 1.01 * rtol


def of_step(step):
    """As in a run with small changes of k and large ones of its size; one wall open."""
    k = np.exp(0.3 * np.random.default_rng(step).standard_normal(SHAPE)) * (1 + step)
    w, s = conductances(SHAPE, coefficient=k, walls=0.0)
    s[:, :, -1] = 2 * k[:, :, -1]
    return matrix(w, s)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_new_matrix_each_step_and_a_preconditioner_every_third(operator):
    """malloc hands the address of an older matrix out again: it is another matrix all the same."""
    ksp, addresses = solver(operator), []
    for step in range(30):
        A = of_step(step)
        addresses.append(A.handle)
        ksp.setOperators(A)
        ksp.getPC().setReusePreconditioner(step % 3 != 0)
        check(ksp, A, right_hand_side(A, step))
    if len(set(addresses)) == len(addresses):
        pytest.skip("no address came twice, so that nothing was tested")


@pytest.mark.parametrize("operator", OPERATORS)
def test_other_values(operator):
    ksp, A = solver(operator), of_step(1)
    check(ksp, A, right_hand_side(A))
    fresh = ksp.getIterationNumber()
    ksp.getPC().setReusePreconditioner(True)
    for factor in (3.0, 1e-3, -1.0):
        A.scale(factor)
        check(ksp, A, right_hand_side(A, 2))
        assert ksp.getIterationNumber() <= fresh + 2
    A.scale(-1.0)
    A.shift(0.1 * A.norm(PETSc.NormType.NORM_INFINITY))
    check(ksp, A, right_hand_side(A, 3))


def with_identity_rows(rows, one_way, value):
    A = matrix(*conductances(SHAPE))
    rows = np.asarray(rows, PETSc.IntType)
    A.zeroRows(rows, diag=value) if one_way else A.zeroRowsColumns(rows, diag=value)
    return A


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("one_way", [True, False])
@pytest.mark.parametrize("value", [1.0, 2.0])
def test_other_identity_rows(operator, one_way, value):
    """Those of the matrix that is solved count, not those that the preconditioner was made with."""
    ksp = solver(operator)
    for number, rows in enumerate((range(0, 40), range(20, 60), [], range(0, 2160, 7))):
        A = with_identity_rows(list(rows), one_way, value * (1 + number))
        b = right_hand_side(A, number)
        ksp.getPC().setReusePreconditioner(number > 0)
        check(ksp, A, b)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("walls", [2.0, 0.0])
def test_other_bodies(operator, walls):
    """Cells become solid and fluid again; with closed walls b fits each time."""
    ksp = solver(operator)
    for number in range(3):
        active = random_solids(SHAPE, number, 0.05)
        A = matrix(*conductances(SHAPE, active, walls=walls))
        b = A.createVecLeft()
        A.mult(right_hand_side(A, number), b)
        ksp.getPC().setReusePreconditioner(number > 0)
        check(ksp, A, b)


@pytest.mark.parametrize("operator", OPERATORS)
def test_from_closed_to_open_and_back(operator):
    """Whether constants are a null space is asked of the matrix that is solved."""
    ksp = solver(operator)
    for number, walls in enumerate((0.0, 2.0, 0.0, 2.0)):
        A = matrix(*conductances(SHAPE, walls=walls))
        b = right_hand_side(A)
        if not walls:
            b.shift(-b.sum() / b.getSize())
        ksp.getPC().setReusePreconditioner(number > 0)
        check(ksp, A, b)
