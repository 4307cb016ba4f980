"""Convergence tests of the application, as of ground-water codes: asked once an iteration, with x and r of then."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, right_hand_side

Reason = PETSc.KSP.ConvergedReason
SHAPE = (6, 18, 20)
KINDS = {
    "auto": {},
    "mat": {"ksp_dcdm_operator": "mat"},
    "true residuals": {"ksp_dcdm_true_residual_every": 1},
    "another PC": {"pc_type": "jacobi"},
}


@pytest.fixture(scope="module")
def aquifer():
    k = np.exp(1.5 * np.random.default_rng(2).standard_normal(SHAPE))
    w, s = conductances(SHAPE, coefficient=k, walls=0.0)
    s[:, :, 0] = 2.0 * k[:, :, 0]
    A = matrix(w, s)
    return A, right_hand_side(A)


class Closure:
    """Converged when no head has moved by more than ``dvclose`` since the test was last asked."""

    def __init__(self, A, b, dvclose, rclose=1e30):
        self.A, self.b, self.dvclose, self.rclose = A, b, dvclose, rclose
        self.asked, self.apart, self.norms, self.old = [], [], [], None

    def __call__(self, ksp, its, norm):
        x = ksp.buildSolution().getArray().copy()
        r = ksp.buildResidual()
        self.asked.append(its)
        self.norms.append((norm, r.norm()))
        v = self.A.createVecRight()
        v.setArray(x)
        r.axpy(-1.0, self.b - self.A * v)
        self.apart.append(r.norm())
        old, self.old = self.old, x
        if its and old is not None and abs(x - old).max() <= self.dvclose and norm <= self.rclose:
            return Reason.CONVERGED_HAPPY_BREAKDOWN
        return Reason.DIVERGED_MAX_IT if its >= 400 else Reason.CONVERGED_ITERATING


def solve(A, b, test, guess=None, **options):
    for name, value in {"pc_dcdm_grid": "20,18,6", **options}.items():
        PETSc.Options()[name] = value
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    ksp.setConvergenceTest(test)
    x = b.duplicate()
    if guess is not None:
        guess.copy(x)
        ksp.setInitialGuessNonzero(True)
    ksp.solve(b, x)
    return ksp, x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guess", [False, True])
def test_once_an_iteration_with_its_x_and_r(aquifer, kind, guess):
    A, b = aquifer
    test = Closure(A, b, 1e-7)
    ksp, _ = solve(A, b, test, right_hand_side(A, 5) if guess else None, **KINDS[kind])
    assert ksp.getConvergedReason() == Reason.CONVERGED_HAPPY_BREAKDOWN
    assert test.asked == list(range(ksp.getIterationNumber() + 1))
    assert max(test.apart) <= 1e-9 * test.norms[0][0]
    np.testing.assert_allclose(*np.array(test.norms).T, rtol=1e-6, atol=1e-12 * test.norms[0][0])


@pytest.mark.parametrize("kind", ["auto", "mat"])
@pytest.mark.parametrize("rclose", [1e30, 1e-2, 1.0])
def test_the_heads_are_right(aquifer, kind, rclose):
    A, b = aquifer
    direct = PETSc.KSP().create()
    direct.setOperators(A)
    direct.setType("preonly")
    direct.getPC().setType("lu")
    exact = b.duplicate()
    direct.solve(b, exact)
    _, x = solve(A, b, Closure(A, b, 1e-6, rclose), **KINDS[kind])
    x.axpy(-1.0, exact)
    assert x.norm(PETSc.NormType.NORM_INFINITY) < 20e-6


def test_asked_when_the_norm_claims(aquifer):
    """Near the tolerance the recurrence and the true residual differ: that is no reason to ask twice."""
    A, b = aquifer
    asked = []

    def test(ksp, its, norm):
        asked.append(its)
        return Reason.CONVERGED_RTOL if norm <= 1e-13 * b.norm() else Reason.DIVERGED_MAX_IT if its > 99 else 0

    ksp, _ = solve(A, b, test, ksp_dcdm_true_residual_every=0)
    assert asked == list(range(ksp.getIterationNumber() + 1))


@pytest.mark.parametrize("norm", ["none", "unpreconditioned"])
def test_a_limit_of_iterations_as_convergence(aquifer, norm):
    A, b = aquifer
    PETSc.Options()["ksp_converged_maxits"] = ""
    PETSc.Options()["ksp_norm_type"] = norm
    PETSc.Options()["pc_dcdm_grid"] = "20,18,6"
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-13, max_it=3)
    ksp.setFromOptions()
    ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() == Reason.CONVERGED_ITS and ksp.getIterationNumber() == 3
