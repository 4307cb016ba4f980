"""The compiled stencil extraction against numpy references, and what it says about matrices that do not
fit.
"""

from __future__ import annotations

import numpy as np
import pytest
from csr_systems import assemble, csr_rows, expected, random_system
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.stencil.entries.report import MoreDirichlet, Problem, StencilError

sizes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 70))


@settings(max_examples=60, deadline=None)
@given(
    shape=sizes,
    solid=st.sampled_from([0.0, 0.1, 0.5]),
    lone=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 999),
    wide=st.booleans(),
)
def test_extraction_of_a_matrix(shape: Shape, solid: float, lone: float, seed: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    w, s, present, fixed = random_system(shape, rng, solid, lone)
    sign = rng.choice([-1.0, 1.0])
    m = assemble(w, s, present, fixed)
    m.data *= sign
    lows, highs, extra = expected(w, s, present, fixed)
    kind = np.int64 if wide else np.int32
    cells = np.flatnonzero(present)
    where = None if present.all() else cells
    pattern = m.indptr.astype(kind), m.indices.astype(kind)
    rows = csr_rows(*pattern, m.data, shape, cells=where, threads=1 + seed % 2)
    dirichlet = rows.find_dirichlet()
    # a row whose neighbours are all Dirichlet rows still couples; one without any neighbour has only its
    # diagonal
    off = m.copy()
    off.setdiag(0)
    assert np.array_equal(dirichlet, np.abs(off).sum(axis=1).A1 == 0)
    assert rows.first_sign() == (0.0 if dirichlet.all() else sign)
    n = cells.size
    w_low, w_high = [np.full(n, np.nan) for _ in range(3)], [np.full(n, np.nan) for _ in range(3)]
    s_out, diagonal = np.full(n, np.nan), np.full(n, np.nan)
    report = rows.extract(w_low, s_out, w_high=w_high, diagonal=diagonal, sign=sign)
    assert report.symmetry == 0
    lonely = dirichlet.astype(bool)
    for a in range(3):
        # an isolated cell counts as a Dirichlet row too, so nothing changes for its (absent) neighbours
        assert np.array_equal(w_low[a], lows[a].ravel()[cells])
        assert np.array_equal(w_high[a], highs[a].ravel()[cells])
        positive = w_low[a][w_low[a] > 0]
        assert report.w_count[a] == positive.size
        assert np.isclose(report.w_sum[a], positive.sum())
        limits = (positive.min(), positive.max()) if positive.size else (0, 0)
        assert (report.w_min[a], report.w_max[a]) == limits
    assert np.allclose(s_out, np.where(lonely, 0, extra.ravel()[cells]), rtol=0, atol=1e-12)
    assert np.array_equal(diagonal, sign * m.diagonal())
    assert report.extra == np.count_nonzero(s_out)
    assert np.array_equal(rows.diagonals(np.flatnonzero(lonely)), m.diagonal()[lonely])
    rows_fixed, diagonals, empty = rows.fixed()
    assert np.array_equal(rows_fixed, np.flatnonzero(lonely))
    assert np.array_equal(diagonals, m.diagonal()[lonely])
    assert np.array_equal(empty, np.flatnonzero(lonely & (m.diagonal() == 0)))
    for step in (1, 3):
        assert rows.some_diagonal(step) == np.abs(m.diagonal()[::step]).max(initial=0.0)

    single = [np.zeros([k + 2 for k in shape], np.float32) for _ in range(4)]
    rows.extract(single[:3], single[3], sign=sign, scale=0.25, box=((0, 0, 0), shape))
    inner = (slice(1, -1),) * 3
    for a in range(3):
        assert np.array_equal(single[a][inner].ravel()[cells], (0.25 * w_low[a]).astype(np.float32))
        assert np.count_nonzero(single[a]) == np.count_nonzero(single[a][inner])
    assert np.array_equal(single[3][inner].ravel()[cells], (0.25 * s_out).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    shape=sizes,
    solid=st.sampled_from([0.0, 0.3, 1.0]),
    lone=st.sampled_from([0.0, 0.1]),
    bare=st.booleans(),
    wide=st.booleans(),
    seed=st.integers(0, 999),
    threads=st.integers(1, 3),
)
def test_packed_extraction(
    shape: Shape, solid: float, lone: float, bare: bool, wide: bool, seed: int, threads: int
) -> None:
    """Voxel geometry packed says what the arrays say, bit by bit; anything else can not be packed."""
    rng = np.random.default_rng(seed)
    w, s, present, fixed = random_system(shape, rng, solid, lone)
    if bare:  # long stretches of rows that are all the same
        s[...] = np.where(present, 0.25, 0.0)
    conductance = rng.uniform(0.5, 2.0, 3)
    box = ((0, 0, 0), shape)
    cells = np.flatnonzero(present)
    for packable in (True, False):
        faces = [np.where(wa > 0, c, 0.0) if packable else wa for wa, c in zip(w, conductance, strict=True)]
        m = assemble(faces, s, present, fixed)
        kind = np.int64 if wide else np.int32
        pattern = m.indptr.astype(kind), m.indices.astype(kind)
        rows = csr_rows(*pattern, m.data, shape, cells=None if present.all() else cells, threads=threads)
        rows.find_dirichlet()
        arrays = [np.zeros([n + 2 for n in shape]) for _ in range(4)]
        report = rows.extract(arrays[:3], arrays[3], scale=0.25, box=box)
        found = rows.extract_packed(scale=0.25, box=box)
        if packable:
            assert found is not None
        if found is None:
            continue
        packed, same = found
        np.testing.assert_allclose(same.w_sum, report.w_sum, rtol=1e-12)
        assert (same.w_count, same.extra, same.max_diagonal) == (report.w_count, report.extra, report.max_diagonal)
        by_row = rows.extract_packed(scale=0.25)
        assert by_row is not None
        for a, b in zip((by_row[0].cells, by_row[0].s_index), (packed.cells, packed.s_index), strict=True):
            assert np.array_equal(a, b[1:-1, 1:-1, 1:-1].ravel()[cells])
        assert packed.asymmetry() is None
        back, extra = packed.arrays()
        assert all(np.array_equal(a, b) for a, b in zip((*back, extra), arrays, strict=True))
        inner = (slice(1, -1),) * 3
        for axis in range(3):
            high = np.roll(arrays[axis], -1, 2 - axis)[inner]
            assert np.array_equal((packed.cells[inner] & (2 << 2 * axis)) > 0, high > 0)


def poisson(shape: Shape) -> sparse.csr_matrix:
    rng = np.random.default_rng(0)
    w, s, present, fixed = random_system(shape, rng, 0.0, 0.0)
    return assemble(w, s + 0.5, present, fixed)


def read(m: sparse.csr_matrix, shape: Shape, **arguments: float) -> None:
    rows = csr_rows(m.indptr, m.indices, m.data, shape)
    rows.find_dirichlet()
    rows.extract([np.zeros(rows.rows) for _ in range(3)], np.zeros(rows.rows), **arguments)


@pytest.mark.parametrize(
    ("row", "column", "value", "problem"),
    [
        (70, 70, np.nan, Problem.NOT_FINITE),
        (70, 71, np.inf, Problem.NOT_FINITE),
        (70, 70, -1.0, Problem.DIAGONAL),
        (70, 70, 0.0, Problem.DIAGONAL),
        (70, 71, 0.3, Problem.SIGN),
        (70, 71, -50.0, Problem.ROW_SUM),
        (70, 100, -0.1, Problem.NOT_NEIGHBOUR),
        (39, 40, -0.1, Problem.NOT_NEIGHBOUR),  # the end of a line and the start of the next
        (40, 78, -0.1, Problem.NOT_NEIGHBOUR),  # the other end of the line is one cell on
    ],
)
def test_offending_rows_are_named(row: int, column: int, value: float, problem: Problem) -> None:
    shape = (3, 4, 40)
    m = poisson(shape).tolil()
    m[row, column] = value
    with pytest.raises(StencilError) as caught:
        read(m.tocsr(), shape)
    assert (caught.value.problem, caught.value.row) == (problem, row)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_that_is_like_others_is_named_where_it_lies_elsewhere(threads: int) -> None:
    """The last cell of a line says what cells beside the wall said: its high neighbour is on the next line."""
    shape = _, ny, nx = 6, 5, 40
    w, s, present, fixed = random_system(shape, np.random.default_rng(0), 0.0, 0.0)
    m = assemble([(face > 0).astype(float) for face in w], 0 * s + 0.5, present, fixed).tolil()
    like, row = (3 * ny * nx + at for at in (7, nx - 1))
    for column in m.rows[like]:
        m[row, row + column - like] = m[like, column]
    m = m.tocsr()
    rows = csr_rows(m.indptr, m.indices, m.data, shape, threads=threads)
    rows.find_dirichlet()
    with pytest.raises(StencilError) as found:
        rows.extract_packed()
    assert (found.value.problem, found.value.row, found.value.column) == (Problem.NOT_NEIGHBOUR, row, row + 1)


def test_the_first_offending_row_is_named_on_any_number_of_threads() -> None:
    shape = (30, 30, 30)
    m = poisson(shape)
    m.data[m.indptr[20000] : m.indptr[20001]] = np.nan
    m.data[m.indptr[300] : m.indptr[301]] = np.nan
    for threads in (1, 3):
        rows = csr_rows(m.indptr, m.indices, m.data, shape, threads=threads)
        rows.find_dirichlet()
        with pytest.raises(StencilError) as caught:
            rows.extract([None] * 3, None)
        assert caught.value.row == 300


def test_rounding_is_no_offence() -> None:
    shape = (4, 5, 40)
    m = poisson(shape).tolil()
    m[60, 61] = 1e-14
    m[100, 100] = -m[100].sum() + m[100, 100] - 1e-14
    read(m.tocsr(), shape)


def test_an_even_wind_shows_in_the_checksum() -> None:
    """Plain numbers, the same difference on all faces along an axis."""
    n = 32
    line = sparse.diags([-1.75, 4.0, -1.25], [-1, 0, 1], (n, n))
    plain = sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n))
    one = sparse.identity(n)
    m = sparse.kron(one, sparse.kron(one, line)) + sparse.kron(one, sparse.kron(plain, one))
    m = (m + sparse.kron(plain, sparse.kron(one, one))).tocsr()
    m.sort_indices()
    rows = csr_rows(m.indptr, m.indices, m.data, (n, n, n))
    rows.find_dirichlet()
    assert rows.extract([None] * 3, None).symmetry != 0
    assert rows.extract_packed() is None


