"""Between the rows of a PETSc vector and the boxes of the grid: built once, used at every apply.

Where every rank's rows are its box in order (one rank with one row per cell; a DMDA whose cuts suit the coarsening)
nothing is copied: the box is a view of the vector's memory. Elsewhere values move in runs, pieces of a grid line whose
rows follow each other: of a DMDA these are whole lines. Where they are single cells, of rows in no order, and all on
one rank, values move one by one. Ranks that share a box each copy their own rows to it and from it.
"""

from __future__ import annotations

import functools
from functools import partial
from math import prod

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import BoxPartition, partition, units_of
from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.layout import Plan
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.build import have_kernels
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Team, Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.runs import SHORT, breaks_of, copy_rows, copy_runs, joined, lines_of_cells

TAG = 6
"""Of the messages here; those of halos are lower."""

SAMPLE = 1 << 14
"""Cells for each box of which one is looked at where boxes are to have as many rows as each other."""


class RowMap:
    """Moves values between the rows as PETSc distributes them and this rank's box."""

    def __init__(
        self, grid: Grid, boxes: BoxPartition, comm: MPI.Intracomm, threads: int, team: Workers = ONE_RANK
    ) -> None:
        """Collective. ``comm`` is kept and must carry no other messages with the tag TAG. ``team``: who works on the
        box, which its leader has.
        """
        rank = comm.Get_rank()
        own = boxes.box(rank)
        self.shape = own[1]
        self.cells = prod(grid.shape)  # of the grid: where rows are as many they fill every box
        self._team, leader = team, team.share(rank)
        self._whole = self.shape if leader == rank else boxes.box(leader)[1]
        self._rows, self._threads, self._comm = grid.rows, threads, comm
        self._buffer = np.zeros(0)
        alone = team.ranks == 1
        kinds = own == grid.box and alone, grid.box is not None and team.ranks == comm.Get_size() > 1
        lacking = over_all(comm, np.array([not kind for kind in kinds], float), op=MPI.MAX)
        self._in_place, boxed = (not lacks for lacks in lacking.tolist())
        self._places = None
        if self._in_place:
            return
        self._own = self._lines = np.zeros((0, 3), np.int64)
        self._sends, self._receives = (_no_messages(comm.Get_size()),) * 2
        if boxed:  # every line of the rows is one of the leader's box
            assert grid.box is not None
            self._lines, self._own = _in_whole(grid.box, grid.shape)
            return
        found = None
        if comm.Get_size() in (1, team.ranks) and grid.box is None and grid.cells is not None:
            found = lines_of_cells(grid.cells, grid.shape[2])
        if over_all(comm, found is not None, op=MPI.LAND):  # all rows are in the leader's box, which is the grid
            assert found is not None
            self._lines, self._own = found
            in_order = alone and grid.rows == prod(self.shape)
            self._in_place = in_order and bool((self._lines[:, 0] == self._lines[:, 1]).all())
            return
        breaks = None if grid.cells is None or grid.box is not None else breaks_of(grid.cells)
        if comm.Get_size() == 1 and breaks is not None and SHORT * (1 + breaks.size) > grid.rows and have_kernels():
            self._places = grid.cells
            return
        row, cell, length = _runs(grid, boxes, breaks)
        owner, place = boxes.locate(cell)
        here = owner == leader
        in_order = alone and grid.rows == prod(self.shape) and bool((here & (row == place)).all())
        everywhere = np.empty(2, np.int64)
        comm.Allreduce(np.array([here.all(), in_order], np.int64), everywhere, op=MPI.MIN)
        self._in_place = bool(everywhere[1])
        if not self._in_place:
            self._lines = np.stack([row[here], place[here], length[here]], axis=1)
            self._own = joined(self._lines)
        if everywhere[0]:
            return
        away = np.flatnonzero(~here)
        away = away[np.argsort(owner[away], kind="stable")]
        counts = np.bincount(owner[away], minlength=comm.Get_size())
        self._sends = _Messages(np.stack([row[away], length[away]], axis=1), counts)
        theirs = np.empty_like(counts)
        comm.Alltoall(counts, theirs)
        places = np.empty((int(theirs.sum()), 2), np.int64)
        sent = np.ascontiguousarray(np.stack([place[away], length[away]], axis=1))
        comm.Alltoallv([sent, 2 * counts, MPI.INT64_T], [places, 2 * theirs, MPI.INT64_T])
        self._receives = _Messages(places, theirs)

    @property
    def copies(self) -> bool:
        """Whether values are copied on the way, False when the box is the vector's own memory."""
        return not self._in_place

    def to_box(self, vec: PETSc.Vec, box: np.ndarray | None = None) -> np.ndarray:
        """The vector's values on this rank's box, float64 (nz, ny, nx). Collective.

        Where values are copied they go to ``box``, and what has no row there is left as it is. Without one, the array
        is a view of the vector or of a buffer, 0 where there is no row, that the next call overwrites: read it at once,
        do not write.
        """
        values = vec.getArray(readonly=True)
        if self._in_place:
            return values.reshape(self.shape)
        if box is None:
            if not self._buffer.size:
                self._buffer = self._team.zeros(prod(self.shape), np.float64)
            box = self._buffer.reshape(self.shape)
        self._move(values, self._shared(box), self._own, self._sends, self._receives)
        return box

    def room(self) -> np.ndarray:
        """An array of this rank's box, float64 (nz, ny, nx), of whatever it holds. Not collective."""
        if self._team.ranks == 1:
            return np.empty(self.shape)
        return self._team.zeros(prod(self.shape), np.float64).reshape(self.shape)

    def from_box(self, box: np.ndarray, vec: PETSc.Vec) -> None:
        """Write the box's values into the rows of ``vec``. Collective."""
        with vec as values:
            if self._in_place:
                values[:] = box.ravel()
            else:
                source = self._shared(np.ascontiguousarray(box))
                self._move(source, values, self._own, self._receives, self._sends, back=True)

    def fill(self, values: np.ndarray, padded: np.ndarray) -> None:
        """Values of the rows, of any type, into the box inside of a C-contiguous padded array. Collective."""

        def inside(place: np.ndarray) -> np.ndarray:
            _, ny, nx = self._whole
            return (place // (ny * nx) + 1) * ((ny + 2) * (nx + 2)) + (place // nx % ny + 1) * (nx + 2) + place % nx + 1

        if self._in_place:
            interior(padded)[...] = values.reshape(self.shape)
            return
        if self._places is not None:
            copy_rows(inside(self._places), values, padded.reshape(-1), self._threads)
            return
        own, receives = self._lines.copy(), self._receives.copy()
        for runs, column in ((own, 1), (receives.runs, 0)):
            if runs.size:
                runs[:, column] = inside(runs[:, column])
        self._move(values, self._shared(padded, 2), own, self._sends, receives)

    def _shared(self, box: np.ndarray, more: int = 0) -> np.ndarray:
        """One-dimensional, an array of this rank's box, that is ``more`` cells longer along each axis; on all ranks of
        a team that of the one who leads, where the others see it. Collective.
        """
        team = self._team
        if not isinstance(team, Team):
            return box.reshape(-1)
        address = team.share(address_of(box))
        size = prod(n + more for n in self._whole)
        return team.memory.at(address, size, box.dtype)

    def _move(
        self,
        source: np.ndarray,
        target: np.ndarray,
        own: np.ndarray,
        sends: _Messages,
        receives: _Messages,
        back: bool = False,
    ) -> None:
        """Runs from ``source`` to ``target``, on this rank and between ranks; ``back``: from the box to the rows."""
        if self._places is not None:
            copy_rows(self._places, source, target, self._threads, back)
            return
        if not sends.values and not receives.values:
            copy_runs(own, source, target, self._threads, back)
            self._team.meet()
            return
        incoming, outgoing = (np.empty(m.values, source.dtype) for m in (receives, sends))
        requests = [self._comm.Irecv(incoming[part], rank, TAG) for rank, part in receives.parts]
        copy_runs(sends.packing, source, outgoing, self._threads)
        requests += [self._comm.Isend(outgoing[part], rank, TAG) for rank, part in sends.parts]
        copy_runs(own, source, target, self._threads, back)
        MPI.Request.Waitall(requests)
        copy_runs(receives.packing, incoming, target, self._threads, back=True)
        self._team.meet()


_partition = functools.lru_cache(partition)
"""The same for the same arguments: a system often is on the grid of the one before."""


def boxes_of(
    grid: Grid, comm: MPI.Intracomm, plan: Plan, holders: tuple[int, ...] | None, periodic: Periodic
) -> BoxPartition:
    """One box for each rank, or for each of the ``holders``. Rows that are boxes on all ranks are not moved for the
    sake of an even split; others have to be moved as it is, and their number is even. Collective.
    """
    split = partial(_partition, grid.shape, comm.Get_size(), plan, grid.edges, holders, periodic)
    count = len(holders or range(comm.Get_size()))
    if count == 1 or not over_all(comm, grid.box is None, op=MPI.LOR):
        return split()
    cuts = units_of(grid.shape, plan)
    places = _some_cells(grid, max(1, prod(grid.shape) // (SAMPLE * count)))
    rows = np.concatenate(
        [np.histogram(place, np.asarray(edges))[0] for place, edges in zip(places, cuts, strict=True)]
    ).astype(np.int64)
    comm.Allreduce(MPI.IN_PLACE, rows)
    return split(tuple(tuple(part.tolist()) for part in np.split(rows, np.cumsum([len(c) - 1 for c in cuts[:-1]]))))


def _some_cells(grid: Grid, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where (z, y, x) the cells of one in ``step`` of this rank's rows are; at no regular distance, which lines of the
    grid might have as well.
    """
    first = np.arange(0, grid.rows, step)
    row = np.minimum(first + (first // step * 2654435761 >> 12) % step, grid.rows - 1)
    cell = grid.first + row if grid.cells is None else grid.cells[row]
    _, ny, nx = grid.shape
    return cell // (ny * nx), cell // nx % ny, cell % nx


class _Messages:
    """Runs of places (begin, length) that go to other ranks or come from there, rank by rank."""

    def __init__(self, runs: np.ndarray, counts: np.ndarray) -> None:
        """``counts``: how many of the runs belong to each rank."""
        self.runs, self._counts = runs, counts
        ends = np.concatenate(([0], np.cumsum(runs[:, 1])))
        self._begin = ends[:-1]
        self.values = int(ends[-1])
        cuts = ends[np.concatenate(([0], np.cumsum(counts)))]
        self.parts = [(int(rank), slice(cuts[rank], cuts[rank + 1])) for rank in np.flatnonzero(counts)]

    @property
    def packing(self) -> np.ndarray:
        """Runs (place, where in the messages, length)."""
        return np.stack([self.runs[:, 0], self._begin, self.runs[:, 1]], axis=1)

    def copy(self) -> _Messages:
        return _Messages(self.runs.copy(), self._counts)


@functools.lru_cache(1)
def _no_messages(ranks: int) -> _Messages:
    return _Messages(np.zeros((0, 2), np.int64), np.zeros(ranks, int))


def _lines_of(box: tuple[Shape, Shape], shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lines along x of rows that are a box of the grid, in order: first row, first cell, length."""
    _, ny, nx = shape
    (z, y, x), (mz, my, mx) = box
    cell = ((np.arange(z, z + mz)[:, None] * ny + np.arange(y, y + my)) * nx + x).ravel()
    return mx * np.arange(cell.size), cell, np.full(cell.size, mx)


@functools.lru_cache(4)
def _in_whole(box: tuple[Shape, Shape], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Runs of rows that are a box of the grid to one that is all of it, by lines and joined; not to be written to."""
    lines = np.stack(_lines_of(box, shape), axis=1)
    return lines, joined(lines)


def _runs(grid: Grid, boxes: BoxPartition, breaks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of this rank's rows: first row, first cell, length; no run leaves its line of its box. ``breaks``: of the
    cells of rows that are no box.
    """
    _, ny, nx = grid.shape
    if grid.box is not None:
        row, cell, length = _lines_of(grid.box, grid.shape)
    elif grid.cells is None or breaks is None:
        row, cell, length = (np.full(int(grid.rows > 0), value) for value in (0, grid.first, grid.rows))
    else:
        first = np.zeros(min(grid.rows, 1), np.int64)
        row = np.concatenate((first, breaks))
        cell, length = grid.cells[row], np.diff(row, append=grid.rows)
    cuts = np.asarray(boxes.edges[2])

    def segment(at: np.ndarray) -> np.ndarray:
        """Number of the piece of a line that a cell is in."""
        return at // nx * (cuts.size - 1) + np.searchsorted(cuts, at % nx, side="right") - 1

    first = segment(cell)
    pieces = segment(cell + length - 1) - first + 1
    which = np.repeat(np.arange(cell.size), pieces)
    number = first[which] + np.arange(which.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    line, part = number // (cuts.size - 1) * nx, number % (cuts.size - 1)
    begin = np.maximum(cell[which], line + cuts[part])
    end = np.minimum(cell[which] + length[which], line + cuts[part + 1])
    return row[which] + begin - cell[which], begin, end - begin
