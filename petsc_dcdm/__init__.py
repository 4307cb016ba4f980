"""petsc_dcdm: the Deep Conjugate Direction Method as a PETSc Krylov solver and preconditioner.

Nothing is imported until it is asked for, so that ``import petsc_dcdm`` initialises neither PETSc
nor MPI and does not load torch.

    KSP         Python type of the Krylov solver        (``-ksp_python_type petsc_dcdm.KSP``)
    PC          Python type of the preconditioner       (``-pc_python_type petsc_dcdm.PC``)
    load_model  reads a weights file, shipped or your own
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_catalogue = {"KSP": "petsc_dcdm.ksp", "PC": "petsc_dcdm.pc", "load_model": "petsc_dcdm.models.weights"}


def __getattr__(name: str) -> Any:
    if name == "load_model":
        return import_module(_catalogue[name]).load
    if name in _catalogue:
        return getattr(import_module(_catalogue[name]), name)
    raise AttributeError(f"module 'petsc_dcdm' has no attribute {name!r}; it has {', '.join(_catalogue)}")


def __dir__() -> list[str]:
    return ["__version__", *_catalogue]
