"""A PETSc that the network cannot run on is refused with a sentence when the KSP or the PC is created."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("petsc4py")
from harness import run_program
from petsc4py import PETSc
from petsc_sources import flags

from petsc_dcdm.solver import petsc_build

CREATE = {
    "KSP": "k = PETSc.KSP().create(); k.setType('python'); k.setPythonType('petsc_dcdm.KSP')",
    "PC": "p = PETSc.PC().create(); p.setType('python'); p.setPythonType('petsc_dcdm.PC')",
}
HOST = """
#include <petscksp.h>
int main(int argc, char **argv)
{
  KSP ksp;

  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPDestroy(&ksp));
  return PetscFinalize();
}
"""


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The answer, which is remembered for the process, is that of this test."""
    petsc_build._refusal.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    petsc_build._refusal.cache_clear()


def refusal(who: str) -> str:
    """What the creation of a KSP or PC is refused with."""
    with pytest.raises(Exception) as caught:  # 3.18 hands ours on, later ones put PETSc.Error around it
        exec(CREATE[who], {"PETSc": PETSc})
    error = caught.value.__cause__ or caught.value
    assert isinstance(error, petsc_build.BuildError), error
    return str(error)


@pytest.mark.parametrize("who", CREATE)
@pytest.mark.parametrize(
    "scalar, real, words",
    [
        (np.complex128, np.float64, "complex scalars in double precision"),
        (np.complex64, np.float32, "complex scalars in single precision"),
        (np.float32, np.float32, "real scalars in single precision"),
        (np.longdouble, np.longdouble, "real scalars in quadruple precision"),
    ],
)
def test_other_scalars(asked_anew: pytest.MonkeyPatch, who: str, scalar: type, real: type, words: str) -> None:
    asked_anew.setattr(petsc_build, "petsc_library", lambda: None)
    asked_anew.setattr(PETSc, "ScalarType", scalar)
    asked_anew.setattr(PETSc, "RealType", real)
    assert refusal(who).startswith(f"this PETSc has {words} and ")


def test_the_petsc4py_of_another_petsc(asked_anew: pytest.MonkeyPatch) -> None:
    bits = 8 * np.dtype(PETSc.IntType).itemsize
    asked_anew.setattr(PETSc, "IntType", np.int32 if bits == 64 else np.int64)
    said = refusal("KSP")
    assert f"runs on a PETSc with real scalars in double precision and {bits}-bit indices" in said
    assert f"one with real scalars in double precision and {96 - bits}-bit indices" in said and "PETSC_DIR" in said


def test_this_one_is_good() -> None:
    assert petsc_build._refusal() is None


@pytest.fixture(scope="module")
def complex_petsc() -> dict[str, str]:
    """The environment in which this Python finds Debian's PETSc with complex scalars."""
    for folder in sorted(Path("/usr/lib/petscdir").glob("petsc[0-9]*/*-complex")):
        env = {"PETSC_DIR": str(folder), "PETSC_ARCH": ""}
        try:
            run_program([sys.executable, "-c", "from petsc4py import PETSc; PETSc.ScalarType(1j)"], env=env)
        except AssertionError:
            continue
        return env
    pytest.skip("no complex PETSc that this Python can import (Debian: python3-petsc4py-complex)")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("who", CREATE)
def test_a_python_program(complex_petsc: dict[str, str], mpirun: Callable[..., str], who: str, ranks: int) -> None:
    output = mpirun(ranks, f"from petsc4py import PETSc\n{CREATE[who]}", env=complex_petsc, expect=None)
    assert "BuildError: this PETSc has complex scalars in double precision" in output, output
    assert "SEGV" not in output and "Segmentation" not in output, output


def test_the_command_line(complex_petsc: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "petsc_dcdm.cli", "solve", "--family", "box", "--size", "4"]
    output = run_program(argv, env=complex_petsc, expect=2)
    assert output.startswith("petsc-dcdm: this PETSc has complex scalars") and output.count("\n") == 1, output


@pytest.mark.hosts
@pytest.mark.parametrize("who", CREATE)
def test_a_c_program(complex_petsc: dict[str, str], tmp_path: Path, who: str) -> None:
    """It sees no Python exception. And where PETSC_DIR does not say which petsc4py is its own, that is told."""
    libraries = sorted(Path("/usr/lib").glob("*/libpetsc_complex.so.*"))
    if not libraries or shutil.which("mpicc") is None:
        pytest.skip("no libpetsc_complex.so or no mpicc here")
    (tmp_path / "host.c").write_text(HOST)
    # it uses no scalars, so that the headers of any PETSc will do
    headers = [flag for flag in flags() if flag.startswith("-I")]
    run_program(["mpicc", tmp_path / "host.c", "-o", tmp_path / "host", *headers, libraries[0]])
    kind = who.lower()
    argv = [tmp_path / "host", "-python", f"-{kind}_type", "python", f"-{kind}_python_type", f"petsc_dcdm.{who}"]
    output = run_program(argv, env=complex_petsc, expect=None)
    assert f"petsc_dcdm.{who}: this PETSc has complex scalars in double precision" in output, output
    output = run_program(argv, env={"PETSC_DIR": "", "PETSC_ARCH": ""}, expect=None)
    assert f"petsc_dcdm.{who}: this program runs on a PETSc with complex scalars" in output and "PETSC_DIR" in output, (
        output
    )
