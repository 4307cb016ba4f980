"""Unknowns of which many ranks hold a few each, brought together on fewer, where messages would cost more than work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class Agglomeration:
    """Groups of consecutive ranks, of each of which the first one works for all; or every rank works, on everything.

    Unknowns are numbered rank by rank, so that those of a group are consecutive. ``comm`` is that of the workers, None
    on other ranks. All methods are collective on all ranks.
    """

    def __init__(self, mpi: MPI.Intracomm, own: int, workers: int, everywhere: bool = False) -> None:
        """``own``: unknowns of this rank. ``workers``: how many groups there are to be, at most one for each rank;
        ``everywhere``: each rank gets all unknowns instead.
        """
        size, rank = mpi.Get_size(), mpi.Get_rank()
        self._everywhere = everywhere
        self.workers = size if everywhere else min(workers, size)
        self._group = mpi.Dup() if everywhere else mpi.Split(rank * self.workers // size, rank)
        self._works = everywhere or self._group.Get_rank() == 0
        self._workers = mpi.Split(0 if self._works else MPI.UNDEFINED, rank)
        self.comm: PETSc.Comm | None = None
        if self._works:
            self.comm = PETSc.COMM_SELF if everywhere else PETSc.Comm(self._workers)
        self._counts = np.array(self._group.allgather(own))
        self._gathered = np.zeros(int(self._counts.sum()) if self._works else 0, np.float32)
        self._own = np.zeros(own, np.float32)
        first = int(self._counts[: self._group.Get_rank()].sum())
        self._mine = slice(first, first + own)

    def rows(self, own: Rows) -> Rows | None:
        """CSR rows (indptr, columns, values) of all ranks this one works for."""
        if self._group.Get_size() == 1:
            return own
        parts: Sequence[Rows] | None = self._group.allgather(own) if self._everywhere else self._group.gather(own)
        if parts is None:
            return None
        lengths = np.concatenate([np.diff(part[0]) for part in parts])
        indptr = np.concatenate(([0], np.cumsum(lengths))).astype(PETSc.IntType)
        columns, values = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        return indptr, columns, values

    def collect(self, own: np.ndarray) -> np.ndarray:
        """The float32 values of all unknowns this rank works on; empty where it does not."""
        if self._group.Get_size() == 1:
            return own
        if self._everywhere:
            self._group.Allgatherv(own, [self._gathered, self._counts])
        else:
            self._group.Gatherv(own, [self._gathered, self._counts] if self._works else None)
        return self._gathered

    def hand_out(self, values: np.ndarray) -> np.ndarray:
        """This rank's part of what the one that works for it has found."""
        if self._everywhere or self._group.Get_size() == 1:
            return values[self._mine]
        found = [values.astype(np.float32), self._counts] if self._works else None
        self._group.Scatterv(found, self._own)
        return self._own

    def free(self) -> None:
        for comm in (self._group, self._workers):
            if comm != MPI.COMM_NULL and not MPI.Is_finalized():
                comm.Free()
