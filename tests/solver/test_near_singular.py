"""Weak storage against strong conductances: what row sums say to rounding decides, and the answer is LU's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as spla
from test_identity_rows import aij, recipe, solve
from truth_cases import assemble

SHAPE = (32, 30)
N = SHAPE[0] * SHAPE[1]


def gap(A, b, x, rtol=1e-8):
    """The error against LU, and that of PETSc's cg + gamg."""
    exact = spla.splu(A.tocsc()).solve(b)
    theirs = solve(A, b, SHAPE, kind="cg", rtol=rtol)[0]
    size = np.linalg.norm(exact)
    return np.linalg.norm(x - exact) / size, np.linalg.norm(theirs - exact) / size


def rounding(A, b, x):
    """Whether the tolerance, 1e-8, is beyond double precision, and the residual is what rounding leaves of b - A x."""
    floor = 2e-16 * (np.linalg.norm(abs(A) @ abs(x)) + np.linalg.norm(b))
    return 1e-8 * np.linalg.norm(b) < floor and np.linalg.norm(b - A @ x) < floor


@pytest.mark.parametrize("walls", [{}, {(0, 0): 2.0}], ids=["insulated", "one side fixed"])
@pytest.mark.parametrize("number", [1e-12, 1e-4, 1.0, 1e4, 1e8, 1e9, 1e10, 1e12, 1e14])
def test_implicit_heat(number, walls):
    """(1 + c L) u = u_old: the mean stays, whatever c."""
    L = assemble(recipe(SHAPE, walls=walls), np.zeros(N)).A
    A = (number * L).tolil()
    A.setdiag((number * L).diagonal() + 1.0)
    A = A.tocsr()
    b = np.random.default_rng(4).standard_normal(N) + 0.2
    x, reason, _ = solve(A, b, SHAPE)
    ours, theirs = gap(A, b, x)
    assert reason > 0 or rounding(A, b, x), "a negative reason only where x holds no more"
    assert ours <= 100 * max(theirs, 1e-8), (ours, theirs)


@pytest.mark.parametrize("storage", [1e-3, 1e-6, 2e-8, 1e-10, 1e-11])
def test_a_closed_basin_with_storage_and_wells(storage):
    """The heads fall everywhere by what is pumped over what is stored: large, and there is such a solution."""
    k = np.exp(2 * np.random.default_rng(4).standard_normal(N))
    A = assemble(recipe(SHAPE, k=k, extra=np.full(N, storage)), np.zeros(N)).A
    b = np.zeros(N)
    b[[100, 500, 700]] = (-1.0, -0.5, -0.2)
    x, reason, _ = solve(A, b, SHAPE)
    ours, theirs = gap(A, b, x)
    assert reason > 0 or rounding(A, b, x), "a negative reason only where x holds no more"
    assert ours <= 100 * max(theirs, 1e-8), (ours, theirs)


def test_time_steps_that_grow():
    """One KSP over 30 steps, dt doubled each time, a new matrix each: from the identity to almost singular."""
    from petsc4py import PETSc

    L = aij(assemble(recipe(SHAPE, walls={(0, 0): 2.0, (1, 1): 2.0}), np.zeros(N)).A)
    u = L.createVecRight()
    u.setArray(np.random.default_rng(4).standard_normal(N))
    PETSc.Options()["pc_dcdm_grid"] = "32,30"
    ksp = PETSc.KSP().create()
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setInitialGuessNonzero(True)
    ksp.setFromOptions()
    ksp.setTolerances(rtol=1e-10, atol=1e-14)
    for step in range(30):
        M = L.duplicate(copy=True)
        M.scale(1e-3 * 2**step)
        M.shift(1.0)
        old = u.copy()
        ksp.setOperators(M)
        ksp.solve(old, u)
        assert ksp.getConvergedReason() > 0, step
        r = M * u
        r.axpy(-1.0, old)
        assert r.norm() <= max(1.01e-10 * old.norm(), 1e-14) + 1e-14 * (M.norm() * u.norm() / np.sqrt(N)), step


UNITS = [(1e-40, 1e-40), (1e40, 1e40), (1e150, 1e150)]
UNITS += [(of_A, of_b) for of_A in (1e-12, -1.0, 1e12) for of_b in (1.0, 1e-10, 1e10)]


@pytest.mark.parametrize("of_A, of_b", UNITS)
def test_units(of_A, of_b):
    """Scales change neither reason nor iterations."""
    system = assemble(recipe(SHAPE, walls={(0, 0): 2.0, (1, 1): 2.0}), np.zeros(N))
    b = np.random.default_rng(1).standard_normal(N)
    _, reason, its = solve(system.A, b, SHAPE)
    x, scaled_reason, scaled_its = solve(of_A * system.A, of_b * b, SHAPE)
    assert reason > 0 and (scaled_reason, scaled_its) == (reason, its)
    assert np.linalg.norm(of_A / of_b * (system.A @ x) - b) <= 1.01e-8 * np.linalg.norm(b)
