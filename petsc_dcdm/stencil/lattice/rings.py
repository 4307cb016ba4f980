"""Rows in lexicographic order whose grid lines along x are closed to rings, with rows for some of the cells only.

Ocean models number wet cells so. The search (native/src/lattice/) knows no rings: here couplings round the ends of
lines are told from others and taken off the graph, and checked when the cells are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from petsc_dcdm.grid.errors import GridError
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.stencil.forms.row_scaling import spanning_forest
from petsc_dcdm.stencil.lattice.binding import WORDS

SIDES = WORDS - 2


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

    graph: as for the search, each coupling in both of its rows; a copy of it is searched, as often as that takes.
    """
    beside = graph[:, :SIDES]
    length, cut = _round_the_ends(beside)
    while cut[0].size:
        try:
            found = search(_without(graph, cut))
        except GridError:
            return None
        placed = _settle(beside, cut, found, length)
        if isinstance(placed, Embedding):
            return placed
        if placed[0].size == cut[0].size:
            return None
        cut = placed
    return None


def _round_the_ends(beside: np.ndarray) -> tuple[int, Edges]:
    """The number of cells of a ring, and the couplings that may go round its ends: all that do, and some along y or z.

    Rows that are coupled to the next one are on a line with it; where the last one of them is coupled to the first, this
    is a ring. Of other lines parts have no rows.
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
    return length, (low[may], high[may])


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


def _settle(beside: np.ndarray, cut: Edges, found: Embedding, length: int) -> Embedding | Edges:
    """What was found, if the couplings that were cut are between neighbours; else those of them that go round."""
    nz, ny, nx = found.shape
    place = np.stack([found.cells % nx, found.cells // nx % ny, found.cells // (nx * ny)])
    low, high = cut
    apart = place[:, high] - place[:, low]
    near = np.abs(apart).sum(axis=0) == 1
    around = (apart[0] == length - 1) & (apart[1:] == 0).all(axis=0)
    if (near | around).all() and nx == length:
        return found
    return low[around], high[around]
