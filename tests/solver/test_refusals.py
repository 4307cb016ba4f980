"""What is not served ends in one sentence, and no later solve of that KSP looks as if it had converged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import mpirun, run_program
from petsc4py import PETSc
from systems import conductances, matrix, poisson, right_hand_side

from petsc_dcdm.grid.errors import UnsupportedSystem

SHAPE = (5, 6, 7)
DIVERGED_PC_FAILED = -11
"""petsc4py 3.18 has another name for it."""


def cause(error: BaseException) -> BaseException:
    while isinstance(error, PETSc.Error) and error.__cause__:
        error = error.__cause__
    return error


def not_symmetric():
    A = poisson(SHAPE)
    A.setValue(10, 11, -1.5)
    A.setValue(10, 10, 7.5)
    A.assemble()
    return A


def not_dominant():
    A = poisson(SHAPE)
    A.setValue(10, 10, 2.0)
    A.assemble()
    return A


def far_coupling():
    A = poisson(SHAPE)
    A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    for row, column in ((10, 19), (19, 10)):
        A.setValue(row, column, -1.0)
    A.assemble()
    return A


def not_a_number():
    A = poisson(SHAPE)
    A.setValue(20, 20, np.nan)
    A.assemble()
    return A


REFUSED = {
    "not symmetric": (not_symmetric, "symmetric"),
    "not dominant": (not_dominant, "row sum"),
    "no face neighbour": (far_coupling, "neighbour"),
    "not a number": (not_a_number, "nan"),
}


def solver(A):
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    PETSc.Options()["pc_dcdm_grid"] = "7,6,5"
    ksp.setFromOptions()
    return ksp


def attempt(ksp, b, x):
    """The error as a host sees it that ignores it: None, or the exception."""
    try:
        ksp.solve(b, x)
    except Exception as error:
        return cause(error)
    return None


@pytest.mark.parametrize("after_success", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_stays_a_refusal(name, after_success):
    make, word = REFUSED[name]
    A = poisson(SHAPE)
    b, x = right_hand_side(A), A.createVecRight()
    ksp = solver(A if after_success else make())
    if after_success:
        assert attempt(ksp, b, x) is None and ksp.getConvergedReason() > 0
        ksp.setOperators(make())
    ksp.setInitialGuessNonzero(True)
    x.set(7.0)
    first = attempt(ksp, b, x)
    assert isinstance(first, UnsupportedSystem) and word in str(first), first
    assert ksp.getConvergedReason() <= 0
    for _ in range(2):
        attempt(ksp, b, x)
        assert ksp.getConvergedReason() == DIVERGED_PC_FAILED
    assert (x.getArray() == 7.0).all()
    ksp.setOperators(A)
    assert attempt(ksp, b, x) is None and ksp.getConvergedReason() > 0


def test_a_wrong_option_stays_one():
    A = poisson(SHAPE)
    b, x = right_hand_side(A), A.createVecRight()
    PETSc.Options()["pc_dcdm_model"] = "missing.safetensors"
    ksp = solver(A)
    assert "missing.safetensors" in str(attempt(ksp, b, x))
    for _ in range(2):
        attempt(ksp, b, x)
        assert ksp.getConvergedReason() < 0
    assert not x.getArray().any()


WRONG_TYPES = {
    "petsc_dcdm.ksp": "petsc_dcdm.KSP",
    "petsc_dcdm.PC": "petsc_dcdm.KSP",
    "petsc_dcdm.pc": "petsc_dcdm.KSP",
}
MISNAMED = """
import sys
sys.path[:0] = {path!r}
from petsc4py import PETSc
from systems import poisson, right_hand_side
A = poisson((5, 6, 7))
b, x = right_hand_side(A), A.createVecRight()
ksp = PETSc.KSP().create()
ksp.setOperators(A)
options = PETSc.Options()
for name, value in {options!r}.items():
    options[name] = value
try:
    ksp.setFromOptions()
    ksp.solve(b, x)
    print("reason", ksp.getConvergedReason(), "its", ksp.getIterationNumber())
except Exception as error:
    while isinstance(error, PETSc.Error) and error.__cause__:
        error = error.__cause__
    print("refused:", error)
