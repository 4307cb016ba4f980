"""The columns of a rank's rows that other ranks own: what is known of them, asked of their owners."""

from __future__ import annotations

import functools

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import BoxPartition
from petsc_dcdm.grid.reductions import of_all, over_all
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.entries.rows import CsrRows


class Ghosts:
    """The columns of this rank's rows that are rows of other ranks: which they are, their cells, and whether they are
    Dirichlet rows. It depends on the pattern of the matrix only.
    """

    def __init__(self, A: PETSc.Mat, columns: np.ndarray, grid: Grid, team: Workers = ONE_RANK) -> None:
        """Collective. ``columns``: int64, sorted. Where all ranks are of a ``team`` its memory serves for cells."""
        self._comm, self._rows = A.getComm(), grid.rows
        self._ranges = np.asarray(A.getOwnershipRanges(), np.int64)
        self.columns = self.cells = columns
        self.flags = np.zeros(0, np.uint8)
        """Of Dirichlet rows, as they were told last."""
        if grid.edges is not None:
            self.cells = self._by_edges(grid, BoxPartition(grid.shape, grid.edges))
        elif over_all(self._comm.tompi4py(), grid.cells is not None, op=MPI.LOR):
            cells = np.arange(grid.first, grid.first + grid.rows) if grid.cells is None else grid.cells
            self.cells = self.fetch(cells) if team.ranks < self._ranges.size - 1 else self._by_team(cells, team)

    def _by_edges(self, grid: Grid, boxes: BoxPartition) -> np.ndarray:
        """int64: the cells of these columns, rows of their owners' boxes in order."""
        (nz, ny, nx), (_, py, px) = grid.shape, boxes.procs
        if px == 1 and (py == 1 or nz == 1):  # whole planes, or lines
            return self.columns
        cells = np.empty(self.columns.size, np.int64)
        ends = self.columns.searchsorted(self._ranges)
        for rank in np.flatnonzero(ends[1:] > ends[:-1]).tolist():
            (z, y, x), (_, my, mx) = boxes.box(rank)
            part = slice(ends[rank], ends[rank + 1])
            row = self.columns[part] - self._ranges[rank]
            line = row // mx
            cells[part] = row + line * (nx - mx) + line // my * ((ny - my) * nx) + ((z * ny + y) * nx + x)
        return cells

    @functools.cached_property
    def _sf(self) -> PETSc.SF:
        """Made when something is fetched: ranks that share memory may never ask for it. Collective."""
        owner = np.searchsorted(self._ranges, self.columns, side="right") - 1
        sf = PETSc.SF().create(self._comm)
        remote = np.stack([owner, self.columns - self._ranges[owner]], axis=1).astype(PETSc.IntType)
        sf.setGraph(self._rows, None, remote)
        return sf

    def dirichlet(self, flags: np.ndarray) -> np.ndarray:
        """uint8: the flags of these columns from those of everybody's rows. Collective."""
        self.flags = self.fetch(flags)
        return self.flags

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """int64 or uint8: what these columns have, from what everybody's rows have. Collective."""
        unit = MPI.INT64_T if values.dtype == np.int64 else MPI.UNSIGNED_CHAR
        found = np.empty(self.columns.size, values.dtype)
        self._sf.bcastBegin(unit, values, found, MPI.REPLACE)
        self._sf.bcastEnd(unit, values, found, MPI.REPLACE)
        return found

    def _by_team(self, values: np.ndarray, team: Workers) -> np.ndarray:
        """int64: as `fetch`. Collective."""
        size, first = int(self._ranges[-1]), int(self._ranges[self._comm.getRank()])
        everybody = team.seen(team.room(size if team.leads else 0, np.int64, sparse=True), size)
        for begin, end in self.asked_for:
            everybody[first + begin : first + end] = values[begin:end]
        team.meet()
        found: np.ndarray = everybody[self.columns]
        team.meet()
        return found

    @functools.cached_property
    def asked_for(self) -> list[tuple[int, int]]:
        """Which local rows other ranks have among these columns, and perhaps more: from and to, increasing. Collective
        when it is asked for first.

        Each rank tells where its columns before and after its own rows begin and end.
        """
        comm, columns = self._comm.tompi4py(), self.columns
        rank = comm.Get_rank()
        first, last = (int(end) for end in self._ranges[rank : rank + 2])
        before = int(columns.searchsorted(first))
        told = np.zeros(4)
        if before:
            told[:2] = columns[0], columns[before - 1] + 1
        if before < columns.size:
            told[2:] = columns[before], columns[-1] + 1
        ends = of_all(comm, told).reshape(-1, 2).tolist()
        asked = [(max(int(begin), first) - first, min(int(end), last) - first) for begin, end in ends]
        found: list[tuple[int, int]] = []
        for begin, end in sorted((begin, end) for begin, end in asked if begin < end):
            if found and begin <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], end)
            else:
                found.append((begin, end))
        return found

    def destroy(self) -> None:
        """Collective."""
        if "_sf" in self.__dict__:
            self._sf.destroy()


class Flags:
    """The Dirichlet flags of this rank's rows, and what these know of their ghosts. All methods are collective."""

    def __init__(self, rows: CsrRows | NumpyRows, ghosts: Ghosts | None) -> None:
        """``ghosts``: None on one rank."""
        self._rows, self._ghosts = rows, ghosts

    def find(self, longest: int | None) -> None:
        """See `CsrRows.find_dirichlet`."""
        self._rows.find_dirichlet(longest)
        self.tell()

    def tell(self) -> None:
        """The ghosts' flags, where those of rows have changed."""
        if self._ghosts is not None:
            ghosts = self._ghosts
            self._rows.set_ghosts(ghosts.columns, ghosts.cells, ghosts.dirichlet(self._rows.dirichlet))


class SharedFlags(Flags):
    """The same for ranks that are one team: all rows' flags are in one array of its leader. Those that others ask for
    are found first, so that a rank with little to look at does not wait for one that has more before it goes on.

    A team must have met since the last of these was used, or the next may have its memory.
    """

    _rows: CsrRows
    _ghosts: Ghosts

    def __init__(self, rows: CsrRows, ghosts: Ghosts, first: int, size: int, team: Workers) -> None:
        """``first`` of the rows among ``size``."""
        super().__init__(rows, ghosts)
        self._all = team.seen(team.room(size if team.leads else 0, np.uint8), size)
        self._team = team
        self._asked = ghosts.asked_for
        if 2 * sum(end - begin for begin, end in self._asked) > rows.rows:
            self._asked = [(0, rows.rows)]
        rows.keep_dirichlet(self._all[first : first + rows.rows])

    def find(self, longest: int | None) -> None:
        for begin, end in self._asked:
            self._rows.find_dirichlet(longest, begin, end)
        self.tell()
        if self._asked != [(0, self._rows.rows)]:
            self._rows.find_dirichlet(longest)

    def tell(self) -> None:
        self._team.meet()
        self._ghosts.flags = self._all[self._ghosts.columns]
        self._rows.set_ghosts(self._ghosts.columns, self._ghosts.cells, self._ghosts.flags)
