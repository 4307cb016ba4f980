"""The graph of a matrix told by strands: what the rows say, in less memory where they repeat each other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_search import ORDERS, lattice

from petsc_dcdm.grid.errors import GridError
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.lattice.rings import Embedding
from petsc_dcdm.stencil.lattice.search import _search, expand, search, told_by


def matrix(edges: np.ndarray, rows: int) -> sp.csr_matrix:
    both = np.concatenate([edges, edges[:, ::-1]])
    m = sp.coo_matrix((-np.ones(len(both)), both.T), shape=(rows, rows)).tocsr() + 6 * sp.identity(rows, format="csr")
    m.sort_indices()
    return m.tocsr()


def told(m: sp.csr_matrix, threads: int, wide: bool, part: slice | None = None) -> tuple[np.ndarray, int, int, int]:
    """Graph, entries, crowded row and checksum, of all rows or of a part of them in two blocks of columns."""
    kind = np.int64 if wide else np.int32
    rest = {}
    if part is not None:
        local = m[part].tocsr()
        inside = np.zeros(m.shape[0], bool)
        inside[part] = True
        own, other, columns = local[:, part].tocsr(), local[:, ~inside].tocsr(), np.flatnonzero(~inside)
        block = other.indptr.astype(kind), other.indices.astype(kind), other.data, columns
        m, rest = own, {"other": block, "first_column": part.start}
    given = RowsOnGrid(m.indptr.astype(kind), m.indices.astype(kind), m.data, (1, 1, m.shape[1]), **rest)
    graph = np.full((m.shape[0], 8), 77, np.int32)
    return graph, *CsrRows(given, threads).couplings(graph)


def neighbours(graph: np.ndarray) -> list[set[int]]:
    return [set(row[row >= 0].tolist()) for row in graph[:, :6]]


def expected(m: sp.csr_matrix) -> list[set[int]]:
    """Of the columns that a row is coupled to."""
    coupled = m.data != 0
    found = [set(m.indices[a:b][coupled[a:b]].tolist()) for a, b in zip(m.indptr[:-1], m.indptr[1:], strict=True)]
    return [row - {number} for number, row in enumerate(found)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 40)),
    st.floats(0.0, 0.3),
    st.sampled_from(sorted(ORDERS)),
    st.booleans(),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@example((1, 1, 9), 0.28924051816091073, "red-black", False, 3, False, 320098980)  # as many strands as rows
def test_strands_are_the_rows(
    shape: tuple[int, int, int], holes: float, order: str, wide: bool, threads: int, split: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    active = rng.random(shape) >= holes
    rows = int(active.sum())
    if rows < 2:
        return
    m = matrix(lattice(active, ORDERS[order](active, rng)), rows)
    m.data[rng.random(m.nnz) < 0.03] = 0  # stored zeros, on the diagonal as well
    m.data[rng.integers(m.nnz)] = -0.0
    part = slice(rows // 3, rows) if split else None
    graph, entries, crowded, _ = told(m, threads, wide, part)
    given = told_by(graph, entries)
    expand(given, threads)
    assert crowded == -1 and given.entries == len(graph) and (graph[:, 6:] == -1).all()
    assert neighbours(graph) == expected(m)[part or slice(None)]


@pytest.mark.parametrize("threads", [1, 2])
def test_cells_are_those_of_a_graph_that_is_told_row_by_row(threads: int) -> None:
    """Lexicographic rows with holes, lines that begin and end anywhere, thin walls, rows without couplings."""
    rng = np.random.default_rng(4)
    active = rng.random((7, 30, 60)) >= 0.03
    active[:, 10:14, 20:30] = active[3, :, :7] = False
    rows = int(active.sum())
    edges = lattice(active)
    edges = edges[rng.random(len(edges)) > 0.01]
    m = matrix(edges, rows)
    graph, entries, _, one_way = told(m, threads, False)
    assert one_way == 0 and entries < 0.7 * rows
    by_row = graph.copy()
    expand(told_by(by_row, entries))
    found, one_by_one = search(graph, False, threads, entries), search(by_row, False, threads)
    assert found.shape == one_by_one.shape and (found.cells == one_by_one.cells).all() and found.guesses == 0
    z, y, x = np.unravel_index(found.cells, found.shape)
    assert (sum(abs(p[edges[:, 0]] - p[edges[:, 1]]) for p in (z, y, x)) == 1).all()


def beside_each_other(found: Embedding, edges: np.ndarray) -> bool:
    """Whether all rows have cells of their own, and coupled rows such that share a face."""
    place = np.stack(np.unravel_index(found.cells, found.shape))
    apart = np.abs(place[:, edges[:, 0]] - place[:, edges[:, 1]]).sum(axis=0)
    return np.unique(found.cells).size == found.cells.size and bool((apart == 1).all())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.sampled_from([1, 1, 2, 4]), st.integers(1, 6), st.integers(8, 30)),
    st.floats(0.0, 0.2),
    st.floats(0.0, 0.2),
    st.floats(0.0, 0.9),
    st.integers(1, 2),
    st.integers(0, 2**32 - 1),
)
def test_rows_in_order_with_holes_and_thin_walls(
    shape: tuple[int, int, int], holes: float, closed: float, thin: float, threads: int, seed: int
) -> None:
    """Strands run on where the rows that they lie above are lines apart; the upper half has fewer cells."""
    rng = np.random.default_rng(seed)
    active = rng.random(shape) >= holes
    active[shape[0] // 2 + 1 :] &= rng.random(active[shape[0] // 2 + 1 :].shape) >= thin
    edges = lattice(active)
    across = edges[:, 1] == edges[:, 0] + 1
    edges = edges[rng.random(len(edges)) >= np.where(across, closed, 0.1 * closed)]
    if len(edges):
        graph, entries, _, _ = told(matrix(edges, int(active.sum())), threads, False)
        assert beside_each_other(search(graph, False, threads, entries), edges)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lower", [(10, 10, 10), (1, 28, 1)])
def test_a_strand_above_lines_that_hang_on_it_alone(lower: tuple[int, int, int], threads: int) -> None:
    """One line over three that are not coupled to each other: where the couplings repeat, each is found all the same,
    in one pass that need not be told row by row.
    """
    ends = np.cumsum(lower)
    edges = lattice(np.ones((1, 2, 30), bool))
    edges = edges[~np.isin(edges[:, 1], ends[:2]) | (edges[:, 1] != edges[:, 0] + 1)]
    graph, entries, _, _ = told(matrix(edges, 60), threads, False)
    swept = told_by(graph, entries)
    found = _search(swept, threads)
    assert swept.entries == entries < 60
    assert found.shape == (1, 2, 30) and (found.cells == np.arange(60)).all()


def test_parts_whose_lines_alternate() -> None:
    """A thin wall through all planes: each line has rows of both parts."""
    edges = lattice(np.ones((3, 8, 20), bool))
    edges = edges[(edges[:, 0] % 20 != 8) | (edges[:, 1] != edges[:, 0] + 1)]
    graph, entries, _, _ = told(matrix(edges, 480), 1, False)
    swept = told_by(graph, entries)
    found = _search(swept)
    assert swept.entries == entries and found.components == 2 and beside_each_other(found, edges)


def test_a_row_that_the_order_alone_would_put_into_a_cell_that_is_taken() -> None:
    """Its one neighbour is below, but not coupled to the row beside it, so that it looks as if it came next."""
    edges = lattice(np.ones((1, 3, 3), bool))
    edges = np.append(edges[(edges != (5, 8)).any(axis=1)], [[5, 9]], axis=0)
    graph, entries, _, _ = told(matrix(edges, 10), 1, False)
    assert beside_each_other(search(graph, False, 1, entries), edges)


def test_a_coupling_that_one_row_alone_has_is_noticed() -> None:
    """Wherever it is, whether strands break there or not; the sum over ranks is what counts."""
    rng = np.random.default_rng(5)
    m = matrix(lattice(np.ones((4, 8, 20), bool)), 640)
    assert told(m, 2, False)[3] == 0
    off = np.flatnonzero(m.data < 0)
    for entry in rng.choice(off, 20):
        one = m.copy()
        one.data[entry] = 0
        assert told(one, 2, False)[3] != 0
    shifted = m.tolil()
    shifted[100, 99], shifted[100, 98] = 0, -1  # as many couplings as before
    assert told(shifted.tocsr(), 1, False)[3] != 0
    parts = [told(m, 2, wide, part)[3] for wide in (False, True) for part in (slice(0, 250), slice(250, 640))]
    assert parts[0] != 0 and sum(parts[:2]) % 2**64 == sum(parts[2:]) % 2**64 == 0


def test_rows_with_more_than_six_are_named() -> None:
    m = matrix(lattice(np.ones((3, 6, 30), bool)), 540).tolil()
    m[333, [1, 2, 3, 4, 5, 6, 7]] = -1.0
    for threads in (1, 2):
        assert told(m.tocsr(), threads, False)[2] == 333


def test_a_line_over_two_that_lie_elsewhere_is_no_line() -> None:
    """Rows that repeat each other although those that they are coupled to do not follow each other."""
    line = np.arange(80) + 27
    lower, upper = line[:40], line[40:]
    over = line + 80
    pairs = [(part[:-1], part[1:]) for part in (lower, upper, over)] + [(lower, upper), (line, over)]
    edges = np.concatenate([lattice(np.ones((3, 3, 3), bool)), *(np.stack(pair, axis=1) for pair in pairs)])
    graph, entries, _, _ = told(matrix(edges, 187), 1, False)
    assert entries < 187
    try:
        found = search(graph, False, 1, entries)
    except GridError:
        return
    place = np.stack(np.unravel_index(found.cells, found.shape))
    assert (np.abs(place[:, edges[:, 0]] - place[:, edges[:, 1]]).sum(axis=0) == 1).all()
