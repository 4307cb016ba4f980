"""The C kernels: nothing that a sanitizer or a warning finds, and systems that are long or large in one direction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, run_program
from systems import poisson, right_hand_side, solve

from petsc_dcdm.backends.cpu import setup as cpu_setup
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.native import binding
from petsc_dcdm.native.binding import Geometry
from petsc_dcdm.native.build import SOURCE_DIRECTORY, KernelsUnavailable
from petsc_dcdm.network.weights import load


@pytest.fixture
def sanitizers(tmp_path: Path) -> None:
    """Skips where gcc can not make a program with them."""
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    command = ["gcc", "-fsanitize=address,undefined", str(source), "-o", str(tmp_path / "main")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no gcc with sanitizers here")


@pytest.mark.slow
def test_no_warning_and_nothing_for_the_sanitizers(sanitizers: None) -> None:
    env = {"CC": "gcc", "PYTHONPATH": str(ROOT)}
    out = run_program(["bash", ROOT / "run_scripts" / "check_native.sh", "--quick"], timeout=400, env=env)
    assert "no warnings from gcc, the same numbers for" in out and " passed" in out
    assert "nothing for AddressSanitizer" in out
    for checked in ("nothing for ThreadSanitizer", "no warnings for aarch64"):
        assert checked in out or "NOT checked" in out


def test_lines_of_c_fit_on_a_screen() -> None:
    folders = (SOURCE_DIRECTORY, ROOT / "tests" / "native" / "driver")
    for path in (path for folder in folders for path in folder.rglob("*.[ch]")):
        lines = path.read_text().splitlines()
        assert len(lines) <= 350, path
        assert max(map(len, lines)) <= 120, path


LONG_LINE = """
import sys

import numpy as np

from petsc_dcdm.stencil.walls import _Faces
from petsc_dcdm.stencil.packed import PackedStencil

nx = int(sys.argv[1])
cells = np.zeros((3, 3, nx + 2), np.uint8)
cells[1, 1, 1:-1] = 3  # low and high face along x
cells[1, 1, 1] = 2
level = _Faces(PackedStencil(cells, cells, (0.5, 0.0, 0.0), np.zeros(256)), 1)
assert list(level.torn((0,), 6)) == [(nx + 1) // 2, 0]
face = level.coarse((0,), (1, 1, (nx + 1) // 2)).faces[0][1, 1]
assert face[1] == 0 and (face[2:-1] == 0.25).all()
"""


def test_a_line_of_many_millions_of_cells_fits_on_the_stack() -> None:
    """Eight megabytes of it, which half as many coarse cells at a byte each would overflow."""
    command = 'ulimit -s 8192 && exec "$0" -c "$1" 17000001'
    run_program(["bash", "-c", command, sys.executable, LONG_LINE], env={"PYTHONPATH": str(ROOT)})


def test_planes_of_more_cells_than_32_bits_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    side = 46341  # squared just beyond 2**31
    Geometry((4, side - 200, side - 200), flat=False).require_fit()
    Geometry((1, 2**20, side), flat=True).require_fit()
    for shape, flat in (((2, side, side), False), ((1, 1, 2**31), True)):
        with pytest.raises(KernelsUnavailable, match=f"{shape[2]} x .* cells in a plane, .* use more ranks"):
            Geometry(shape, flat).require_fit()
    file, layout = load("multigrid"), SerialLayout((16, 16, 16), ((0, 1, 2),))
    cpu_setup.kernels_for(file, layout=layout)
    monkeypatch.setattr(binding, "MAX_PLANE", 18 * 32)  # the box alone would fit, but not with the cells around it
    with pytest.raises(KernelsUnavailable, match="cells in a plane, .* can number 576: use more ranks"):
        cpu_setup.kernels_for(file, layout=layout)


def test_a_box_that_is_too_large_is_solved_without_the_kernels(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(binding, "MAX_PLANE", 100)
    A = poisson((8, 9, 10))
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6)
    assert ksp.getConvergedReason() > 0
    assert "use more ranks; running the network in plain torch" in capfd.readouterr().err
