"""Which object this is: an address is not enough, for memory is handed out again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from petsc4py import PETSc

from petsc_dcdm.native.petsc_library import petsc_library

Identity = tuple[object, int]


def identity(thing: PETSc.Object) -> Identity:
    """Names an object and the state of its values: two are equal only for the same object, unchanged. Not collective.

    PETSc numbers the objects of a process. Where it cannot be asked the object itself is part of the answer, which
    keeps it alive, so that no other comes to its address.
    """
    number = object_number(thing)
    return (thing if number is None else number), thing.stateGet()


def object_number(thing: PETSc.Object) -> int | None:
    """PETSc's number of an object, unique for the life of the process; None where it cannot be asked."""
    library, number = petsc_library(), ctypes.c_int64()
    if library is None:
        return None
    library.PetscObjectGetId(ctypes.c_void_p(thing.handle), ctypes.byref(number))
    return number.value


def pattern_identity(matrix: PETSc.Mat, beside: Iterable[PETSc.Object | None]) -> tuple[int | None, ...]:
    """Names a matrix, the state of its pattern, and the objects ``beside`` it; None where PETSc cannot be asked."""
    library, changes = petsc_library(), ctypes.c_int64()
    if library is not None:
        library.MatGetNonzeroState(ctypes.c_void_p(matrix.handle), ctypes.byref(changes))
    return (*(object_number(o) if o else 0 for o in (matrix, *beside)), changes.value)


def object_at(handle: int) -> PETSc.Object | None:
    """The living object of that handle; None where PETSc cannot be asked. Not collective.

    To keep a handle and not the object does not keep the object alive.
    """
    library, between = petsc_library(), PETSc.IS().createGeneral([], comm=PETSc.COMM_SELF)
    if library is None:
        return None
    library.PetscObjectCompose(ctypes.c_void_p(between.handle), b"object", ctypes.c_void_p(handle))
    found = between.query("object")
    between.destroy()
    return found
