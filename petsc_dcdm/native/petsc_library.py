"""PETSc's own shared library, for the few functions that petsc4py does not wrap."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

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
