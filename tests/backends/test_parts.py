"""Levels of several parts a block: against scipy and a cycle written once more in numpy, and what they solve."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from systems import conductances, matrix, random_solids, relative_residual

from petsc_dcdm.backends.parts import levels as parts
from petsc_dcdm.backends.parts.grid import GridLevel
from petsc_dcdm.backends.parts.solver import SPECTRUM, SPECTRUM_BELOW, STEPS, STEPS_BELOW, PartsSolver, finest_level
from petsc_dcdm.backends.parts.stages import SLICE, WINDOW
from petsc_dcdm.grid.faces import all_but_first, all_but_last


def parts_solver(w, s, threads):
    return PartsSolver(finest_level(w, s, threads), threads)


def medium(shape, seed, decades, fraction):
    """Some cells solid, coefficients over so many decades, one side open: closed low sides as levels have them."""
    rng = np.random.default_rng(seed)
    k = 10.0 ** (decades * rng.random(shape))
    w, s = conductances(shape, random_solids(shape, seed, fraction), k, walls=0.0)
    s[..., -1] += 2 * k[..., -1] * (rng.random(shape)[..., -1] < 0.5)
    return w, s


def bfloat16(a):
    """Rounded to nearest even, float64."""
    word = np.asarray(a, np.float32).view(np.uint32)
    return ((word + 0x7FFF + (word >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(float)


def cells_of_grid(w, s, grid):
    """The finest level as those below it are, from its faces, which it keeps as bfloat16."""
    d = s + sum(w)
    for axis, face in enumerate(w):
        all_but_last(d, axis)[...] += all_but_first(face, axis)
    inverse = bfloat16(np.divide(1.0, d, out=np.zeros_like(d), where=d > 0))
    w, s = [bfloat16(face) for face in w], bfloat16(s)
    cells = np.arange(s.size).reshape(s.shape)
    i, j, value = [], [], []
    for axis, face in enumerate(w):
        at = np.nonzero(face)
        low = tuple(index - (2 - axis == d) for d, index in enumerate(at))
        i.append(cells[at]), j.append(cells[low]), value.append(face[at])
    i, j, value = (np.concatenate(a) for a in (i, j, value))
    W = coo_matrix((np.tile(value, 2), (np.append(i, j), np.append(j, i))), shape=(s.size, s.size)).tocsr()
    lives = np.flatnonzero((np.asarray(W.sum(axis=1)).ravel() + s.ravel()) > 0)
    assert grid.unknowns == lives.size
    W = W[lives][:, lives]
    level = SimpleNamespace(n=lives.size, block=lives, blocks=s.shape[::-1], row=W.indptr, column=W.indices)
    level.value, level.s = W.data.astype(np.float32), s.ravel()[lives].astype(np.float32)
    level.part, level.halved, level.shift = grid.part.ravel()[lives], grid.halved, (0, 0, 0)
    level.twice, level.inverse = False, inverse.ravel()[lives]
    return level


def cycle(solver, r):
    """One, from an array to another with something around both."""
    nz, ny, nx = solver.grid.part.shape
    room = np.full((2, nz + 1, ny + 2, nx + 3), np.nan, np.float32)
    there, to = (a[:-1, 1:-1, 2:-1] for a in room)
    there[...] = r.reshape(there.shape)
    solver.solve(there, to)
    found, to[...] = to.ravel(), np.nan
    assert np.isnan(room[1]).all(), "nothing else is written to"
    return found


def rows_of(stage):
    """The rows of a stage, one behind the other, from its slices and what did not go into them."""
    places, column, value = [], [], []
    for number, (begin, end) in enumerate(zip(stage.slice, stage.slice[1:], strict=False)):
        words, base = stage.word[begin:end], stage.base[number * SLICE // WINDOW]
        if base < 0:
            at, bits = words.reshape(-1, 2, SLICE).swapaxes(0, 1)
        else:
            at, bits = words.reshape(-1, SLICE) % 2**16 + np.uint32(base), words.reshape(-1, SLICE) & 0xFFFF0000
        places.append(np.broadcast_to(number * SLICE + np.arange(SLICE), at.shape).ravel())
        column.append(at.ravel()), value.append(bits.ravel().view(np.float32))
    rest = np.repeat(np.arange(len(places)), np.diff(stage.rest)) * SLICE + stage.rest_lane
    i, j = np.concatenate([*places, rest]), np.concatenate([*column, stage.rest_column]).astype(int)
    value = np.concatenate([*value, stage.rest_value])
    W = coo_matrix((value[value > 0].astype(float), (i[value > 0], j[value > 0])), shape=(stage.n, stage.n)).tocsr()
    part, rest = stage.part[: stage.n], {"s": stage.s, "twice": stage.twice}
    return SimpleNamespace(n=stage.n, row=W.indptr, column=W.indices, value=W.data, part=part, **rest)


def weights(level):
    return csr_matrix((level.value.astype(float), level.column, level.row), shape=(level.n, level.n))


def coordinates(level):
    x, y, z = level.blocks
    return np.stack((level.block % x, level.block // x % y, level.block // (x * y)), axis=1)


def check_division(level, below, grid=False):
    """The next level: components within blocks, couplings in series with the ways within parts."""
    W = weights(level).tocoo()
    inside = W.data > 0
    i, j, w = W.row[inside], W.col[inside], W.data[inside]
    strongest = np.zeros(level.n)
    np.maximum.at(strongest, i, w)
    halved = np.array(level.halved)
    block = (coordinates(level) + np.array(level.shift)) // (1 + halved)
    same = (block[i] == block[j]).all(axis=1)
    together, count = parts.TOGETHER, -1
    while count != below.n:
        assert together >= parts.WEAKEST
        least = np.float32(together) * np.maximum(strongest[i], strongest[j])
        joined = same & (w >= least)
        alone = np.ones(level.n, bool)
        alone[i[joined]] = False
        share = parts.FOLLOWS * np.maximum(np.bincount(i, w, level.n)[i], level.s[i] - level.s[j])
        assume(not (np.isclose(w, least, 1e-5) | np.isclose(w, share, 1e-5))[same].any())  # rounding would decide
        upwards = same & alone[i] & (strongest[j] > strongest[i]) & (w >= share)
        best = np.zeros(level.n)
        np.maximum.at(best, i[upwards], w[upwards])
        follow = np.flatnonzero(upwards & (w == best[i]))
        axis = (coordinates(level)[i] != coordinates(level)[j]).argmax(axis=1)
        last = axis[follow] if grid else follow  # of equals, along x, y, z or in the order of the row
        follow = follow[np.lexsort((-last, i[follow]))]
        joined[follow[np.unique(i[follow], return_index=True)[1]]] = True
        graph = coo_matrix((np.ones(joined.sum()), (i[joined], j[joined])), shape=(level.n, level.n))
        _, label = connected_components(graph, directed=False)
        lives = strongest > 0
        count = len(np.unique(label[lives]))
        together /= 4
    pairs = np.unique(np.stack((label[lives], level.part[lives])), axis=1)
    assert pairs.shape[1] == below.n == len(np.unique(level.part[lives])), "the parts are the components"
    assert (level.part[~lives] == -1).all()
    np.testing.assert_array_equal(coordinates(below)[level.part[lives]], block[lives])
    out = level.part[i] != level.part[j]
    along = np.where((coordinates(level)[i] != coordinates(level)[j]) & (halved == 1), [0, 1, 2], -1).max(axis=1)
    within = np.zeros((level.n, 4))  # couplings of each unknown inside its part, along each axis
    np.add.at(within, (i[~out], along[~out]), w[~out])
    way = np.divide(1.0, within, out=np.zeros_like(within), where=within > 0)
    factor = np.where(along < 0, 1.0, np.maximum(0.5, 1 / (1 + 0.5 * w * (way[i, along] + way[j, along]))))
    expected = coo_matrix(((w * factor)[out], (level.part[i][out], level.part[j][out])), shape=(below.n, below.n))
    difference = abs(expected.tocsr() - weights(below)).max() if below.n else 0
    assert difference <= 1e-5 * max(w.max(initial=0), 1e-30)
    s = np.bincount(level.part[lives], level.s[: level.n][lives], minlength=below.n)
    np.testing.assert_allclose(below.s[: below.n], s, rtol=1e-4, atol=1e-30)


@example(shape=(9, 11, 2), decades=4.0, fraction=0.2, seed=2)  # equal couplings along x and y
@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.sampled_from([1, 2, 9, 12]), st.integers(1, 11), st.integers(2, 13)),
    decades=st.sampled_from([0.0, 1.0, 4.0, 7.0]),
    fraction=st.sampled_from([0.0, 0.2, 0.6]),
    seed=st.integers(0, 99),
)
def test_parts_are_those_of_scipy(shape, decades, fraction, seed):
    w, s = medium(shape, seed, decades, fraction)
    w = [np.ascontiguousarray(face) for face in w]
    limit, parts.DENSE_LIMIT = parts.DENSE_LIMIT, 4
    try:
        for threads in (1, 2):
            grid = GridLevel(w, s, STEPS, threads)
            first = grid.divide()
            found = [cells_of_grid(w, s, grid), *(parts.levels_below(first, threads) if first else [])]
            for number, (level, below) in enumerate(zip(found, found[1:], strict=False)):
                check_division(level, below, number == 0)
    finally:
        parts.DENSE_LIMIT = limit


class Reference:
    """The same cycle in float64 and with scipy's products, on the levels that are there."""

    def __init__(self, levels):
        self.part, self.twice = [level.part for level in levels], [level.twice for level in levels]
        self.A, self.inverse = [], []
        for level in levels:
            W = weights(level)
            d = np.asarray(W.sum(axis=1)).ravel() + level.s[: level.n]
            self.A.append(diags(d).tocsr() - W)
            self.inverse.append(np.divide(1.0, d, out=np.zeros_like(d), where=d > 0))
        self.inverse[0] = levels[0].inverse
        self.last = np.linalg.pinv(self.A[-1].toarray())

    def smooth(self, i, x, r, low, high, steps):
        """Chebyshev iteration as in Saad, Iterative Methods for Sparse Linear Systems, algorithm 12.1."""
        A, inverse = self.A[i], self.inverse[i]
        theta, delta = (high + low) / 2, (high - low) / 2
        sigma = theta / delta
        rho, step = 1 / sigma, inverse * (r - A @ x) / theta
        for _ in range(steps):
            x = x + step
            new = 1 / (2 * sigma - rho)
            step, rho = new * rho * step + 2 * new / delta * inverse * (r - A @ x), new
        return x

    def solve(self, i, r):
        A, part = self.A[i], self.part[i]
        if i and i + 1 == len(self.A):
            return self.last @ r
        how = (*SPECTRUM_BELOW, STEPS_BELOW) if i else (*SPECTRUM, STEPS)
        x = self.smooth(i, np.zeros_like(r), r, *how)
        if i + 1 < len(self.A):
            to = part >= 0
            below = np.bincount(part[to], (r - A @ x)[to], minlength=self.A[i + 1].shape[0])
            e = self.twofold(i + 1, below) if self.twice[i + 1] else self.solve(i + 1, below)
            x[to] += e[part[to]]
        return self.smooth(i, x, r, *how)

    def twofold(self, i, r):
        """The point of least energy in the plane of two directions, or along the first if that leaves little."""
        A, one = self.A[i], self.solve(i, r)
        step = (one @ r) / (one @ (A @ one))
        left = r - step * (A @ one)
        if np.linalg.norm(left) <= 0.35 * np.linalg.norm(r):  # ENOUGH of part_cycle.c
            return step * one
        plane = np.stack((one, self.solve(i, left)), axis=1)
        return plane @ np.linalg.lstsq(plane.T @ (A @ plane), plane.T @ r, rcond=None)[0]


