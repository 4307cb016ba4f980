"""Fixtures for every test: a clean PETSc, mpirun, the meshes that not every checkout has."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ROOT, clear_options
from harness import mpirun as run_under_mpirun
from petsc_sources import compile_program, find_tutorial

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@atexit.register
def end_petsc() -> None:
    """A Python KSP or PC that outlives the interpreter crashes PETSc 3.18, so PETSc ends first.

    Before it, what petsc4py keeps of objects that Python has dropped: arrays of Vecs in them cannot be freed later.
    Only here: in the plugin it would end the PETSc of the program that Python is embedded in.
    """
    PETSc = sys.modules.get("petsc4py.PETSc")
    if PETSc is not None:
        gc.collect()
        PETSc.garbage_cleanup()
        PETSc._finalize()


LONGEST = ("test_mpi.py", "test_native_checks.py", "test_tutorials.py")
"""Files that take minutes: first, so that none of two processes is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def clean_options() -> Iterator[None]:
    """No test sees the PETSc options of another, nor those of the caller's PETSC_OPTIONS."""
    clear_options()
    yield
    clear_options()


@pytest.fixture
def options() -> object:
    """PETSc's options database, empty before and after the test: ``options["ksp_rtol"] = 1e-8``."""
    from petsc4py import PETSc

    clear_options()
    return PETSc.Options()


@pytest.fixture
def mpirun() -> Callable[..., str]:
    """``mpirun(ranks, script_or_code, *args, timeout=120, env=None, expect=0)`` -> output."""
    return run_under_mpirun


@pytest.fixture(scope="session")
def bunny() -> Path:
    """The paper's mesh, which lies beside the checkout and is not part of it."""
    path = ROOT.parent / "shared" / "meshes" / "stanford-bunny.obj"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """``build(source) -> program``: a C or Fortran source compiled against PETSc, once per session."""
    pytest.importorskip("petsc4py")
    folder = tmp_path_factory.mktemp("programs")
    return lambda source: compile_program(source, folder)


@pytest.fixture(scope="session")
def tutorial(build: Callable[[Path], Path]) -> Callable[[str], Path]:
    """``tutorial("ex45.c") -> program``: PETSc's own tutorial, unmodified; skips where there is none."""
    return lambda name: build(find_tutorial(name))
