"""What to do about an error that one rank alone may have: nobody is to wait for it."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from mpi4py import MPI

PATIENCE = 20.0
"""Seconds until ranks that have not failed are taken to wait for messages of one that has."""


class Together:
    """``with Together(comm): ...`` ends all ranks if one of them leaves the block with an exception.

    Errors that the ranks agree on (`petsc_dcdm.grid.errors.raise_together`) come on all of them and go on. An error
    that only some have, such as memory that has run out on one host, can be told to the others in one way only, as
    these wait for messages inside of the block: it is printed and MPI aborts the program.

    ``comm`` is not used for anything else.
    """

    def __init__(self, comm: MPI.Intracomm | None) -> None:
        self._comm = comm

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(problem, Exception) or self._comm is None or self._comm.Get_size() == 1:
            return
        everybody = self._comm.Ibarrier()
        deadline = time.monotonic() + PATIENCE
        while not everybody.Test():
            if time.monotonic() > deadline:
                rank, size = self._comm.Get_rank(), self._comm.Get_size()
                print(f"petsc_dcdm: rank {rank} of {size} has failed and the others have not:", file=sys.stderr)
                import traceback

                traceback.print_exception(kind, problem, trace)
                sys.stderr.flush()
                self._comm.Abort(1)
            time.sleep(0.01)
