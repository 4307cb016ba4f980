"""Every Triton kernel compiled for real GPUs, here where there are none, and what launches would cost there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT
from triton_interpreter import with_triton

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")


def told(module: str, folder: Path, *arguments: str) -> list[dict]:
    """What a study writes as JSON, in a process without the interpreter."""
    out = folder / "told.json"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-W", "ignore", "-m", f"petsc_dcdm.studies.gpu.{module}", "--json", str(out), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(out.read_text())


@with_triton
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_none_spills(architecture: str, tmp_path: Path) -> None:
    rows = told("kernels", tmp_path, "--architectures", architecture)
    names = {row["kernel"] for row in rows}
    assert names == {
        "smooth", "restrict", "dense", "inverse_diagonal", "fields", "coarsen", "dots", "add_up", "line_search", "step",
        "end_step", "residual", "scaled", "pack", "unpack",
    }  # fmt: skip
    assert {row["architecture"] for row in rows} == {architecture}
    for row in rows:
        assert row["spilled"] == 0, row
        assert 0 < row["registers"] <= 255 and row["shared"] <= 100_000, row


@with_triton
def test_the_page_says_what_is_counted(tmp_path: Path) -> None:
    """And what is counted stays within what a step may cost."""
    rows = told("roofline", tmp_path)
    page = (ROOT / "docs" / "gpu.md").read_text()
    table = page.partition("<!-- roofline -->")[2].partition("<!-- end -->")[0].strip().splitlines()[2:]
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        n, stencil, levels, launches, *numbers = [cell.strip() for cell in line.strip("|").split("|")]
        assert (int(n), stencil, int(levels), int(launches)) == tuple(
            row[key] for key in ("n", "stencil", "levels", "launches")
        )
        for text, key in zip(numbers, ("cycle_bytes", "step_bytes", "kept_bytes", "cycle_ms", "step_ms"), strict=True):
            assert float(text) == pytest.approx(row[key], rel=0.01, abs=0.5 if "bytes" in key else 0.006), (line, key)
        most = (180, 275, 85) if stencil == "packed" else (240, 400, 125)
        assert row["cycle_bytes"] < most[0] and row["step_bytes"] < most[1] and row["kept_bytes"] < most[2]
        assert row["launches"] <= 90
