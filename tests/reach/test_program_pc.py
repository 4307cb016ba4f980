"""Programs that set a preconditioner of their own, before or after KSPSetFromOptions; the user chooses the KSP."""

from __future__ import annotations

import pytest
from petsc4py import PETSc
from systems import poisson, relative_residual, right_hand_side

import petsc_dcdm

SHAPE = (10, 12, 11)


class Halves:
    """A program's preconditioner in Python."""

    def apply(self, pc, r, z):
        r.copy(z)
        z.scale(0.5)


def set_type(ksp: PETSc.KSP, kind: str) -> None:
    ksp.getPC().setType(kind)
    if kind == "python":
        ksp.getPC().setPythonContext(Halves())


def new_pc(ksp: PETSc.KSP, kind: str) -> None:
    pc = PETSc.PC().create()
    pc.setOperators(*ksp.getOperators())
    pc.setType(kind)
    if kind == "python":
        pc.setPythonContext(Halves())
    ksp.setPC(pc)


def view(ksp: PETSc.KSP, path) -> str:
    viewer = PETSc.Viewer().createASCII(str(path), "w")
    ksp.view(viewer)
    viewer.destroy()
    return path.read_text()


@pytest.mark.parametrize("prefix", ["", "flow_"])
@pytest.mark.parametrize("when", ["before options", "after options", "after set-up", "after a solve"])
@pytest.mark.parametrize("kind", ["gamg", "jacobi", "python", "none", "icc"])
@pytest.mark.parametrize("put", [set_type, new_pc])
def test_who_asks_for_the_ksp_gets_the_pc(put, kind, when, prefix, capfd):
    A = poisson(SHAPE)
    b = right_hand_side(A)
    x = b.duplicate()
    database = PETSc.Options()
    database[f"{prefix}ksp_type"], database[f"{prefix}ksp_python_type"] = "python", "petsc_dcdm.KSP"
    ksp = PETSc.KSP().create()
    ksp.setOptionsPrefix(prefix)
    ksp.setOperators(A)
    steps = {
        "options": ksp.setFromOptions,
        "set-up": ksp.setUp,
        "a solve": lambda: ksp.solve(b, x),
    }
    if when == "before options":
        put(ksp, kind)
    for name, step in steps.items():
        step()
        if when == f"after {name}":
            put(ksp, kind)
    for _ in range(2):
        x.set(0.0)
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 5
        assert relative_residual(A, x, b) <= 1e-5
    assert isinstance(ksp.getPC().getPythonContext(), petsc_dcdm.PC)
    said = capfd.readouterr().err
    sentence = f"petsc_dcdm.PC takes the place of the program's {kind} preconditioner; give -{prefix}pc_type {kind}"
    assert said.count(sentence) == (kind not in ("none", "icc")), said


@pytest.mark.parametrize("kind", ["gamg", "python"])
def test_what_a_program_chooses_itself_stays_and_is_named(kind, capfd, tmp_path):
    A = poisson(SHAPE)
    b = right_hand_side(A)
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    set_type(ksp, kind)
    ksp.setFromOptions()
    for _ in range(2):
        ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() > 0 and ksp.getPC().getType() == kind
    said = capfd.readouterr().err
    assert said.count(f"the preconditioner is the program's, of type {kind}, and not petsc_dcdm.PC") == 1, said
    assert f"the preconditioner is {kind}, not petsc_dcdm.PC" in view(ksp, tmp_path / "view")


def test_what_the_user_names_stays_without_a_word(capfd, tmp_path):
    A = poisson(SHAPE)
    b = right_hand_side(A)
    database = PETSc.Options()
    database["ksp_type"], database["ksp_python_type"], database["pc_type"] = "python", "petsc_dcdm.KSP", "gamg"
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setFromOptions()
    ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() > 0 and not capfd.readouterr().err
    assert "the preconditioner is gamg, not petsc_dcdm.PC" in view(ksp, tmp_path / "view")
