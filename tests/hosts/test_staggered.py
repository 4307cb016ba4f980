"""A C program that calls PETSc as staggered-grid flow codes do: D B G, no DMDA attached, a kept preconditioner."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, mpirun_program, run_program

pytestmark = pytest.mark.hosts

PLUGIN = ("-python", "-poisson_ksp_type", "python", "-poisson_ksp_python_type", "petsc_dcdm.KSP", "-options_left")
STEPS = 4


@pytest.fixture(scope="module")
def host(build: Callable[[Path], Path]) -> Path:
    return build(ROOT / "tests" / "hosts" / "staggered.c")


def run(host: Path, ranks: int, *options: str, expect: int | None = 0) -> str:
    command = [host, *PLUGIN, *options]
    return run_program(command, expect=expect) if ranks == 1 else mpirun_program(ranks, command, expect=expect)


def check(output: str, most: int) -> None:
    line = rf"flow: \d+ rows, {STEPS} steps, reason (\d+), at most (\d+) iterations, error (\S+)$"
    found = re.search(line, output, re.MULTILINE)
    assert found and int(found[1]) > 0 and 0 < int(found[2]) <= most and float(found[3]) <= 1e-8, output
    assert "Option left" not in output, output


@pytest.mark.parametrize("ranks, options", [(1, ""), (1, "-nz 1"), (2, "-split z")])
def test_rows_in_lexicographic_order(host: Path, ranks: int, options: str) -> None:
    """PETSc's cg + gamg, kept as well, takes 13 iterations to 1e-10 once the density is another one."""
    check(run(host, ranks, *options.split()), most=13)


def test_a_grid_that_the_user_names(host: Path) -> None:
    check(run(host, 1, "-poisson_pc_dcdm_grid", "20,14,9"), most=13)


@pytest.mark.parametrize("options", ["", "-nz 1", "-split y"])
def test_rows_in_the_order_of_a_dmda_that_nobody_knows(host: Path, options: str) -> None:
    """Where its grid cannot be found no solve claims to have converged."""
    output = run(host, 2, *options.split(), expect=None)
    if "no grid could be found" in output:
        assert "flow: " not in output, output
        pytest.skip("the grid of a DMDA that is not attached is not looked for in the graph of the matrix")
    check(output, most=13)