@pytest.mark.parametrize("shape", [(12, 17, 19), (1, 40, 70), (3, 2, 60), (4, 140, 70)])
@pytest.mark.parametrize("decades", [0.0, 3.0])
def test_the_cycle_is_that_of_the_textbook(shape, decades, monkeypatch):  # the last shape has two tiles of rows
    monkeypatch.setattr(parts, "DENSE_LIMIT", 30)
    w, s = medium(shape, 5, decades, 0.1)
    w = [np.ascontiguousarray(face) for face in w]
    solver = parts_solver(w, s, 1)
    levels = [cells_of_grid(w, s, solver.grid), *map(rows_of, solver.stages)]
    assert len(levels) > 2 and any(level.twice for level in levels)
    cells = levels[0].block
    r = np.zeros(s.size, np.float32)
    r[cells] = np.random.default_rng(1).standard_normal(cells.size)
    expected = Reference(levels).solve(0, r[cells].astype(float))
    for threads in (1, 2, 3):
        solver = parts_solver(w, s, threads)
        cycle(solver, np.full_like(r, np.nan))  # nothing is left over from another time
        for _ in range(2):
            x = cycle(solver, r)
        assert not np.delete(x, cells).any()
        assert np.linalg.norm(x[cells] - expected) <= 2e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("far", [False, True])
