"""The split of a grid into one box per rank: index geometry only, no communication.

Box edges are multiples of the coarse cells of the coarsening plan (except at the high end of the grid), so that
restriction and prolongation never leave a box and every level of the hierarchy is split the same way. On
grids with fewer coarse planes than ranks some boxes are empty. Where most cells have no row, boxes may be cut so that
they have as many rows as each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

Cuts = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Of the axes (z, y, x), each from 0 to its size."""


MOVED = 0.2
"""What it costs to move vectors between a row and its cell on another rank, in times of all the work on a cell."""


@dataclass(frozen=True)
class BoxPartition:
    """A tensor-product split of a grid (z, y, x). ``edges[i]`` are the cuts of array axis i, from 0 to its size.

    The boxes are numbered x fastest and lie on the ranks ``holders``, in increasing order; without it box i is on rank
    i. All other ranks have an empty box. Along the axes (z, y, x) that are ``periodic`` the first cell is the high
    neighbour of the last one.
    """

    shape: Shape
    edges: Cuts
    holders: tuple[int, ...] | None = None
    periodic: Periodic = NOT_PERIODIC

    @property
    def procs(self) -> Shape:
        pz, py, px = (len(e) - 1 for e in self.edges)
        return pz, py, px

    def position(self, rank: int) -> Shape | None:
        """Where the rank's box is among the boxes, (z, y, x); None if it has none."""
        pz, py, px = self.procs
        number = self._number(rank)
        return None if number is None else (number // (py * px), number // px % py, number % px)

    def _number(self, rank: int) -> int | None:
        """Which box the rank has."""
        if self.holders is None:
            return rank if rank < prod(self.procs) else None
        return self.holders.index(rank) if rank in self.holders else None

    def box(self, rank: int) -> tuple[Shape, Shape]:
        """Offset and shape of the rank's box; shape (0, 0, 0) if it is empty."""
        position = self.position(rank)
        if position is None:
            return (0, 0, 0), (0, 0, 0)
        low = [e[p] for e, p in zip(self.edges, position, strict=True)]
        high = [e[p + 1] for e, p in zip(self.edges, position, strict=True)]
        return (low[0], low[1], low[2]), (high[0] - low[0], high[1] - low[1], high[2] - low[2])

    def neighbour(self, rank: int, array_axis: int, step: int) -> int:
        """The rank behind the low (step -1) or high (+1) face of the box, or -1. Along a periodic axis there is one:
        the rank itself where its box is as long as the axis.
        """
        position = self.position(rank)
        if position is None:
            return -1
        there = list(position)
        there[array_axis] += step
        if self.periodic[array_axis]:
            there[array_axis] %= self.procs[array_axis]
        if not 0 <= there[array_axis] < self.procs[array_axis]:
            return -1
        _, py, px = self.procs
        number = (there[0] * py + there[1]) * px + there[2]
        return number if self.holders is None else self.holders[number]

    def locate(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rank that has each global cell, and where the cell lies in that rank's box, x fastest."""
        _, ny, nx = self.shape
        index, position, length = [], [], []
        for edges, at in zip(self.edges, (cells // (ny * nx), cells // nx % ny, cells % nx), strict=True):
            cuts = np.asarray(edges)
            part = np.searchsorted(cuts, at, side="right") - 1
            index.append(at - cuts[part])
            position.append(part)
            length.append(np.diff(cuts)[part])
        _, py, px = self.procs
        number = (position[0] * py + position[1]) * px + position[2]
        rank = number if self.holders is None else np.asarray(self.holders)[number]
        return rank, (index[0] * length[1] + index[1]) * length[2] + index[2]


def alignment(plan: Sequence[Sequence[int]]) -> Shape:
    """Cells of the finest grid in a cell of the coarsest one, (z, y, x)."""
    z, y, x = (2 ** sum(axis in axes for axes in plan) for axis in (2, 1, 0))
    return z, y, x


def units_of(shape: Shape, plan: Sequence[Sequence[int]]) -> Cuts:
    """All cuts (z, y, x) that boxes may have, the ends included."""
    z, y, x = ((*range(0, n, u), n) for n, u in zip(shape, alignment(plan), strict=True))
    return z, y, x


def _cut(cells: int, parts: int, unit: int, rows: Sequence[int] | None = None) -> tuple[int, ...]:
    """Even cuts of an axis at multiples of ``unit``; fewer parts where there are fewer units. With ``rows``, of each
    unit, their number is as even as units allow.
    """
    units = -(-cells // unit)
    parts = min(parts, units)
    if rows is None or not sum(rows):
        return tuple(min(cells, unit * (units * i // parts)) for i in range(parts + 1))
    before = np.concatenate(([0], np.cumsum(rows)))
    cuts = [0]
    for i in range(1, parts):
        first, last = cuts[-1] + 1, units - (parts - i)
        even = np.abs(before[first : last + 1] * parts - before[-1] * i)
        cuts.append(first + int(even.argmin()))
    return (*(unit * c for c in cuts), cells)


def _snap(edges: Sequence[int], cells: int, unit: int) -> tuple[int, ...]:
    """Given cuts moved to the nearest multiple of ``unit``; cuts that fall together are merged."""
    inner = {min(cells, round(e / unit) * unit) for e in edges[1:-1]}
    return tuple(sorted(inner | {0, cells}))


def _largest_share(cuts: Sequence[int], unit: int, rows: Sequence[int]) -> float:
    """Of the rows, in a part of an axis."""
    return float(np.add.reduceat(rows, [c // unit for c in cuts[:-1]]).max() / sum(rows))


def partition(
    shape: Shape,
    ranks: int,
    plan: Sequence[Sequence[int]],
    hint: Sequence[Sequence[int]] | None = None,
    holders: Sequence[int] | None = None,
    periodic: Periodic = NOT_PERIODIC,
    rows: Sequence[Sequence[int]] | None = None,
) -> BoxPartition:
    """The boxes of ``ranks`` ranks, or of those among them that are ``holders`` (increasing).

    Parameters
    ----------
    hint
        cuts (z, y, x) that the rows of the matrix already have (a DMDA's); they are moved to the alignment of
        ``plan`` and used if that leaves a box to every rank. Otherwise the split has the smallest surface.
    rows
        how many of them there are between each cut of `units_of` and the next, (z, y, x): boxes are to be even in rows
        rather than in cells.
    """
    if holders is not None and len(holders) < ranks:
        boxes = partition(shape, len(holders), plan, rows=rows)
        return BoxPartition(shape, boxes.edges, tuple(holders[: prod(boxes.procs)]), periodic)
    unit = alignment(plan)
    if hint is not None:
        z, y, x = (_snap(e, n, u) for e, n, u in zip(hint, shape, unit, strict=True))
        if all(len(snapped) == len(given) for snapped, given in zip((z, y, x), hint, strict=True)):
            return BoxPartition(shape, (z, y, x), periodic=periodic)

    everywhere = prod(shape)
    full = sum(rows[0]) / everywhere if rows else 1.0

    def cuts_for(procs: Shape) -> list[tuple[int, ...]]:
        return [_cut(n, p, u, r) for n, p, u, r in zip(shape, procs, unit, rows or (None, None, None), strict=True)]

    def cost(procs: Shape) -> tuple[int, float, tuple[int, int]]:
        """Ranks in use first; then the cells of the largest box, a cell of its surface counting twice; then long
        rows. Of boxes that are to be even in rows their number is that of a product of the shares along each axis, and
        rows on another rank count, as a rule those that no cut along z brings there.
        """
        cuts = cuts_for(procs)
        box = [max(b - a for a, b in zip(c, c[1:], strict=False)) for c in cuts]
        area = sum(prod(box) // box[i] for i in range(3) if procs[i] > 1)
        cells: float = prod(box)
        if rows and full:
            shares = [_largest_share(c, u, r) for c, u, r in zip(cuts, unit, rows, strict=True)]
            away = 1 - 1 / (procs[1] * procs[2])
            cells = everywhere * full * (prod(shares) + MOVED * away / prod(procs))
        return -prod(len(c) - 1 for c in cuts), cells + 2 * area * full, (procs[2], procs[1])

    divisors = [d for d in range(1, ranks + 1) if ranks % d == 0]
    candidates = [(a, b, ranks // (a * b)) for a, b in product(divisors, divisors) if ranks % (a * b) == 0]
    best = min(candidates, key=cost)
    z, y, x = cuts_for(best)
    return BoxPartition(shape, (z, y, x), periodic=periodic)
