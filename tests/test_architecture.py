"""Imports point down: which folder of the package may import which, and what may not be loaded where."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

PACKAGE = ROOT / "petsc_dcdm"
MOST_FILES, MOST_LINES = 15, 350

# docs/architecture.md says what each is for.
BELOW = {
    "native": set(),
    "grid": set(),
    "stencil": {"grid", "native"},
    "network": {"grid"},
    "backends": {"grid", "native", "network", "stencil"},
    "poisson": {"grid", "stencil"},
    "flow": {"grid", "poisson"},
    "training": {"grid", "network", "stencil"},
    "solver": {"backends", "grid", "native", "network", "stencil"},
    "compare": {"backends", "grid", "native", "network", "poisson", "solver", "stencil"},
    "commands": {"flow", "grid", "native", "network", "poisson", "solver", "stencil", "training"},
}
BELOW["studies"] = set(BELOW)

WITHOUT = {  # folder: modules that nothing in it may load, wherever the import stands
    "network": {"petsc4py", "mpi4py"},
    "backends/cpu": {"petsc4py", "mpi4py", "torch"},
    "backends/gpu": {"petsc4py", "mpi4py"},
    "studies/gpu": {"petsc4py", "mpi4py"},
    "training": {"petsc4py", "mpi4py"},
    "native/src": {"petsc4py"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(path: Path) -> set[str]:
    """The folders of the package that a file imports from."""
    parts = [name.split(".") for name in imports(path) if name.startswith("petsc_dcdm.")]
    return {part[1] for part in parts if (PACKAGE / part[1]).is_dir() or part[1] == "cli"}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_down(room: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports from {sorted(up)}"
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] == room and (up := rooms(path) - BELOW[room] - {room})
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_the_folders_are_those_of_the_table() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert found == set(BELOW)


@pytest.mark.parametrize("folder", WITHOUT)
def test_what_is_not_loaded(folder: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        if path.is_relative_to(PACKAGE / folder)
        for name in imports(path)
        if name.split(".")[0] in WITHOUT[folder]
    }
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    "module, kept_out",
    [
        ("petsc_dcdm", ["petsc4py", "mpi4py", "torch", "numpy"]),
        ("petsc_dcdm.cli", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.backends.cpu.hierarchy", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.backends.cpu.loop", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.network.multigrid", ["petsc4py", "mpi4py"]),
        ("petsc_dcdm.network.registry", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.commands.train", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.backends.base", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.backends.choice", ["torch"]),
        ("petsc_dcdm.backends.cpu.backend", ["petsc4py", "mpi4py", "torch"]),
        ("petsc_dcdm.backends.gpu.limits", ["petsc4py", "mpi4py", "torch", "triton"]),
        ("petsc_dcdm.solver.ksp", ["torch"]),
        ("petsc_dcdm.solver.pc", ["torch"]),
    ],
)
def test_importing_loads_nothing_more(module: str, kept_out: list[str]) -> None:
    code = f"import sys, {module}; print(*[m for m in {kept_out!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stdout.split(), f"importing {module} loads {ended.stdout}"


def test_no_folder_is_crowded_and_no_file_is_long() -> None:
    inside = [*FILES, *PACKAGE.rglob("*.[ch]")]
    folders = {path.parent for path in inside}
    crowded = [str(folder) for folder in folders if sum(path.parent == folder for path in inside) > MOST_FILES]
    sources = [*inside, *(ROOT / "tests").rglob("*.py"), *(ROOT / "tests").rglob("*.[ch]")]
    long = [str(path) for path in sources if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    assert not crowded and not long, (crowded, long)
