"""Floating-point traps that the host has switched on (feenableexcept, gfortran's -ffpe-trap, PETSc's -fp_trap).

They are for the host's own arithmetic. Python, numpy and vectorised kernels count on the default of IEEE 754, where a
division by zero or an overflow gives infinity: with traps on the import of numpy alone ends the program. So all that
PETSc calls here runs with the traps masked, and the host finds them, and its flags, as they were.

Where numpy is imported before any of our code runs, as petsc4py does, :func:`at_start` is what helps: the file
``petsc_dcdm.pth``, installed beside the package (setup.py), calls it when Python starts inside of another program.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

HOOKS = {"create", "destroy", "setFromOptions", "setUp", "reset", "view", "solve", "solveTranspose"}
HOOKS |= {"apply", "applyTranspose", "preSolve", "postSolve"}
"""The methods that petsc4py calls."""

_Room = ctypes.c_char * 256
"""For a fenv_t; the largest known one has 32 bytes."""


def _functions() -> tuple[Any, Any] | None:
    """feholdexcept and fesetenv of C99, which take an address; None where they cannot be had."""
    for name in ("libm.so.6", None):  # glibc; elsewhere what the program is linked to
        try:
            library = ctypes.PyDLL(name)
            functions = library.feholdexcept, library.fesetenv
        except (OSError, AttributeError):
            continue
        for function in functions:
            function.argtypes = [ctypes.c_void_p]
        return functions
    return None


_found = _functions()


@contextmanager
def traps_masked() -> Iterator[None]:
    """In the block no floating-point exception of this thread traps; after it its environment is what it was."""
    if _found is None:
        yield
        return
    hold, restore = _found
    before = _Room()
    hold(before)
    try:
        yield
    finally:
        restore(before)


def _masked(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` under :func:`traps_masked`, which costs a microsecond a call."""
    if _found is None:
        return function
    hold, restore = _found

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        before = _Room()
        hold(before)
        try:
            return function(*args, **options)
        finally:
            restore(before)

    return call


def with_traps_masked(kind: type[T]) -> type[T]:
    """A class decorator: what PETSc calls of it runs with the traps masked."""
    for name in HOOKS & vars(kind).keys():
        setattr(kind, name, _masked(getattr(kind, name)))
    return kind


class _NumpyFinder:
    """On ``sys.meta_path``: the first import of numpy runs with the traps masked. Everything else is left to others."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "numpy":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _masked(spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def at_start() -> None:
    """For a Python that starts inside of another program: the import of numpy, whenever it comes, is not trapped."""
    if "numpy" not in sys.modules and not any(isinstance(finder, _NumpyFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NumpyFinder())
