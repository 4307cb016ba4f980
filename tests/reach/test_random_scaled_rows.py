"""Random systems of the truth tests, and the same with random factors on their rows: they come to the same end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc
from truth_cases import Case, make
from truth_check import Place, Solver
from truth_oracle import SLACK, rounding


def solved(case: Case):
    """Exception, reason, iterations, x."""
    place = Place(case, PETSc.COMM_WORLD)
    solver = Solver(place, case)
    A = place.mat(case.system.A)
    x = A.createVecRight() if case.guess is None else place.vec(case.guess, A)
    error, _ = solver.solve(A, place.vec(case.b, A), x)
    ended = error, solver.ksp.getConvergedReason(), solver.ksp.getIterationNumber(), place.natural(x)
    solver.destroy()
    return ended


def scaled(case: Case) -> Case:
    """Coupled rows and their right-hand side times factors over up to six decades."""
    random = np.random.default_rng(case.seed)
    system = case.system
    d = 10.0 ** (random.uniform(0, 3) * random.uniform(-1, 1, case.b.size))
    d[system.alone | system.held] = 1.0
    return replace(case, system=replace(system, A=(sp.diags(d) @ system.A).tocsr()), b=d * case.b)


def claimed(case: Case, x: np.ndarray) -> None:
    """A residual that is called converged is within the tolerance, relative to what there is to solve."""
    A, b, coupled = case.system.A, case.b, ~case.system.alone & ~case.system.held
    given = np.where(coupled, 0.0, np.divide(b, A.diagonal(), out=np.zeros(b.size), where=A.diagonal() != 0))
    start = given if case.guess is None else np.where(coupled, case.guess, given)
    rest, first = (float(np.linalg.norm((b - A @ v)[coupled])) for v in (given, start))
    limit = SLACK * max(case.rtol * (rest or first), case.atol)
    left = float(np.linalg.norm((b - A @ x)[coupled]))
    assert left <= limit + np.linalg.norm(rounding(A, x, b)[coupled]), (case.words, left, limit)


@pytest.mark.parametrize("begin", range(0, 50, 10))
def test_factors_on_rows_change_neither_the_end_nor_the_way(begin):
    for seed in [*range(begin, begin + 10), *([410] if begin == 0 else [])]:  # 410: a pocket, weak beside the rest
        plain = replace(make(seed), null_space=[])
        other = scaled(plain)
        error, reason, its, _ = solved(plain)
        if plain.recipe.skew or (error is None and reason <= 0):
            continue
        their_error, their_reason, their_its, x = solved(other)
        assert type(error) is type(their_error), (plain.words, their_error)
        if error is not None:
            continue
        assert their_reason > 0 and their_its <= its + 4, (plain.words, reason, their_reason, its, their_its)
        if plain.norm in ("", "preconditioned"):
            claimed(other, x)
