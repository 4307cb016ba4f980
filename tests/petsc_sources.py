"""PETSc's tutorials, and compiling against the PETSc of petsc4py; skips, with the reason, where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harness import run_program

TUTORIALS = "ksp/ksp/tutorials"
DEBIAN = Path("/usr/share/petsc")


def folders(tutorials: str) -> list[Path]:
    """Where tutorials of this PETSc may be: in its source tree or where Debian puts the examples of its version."""
    import petsc4py

    version = ".".join(petsc4py.__version__.split(".")[:2])
    debian = DEBIAN / version / "share" / "petsc" / "examples"
    return [folder / "src" / tutorials for folder in (Path(petsc4py.get_config()["PETSC_DIR"]), debian)]


def find_tutorial(name: str) -> Path:
    """The source of PETSc's own tutorial."""
    for folder in folders(TUTORIALS):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"this PETSc's tutorial {name} is not here (Debian: libpetsc*-dev-examples)")


def pkg_config_path() -> dict[str, str]:
    """The environment in which pkg-config knows the PETSc of petsc4py before any other."""
    import petsc4py

    config = petsc4py.get_config()
    own = Path(config["PETSC_DIR"]) / config.get("PETSC_ARCH", "") / "lib" / "pkgconfig"
    return {"PKG_CONFIG_PATH": str(own)} if own.is_dir() else {}


def flags() -> list[str]:
    """Compiler and linker flags of PETSc, from pkg-config; programs remember where its library is."""
    for name in ("petsc", "PETSc"):
        try:
            found = run_program(["pkg-config", "--cflags", "--libs", name], env=pkg_config_path()).split()
            libraries = run_program(["pkg-config", "--variable=libdir", name], env=pkg_config_path()).strip()
        except (AssertionError, FileNotFoundError):
            continue
        return [*found, f"-Wl,-rpath,{libraries}"]
    pytest.skip("pkg-config does not know PETSc")


def compile_program(source: Path, folder: Path) -> Path:
    """Compiles a C or Fortran source into ``folder`` with mpicc or mpif90; once."""
    # PETSc's Fortran macros make long lines
    compiler, *options = ["mpicc"] if source.suffix == ".c" else ["mpif90", "-ffree-line-length-none"]
    program = folder / source.stem
    if not program.exists():
        if shutil.which(compiler) is None or subprocess.run([compiler, "--version"], capture_output=True).returncode:
            pytest.skip(f"no {compiler} here, or no compiler behind it")
        command = [compiler, *options, source, "-o", program, *flags(), "-lm"]
        run_program(command, cwd=folder)  # where Fortran modules go
    return program