def test_rows_of_a_stage_are_those_of_its_level(far):
    shape = (3, 520, 520) if far else (6, 40, 50)  # two planes of 260 x 260 blocks are more than 16 bits can tell
    w, s = medium(shape, 5, 3.0, 0.1)
    w = [np.ascontiguousarray(face) for face in w]
    solver = parts_solver(w, s, 2)
    grid = GridLevel(w, s, STEPS, 2)
    level, stage = grid.divide(), solver.stages[0]
    assert (stage.base < 0).any() == far and stage.n == level.n
    own, found = weights(level), rows_of(stage)
    own.data = bfloat16(own.data)
    moved = own[stage.unknown][:, stage.unknown]
    assert abs(weights(found) - moved).max() == 0.0 and weights(found).nnz == moved.nnz
    assert np.array_equal(stage.s[: stage.n], level.s[stage.unknown])
    diagonal = np.asarray(moved.sum(axis=1)).ravel() + stage.s[: stage.n]
    assert np.allclose(stage.inverse[: stage.n], np.divide(1.0, diagonal, where=diagonal > 0), rtol=1e-6)
    if far:
        levels = [cells_of_grid(w, s, solver.grid), *map(rows_of, solver.stages)]
        r = np.zeros(s.size, np.float32)
        r[levels[0].block] = np.random.default_rng(1).standard_normal(levels[0].n)
        expected = Reference(levels).solve(0, r[levels[0].block].astype(float))
        x = cycle(solver, r)[levels[0].block]
        assert np.linalg.norm(x - expected) <= 2e-4 * np.linalg.norm(expected)


