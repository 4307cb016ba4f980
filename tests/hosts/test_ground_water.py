"""A Fortran program that calls PETSc as ground-water codes do: set-up on zeros, own test, traps, two models."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, mpirun_program, run_program
from petsc4py import PETSc
from start_file import environment_with_start_file

pytestmark = pytest.mark.hosts

PLUGIN = "-python -ksp_type python -ksp_python_type petsc_dcdm.KSP"
LINE = re.compile(
    r"model (\d): (\d+) rows, reason (-?\d+), at most (\d+) iterations, asked (\d+) times, error +(\S+), pc (\w+), "
    r"traps (on|off)"
)
HAPPY_BREAKDOWN = PETSc.KSP.ConvergedReason.CONVERGED_HAPPY_BREAKDOWN  # what the program's own test says
STEPS = 3


@pytest.fixture(scope="module")
def host(build: Callable[[Path], Path]) -> Path:
    return build(ROOT / "tests" / "hosts" / "ground_water.F90")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment_with_start_file(tmp_path_factory.mktemp("userbase"))


def run(host: Path, env: dict[str, str], ranks: int, *options: str, expect: int | None = 0) -> str:
    """All options but the program's own come from PETSC_OPTIONS."""
    env = env | {"PETSC_OPTIONS": PLUGIN}
    command = [host, *options]
    if ranks == 1:
        return run_program(command, env=env, expect=expect)
    return mpirun_program(ranks, command, env=env, expect=expect)


def check(output: str, most: int) -> None:
    models = LINE.findall(output)
    assert [number for number, *_ in models] == ["1", "2"], output
    for _, _, reason, its, asked, error, pc, halting in models:
        assert int(reason) == HAPPY_BREAKDOWN and 0 < int(its) <= most and float(error) < 1e-9, output
        assert STEPS < int(asked) <= STEPS * (int(its) + 1), output  # once an iteration
        assert pc == "python" and halting == "on", output


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_models(host: Path, env: dict[str, str], ranks: int) -> None:
    check(run(host, env, ranks), most=14)


@pytest.mark.parametrize("ranks", [1, 2])
def test_active_cells_only(host: Path, env: dict[str, str], ranks: int) -> None:
    """Nobody tells the grid. Where it cannot be found no solve claims to have converged."""
    output = run(host, env, ranks, "-holes", expect=None)
    if "no grid could be found" in output:
        assert not [reason for _, _, reason, *_ in LINE.findall(output) if int(reason) > 0], output
        pytest.skip("the grid of active cells is not looked for in the graph of the matrix")
    check(output, most=16)


def test_a_nan_does_not_end_the_program(host: Path, env: dict[str, str]) -> None:
    models = LINE.findall(run(host, env, 1, "-rhs_nan"))
    assert [reason for _, _, reason, *_ in models] == ["-9", "-9"] and models[0][-1] == "on", models
