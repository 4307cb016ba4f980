"""Floating-point traps that the host has switched on: Python, numpy and the solver run in spite of them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, mpirun_program, run_program
from start_file import environment_with_start_file

from petsc_dcdm.native import traps

pytestmark = pytest.mark.hosts

PLUGIN = ("-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP")
NAN = -9  # KSP_DIVERGED_NANORINF
PC_FAILED = -11


@pytest.fixture(scope="module")
def host(build: Callable[[Path], Path]) -> Path:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("feenableexcept is glibc's")
    return build(ROOT / "tests" / "hosts" / "traps.c")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment_with_start_file(tmp_path_factory.mktemp("userbase"))


def run(host: Path, env: dict[str, str], ranks: int, *options: str) -> str:
    command = [host, *PLUGIN, *options]
    return mpirun_program(ranks, command, env=env) if ranks > 1 else run_program(command, env=env)


@pytest.mark.parametrize(
    "ranks, options",
    [(1, "-ksp_view"), (2, "-ksp_view"), (1, "-ksp_type fcg -pc_type python -fp_trap")],
)
def test_a_solve_with_traps_on(host: Path, env: dict[str, str], options: str, ranks: int) -> None:
    """It converges, and the host has its traps and its flags as before."""
    own = ["-pc_python_type", "petsc_dcdm.PC"] if "fcg" in options else []
    output = run(host, env, ranks, *options.split(), *own)
    found = re.search(r"error 0 reason (\d+) its (\d+) traps on flag kept\nresidual (\S+)$", output, re.MULTILINE)
    assert found and int(found[1]) > 0 and int(found[2]) <= 5 and float(found[3]) < 1e-3, output


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_would_trap_ends_with_a_reason(host: Path, env: dict[str, str], ranks: int) -> None:
    """NaN in the matrix or the right-hand side, which a comparison traps."""
    output = run(host, env, ranks, "-nan_matrix")
    assert f"error 1 reason {PC_FAILED} its" in output and "traps on flag kept" in output, output
    assert "the matrix has nan in row 12" in output and "Floating Point Exception" not in output, output
    output = run(host, env, ranks, "-nan_rhs")
    assert f"reason {NAN} its 0 traps on flag kept" in output, output


def test_nothing_happens_in_a_python_interpreter(env: dict[str, str]) -> None:
    """The file that is read at every start imports nothing there."""
    code = "import sys; print([m for m in sys.modules if m.startswith(('petsc_dcdm.', 'ctypes'))], sys.meta_path)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env)
    assert ended.stdout.startswith("[]") and "Numpy" not in ended.stdout and not ended.stderr, ended


def test_numpy_is_imported_once_and_by_its_own_loader() -> None:
    code = (
        "import sys; from petsc_dcdm.native import traps; traps.at_start(); traps.at_start()\n"
        "kinds = [type(finder).__name__ for finder in sys.meta_path]; assert kinds.count('_NumpyFinder') == 1, kinds\n"
        "import numpy, numpy.linalg\n"
        "assert not [finder for finder in sys.meta_path if type(finder).__name__ == '_NumpyFinder']\n"
        "print(numpy.__spec__.loader.__class__.__name__, numpy.linalg.det(numpy.eye(2)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "SourceFileLoader 1.0\n", ended


def test_every_method_that_petsc_calls_is_masked() -> None:
    import petsc_dcdm

    for kind in (petsc_dcdm.KSP, petsc_dcdm.PC):
        hooks = [name for name in vars(kind) if name in traps.HOOKS]
        assert len(hooks) >= 7
        assert all(hasattr(getattr(kind, name), "__wrapped__") for name in hooks)


def test_an_error_passes_through() -> None:
    @traps.with_traps_masked
    class Solver:
        def solve(self, b):
            raise ValueError(b)

    with pytest.raises(ValueError, match="7"):
        Solver().solve(7)
    with pytest.raises(ValueError, match="8"), traps.traps_masked():
        raise ValueError("8")