def test_packed_a_face_that_one_side_lacks_is_found() -> None:
    shape = (4, 5, 40)
    for row, column, axis, cell, below in ((60, 61, 0, (0, 1, 20), True), (100, 60, 1, (0, 1, 20), False)):
        w, s, present, fixed = random_system(shape, np.random.default_rng(0), 0.0, 0.0)
        m = assemble([np.where(wa > 0, 1.0, 0.0) for wa in w], s, present, fixed).tolil()
        m[row, row] += 1.0
        m[column, row] = 0.0
        rows = csr_rows(*((c := m.tocsr()).indptr, c.indices, c.data), shape)
        rows.find_dirichlet()
        found = rows.extract_packed(box=((0, 0, 0), shape))
        assert found is not None and found[0].asymmetry() == (axis, cell, below)


def test_a_one_sided_coupling_shows_in_the_checksum() -> None:
    shape = (4, 5, 40)
    m = poisson(shape).tolil()
    m[60, 61] *= 0.5
    m = m.tocsr()
    rows = csr_rows(m.indptr, m.indices, m.data, shape)
    rows.find_dirichlet()
    assert rows.extract([None] * 3, None).symmetry != 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hidden", [[], [5001], [70, 71, 2300, 6239], list(range(0, 6240, 5))])
@pytest.mark.parametrize("longest", [1, 6])
def test_dirichlet_rows_that_keep_their_entries(hidden: list[int], threads: int, longest: int) -> None:
    """As MatZeroRows leaves them if it is to keep the pattern; one has a diagonal that no other row could have."""
    shape = (12, 13, 40)
    w, s, present, fixed = random_system(shape, np.random.default_rng(0), 0.0, 0.05)
    m = assemble([np.where(wa > 0, 1.0, 0.0) for wa in w], s, present, fixed)
    for row in hidden:
        begin, end = m.indptr[row], m.indptr[row + 1]
        m.data[begin:end] = np.where(m.indices[begin:end] == row, 0.0 if row == 71 else 3.0, 0.0)
    found = []
    for sure in (True, False):
        rows = csr_rows(m.indptr, m.indices, m.data, shape, threads=threads)
        if sure:
            rows.find_dirichlet()
        else:
            rows.find_dirichlet(longest)
            assert not hidden or not rows.dirichlet[hidden].all()
            if hidden:
                with pytest.raises(MoreDirichlet):
                    rows.extract_packed(box=((0, 0, 0), shape))
                with pytest.raises(MoreDirichlet):
                    rows.extract([None] * 3, None)
                rows.find_dirichlet()
        packed, report = rows.extract_packed(box=((0, 0, 0), shape)) or (None, None)
        assert packed is not None
        arrays = np.zeros((4, m.shape[0]))
        found.append((packed, report, rows.extract(list(arrays[:3]), arrays[3]), arrays, rows.dirichlet))
    one, two = found
    for name in ("cells", "c"):
        assert np.array_equal(getattr(one[0], name), getattr(two[0], name))
    for a, b in zip(one[0].arrays()[0] + [one[0].arrays()[1]], two[0].arrays()[0] + [two[0].arrays()[1]], strict=True):
        assert np.array_equal(a, b)
    assert one[1] == two[1] and one[2] == two[2]
    assert np.array_equal(one[3], two[3]) and np.array_equal(one[4], two[4]) and two[4][hidden].all()


