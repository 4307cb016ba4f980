"""Closed domains: constants that somebody attached, or nobody, or that are none; what has no solution is called so."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from test_identity_rows import aij, recipe
from truth_cases import assemble

SHAPE = (28, 24)
N = SHAPE[0] * SHAPE[1]
X, Y = np.arange(N) % SHAPE[0], np.arange(N) // SHAPE[0]
F = np.random.default_rng(1).standard_normal(N)


def solve(A, b, attached=(), guess=None, rtol=1e-8, atol=1e-50, symmetric=False, operator="auto"):
    """x and the converged reason."""
    M = aij(A)
    if symmetric:
        M.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    if len(attached):
        vectors = []
        for values in attached:
            vector = M.createVecRight()
            vector.setArray(values / np.linalg.norm(values))
            vectors.append(vector)
        M.setNullSpace(PETSc.NullSpace().create(vectors=vectors))
    options = PETSc.Options()
    options["pc_dcdm_grid"] = ",".join(map(str, SHAPE))
    options["ksp_dcdm_operator"] = operator
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    ksp.setTolerances(rtol=rtol, atol=atol, max_it=200)
    right, x = M.createVecs()
    right.setArray(b)
    if guess is not None:
        x.setArray(guess)
        ksp.setInitialGuessNonzero(True)
    ksp.solve(right, x)
    return x.getArray().copy(), ksp.getConvergedReason()


def off(A, x, b):
    """The relative residual."""
    return np.linalg.norm(b - A @ x) / (np.linalg.norm(b) or 1.0)


def closed(**changes):
    system = assemble(recipe(SHAPE, **changes), np.zeros(N))
    return system.A, system.rooms


def balanced(f, rooms):
    f = f.copy()
    for room in rooms:
        f[room] -= f[room].mean()
    return f


TWO_ROOMS = {"solid": X == 14}
RING = np.maximum(abs(X - 12), abs(Y - 12)) == 3
POCKET = {"solid": RING, "walls": {(a, e): 2.0 for a in (0, 1) for e in (0, 1)}}
SOLIDS = {"solid": np.random.default_rng(3).random(N) < 0.1}
CLOSED = {"one room": {}, "two rooms": TWO_ROOMS, "a sealed pocket": POCKET, "solids": SOLIDS}


@pytest.mark.parametrize("operator", ["auto", "mat"])
@pytest.mark.parametrize("name", CLOSED)
def test_consistent_and_nothing_attached(name, operator):
    A, rooms = closed(**CLOSED[name])
    b = balanced(np.where(CLOSED[name].get("solid", False), 0.0, F), rooms)
    x, reason = solve(A, b, operator=operator)
    assert reason > 0 and off(A, x, b) <= 1.01e-8


def inconsistent(name):
    A, rooms = closed(**CLOSED[name])
    b = balanced(np.where(CLOSED[name].get("solid", False), 0.0, F), rooms)
    if name == "two rooms":  # only the sum fits
        left, right = rooms
        b[left] += 0.2
        b[right] -= 0.2 * left.size / right.size
    else:
        b[rooms[0]] += 0.3
    return A, rooms, b


@pytest.mark.parametrize("operator", ["auto", "mat"])
@pytest.mark.parametrize("guess", [None, "random"])
@pytest.mark.parametrize("name", CLOSED)
def test_inconsistent_and_nothing_attached(name, guess, operator, capsys):
    A, _, b = inconsistent(name)
    _, reason = solve(A, b, guess=None if guess is None else 10 * F, operator=operator)
    assert reason < 0
    assert "no solution" in capsys.readouterr().err


def test_slightly_inconsistent_is_never_claimed():
    A, _ = closed()
    b = F - F.mean() + 1e-6
    x, reason = solve(A, b)
    assert reason < 0
    x, reason = solve(A, b, rtol=1e-4)
    assert reason > 0 and off(A, x, b) <= 1.01e-4


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("guess", [None, "random"])
@pytest.mark.parametrize("name", CLOSED)
def test_all_constants_attached(name, guess, symmetric):
    """What is left of b without them is solved for."""
    A, rooms, b = inconsistent(name)
    constants = [np.isin(np.arange(N), room).astype(float) for room in rooms]
    x, reason = solve(A, b, constants, None if guess is None else F, symmetric=symmetric)
    assert reason > 0 and off(A, x, balanced(b, rooms)) <= 1.01e-8


WRONG = {
    "open walls": {"walls": {(0, 0): 2.0}},
    "solids are identity rows": SOLIDS,
    "a pinned cell": {"fixed": np.arange(N) == 0},
    "a little compressible": {"extra": np.full(N, 1e-3)},
    "compressible": {"extra": np.ones(N)},
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_constants_attached_that_are_no_null_space(name, symmetric, capsys):
    """They are ignored, with a sentence, and the user's own b is solved for."""
    if symmetric and name == "a pinned cell":
        pytest.skip("coupled one way")
    A, rooms = closed(**WRONG[name])
    alone = WRONG[name].get("solid", WRONG[name].get("fixed", np.zeros(N, bool)))
    b = balanced(np.where(alone, 0.0, F + 0.1), rooms)
    x, reason = solve(A, b, [np.ones(N)], symmetric=symmetric)
    said = capsys.readouterr().err
    assert "null space" in said
    assert reason > 0 and off(A, x, b) <= 1.01e-8


@pytest.mark.parametrize("attach", [True, False])
@pytest.mark.parametrize("rtol, atol", [(1e-8, 1e-4), (1e-8, 1e-50), (1e-14, 1e-50)])
def test_no_right_hand_side_and_a_guess(rtol, atol, attach):
    """Never an exception; what is claimed is small against where it began (as KSPConvergedDefault), or atol."""
    A, _ = closed()
    start = 1e3 + F
    x, reason = solve(A, np.zeros(N), [np.ones(N)] if attach else [], start, rtol, atol)
    assert reason != 0
    floor = 50 * np.finfo(float).eps * np.linalg.norm(abs(A) @ abs(x))
    if reason > 0:
        assert np.linalg.norm(A @ x) <= 1.01 * max(rtol * np.linalg.norm(A @ start), atol) + floor
    assert reason > 0 or rtol < 1e-10


def test_nothing_at_all():
    A, _ = closed()
    x, reason = solve(A, np.zeros(N))
    assert reason > 0 and not x.any()
