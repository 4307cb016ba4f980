"""The coarsest system factored within its band, against dense algebra; cycles that solve it without leaving C."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from grid_operators import applied, damping, diagonal, system, weights

from petsc_dcdm.backends.cpu.band import BandFactors
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.grid.layout import CoarseOperator, SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.grid.spans import record_with
from petsc_dcdm.solver.coarse.band import BandCoarseSolver

SHAPES: list[Shape] = [(7, 9, 5), (1, 12, 17), (17, 1, 12), (1, 1, 40), (3, 20, 4), (2, 40, 2), (1, 45, 4), (1, 1, 1)]


def operator(shape: Shape, seed: int, solid: float = 0.2) -> CoarseOperator:
    w, s = system(shape, seed, solid)
    return CoarseOperator((w[0], w[1], w[2]), s, (0, 0, 0), shape, shape)


def dense(a: CoarseOperator, shift: float) -> np.ndarray:
    """The operator as a matrix of all cells, 1 on the diagonal of inactive ones."""
    d = diagonal(list(a.w), a.s).ravel()
    matrix = np.diag(np.where(d > 0, d * (1 + shift), 1.0))
    cell = np.arange(d.size).reshape(a.shape)
    for axis, face in enumerate(a.w):
        for high, low in zip(
            np.moveaxis(cell, 2 - axis, 0)[1:].ravel(), np.moveaxis(cell, 2 - axis, 0)[:-1].ravel(), strict=True
        ):
            matrix[low, high] = matrix[high, low] = -face.ravel()[high]
    return matrix


def test_two_threads_give_the_numbers_of_one() -> None:
    """From either end, where there is so much to do that two take part."""
    a, found = operator((1, 60, 70), 1), []
    r = np.random.default_rng(1).standard_normal(a.shape).astype(np.float32)
    for threads in (1, 2):
        factors = BandFactors(a, 1e-3, threads)
        assert factors.factor() and factors.band.back > 1000 and factors.unknowns * factors.width > 100000
        found.append(np.zeros(a.shape, np.float32))
        factors.solve(r, found[-1])
    assert (found[0] == found[1]).all() and found[0].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_solutions_are_those_of_dense_algebra(shape: Shape) -> None:
    factors = None
    for seed in (1, 2):  # the second one in the place of the first
        a = operator(shape, seed)
        if factors is None:
            factors = BandFactors(a, 1e-3)
            assert factors.cheap and factors.factor()
        else:
            assert factors.update(a)
        active = diagonal(list(a.w), a.s) > 0
        assert factors.unknowns == active.sum()
        r = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        x = np.zeros(shape, np.float32)
        factors.solve(r, x)
        exact = np.linalg.solve(dense(a, 1e-3), np.where(active, r, 0.0).ravel()).reshape(shape)
        assert np.abs(x - exact).max() <= 1e-6 * np.abs(exact).max()
        assert not x[~active].any()


def test_neighbours_along_the_longest_axis_are_the_furthest_apart() -> None:
    for shape in ((20, 3, 4), (3, 20, 4), (4, 3, 20)):
        assert BandFactors(operator(shape, 0, solid=0.0), 0.0).width == 12


def test_an_operator_that_is_not_definite_has_no_factors() -> None:
    a = operator((4, 4, 4), 3, solid=0.0)
    a.s[1, 2, 3] = -0.9 * (diagonal(list(a.w), a.s)[1, 2, 3] - a.s[1, 2, 3])
    assert np.linalg.eigvalsh(dense(a, 0.0)).min() < 0
    assert not BandFactors(a, 0.0).factor()


def test_nan_comes_out_and_does_not_stay() -> None:
    a = operator((3, 4, 5), 4, solid=0.0)
    factors = BandFactors(a, 1e-3)
    assert factors.factor()
    x, again, r = np.zeros(a.shape, np.float32), np.zeros(a.shape, np.float32), np.ones(a.shape, np.float32)
    factors.solve(r, x)
    bad = r.copy()
    bad[0, 0, 0] = np.nan
    factors.solve(bad, again)
    assert np.isnan(again).all()
    factors.solve(r, again)
    assert (again == x).all()


@pytest.mark.parametrize("shape", [(19, 17, 33), (1, 37, 50)])
def test_a_cycle_in_one_call_is_the_cycle_in_many(shape: Shape) -> None:
    """Bit for bit, where nothing is active near some sides of the grid as well."""
    flat = shape[0] == 1
    w, s = system(shape, 5)
    for a in (*w, s):
        a[:, :9] = 0.0
    w[1][:, 9] = 0.0
    layout = SerialLayout(shape, ((0, 1),) * 2 if flat else ((0, 1, 2),) * 2, visits=2)
    network = CpuHierarchy(weights(4), w, s, layout, threads=2)
    factors = BandFactors(network.coarse, 1e-3)
    assert factors.factor()
    network.coarse_solve = BandCoarseSolver(factors)
    r = np.random.default_rng(6).standard_normal(shape)
    calls = []
    one = network._kernels.dcdm_cycle
    network._kernels.dcdm_cycle = lambda *arguments: calls.append(1) or one(*arguments)
    try:
        at_once = applied(network, r)
        record_with(lambda name, flops: nullcontext())
        one_by_one = applied(network, r)
    finally:
        record_with(None)
        network._kernels.dcdm_cycle = one
    assert len(calls) == 1 and (at_once == one_by_one).all() and at_once.any()
    network.coarse_solve = damping(network.coarse)  # another solver, which has no factors
    assert not (applied(network, r) == at_once).all()
