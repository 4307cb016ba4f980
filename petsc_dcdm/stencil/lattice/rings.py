"""Rows in lexicographic order whose grid lines along x are closed to rings, with rows for some of the cells only.

Ocean models number wet cells so. The search (native/src/lattice/) knows no rings: here couplings round the ends of
lines are told from others and taken off the graph, and checked when the cells are known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from petsc_dcdm.grid.errors import GridError
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.stencil.forms.row_scaling import spanning_forest
from petsc_dcdm.stencil.lattice.binding import WORDS

SIDES = WORDS - 2

SHORT = (1, 2, 4)
"""How many rows that are coupled each to the next may not be on one line, tried in turn: the two ends of a ring, with
land between them.
"""

CELLS_PER_ROW, CELLS_ANYWAY = 64, 4096
"""Most cells that a grid may have: for every row, and all the same; as in pack.c."""


@dataclass(frozen=True)
class Embedding:
    """What a search found.

    Attributes
    ----------
    shape
        (nz, ny, nx)
    cells
        int64, the cell of each row, x fastest
    components
        connected parts of more than one row
    guesses, undone
        choices that the search made, and placements it took back
    """

    shape: Shape
    cells: np.ndarray
    components: int
    guesses: int
    undone: int


Edges = tuple[np.ndarray, np.ndarray]
"""Pairs of coupled rows, the lower one first."""


def search_without_rings(graph: np.ndarray, search: Callable[[np.ndarray], Embedding]) -> Embedding | None:
    """Cells for a graph that ``search`` has none for, if rings along x stand in its way and some go all the way round.

    graph: as for the search, each coupling in both of its rows; a copy of it is searched.
    """
    beside = graph[:, :SIDES]
    for short in SHORT:
        length, cut = _round_the_ends(beside, short)
        if not cut[0].size:
            return None
        left = _without(graph, cut)
        with suppress(GridError):
            placed = _place(beside, left[:, :SIDES], cut, search(left), length)
            if placed is not None:
                return placed
    return None


def _round_the_ends(beside: np.ndarray, short: int) -> tuple[int, Edges]:
    """The number of cells of a ring, and the couplings that may go round its ends: all that do, and some along y or z.
    All of those from a row to the next are among them where up to ``short`` rows hang together so.

    Rows that are coupled to the next one are on a line with it; where the last one of them is coupled to the first,
    this is a ring. Of other lines parts have no rows.
    """
    row = np.arange(beside.shape[0], dtype=np.int32)
    following = (beside[:-1] == row[1:, None]).any(axis=1)
    begins, ends = np.append(True, ~following), np.append(~following, True)
    begin, end = np.flatnonzero(begins), np.flatnonzero(ends)
    closed = (beside[end] == begin[:, None]).any(axis=1) & (end > begin + 1)
    lengths, counts = np.unique((end - begin + 1)[closed], return_counts=True)
    if not lengths.size:
        return 0, (row[:0], row[:0])
    length = int(lengths[np.argmax(counts)])
    closed &= end - begin + 1 == length
    on_ring = np.repeat(closed, end - begin + 1)
    high, side = np.nonzero((beside >= 0) & (beside < row[:, None] - 1) & (beside > row[:, None] - length))
    low = beside[high, side]
    may = begins[low] & ends[high] & ((high - low == length - 1) | ~(on_ring[low] | on_ring[high]))
    next_ones = row[:-1][following & np.repeat(end - begin < short, end - begin + 1)[:-1]]
    return length, (np.append(low[may], next_ones), np.append(high[may], next_ones + 1))


def _without(graph: np.ndarray, cut: Edges) -> np.ndarray:
    """A copy of the graph without these couplings, on which nothing has been searched."""
    left = graph.copy()
    left[:, SIDES:] = -1
    for here, there in (cut, cut[::-1]):
        at, side = np.nonzero(left[here, :SIDES] == there[:, None])
        left[here[at], side] = -1
    touched = np.unique(np.concatenate(cut))
    rest = left[touched, :SIDES]
    left[touched, :SIDES] = np.take_along_axis(rest, np.argsort(rest < 0, axis=1, kind="stable"), axis=1)
    return left


def _place(beside: np.ndarray, left: np.ndarray, cut: Edges, found: Embedding, length: int) -> Embedding | None:
    """Cells from those that were found without the couplings that were cut: parts that hang together by these only are
    moved to where they belong. None where they fit nowhere.
    """
    nz, ny, nx = found.shape
    place = np.stack([found.cells % nx, found.cells // nx % ny, found.cells // (nx * ny)])
    high, side = np.nonzero((left >= 0) & (left < np.arange(left.shape[0])[:, None]))
    _, root = spanning_forest(left.shape[0], high, left[high, side], np.ones(high.size))
    uncoupled = beside[:, 0] < 0
    outside, groups = ~uncoupled, []
    while outside.any():
        sizes = np.bincount(root[outside])
        inside = root == np.argmax(sizes)
        _gather_parts(place, root, inside, cut, length, nz > 1)
        outside &= ~inside
        groups.append(np.flatnonzero(inside))
    if not _pack(place, groups, length) or not _beside(place, cut, length).all():
        return None
    size = place[:, ~uncoupled].max(axis=1) + 1
    cells = (place[2] * size[1] + place[1]) * length + place[0]
    taken = np.zeros(length * size[1] * size[2] + np.count_nonzero(uncoupled), bool)
    if taken.size > CELLS_ANYWAY + CELLS_PER_ROW * cells.size:
        return None
    taken[cells[~uncoupled]] = True
    if np.count_nonzero(taken) < cells.size - np.count_nonzero(uncoupled):
        return None
    cells[uncoupled] = np.flatnonzero(~taken)[: np.count_nonzero(uncoupled)]
    layer = length * (size[1] if size[2] > 1 else 1)
    slowest = max(int(-(-(cells.max() + 1) // layer)), int(size[2] if size[2] > 1 else size[1]))
    shape = (slowest, int(size[1]), length) if size[2] > 1 else (1, slowest, length)
    return Embedding(shape, cells, len(groups), found.guesses, found.undone)


def _gather_parts(
    place: np.ndarray, root: np.ndarray, inside: np.ndarray, cut: Edges, length: int, solid: bool
) -> None:
    """Adds to the rows that are ``inside`` the parts that couplings of ``cut`` tie to them, one after the other, with
    their places: round a ring, or a step along any axis, whichever leaves rows in lexicographic order. Those that have
    one such place go first.
    """
    steps = [(length - 1, 0, 0), (0, 1, 0), (1, 0, 0), *([(0, 0, 1)] if solid else [])]
    certain = True  # whether only what has one place may have it
    while True:
        grown = False
        for low, high in zip(*cut, strict=True):
            if inside[low] == inside[high]:
                continue
            here, there, sign = (low, high, 1) if inside[low] else (high, low, -1)
            part = np.flatnonzero(root == root[there])
            rows = inside.copy()
            rows[part] = True
            known = rows[cut[0]] & rows[cut[1]]
            edges = cut[0][known], cut[1][known]
            fitting: list[np.ndarray] = []
            for step, axes in product(steps, permutations(range(3))):
                trial = place.copy()
                trial[:, part] = place[list(axes)][:, part]
                trial[:, part] += (place[:, here] + sign * np.array(step) - trial[:, there])[:, None]
                if any((trial == other).all() for other in fitting):
                    continue
                if _beside(trial, edges, length).all() and _in_order(trial[:, rows], length):
                    fitting.append(trial)
            if len(fitting) == 1 or (fitting and not certain):
                place[...] = fitting[0]
                inside[part] = grown = certain = True
        if not grown and not certain:
            return
        certain = grown


def _beside(place: np.ndarray, edges: Edges, length: int) -> np.ndarray:
    """Whether the places of rows are neighbours, some round the ring."""
    apart = place[:, edges[1]] - place[:, edges[0]]
    around = (apart[0] == length - 1) & (apart[1:] == 0).all(axis=0)
    return np.asarray(around | (np.abs(apart).sum(axis=0) == 1))


def _in_order(place: np.ndarray, length: int) -> bool:
    """Whether rows with these places come in lexicographic order, on lines of so many cells."""
    x, y, z = place - place.min(axis=1, keepdims=True)
    wide = int(y.max()) + 1
    return int(x.max()) < length and bool((np.diff((z * wide + y) * length + x) > 0).all())


def _pack(place: np.ndarray, groups: list[np.ndarray], length: int) -> bool:
    """Groups of rows, the first of which has the ring, side by side on lines of so many cells, then along y; False if
    one is too long.
    """
    x = y = following = 0
    for number, rows in enumerate(groups):
        own = place[:, rows] - place[:, rows].min(axis=1, keepdims=True)
        size = own.max(axis=1) + 1
        if size[0] > length:
            return False
        if x + size[0] > length or number == 1:
            x, y = 0, following
        place[:, rows] = own + np.array([[x], [y], [0]])
        x += int(size[0]) + 1
        following = max(following, y + int(size[1]) + 1)
    return True
