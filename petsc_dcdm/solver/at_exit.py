"""Python solvers that are alive when a Python program ends.

PETSc 3.18 destroys what is left after the interpreter is gone, and crashes when that is a solver written in Python. So
while Python still runs, those of ours are turned into solvers of PETSc's own.
"""

from __future__ import annotations

import atexit
import ctypes

from petsc4py import PETSc

from petsc_dcdm.native.petsc_library import petsc_library

_alive: dict[int, str] = {}


def watch(solver: PETSc.KSP | PETSc.PC) -> None:
    """From its ``create`` on. Not collective, like :func:`forget`."""
    _alive[solver.handle] = "KSP" if isinstance(solver, PETSc.KSP) else "PC"


def forget(solver: PETSc.KSP | PETSc.PC) -> None:
    """From its ``destroy`` on."""
    _alive.pop(solver.handle, None)


@atexit.register
def _let_go() -> None:
    library = petsc_library()
    finalized = ctypes.c_int(1)
    if library is None or library.PetscFinalized(ctypes.byref(finalized)) or finalized.value:
        return  # an embedding program has ended PETSc itself
    if not all(ctypes.c_void_p.in_dll(library, types) for types in ("KSPList", "PCList")):
        return  # it is about to, and with it Python: what the program has left alive is destroyed by nobody
    for handle, kind in list(_alive.items()):
        if kind == "KSP":
            library.KSPSetType(ctypes.c_void_p(handle), b"preonly")
        elif handle in _alive:
            library.PCSetType(ctypes.c_void_p(handle), b"none")
