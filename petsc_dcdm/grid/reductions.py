"""Reductions of single values over the ranks of a communicator, which cost one rank nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI


def over_all(comm: MPI.Intracomm, value: Any, op: MPI.Op = MPI.SUM) -> Any:
    """``comm.allreduce(value, op)``; the value itself on one rank. Arrays, of the same type and shape everywhere, are
    reduced element by element. Collective.
    """
    if comm.Get_size() == 1:
        return value
    if not isinstance(value, np.ndarray):
        return comm.allreduce(value, op=op)
    found = np.empty(value.shape, value.dtype)
    comm.Allreduce(np.ascontiguousarray(value), found, op=op)
    return found
