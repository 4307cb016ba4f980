"""Whether the network can run on this PETSc at all, asked before anything else is.

It computes with real numbers in double precision. And the petsc4py that Python finds must be of the PETSc that the
program runs on: with indices or scalars of other sizes both read each other's memory wrongly, without a word.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.errors import BuildError
from petsc_dcdm.native.petsc_library import petsc_library
from petsc_dcdm.solver.explained import Explained

PRECISIONS = {2: "half", 4: "single", 8: "double", 16: "quadruple"}


class Sizes(NamedTuple):
    """Bytes of PETSc's three types of numbers."""

    scalar: int
    real: int
    integer: int

    def __str__(self) -> str:
        kind = "complex" if self.scalar > self.real else "real"
        return f"{kind} scalars in {PRECISIONS[self.real]} precision and {8 * self.integer}-bit indices"


def _of_petsc4py() -> Sizes:
    return Sizes(*(np.dtype(kind).itemsize for kind in (PETSc.ScalarType, PETSc.RealType, PETSc.IntType)))


def _of_library(library: ctypes.CDLL) -> Sizes:
    found, kind, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    sizes = []
    for name in (b"scalar", b"real", b"int"):
        library.PetscDataTypeFromString(name, ctypes.byref(kind), ctypes.byref(found))
        library.PetscDataTypeGetSize(kind, ctypes.byref(size))
        sizes.append(size.value)
    return Sizes(*sizes)


@cache
def _refusal() -> str | None:
    python, library = _of_petsc4py(), petsc_library()
    program = python if library is None else _of_library(library)
    if program != python:
        return (
            f"this program runs on a PETSc with {program}, but Python has found the petsc4py of one with {python} "
            f"({PETSc.__file__}): export PETSC_DIR and PETSC_ARCH of the program's PETSc, or put its petsc4py first in "
            "PYTHONPATH"
        )
    if (python.scalar, python.real) != (8, 8):
        return (
            f"this PETSc has {python}; petsc_dcdm needs real scalars in double precision, which are PETSc's defaults: "
            "use a PETSc configured so (PETSC_DIR, PETSC_ARCH), or another -ksp_type and -pc_type"
        )
    return None


def require_real_double(comm: PETSc.Comm, who: str) -> None:
    """Raises BuildError, on all ranks alike, on a PETSc that cannot be served. ``who`` is KSP or PC."""
    why = _refusal()
    if why is not None:
        with Explained(comm, who):
            raise BuildError(why)
