"""A C program that ignores error codes, with a convergence test and a monitor of its own: what codes like MODFLOW are.

It must never see a positive reason where nothing was solved, and finds x and r of each iteration where it asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ROOT, mpirun_program, run_program
from petsc4py import PETSc

pytestmark = pytest.mark.hosts

PLUGIN = ("-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP")
CLASSIC = ("-ksp_type", "cg", "-pc_type", "gamg", "-ksp_norm_type", "unpreconditioned")
NUMBER = r"([-+0-9.einfa]+)"


@dataclass
class Solve:
    error: bool
    reason: int
    its: int
    residual: float
    moved: float


@dataclass
class Look:
    """What a convergence test or a monitor saw."""

    its: int
    norm: float
    x: float
    r: float
    apart: float


@pytest.fixture(scope="module")
def host(build: Callable[[Path], Path]) -> Path:
    return build(ROOT / "tests" / "hosts" / "ignores_errors.c")


def run(host: Path, ranks: int, *options: str, solver: tuple[str, ...] = PLUGIN, expect: int | None = 0) -> str:
    command = [host, *solver, *options]
    if ranks == 1:
        return run_program(command, expect=expect, timeout=30)
    return mpirun_program(ranks, command, expect=expect, timeout=30)


def solves(output: str) -> list[Solve]:
    line = rf"solve \d+ error (\d) reason (-?\d+) its (-?\d+) residual {NUMBER} moved {NUMBER}$"
    found = re.findall(line, output, re.MULTILINE)
    return [Solve(e == "1", int(reason), int(its), float(r), float(moved)) for e, reason, its, r, moved in found]


STOPPED = int(PETSc.KSP.ConvergedReason.CONVERGED_HAPPY_BREAKDOWN)  # what the program's own test says


def looks(output: str, who: str) -> list[Look]:
    line = rf"{who} (\d+) norm {NUMBER} x {NUMBER} r {NUMBER} apart {NUMBER}$"
    return [Look(int(its), *map(float, rest)) for its, *rest in re.findall(line, output, re.MULTILINE)]


def check_looks(seen: list[Look], its: int) -> None:
    """Once for each iteration, in order, with its x and its r."""
    assert [look.its for look in seen] == list(range(its + 1))
    for look in seen:
        assert look.apart <= 1e-9 * seen[0].norm, look
        assert look.r == pytest.approx(look.norm, rel=1e-6, abs=1e-12 * seen[0].norm), look
    assert len({look.x for look in seen}) == len(seen), "x does not move"


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("options", ["", "-ksp_dcdm_operator mat", "-null_space", "-ksp_dcdm_true_residual_every 1"])
def test_a_convergence_test_of_its_own(host: Path, ranks: int, options: str) -> None:
    """Ends where the values have stopped moving: as near to the solution as PETSc's cg + gamg gets with that test."""
    output = run(host, ranks, "-dvclose", "1e-7", *options.split())
    (solve,) = solves(output)
    assert solve.reason == STOPPED, output
    check_looks(looks(output, "test"), solve.its)
    closed = [option for option in options.split() if option == "-null_space"]
    (theirs,) = solves(run(host, ranks, "-dvclose", "1e-7", *closed, solver=CLASSIC))
    assert theirs.reason == STOPPED and solve.residual <= 100 * theirs.residual, (solve, theirs)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_residual_test_of_its_own(host: Path, ranks: int) -> None:
    output = run(host, ranks, "-dvclose", "1e-2", "-rclose", "1e-8")
    (solve,) = solves(output)
    assert solve.reason == STOPPED and solve.residual <= 1e-8 * (1 + 1e-6), output
    check_looks(looks(output, "test"), solve.its)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("options", ["-watch", "-watch -dvclose 1e-7"])
def test_a_monitor_of_its_own(host: Path, ranks: int, options: str) -> None:
    output = run(host, ranks, "-ksp_rtol", "1e-8", *options.split())
    (solve,) = solves(output)
    assert solve.reason > 0, output
    check_looks(looks(output, "monitor"), solve.its)


@pytest.mark.parametrize("ranks", [1, 2])
def test_looking_changes_nothing(host: Path, ranks: int) -> None:
    (alone,) = solves(run(host, ranks, "-ksp_rtol", "1e-8"))
    (seen,) = solves(run(host, ranks, "-ksp_rtol", "1e-8", "-watch"))
    assert alone.reason > 0 and (seen.its, seen.reason) == (alone.its, alone.reason)
    assert seen.residual == pytest.approx(alone.residual, rel=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("own_test", [False, True])
def test_a_refusal_is_seen_in_the_reason(host: Path, ranks: int, own_test: bool) -> None:
    """From the first solve or from the second, and in all that follow: x stays, the reason is negative."""
    own = ("-dvclose", "1e-7") if own_test else ()
    for good, options in ((0, "-solves 3 -skew_from 1"), (1, "-solves 3 -skew_from 2")):
        output = run(host, ranks, *options.split(), *own)
        found = solves(output)
        assert len(found) == 3, output
        assert all(solve.reason > 0 and not solve.error for solve in found[:good]), output
        assert found[good].error, output
        for solve in found[good:]:
            assert solve.moved == 0.0, output
            assert solve.reason <= 0, output
        assert all(solve.reason == -11 for solve in found[good + 1 :]), output
        said = [line for line in output.splitlines() if "petsc_dcdm" in line and "symmetric" in line]
        assert said, output


@pytest.mark.parametrize("ranks", [1, 2])
def test_served_again_after_a_refusal(host: Path, ranks: int) -> None:
    """The second run of the same program with another matrix: nothing of a refusal stays in the process."""
    output = run(host, ranks, "-solves", "2", "-ksp_rtol", "1e-8")
    assert [solve.reason for solve in solves(output)] == [2, 2], output


MONITORS = {
    "ex45.c": "-da_refine 1",
    "ex2.c": "-m 20 -n 18",
    "ex50.c": "-da_grid_x 24 -da_grid_y 20",
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("source", MONITORS)
def test_petscs_own_monitors(tutorial: Callable[[str], Path], source: str, ranks: int) -> None:
    """Those that ask for x or r, which PETSc gives to its viewers."""
    monitors = (
        "-ksp_monitor_solution ascii:/dev/null",
        "-ksp_monitor_residual ascii:/dev/null",
        "-ksp_monitor_true_residual ascii:/dev/null",
        "-ksp_monitor_short ascii:/dev/null",
        "-ksp_view_solution ascii:/dev/null",
        "-ksp_view_final_residual",
    )
    command = [
        tutorial(source),
        *PLUGIN,
        *MONITORS[source].split(),
        *" ".join(monitors).split(),
        "-ksp_converged_reason",
    ]
    output = mpirun_program(ranks, command, timeout=40)
    assert "Linear solve converged" in output and "SEGV" not in output, output
