"""A hundred and fifty random systems held to what the package promises, and that the judge of them sees what is wrong.

``run_scripts/fuzz_truth.sh`` tries thousands.
"""

from __future__ import annotations

import numpy as np
import pytest
from truth_cases import WIDE, make
from truth_check import Place, Solver, judge
from truth_fuzz import Summary, survey
from truth_oracle import truth

NATURAL = WIDE + 50117
"""A natural norm, of a right-hand side that counts little beside what fixed rows add to it."""


@pytest.mark.mpi
@pytest.mark.parametrize(
    "ranks, first, count",
    [
        (1, 0, 40),
        (2, 40, 20),
        (3, 70, 20),
        (1, WIDE, 13),
        (2, WIDE + 13, 13),
        (3, WIDE + 26, 12),
        (4, WIDE + 38, 12),
        (2, NATURAL, 1),
    ],
)
def test_random_systems(ranks: int, first: int, count: int) -> None:
    found = survey(ranks, first, count, timeout=200)
    assert found.cases.total() == count
    assert found.good(), found.text()


def test_most_cases_can_be_solved() -> None:
    """Lest the promise be kept by refusing everything."""
    cases = [make(seed) for seed in range(100)]
    assert sum(case.system.supported for case in cases) > 90
    solvable = [truth(case.system, case.b, case.null_space).solution is not None for case in cases]
    assert 60 < sum(solvable) < 95


@pytest.mark.parametrize("seed", range(20))
def test_direct_solution(seed: int) -> None:
    case = make(seed)
    found = truth(case.system, case.b, [])
    if found.solution is None:
        return
    A = case.system.A.toarray()
    D = 1 / np.sqrt(abs(A.diagonal()))
    dense = D * np.linalg.solve(D[:, None] * A * D, D * case.b)
    np.testing.assert_allclose(found.solution, dense, rtol=1e-5, atol=1e-6 * abs(dense).max())
    if found.coupled.any():
        inner = abs(np.linalg.eigvalsh(A[found.coupled][:, found.coupled])).min()
        assert 0.99 * inner <= found.softest < 2 * inner


@pytest.mark.parametrize("ends, promise", [("positive", "a: residual"), ("negative", "")])
def test_a_false_claim_is_seen(ends: str, promise: str) -> None:
    """PETSc's preonly without a preconditioner claims convergence with x = b."""
    case = next(c for c in map(make, range(100)) if c.norm == "" and c.guess is None and not c.null_space)
    case.options = {"ksp_type": "preonly" if ends == "positive" else "richardson", "pc_type": "none", "ksp_max_it": 1}
    place = Place(case, _world())
    A, solver = place.mat(case.system.A), Solver(place, case)
    b, start = place.vec(case.b, A), np.zeros(case.b.size)
    x = b.duplicate()
    error, said = solver.solve(A, b, x)
    verdict = judge("first", solver, A, case.system, case.b, start, place.natural(x), error, said, [])
    solver.destroy()
    assert error is None and verdict.ended.startswith("CONVERGED" if promise else "DIVERGED")
    assert [line[: len(promise)] for line in verdict.broken if line[0] in "ab"] == ([promise] if promise else [])


def test_too_few_that_converge_are_not_good_enough() -> None:
    summary = Summary()
    solve = {"which": "first", "ended": "DIVERGED_MAX_IT", "iterations": 9, "expected": True, "broken": []}
    good = {**solve, "ended": "CONVERGED_RTOL"}
    reused = {**good, "which": "reused"}
    summary.add(1, {"seed": 0, "words": "", "solves": 8 * [good] + [reused]})
    assert summary.good()
    summary.add(1, {"seed": 1, "words": "", "solves": [solve]})
    assert not summary.good() and not summary.broken and "fuzz_truth.py 1 1" in summary.text()
    assert summary.last_line().startswith("2 cases: 1 right, 0 refused, ") and summary.last_line().endswith(
        " 1 not converged where it should have, 0 failed: FAILED"
    )


def _world():
    from petsc4py import PETSc

    return PETSc.COMM_WORLD
