"""The scripts of run_scripts/gallery run, small, and find their answers right; docs/gallery shows them as they are."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from harness import ROOT, run_program
from petsc_sources import flags, pkg_config_path

GALLERY, PAGES = ROOT / "run_scripts" / "gallery", ROOT / "docs" / "gallery"
SMALL = {
    "ten_lines": "-n 31",
    "nonlinear": "-n 24",
    "heat": "-n 32",
    "periodic_channel": "-n 16",
    "free_surface": "-n 24 -dt 0.08",
    "two_phase_drop": "-n 48",
    "own_mesh": "-n 24",
    "fine_tuning": "-n 40 -steps 1",
    "against_amg": "-n 12 -runs 1",
    "fipy_diffusion": "-n 16",
    "c_host": "-da_grid_x 20 -da_grid_y 24",
    "fortran_host": "-n 20",
}
NEEDS = {name: ["scipy"] for name in ("ten_lines", "nonlinear", "heat", "two_phase_drop")}
NEEDS |= {"own_mesh": ["trimesh", "scipy"], "fipy_diffusion": ["fipy"], "fine_tuning": ["scipy", "torch"]}
MOST_LINES, MOST_BYTES = 60, 60_000

_spec = importlib.util.spec_from_file_location("make_pages", GALLERY / "make_pages.py")
assert _spec is not None and _spec.loader is not None
make_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_pages)


def test_every_script_is_run() -> None:
    assert set(make_pages.SOURCES) == set(SMALL)
    assert {path.stem for path in PAGES.glob("*.md")} == set(SMALL) | {"index"}


@pytest.mark.parametrize("name", [name for name in SMALL if not name.endswith("_host")])
def test_script(name: str, tmp_path: Path) -> None:
    pytest.importorskip("petsc4py")
    for module in ("matplotlib", *NEEDS.get(name, [])):
        pytest.importorskip(module)
    picture = tmp_path / "picture.png"
    command = [sys.executable, GALLERY / f"{name}.py", *SMALL[name].split(), "-picture", picture]
    path = {"PYTHONPATH": str(ROOT)}
    output = run_program(command, cwd=tmp_path, env=path)
    assert output.strip().splitlines()[-1].startswith("right: "), output
    assert picture.stat().st_size < MOST_BYTES


@pytest.mark.hosts
@pytest.mark.parametrize("name", [name for name in SMALL if name.endswith("_host")])
def test_host(name: str, tmp_path: Path) -> None:
    """Made by its own makefile."""
    source = make_pages.SOURCES[name]
    for tool in ("make", "mpicc" if source.suffix == ".c" else "mpif90"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    flags()  # skips where pkg-config does not know PETSc
    for file in (source, source.parent / "makefile"):
        shutil.copy(file, tmp_path)
    run_program(["make"], cwd=tmp_path, env=pkg_config_path())
    output = run_program(
        ["./poisson", *make_pages.PLUGIN, *SMALL[name].split()], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    assert output.startswith("right: "), output


@pytest.mark.parametrize("name", SMALL)
def test_page(name: str) -> None:
    """As make_pages.py would write it, but for what the script printed at its full size."""
    shown = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    printed = re.search(r"^```text\n(.*?)^```$", shown, re.MULTILINE | re.DOTALL)
    assert printed and printed[1].startswith("right: ")
    assert shown == make_pages.page(name, printed[1]), "python run_scripts/gallery/make_pages.py makes it anew"
    assert (PAGES / "pictures" / f"{name}.png").stat().st_size < MOST_BYTES
    assert len(make_pages.SOURCES[name].read_text(encoding="utf-8").splitlines()) < MOST_LINES
