"""PETSc's own shared library, for the few functions that petsc4py does not wrap."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from petsc4py import PETSc

_LANDMARK = "MatSeqAIJGetArrayRead"
"""A function that no other library has."""


@cache
def petsc_library() -> ctypes.CDLL | None:
    """The PETSc that this process runs on; None where it cannot be told (statically linked, or no /proc).

    Public C functions only. Objects are passed by ``handle``; PetscInt is ``PETSc.IntType``.
    """
    program = ctypes.CDLL(None)
    if hasattr(program, _LANDMARK):
        return program  # a host that is linked to PETSc: petsc4py calls its functions too, whatever else it has loaded
    try:
        mapped = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in {line.split()[-1] for line in mapped if "libpetsc" in line}:
        if not Path(path).name.startswith("libpetsc4py"):
            library = ctypes.CDLL(path)
            if hasattr(library, _LANDMARK):
                return library
    return None


@cache
def cite(entry: str) -> None:
    """Register a BibTeX entry for ``-citations``, once per process. Not collective; rank 0's count. Nothing where PETSc
    cannot be asked. (PetscCitationsRegister is no function of the library: this is what it does.)
    """
    library = petsc_library()
    if library is None or not hasattr(library, "PetscCitationsList"):
        return
    text, room = entry.encode(), ctypes.c_void_p()
    entries = ctypes.c_void_p.in_dll(library, "PetscCitationsList")
    if entries and not library.PetscSegBufferGet(entries, ctypes.c_size_t(len(text)), ctypes.byref(room)):
        ctypes.memmove(room, text, len(text))


def unlock(vector: PETSc.Vec) -> None:
    """Takes off the read locks that a failed solve has left on a vector. Not collective."""
    library, locks = petsc_library(), np.ctypeslib.as_ctypes_type(PETSc.IntType)()
    if library is None or not hasattr(library, "VecLockGet"):  # vectors have no locks in every build
        return
    library.VecLockGet(ctypes.c_void_p(vector.handle), ctypes.byref(locks))
    for _ in range(locks.value):
        library.VecLockReadPop(ctypes.c_void_p(vector.handle))


def inform(thing: PETSc.Object, text: Callable[[], str]) -> None:
    """A line for ``-info``, on this rank, about a PETSc object; nobody is asked for it unless it is wanted. Not
    collective.
    """
    library, wanted = petsc_library(), ctypes.c_int(0)
    if library is None or not hasattr(library, "PetscInfo_Private"):
        return
    library.PetscInfoEnabled(thing.getClassId(), ctypes.byref(wanted))
    if wanted.value:
        library.PetscInfo_Private(b"petsc_dcdm", ctypes.c_void_p(thing.handle), b"%s\n", text().encode())
