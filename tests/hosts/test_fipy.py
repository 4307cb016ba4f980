"""FiPy from PyPI, unmodified: pip install fipy (with --no-deps it keeps numpy). Skipped where it is not there.

FiPy has no periodic grids in parallel.
"""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
from harness import ROOT, mpirun_program, run_program

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(importlib.util.find_spec("fipy") is None, reason="FiPy is not installed"),
]
PLUGIN = "-ksp_type python -ksp_python_type petsc_dcdm.KSP"
LINE = re.compile(r": (\w+) its (\d+) error (\S+) sum (\S+)$", re.MULTILINE)


def run(kind: str, ranks: int = 1, options: str = PLUGIN, expect: int | None = 0) -> str:
    env = {"FIPY_SOLVERS": "petsc", "PETSC_OPTIONS": options}
    command = [sys.executable, ROOT / "tests" / "hosts" / "fipy_program.py", kind]
    if ranks == 1:
        return run_program(command, env=env, expect=expect)
    return mpirun_program(ranks, command, env=env, expect=expect)


def check(output: str, most: int) -> list[float]:
    """Few iterations, FiPy's own dense answer; returns sums over the cells."""
    steps = LINE.findall(output)
    assert len(steps) == 3, output
    for status, its, error, _ in steps:
        assert status.startswith("KSP_CONVERGED") and int(its) <= most and float(error) < 1e-8, output
    return [float(total) for *_, total in steps]


@pytest.mark.parametrize("kind", ["dirichlet", "three-d"])
def test_one_rank_and_two(kind: str) -> None:
    alone = check(run(kind), most=10)
    assert check(run(kind, ranks=2), most=10) == pytest.approx(alone, rel=1e-8)
    theirs = check(run(kind, options=""), most=500)
    assert theirs == pytest.approx(alone, rel=1e-8)


@pytest.mark.parametrize("kind", ["periodic", "periodic-left-right"])
def test_periodic_and_anisotropic(kind: str) -> None:
    output = run(kind, expect=None)
    if "no grid could be found" in output or "periodic boundaries are not supported" in output:
        pytest.skip("periodic sides are refused")
    check(output, most=10)


def test_convection_is_refused() -> None:
    output = run("convection", expect=None)
    assert not LINE.findall(output) and re.search(r"MatrixError: .*(symmetric|diagonally dominant)", output), output
