"""Compiles C and Fortran programs against the PETSc of petsc4py; skips, with the reason, where it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import run_program

TUTORIALS = "ksp/ksp/tutorials"


def petsc_folders() -> list[Path]:
    """Where this PETSc's source tree or its installed examples may lie."""
    import petsc4py

    config = petsc4py.get_config()
    own = [Path(config["PETSC_DIR"]) / "src" / TUTORIALS]
    debian = Path("/usr/share/petsc").glob(f"*/share/petsc/examples/src/{TUTORIALS}")
    return own + sorted(debian, reverse=True)


def flags() -> list[str]:
    """Compiler and linker flags of PETSc, from pkg-config (PETSC_DIR and PETSC_ARCH first)."""
    import petsc4py

    config = petsc4py.get_config()
    own = Path(config["PETSC_DIR"]) / config.get("PETSC_ARCH", "") / "lib" / "pkgconfig"
    env = {"PKG_CONFIG_PATH": str(own)} if own.is_dir() else {}
    for name in ("petsc", "PETSc"):
        try:
            return run_program(["pkg-config", "--cflags", "--libs", name], env=env).split()
        except (AssertionError, FileNotFoundError):
            continue
    pytest.skip("pkg-config does not know PETSc")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """``build(source) -> program``: compiled once per session, with mpicc or mpif90."""
    folder = tmp_path_factory.mktemp("hosts")

    def compiled(source: Path) -> Path:
        # PETSc's Fortran macros make long lines
        compiler, *options = ["mpicc"] if source.suffix == ".c" else ["mpif90", "-ffree-line-length-none"]
        program = folder / source.stem
        if not program.exists():
            if shutil.which(compiler) is None:
                pytest.skip(f"no {compiler} here")
            run_program([compiler, *options, source, "-o", program, *flags(), "-lm"])
        return program

    return compiled


@pytest.fixture(scope="session")
def tutorial(build: Callable[[Path], Path]) -> Callable[[str], Path]:
    """``tutorial("ex45.c") -> program``: PETSc's own tutorial, unmodified."""

    def compiled(name: str) -> Path:
        for folder in petsc_folders():
            if (folder / name).exists():
                return build(folder / name)
        pytest.skip(f"PETSc's tutorial {name} is not here (Debian: libpetsc*-dev-examples)")

    return compiled


@pytest.fixture(scope="session", autouse=True)
def embedding() -> None:
    """Skips everything where PETSc and petsc4py are not there."""
    pytest.importorskip("petsc4py")
