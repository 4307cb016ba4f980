"""What PETSc's logs and views tell: events with their flops, the paper to cite, compiler, instructions and memory."""

from __future__ import annotations

import re
import sys

import pytest
from harness import ROOT, mpirun, run_program

SOLVE = """
import sys, petsc4py
petsc4py.init(sys.argv)
sys.path.insert(0, "tests")
from petsc4py import PETSc
from systems import poisson, right_hand_side, solve
A = poisson((16, 16, 24), comm=PETSc.COMM_WORLD)
ksp, x = solve(A, right_hand_side(A))
ksp.view()
"""
EVENTS = ("DCDMExtract", "DCDMFields", "DCDMCycle", "DCDMCoarse", "DCDMOrthog")


def lines(output: str, name: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if line.startswith(name)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_events_of_the_log(ranks):
    output = mpirun(ranks, SOLVE, "-log_view")
    iterations = len(lines(output, "DCDMCycle")) and int(lines(output, "DCDMCycle")[0][1])
    assert 2 <= iterations <= 6, output
    for name in (*EVENTS, *(("DCDMHalo",) if ranks > 1 else ())):
        (line,) = lines(output, name)
        assert int(line[1]) >= 1, line
    for name in ("DCDMCycle", "DCDMOrthog"):
        flops = float(lines(output, name)[0][5])
        assert 1e5 < flops < 1e9, name


def test_without_a_log_nothing_is_recorded():
    code = SOLVE + "from petsc_dcdm.grid import spans\nassert spans._recorder is None\nprint('nobody')\n"
    assert "nobody" in run_program([sys.executable, "-c", code], cwd=ROOT)


def test_the_paper_is_cited_once():
    output = run_program([sys.executable, "-c", SOLVE + SOLVE.split("A = ", 1)[0], "-citations"], cwd=ROOT)
    assert output.count("@inproceedings{kaneda2023dcdm") == 1


def test_info_tells_how_the_grid_was_found():
    output = run_program([sys.executable, "-c", SOLVE, "-info"], cwd=ROOT)
    assert "petsc_dcdm(): grid 24 x 16 x 16 from offsets of the matrix" in output


def test_the_view_names_compiler_instructions_and_memory():
    output = run_program([sys.executable, "-c", SOLVE], cwd=ROOT)
    assert re.search(r"compiled kernels \((gcc|clang) \d+, .*\), \d+ threads? per rank, \d+\.\d MB on this one", output)
