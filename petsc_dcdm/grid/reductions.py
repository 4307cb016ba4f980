"""Reductions of single values over the ranks of a communicator, which cost one rank nothing."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI


def over_all(comm: MPI.Intracomm, value: Any, op: MPI.Op = MPI.SUM) -> Any:
    """``comm.allreduce(value, op)``; the value itself on one rank. Collective."""
    return value if comm.Get_size() == 1 else comm.allreduce(value, op=op)