def test_teams_of_threads_find_the_same_to_the_last_bit():
    shape = (26, 28, 30)
    k = np.exp(3.0 * np.random.default_rng(4).standard_normal(shape))
    k[12:14, ::2, ::2] = 1e9  # bodies with many neighbours each
    w, s = conductances(shape, coefficient=k)
    r = np.random.default_rng(1).standard_normal(s.size).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        solver = parts_solver(w, s, threads)
        assert solver.stages[0].n > 4000 and solver.stages[0].twice, "more than one thread works on the stage"
        found.append(cycle(solver, r))
    assert any(stage.rest_lane.size for stage in solver.stages), "some rows are longer than their slices"
    assert np.isfinite(found[0]).all() and np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    expected = Reference([cells_of_grid(w, s, solver.grid), *map(rows_of, solver.stages)]).solve(0, r.astype(float))
    assert np.linalg.norm(found[0] - expected) <= 1e-3 * np.linalg.norm(expected)


def test_some_cycles_reduce_the_residual():
    shape = (10, 12, 14)
    w, s = noise(shape, 2.0)
    A, solver = matrix(w, s), parts_solver(w, s, 2)
    r = np.random.default_rng(0).standard_normal(s.size)
    x, b = A.createVecs()
    found = r.astype(np.float32).reshape(shape)
    solver.solve_well(found, found)
    x.setArray(found.ravel())
    b.setArray(r)
    assert relative_residual(A, x, b) <= 0.06


def test_parts_that_nothing_holds_are_solved_up_to_a_constant():
    w, s = conductances((1, 30, 60), walls=0.0)
    w[0][..., 31] = 0.0  # two rooms
    r = np.zeros((1, 30, 60), np.float32)
    r[0, 3, 5], r[0, 20, 25], r[0, 7, 40], r[0, 29, 59] = 1, -1, 2, -2
    x = cycle(parts_solver(w, s, 1), r)
    assert np.isfinite(x).all() and np.abs(x).max() < 100


def noise(shape, deviation=3.0, seed=4):
    return conductances(shape, coefficient=np.exp(deviation * np.random.default_rng(seed).standard_normal(shape)))
