"""Reductions of single values over the ranks of a communicator, which cost one rank nothing, and its duplicates."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI


class Reducer(Protocol):
    """Ranks that have other means than MPI. Collective."""

    def reduce(self, value: float, largest: bool) -> float:
        """The sum over the ranks in their order, or the largest."""

    def gather(self, values: np.ndarray) -> np.ndarray | None:
        """float64 [ranks, n] of float64 [n], C-contiguous; None for many."""


def over_all(comm: MPI.Intracomm, value: Any, op: MPI.Op = MPI.SUM) -> Any:
    """``comm.allreduce(value, op)``; the value itself on one rank. Arrays, of the same type and shape everywhere, are
    reduced element by element, and what is a float on one rank is so on all. Collective.
    """
    if comm.Get_size() == 1:
        return value
    here: Any = comm.Get_attr(_here())
    if here is not None and (found := _reduced(here, value, op)) is not None:
        return found
    if not isinstance(value, np.ndarray):
        return comm.allreduce(value, op=op)
    found = np.empty(value.shape, value.dtype)
    comm.Allreduce(np.ascontiguousarray(value), found, op=op)
    return found


def of_all(comm: MPI.Intracomm, values: np.ndarray) -> np.ndarray:
    """float64 [ranks, n]: the float64 [n], C-contiguous, of every rank. Collective."""
    size = comm.Get_size()
    if size == 1:
        return values[np.newaxis]
    here: Any = comm.Get_attr(_here())
    if here is not None and (found := here.gather(values)) is not None:
        return found
    known = np.empty((size, values.size))
    comm.Allgather(values, known)
    return known


def _reduced(here: Reducer, value: Any, op: MPI.Op) -> Any:
    """The same by ``here``, or None where that is not as good: it has no integers."""
    if op == MPI.LOR:
        return bool(here.reduce(float(bool(value)), True))
    if op == MPI.LAND:
        return not here.reduce(float(not value), True)
    if isinstance(value, np.ndarray):
        if value.dtype != np.float64 or value.ndim != 1 or op not in (MPI.SUM, MPI.MAX):
            return None
        found = here.gather(np.ascontiguousarray(value))
        return None if found is None else found.max(axis=0) if op == MPI.MAX else found.sum(axis=0)
    if type(value) is not float:
        return None
    return -here.reduce(-value, True) if op == MPI.MIN else here.reduce(value, op == MPI.MAX)


def reduce_by(comm: MPI.Intracomm, here: Reducer) -> None:
    """`over_all` and `of_all` on this communicator and its `duplicates` go by ``here`` from now on, where that is as
    good.

    For ranks that share memory: there it takes a tenth of the time, and none of them holds a core that another program
    wants while it waits. Collective.
    """
    for each in (comm, *duplicates(comm)):
        each.Set_attr(_here(), here)


def duplicates(comm: MPI.Intracomm) -> tuple[MPI.Intracomm, MPI.Intracomm]:
    """Two duplicates, for messages that meet no others: made once, and freed with ``comm``. Collective."""
    found: Any = comm.Get_attr(_duplicates())
    if found is None:
        found = comm.Dup(), comm.Dup()
        comm.Set_attr(_duplicates(), found)
    return found


@functools.cache
def _duplicates() -> int:
    def free(comm: MPI.Comm, key: int, made: tuple[MPI.Intracomm, ...]) -> None:
        for each in made:
            each.Free()

    return MPI.Comm.Create_keyval(delete_fn=free)


@functools.cache
def _here() -> int:
    return MPI.Comm.Create_keyval(copy_fn=lambda comm, key, here: here)
