"""PETSc's options on the command line of petsc-dcdm: which of them nobody has read."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

from petsc4py import PETSc

from petsc_dcdm.commands.arguments import is_option
from petsc_dcdm.native.petsc_library import petsc_library


def say_unused(words: Sequence[str], comm: PETSc.Comm) -> None:
    """A sentence on stderr for each option among ``words`` that no object has asked for. Rank 0 speaks."""
    library = petsc_library()
    if library is None or comm.getRank():
        return
    for word in words:
        if not is_option(word):
            continue
        used = ctypes.c_int(1)
        library.PetscOptionsUsed(None, word[1:].encode(), ctypes.byref(used))
        if not used.value:
            print(f"petsc-dcdm: nobody has read the option {word}: is it misspelt?", file=sys.stderr)
