"""What a set-up and a solve cost whatever the size of the system, told by counting calls: times tell of the machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from petsc4py import PETSc
from systems import poisson, right_hand_side

from petsc_dcdm.native.binding import kernels
from petsc_dcdm.network import weights

SHAPE = (20, 22, 24)
SET_UP, SOLVE = 1660, 515
"""Calls of functions, Python's and C's, some 10 % above those of a system with two levels and four steps."""


def calls(work: Callable[[], Any]) -> int:
    """How many functions ``work`` calls."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def new_solver(A: PETSc.Mat) -> PETSc.KSP:
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-6)
    return ksp


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of the kernels of the loop, by name."""
    made: Counter[str] = Counter()
    for name in ("dcdm_advance", "dcdm_cycle", "dcdm_down", "dcdm_up", "dcdm_dots", "dcdm_step", "dcdm_residual"):
        original = getattr(kernels(), name)

        def call(*arguments: Any, name: str = name, original: Any = original) -> Any:
            made[name] += 1
            return original(*arguments)

        monkeypatch.setattr(kernels(), name, call)
    return made


def test_set_ups_and_solves_call_few_functions(counted: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    A = poisson(SHAPE, comm=PETSc.COMM_SELF)
    b, x = right_hand_side(A), A.createVecRight()
    for again in (False, True):
        ksp = new_solver(A)
        took = calls(ksp.setUp)
        x.set(0.0)
        counted.clear()
        solving = calls(partial(ksp.solve, b, x))
        steps = ksp.getIterationNumber()
        assert ksp.getConvergedReason() > 0 and 2 <= steps <= 5
        # one call into C for a step, and one for the true residual at the end
        assert counted == {"dcdm_advance": steps, "dcdm_residual": 1}
        if again:
            assert took <= SET_UP and solving <= SOLVE, (took, solving)
        ksp.destroy()
        monkeypatch.setattr(weights, "load", None)  # read once, however many solvers there are


def test_one_rank_sends_nothing() -> None:
    """Nor does it make ready to."""
    A = poisson(SHAPE, comm=PETSc.COMM_SELF)
    b, x = right_hand_side(A), A.createVecRight()
    ksp = new_solver(A)
    ksp.setUp()
    ksp.solve(b, x)
    layout = ksp.getPC().getPythonContext().layout
    assert layout.messages == 0 and layout.reductions > 0
    assert not layout._exchanges
    ksp.destroy()
