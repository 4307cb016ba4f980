"""Programs in C and Fortran whose rows are some of the cells only: with their cells told and with nothing said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, mpirun_program, run_program

pytestmark = pytest.mark.hosts

PLUGIN = ("-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP", "-ksp_rtol", "1e-8", "-ksp_view")


TOLD, FOUND = ("-tell",), ()


@pytest.mark.parametrize(
    "source, runs",
    [
        ("active_cells.c", [(1, FOUND), (2, FOUND), (2, TOLD)]),
        ("active_cells_fortran.F90", [(1, TOLD), (2, FOUND)]),
    ],
)
def test_cells_are_told_or_found(
    source: str, runs: list[tuple[int, tuple[str, ...]]], build: Callable[[Path], Path]
) -> None:
    program = build(ROOT / "tests" / "hosts" / source)
    for ranks, options in runs:
        command = [program, *PLUGIN, *options]
        out = run_program(command, timeout=60) if ranks == 1 else mpirun_program(ranks, command, timeout=60)
        said = re.search(r"rows 1160 reason (\d+) iterations (\d+) residual (\S+)", out)
        assert said is not None and ("index set dcdm_cells" if options else "graph of the matrix") in out, out
        assert int(said[1]) > 0 and int(said[2]) <= 6 and float(said[3]) <= 1e-8, out
