"""Cells for the rows of a graph: whatever their order, coupled rows share a face and no two have one cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petsc_dcdm.grid.errors import GridError
from petsc_dcdm.stencil.lattice.search import Embedding, box_of, search


def graph(edges: np.ndarray, rows: int, one_way: bool = False) -> np.ndarray:
    """As the compiled reader of a matrix tells it: int32 [rows, 8]."""
    made = np.full((rows, 8), -1, np.int32)
    count = np.zeros(rows, int)
    for a, b in edges if one_way else np.concatenate([edges, edges[:, ::-1]]):
        made[a, count[a]] = b
        count[a] += 1
    return made


def lattice(active: np.ndarray, number: np.ndarray | None = None) -> np.ndarray:
    """The couplings [edges, 2] of neighbouring active cells; ``number``: the row of each active cell."""
    row = np.full(active.shape, -1)
    row[active] = np.arange(active.sum()) if number is None else number
    edges = []
    for axis in range(3):
        low, high = np.moveaxis(row, axis, 0)[:-1].ravel(), np.moveaxis(row, axis, 0)[1:].ravel()
        both = (low >= 0) & (high >= 0)
        edges.append(np.stack([low[both], high[both]], axis=1))
    return np.concatenate(edges)


def find(edges: np.ndarray, rows: int) -> Embedding:
    """Searches, and checks what is found edge by edge."""
    found = search(graph(edges, rows), one_way=False)
    nz, ny, nx = found.shape
    assert np.unique(found.cells).size == rows and found.cells.min() >= 0 and found.cells.max() < nz * ny * nx
    place = np.stack([found.cells // (nx * ny), found.cells // nx % ny, found.cells % nx])
    assert (np.abs(place[:, edges[:, 0]] - place[:, edges[:, 1]]).sum(axis=0) == 1).all()
    return found


ORDERS = {
    "lexicographic": lambda active, rng: None,
    "z fastest": lambda active, rng: np.argsort(np.lexsort(np.nonzero(active)[::1])),
    "backwards": lambda active, rng: np.arange(active.sum())[::-1],
    "red-black": lambda active, rng: np.argsort(np.argsort(sum(np.nonzero(active)) % 2, kind="stable")),
    "halves": lambda active, rng: np.argsort(np.argsort(np.nonzero(active)[2] >= active.shape[2] // 2, kind="stable")),
    "random": lambda active, rng: rng.permutation(active.sum()),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 9, 12), (1, 1, 11), (2, 2, 9), (5, 1, 4)])
def test_a_whole_box_is_found_as_it_is(shape: tuple[int, int, int], order: str) -> None:
    active = np.ones(shape, bool)
    number = ORDERS[order](active, np.random.default_rng(0))
    found = find(lattice(active, number), active.size)
    assert sorted(found.shape) == sorted(shape) and found.components == 1 and found.guesses == 0
    if order == "lexicographic":
        assert (np.diff(found.cells) == 1).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    st.floats(0.0, 0.25),
    st.sampled_from(sorted(ORDERS)),
    st.integers(0, 2**32 - 1),
)
def test_boxes_with_holes(shape: tuple[int, int, int], holes: float, order: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    active = rng.random(shape) >= holes
    if not active.any():
        return
    find(lattice(active, ORDERS[order](active, rng)), int(active.sum()))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.floats(0.3, 0.7), st.booleans(), st.integers(0, 2**32 - 1))
def test_sparse_ones_are_found_or_refused(holes: float, flat: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    active = rng.random((1, 12, 12) if flat else (5, 6, 6)) >= holes
    rows = int(active.sum())
    try:
        find(lattice(active, rng.permutation(rows)), rows)
    except GridError as error:
        assert "could not be given cells" in str(error) and "-pc_dcdm_cells FILE" in str(error)


def test_holes_in_lexicographic_order_take_no_guess() -> None:
    """However many: the order tells all. Every piece keeps its extent, so that the grid is hardly larger."""
    for holes in (0.1, 0.3):
        active = np.random.default_rng(1).random((12, 14, 16)) >= holes
        found = find(lattice(active), int(active.sum()))
        assert found.guesses == 0 and np.prod(found.shape) < 1.35 * active.size


def test_faces_may_be_closed() -> None:
    """Neighbours without a coupling, as beside a thin wall: a whole one, and single faces."""
    rng = np.random.default_rng(2)
    active = np.ones((8, 9, 10), bool)
    number = rng.permutation(active.size)
    edges = lattice(active, number)
    column = np.empty(active.size, int)
    column[number] = np.arange(active.size) % 10
    wall = (column[edges].min(axis=1) == 4) & (column[edges].max(axis=1) == 5)
    for open_ in (~wall, rng.random(len(edges)) > 0.03):
        found = find(edges[open_], active.size)
        assert np.prod(found.shape) < 1.5 * active.size


def test_components_lie_side_by_side() -> None:
    """Two models numbered one behind the other, a thin one, and 300 rows with no couplings, all in one order."""
    rng = np.random.default_rng(3)
    parts, first = [], 0
    for shape in ((6, 8, 9), (6, 8, 9), (1, 5, 7)):
        parts.append(lattice(np.ones(shape, bool)) + first)
        first += int(np.prod(shape))
    edges, rows = np.concatenate(parts), first + 300
    for number in (np.arange(rows), rng.permutation(rows)):
        found = find(number[edges], rows)
        assert found.components == 3 and np.prod(found.shape) < 1.6 * rows
        taken = np.zeros(np.prod(found.shape), int)
        taken[found.cells[number[:first]]] = 1 + np.repeat([0, 1, 2], [432, 432, 35])
        taken = taken.reshape(found.shape)
        for axis in range(3):
            low, high = np.moveaxis(taken, axis, 0)[:-1], np.moveaxis(taken, axis, 0)[1:]
            assert ((low == high) | (low == 0) | (high == 0)).all(), "components touch"


def test_many_small_components_make_no_large_grid() -> None:
    pairs = np.arange(4000).reshape(2000, 2)
    found = find(pairs, 4000)
    assert found.components == 2000 and np.prod(found.shape) < 6 * 4000 and max(found.shape) < 200
    assert search(graph(np.zeros((0, 2), int), 7), one_way=False).cells.max() < 9


def test_a_plane_stays_a_plane() -> None:
    active = np.random.default_rng(5).random((1, 20, 25)) >= 0.15
    rows = int(active.sum())
    number = np.random.default_rng(6).permutation(rows)
    assert find(lattice(active, number), rows).shape[0] == 1


def test_couplings_stored_in_one_row_only() -> None:
    """As those to Dirichlet rows, of which MatZeroRows leaves the diagonal."""
    edges = lattice(np.ones((4, 5, 6), bool))
    found = search(graph(edges, 120, one_way=True), one_way=True)
    assert found.shape == (4, 5, 6) and (found.cells == np.arange(120)).all()


RING = np.array([[i, (i + 1) % 5] for i in range(5)])


@pytest.mark.parametrize(
    "edges, rows, message",
    [
        (np.array([[0, 5], [5, 9], [9, 0]]), 10, r"row \d has no place beside"),
        (2 * RING % 5, 5, r"row \d has no place beside|rows \d and \d clash"),
        (np.array([[a, b] for a in (0, 1) for b in (2, 3, 4)]), 5, r"no place|clash"),
        (np.array([[0, b] for b in range(1, 7)] + [[7, 0]]), 8, "row 0 of the 8 rows is coupled to more than six"),
    ],
    ids=["triangle", "ring", "three between two", "crowded"],
)
def test_what_has_no_place_is_refused(edges: np.ndarray, rows: int, message: str) -> None:
    one_way = "crowded" if rows == 8 else ""
    with pytest.raises(GridError, match=message):
        search(graph(edges, rows, one_way=bool(one_way)), one_way=bool(one_way))


def test_boxes_of_cells() -> None:
    cells = np.arange(60).reshape(3, 4, 5)
    assert box_of(cells[1:, 1:3, 2:].ravel(), (3, 4, 5)) == ((1, 1, 2), (2, 2, 3))
    assert box_of(cells[1:, 1:3, 2:].ravel()[::-1], (3, 4, 5)) is None
    swapped = cells.ravel().copy()
    swapped[[7, 8]] = 8, 7
    assert box_of(swapped, (3, 4, 5)) is None and box_of(cells.ravel(), (3, 4, 5)) == ((0, 0, 0), (3, 4, 5))
