"""Fixed values as identity rows, pinned cells, penalties: whatever their size, the others are solved, too.

The right answer is that of a direct solve; how near is near enough says PETSc's gmres + gamg at the same tolerance.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc
from truth_cases import Recipe, assemble
from truth_oracle import truth

Reason = PETSc.KSP.ConvergedReason


def recipe(shape, fixed=None, held=None, **changes):
    n = int(np.prod(shape))
    none = np.zeros(n, bool)
    given = {
        "shape": shape,
        "k": np.ones(n),
        "walls": {},
        "solid": none,
        "fixed": none if fixed is None else fixed,
        "one_way": True,
        "identity": 1.0,
        "held": none if held is None else held,
        "penalty": 0.0,
        "extra": np.zeros(n),
        "scale": 1.0,
    }
    return Recipe(**{**given, **changes})


def aij(A: sp.csr_matrix) -> PETSc.Mat:
    parts = A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType), A.data
    return PETSc.Mat().createAIJ(A.shape, csr=parts)


def solve(A, b, shape, guess=None, kind="python", rtol=1e-8, norm=None):
    """x, reason, iterations; ``kind``: ours, or gmres + gamg with PETSc's own norm."""
    M = aij(A)
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    PETSc.Options()["pc_dcdm_grid"] = ",".join(map(str, shape))
    ksp.setType(kind)
    if kind == "python":
        ksp.setPythonType("petsc_dcdm.KSP")
    else:
        ksp.getPC().setType("gamg")
    if norm:
        PETSc.Options()["ksp_norm_type"] = norm
    ksp.setFromOptions()
    ksp.setTolerances(rtol=rtol, max_it=300)
    right, x = M.createVecs()
    right.setArray(b)
    if guess is not None:
        x.setArray(guess)
        ksp.setInitialGuessNonzero(True)
    ksp.solve(right, x)
    return x.getArray().copy(), ksp.getConvergedReason(), ksp.getIterationNumber()


def check(system, b, shape, guess=None, rtol=1e-8, most=15):
    """Converges in few steps to what a direct solve gives, as near as gmres + gamg times 100."""
    exact = truth(system, b, []).solution
    assert exact is not None
    size = np.linalg.norm(exact)
    theirs = np.linalg.norm(solve(system.A, b, shape, guess, "gmres", rtol)[0] - exact) / size
    x, reason, its = solve(system.A, b, shape, guess, rtol=rtol)
    error = np.linalg.norm(x - exact) / size
    assert reason > 0 and its <= most, (reason, its)
    assert error <= 100 * max(theirs, rtol), (error, theirs)


def frame(m):
    i = np.arange((m + 1) ** 2)
    x, y = i % (m + 1) / m, i // (m + 1) / m
    return x, y, (x == 0) | (x == 1) | (y == 0) | (y == 1)


@pytest.mark.parametrize("m", [32, 128])
@pytest.mark.parametrize("u", ["1", "x y", "300", "0"])
def test_entries_of_1_over_h2_beside_identity_rows(m, u):
    """The textbook program: nothing moved to the right, and the first residual is 1e5 times b or more."""
    x, y, on = frame(m)
    values = {"1": 1 + 0 * x, "x y": x * y, "300": 300 + 0 * x, "0": 0 * x}[u]
    shape = (m + 1, m + 1)
    system = assemble(recipe(shape, on, scale=float(m * m)), values)
    b = system.source + np.where(on, 0.0, 1.0 if u in ("300", "0") else 0.0)
    check(system, b, shape)
    ours, _, _ = solve(system.A, b, shape)
    assert np.linalg.norm(b - system.A @ ours) <= 1e-8 * np.linalg.norm(b), "what was asked for is relative to b"


PIPE = (48, 40)
ALONG = np.arange(PIPE[0] * PIPE[1]) % PIPE[0]
ENDS = (ALONG == 0) | (ALONG == PIPE[0] - 1)
PRESSURE = np.where(ALONG == 0, 2e5, 1e5)


@pytest.mark.parametrize("guess", [None, "random"])
@pytest.mark.parametrize("one_way", [True, False])
@pytest.mark.parametrize("conductance", [1e15, 1e6, 1.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_si_units_beside_identity_rows(conductance, one_way, guess):
    """b is 2e5 in the identity rows and next to nothing elsewhere: a tolerance relative to it says nothing."""
    k = np.exp(np.random.default_rng(2).standard_normal(ALONG.size))
    system = assemble(recipe(PIPE, ENDS, k=k, one_way=one_way, scale=conductance), PRESSURE)
    start = None if guess is None else 1e5 * np.random.default_rng(0).standard_normal(ALONG.size)
    check(system, system.source, PIPE, start)


@pytest.mark.parametrize("identity", [1e-15, 1e-9, 1.0, 1e9, 1e15])
@pytest.mark.parametrize("pins", [1, 4])
def test_a_pinned_cell(identity, pins):
    shape, n = (24, 20), 480
    fixed = np.zeros(n, bool)
    fixed[[0, 37, 200, 479][:pins]] = True
    system = assemble(recipe(shape, fixed, identity=identity, one_way=pins == 1), np.full(n, 7.0))
    check(system, system.source + np.where(fixed, 0.0, np.random.default_rng(1).standard_normal(n)), shape)


@pytest.mark.parametrize("penalty", [1e4, 1e8, 1e12, 1e15, 1e20, 1e30])
@pytest.mark.parametrize("value", [20.0, 0.0])
def test_values_held_by_a_penalty(penalty, value):
    shape, n = (16, 15, 8), 16 * 15 * 8
    i = np.arange(n)
    held = (i % 16 == 5) & (i // 16 % 15 < 6)
    system = assemble(recipe(shape, held=held, penalty=penalty), np.full(n, value))
    check(system, system.source + np.where(held, 0.0, np.random.default_rng(1).standard_normal(n)), shape)


@pytest.mark.parametrize("norm", ["natural", "preconditioned"])
def test_other_norms(norm, capsys):
    """natural is taken, preconditioned said to be replaced; both lead to the solution."""
    shape = (30, 28)
    on = np.arange(840) % 30 == 0
    system = assemble(recipe(shape, on, walls={(0, 1): 2.0}), np.ones(840))
    b = system.source + np.where(on, 0.0, np.random.default_rng(1).standard_normal(840))
    x, reason, its = solve(system.A, b, shape, norm=norm, rtol=1e-10)
    exact = truth(system, b, []).solution
    assert reason > 0 and its < 20
    assert np.linalg.norm(x - exact) < 1e-7 * np.linalg.norm(exact)
    assert ("precondition" in capsys.readouterr().err) == (norm == "preconditioned")
