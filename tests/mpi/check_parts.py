"""Coarse cells of several parts: the same iterations and answer on ranks as on one, bit for bit where these share a
box.
"""

from __future__ import annotations

import numpy as np
from check_node import compare, compare_nodes, uneven
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


def test_white_noise_in_the_box_of_a_node():
    """Nothing is learned here: all of it is the coarse solver's."""
    k = np.exp(3.0 * np.random.default_rng(2).standard_normal(SHAPE))
    w, s = conductances(SHAPE, coefficient=k)
    s[0] += 0.1
    assert compare(w, s, rows=uneven(s.size)) == PartsCoarseSolver.name


def test_stiff_bodies_below_learned_levels_in_the_box_of_a_node():
    """Several cycles each time, on a coarsest level that is not the grid."""
    shape = (40, 40, 48)
    bodies = np.random.default_rng(3).random([n // 4 for n in shape]) < 0.3
    k = np.kron(np.where(bodies, 1000.0, 1.0), np.ones((4, 4, 4)))
    assert compare(*conductances(shape, coefficient=k)) == PartsCoarseSolver.name


def test_nodes_of_two_ranks():
    """Simulated: each node's ranks solve all of it, together."""
    w, s = conductances((40, 22, 26), coefficient=np.exp(3.0 * np.random.default_rng(2).standard_normal((40, 22, 26))))
    values = np.random.default_rng(3).normal(size=s.size)
    values -= values.mean()
    assert compare_nodes(w, s, values, 2) == PartsCoarseSolver.name
