"""Sentences to the user: on rank 0, once, and where an exception would not be seen."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import NoReturn

from petsc4py import PETSc

from petsc_dcdm import python_shows_errors
from petsc_dcdm.grid.errors import OptionError, UnsupportedSystem
from petsc_dcdm.network.weights import WeightsError

HEAD_START = 0.5
"""Seconds for rank 0 to print before another rank, which may have got there first, ends the program."""


def say(comm: PETSc.Comm, who: str, text: str) -> None:
    """A sentence on stderr. Not collective; rank 0 of ``comm`` prints."""
    if comm.getRank() == 0:
        print(f"petsc_dcdm.{who}: {text}", file=sys.stderr)


class SayOnce:
    """Sentences of one solver, none of them twice: PETSc asks for options more often than a user gives them."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._said: set[str] = set()

    def __call__(self, solver: PETSc.Object, text: str) -> None:
        """See :func:`say`."""
        if text not in self._said:
            self._said.add(text)
            say(solver.getComm(), self._who, text)


def raise_misplaced(solver: PETSc.Object, given: str, kind: str, wanted: str) -> NoReturn:
    """``given`` was named as the type of ``kind``, an object that takes ``wanted``. Raises OptionError."""
    with Explained(solver.getComm(), given.rpartition(".")[2]):
        raise OptionError(f"{given} was named as the Python type of {kind}, which takes {wanted}")


class Explained:
    """Says the sentence of an error where the host swallows it: PETSc 3.18 in a C program shows no Python exception."""

    def __init__(self, comm: PETSc.Comm, who: str) -> None:
        self._comm, self._who = comm, who

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(problem, (UnsupportedSystem, WeightsError, OptionError)) and not python_shows_errors():
            say(self._comm, self._who, str(problem))
            if self._comm.getRank():
                time.sleep(HEAD_START)