def test_offsets() -> None:
    m = poisson((3, 4, 40))
    assert csr_rows(m.indptr, m.indices, m.data, (1, 1, 480)).offsets().tolist() == [1, 40, 160]
    assert csr_rows(m.indptr, m.indices, m.data, (1, 1, 480)).offsets(capacity=2) is None
    # where a row has what is a stored zero in the row before it, and all rows are as wide
    row = np.arange(5, 200)
    column, data = np.append(row, row - 5), np.append(np.ones(195), row >= 100)
    m = sparse.csr_array((data, (np.append(row, row), column)), shape=(200, 200))
    assert csr_rows(m.indptr, m.indices, m.data, (1, 1, 200)).offsets().tolist() == [5]


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 70)),
    odd=st.integers(0, 6),
    zeros=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 999),
    wide=st.booleans(),
)
def test_offsets_of_any_matrix(shape: Shape, odd: int, zeros: float, seed: int, wide: bool) -> None:
    """With a few entries anywhere, and some stored zeros, which say nothing of the grid."""
    rng = np.random.default_rng(seed)
    m = sparse.coo_array(poisson(shape))
    n = m.shape[0]
    row, column = np.append(m.row, rng.integers(0, n, odd)), np.append(m.col, rng.integers(0, n, odd))
    data = np.append(m.data, np.ones(odd))
    data[rng.random(data.size) < zeros] = 0.0
    m = sparse.csr_array((data, (row, column)), shape=(n, n))
    m.sum_duplicates()
    kind = np.int64 if wide else np.int32
    rows = csr_rows(m.indptr.astype(kind), m.indices.astype(kind), m.data, (1, 1, n), threads=1 + seed % 2)
    row = np.repeat(np.arange(n), np.diff(m.indptr))
    want = np.setdiff1d(np.abs(m.indices - row)[m.data != 0], [0])
    found = rows.offsets(capacity=8)
    assert found is None if want.size > 8 else np.array_equal(found, want)