"""


def misnamed(options: dict[str, str]) -> str:
    path = [str(Path(__file__).parent)]
    return MISNAMED.format(path=path, options={"pc_dcdm_grid": "7,6,5", **options})


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_type_that_is_no_krylov_method(name: str, ranks: int) -> None:
    """-ksp_python_type petsc_dcdm.ksp is a module, petsc_dcdm.PC a preconditioner: neither may run idle or crash."""
    code = misnamed({"ksp_type": "python", "ksp_python_type": name})
    output = mpirun(ranks, code, timeout=40)
    assert output.count("refused:") == ranks == output.count(f"takes -ksp_python_type {WRONG_TYPES[name]}"), output
    assert "AttributeError" not in output and "Traceback" not in output, output


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["petsc_dcdm.pc", "petsc_dcdm.KSP", "petsc_dcdm.ksp"])
def test_a_type_that_is_no_preconditioner(name: str) -> None:
    code = misnamed({"ksp_type": "fcg", "pc_type": "python", "pc_python_type": name})
    output = mpirun(1, code, timeout=40)
    refusals = [line for line in output.splitlines() if line.startswith("refused:")]
    assert len(refusals) == 1 and "petsc_dcdm.PC" in refusals[0], output


@pytest.mark.hosts
@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_wrong_type_in_a_c_program(tutorial: Callable[[str], Path], name: str) -> None:
    options = ["-python", "-ksp_type", "python", "-ksp_python_type", name, "-ksp_converged_reason"]
    output = run_program([tutorial("ex2.c"), *options], timeout=40, expect=None)
    assert "Linear solve converged" not in output and "SEGV" not in output, output
    assert any("petsc_dcdm" in line and WRONG_TYPES[name] in line for line in output.splitlines()), output


@pytest.mark.parametrize("kind", ["jacobi", "gamg", "sor"])
def test_a_preconditioner_of_the_programs_own(kind, capsys):
    """It is the program's to choose, and the user is told that the network is not used."""
    A = poisson((8, 9, 10))
    b, x = right_hand_side(A), A.createVecRight()
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.getPC().setType(kind)
    options = PETSc.Options()
    options["ksp_type"], options["ksp_python_type"], options["pc_dcdm_grid"] = "python", "petsc_dcdm.KSP", "10,9,8"
    ksp.setFromOptions()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert ksp.getPC().getType() == "python" or kind in capsys.readouterr().err


@pytest.mark.parametrize("rtol", [1e-5, 1e-8])
@pytest.mark.parametrize("strength", [0.0, 1e-2])
def test_snes_with_a_matrix_free_operator(strength, rtol):
    """-snes_mf_operator: A by differences is noisy, P assembled; as fgmres does, it gets there."""
    A0 = matrix(*conductances((1, 20, 24)))
    n = A0.getSize()[0]
    b = A0.createVecLeft()
    b.set(1e-2)

    def function(snes, X, F):
        A0.mult(X, F)
        F.axpy(-1.0, b)
        cube = X.copy()
        cube.setArray(strength * X.getArray(readonly=True) ** 3)
        F.axpy(1.0, cube)

    def jacobian(snes, X, J, P):
        A0.copy(P, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        if J != P:
            J.assemble()

    def newton(**chosen):
        options = PETSc.Options()
        for name, value in {"snes_mf_operator": "", "snes_rtol": 1e-8, "ksp_rtol": rtol, **chosen}.items():
            options[name] = value
        snes = PETSc.SNES().create()
        snes.setFunction(function, A0.createVecLeft())
        snes.setJacobian(jacobian, A0.duplicate(copy=True))
        snes.setFromOptions()
        X = A0.createVecRight()
        snes.solve(None, X)
        for name in chosen:
            options.delValue(name)
        return snes, X

    ours, X = newton(ksp_type="python", ksp_python_type="petsc_dcdm.KSP", pc_dcdm_grid="24,20")
    theirs, Y = newton(ksp_type="fgmres", pc_type="gamg")
    assert theirs.getConvergedReason() > 0
    assert ours.getConvergedReason() > 0, ours.getConvergedReason()
    assert ours.getIterationNumber() <= theirs.getIterationNumber() + 1
    assert (X - Y).norm() <= 1e-6 * Y.norm() and X.getSize() == n
