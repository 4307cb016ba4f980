"""Coarse cells of several parts: the same iterations and answer on ranks as on one."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc
from systems import conductances, matrix, relative_residual, right_hand_side, solve

from petsc_dcdm.solver.coarse.parts import PartsCoarseSolver

RANKS = (2, 4)
SHAPE = (20, 22, 26)


def compared(w, s, **options):
    grid = ",".join(str(n) for n in SHAPE[::-1])
    found = []
    for comm in (PETSc.COMM_SELF, PETSc.COMM_WORLD):
        A = matrix(w, s, comm=comm)
        b = right_hand_side(A)
        ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid=grid, **options)
        assert relative_residual(A, x, b) <= 1.1e-8
        assert isinstance(ksp.getPC().getPythonContext()._coarse, PartsCoarseSolver)
        found.append((ksp, A, b, x))
    (alone, *_), (ranks, A, b, x) = found
    assert abs(alone.getIterationNumber() - ranks.getIterationNumber()) <= 1
    return ranks, A, b, x


def test_white_noise():
    k = np.exp(3.0 * np.random.default_rng(2).standard_normal(SHAPE))
    ksp, A, b, x = compared(*conductances(SHAPE, coefficient=k))
    A.scale(3.0)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.1e-8


def test_solids_between_small_stiff_bodies():
    rng = np.random.default_rng(3)
    k = np.where(rng.random(SHAPE) < 0.05, 1000.0, 1.0)
    compared(*conductances(SHAPE, rng.random(SHAPE) > 0.1, k))
