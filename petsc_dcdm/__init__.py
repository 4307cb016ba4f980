"""petsc_dcdm: the Deep Conjugate Direction Method as a PETSc Krylov solver and preconditioner.

Nothing is imported until it is asked for, so that ``import petsc_dcdm`` initialises neither PETSc
nor MPI and does not load torch.

    KSP         Python type of the Krylov solver        (``-ksp_python_type petsc_dcdm.KSP``)
    PC          Python type of the preconditioner       (``-pc_python_type petsc_dcdm.PC``)
    load_model  reads a weights file, shipped or your own
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_catalogue = {"KSP": "petsc_dcdm.solver.ksp", "PC": "petsc_dcdm.solver.pc", "load_model": "petsc_dcdm.network.weights"}


def python_shows_errors() -> bool:
    """Whether exceptions are seen: not in a C or Fortran program that PETSc 3.18 runs Python in."""
    return hasattr(sys.modules["__main__"], "__file__") or hasattr(sys, "ps1") or sys.argv[:1] == ["-c"]


def _misnamed(name: str) -> None:
    """What petsc4py calls for -ksp_python_type petsc_dcdm.ksp."""
    misnamed = (
        f"petsc_dcdm.{name} was named as a Python type; a Krylov solver takes -ksp_python_type petsc_dcdm.KSP, a "
        "preconditioner takes -pc_python_type petsc_dcdm.PC"
    )
    if not python_shows_errors():
        print(misnamed, file=sys.stderr)
    raise ImportError(misnamed)


def __getattr__(name: str) -> Any:
    if name in ("ksp", "pc"):  # petsc4py passes over an exception here, and calls what it gets
        return partial(_misnamed, name)
    if name in _catalogue:
        from petsc_dcdm.native.traps import traps_masked

        try:
            with traps_masked():
                found = getattr(import_module(_catalogue[name]), "load" if name == "load_model" else name)
            return globals().setdefault(name, found)  # where it is looked for first, the next time
        except ImportError as problem:
            needs = (
                f"petsc_dcdm.{name} cannot be loaded by {sys.executable or 'the embedded Python'}: {problem}; put the "
                "bin of the environment that has petsc_dcdm first in PATH; it needs petsc4py and mpi4py of the PETSc "
                "and MPI that your program runs on (bash run_scripts/setup.sh --petsc existing)"
            )
            print(needs, file=sys.stderr)  # a C program shows no Python exception
            raise ImportError(needs) from problem
    raise AttributeError(f"module 'petsc_dcdm' has no attribute {name!r}; it has {', '.join(_catalogue)}")


def __dir__() -> list[str]:
    return ["__version__", *_catalogue]
