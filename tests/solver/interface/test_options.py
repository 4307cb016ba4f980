"""Options and settings: what is misspelt is said, what is refused names a remedy that is there."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import poisson, refused, right_hand_side, solve

from petsc_dcdm.grid.errors import OptionError

SHAPE = (4, 8, 8)


@pytest.fixture(scope="module")
def system():
    A = poisson(SHAPE)
    return A, right_hand_side(A)


@pytest.mark.parametrize(
    "name, said",
    [
        ("pc_dcdm_modell", "there is no option -pc_dcdm_modell, it has no effect; did you mean -pc_dcdm_model?"),
        ("ksp_dcdm_histroy", "there is no option -ksp_dcdm_histroy, it has no effect; did you mean -ksp_dcdm_history?"),
        ("pc_dcdm_qqqqqqqqqqqqqqqq", "there are -pc_dcdm_model, -pc_dcdm_grid"),
    ],
)
def test_a_misspelt_option_is_named_with_the_nearest(system, capfd, name, said):
    ksp, _ = solve(*system, **{name: "1"}, pc_dcdm_grid="8,8,4")
    assert ksp.getConvergedReason() > 0
    assert capfd.readouterr().err.count(said) == 1


def test_options_of_inner_solvers_and_of_other_prefixes_are_not_misspelt(system, capfd):
    inner = ("pc_dcdm_coarse_pc_type", "pc_dcdm_fallback_pc_gamg_x", "ksp_dcdm_fallback_ksp_type")
    names = (*inner, "other_pc_dcdm_modell")
    solve(*system, pc_dcdm_grid="8,8,4", **dict.fromkeys(names, "cholesky"))
    assert "there is no option" not in capfd.readouterr().err


def test_settings_from_python_are_defaults_of_the_options(system):
    A, b = system
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    loop, network = ksp.getPythonContext(), ksp.getPC().getPythonContext()
    network.set(grid=(8, 8, 4), compile="off")
    loop.set(history=0)
    ksp.solve(b, b.duplicate())
    assert loop.settings.history == 0
    assert not network.hierarchy.__module__.startswith("petsc_dcdm.backends.cpu")
    network.set(compile="auto")
    ksp.solve(b, b.duplicate())
    assert network.hierarchy.__module__.startswith("petsc_dcdm.backends.cpu")
    PETSc.Options()["ksp_dcdm_history"] = 4
    loop.setFromOptions(ksp)
    assert loop.settings.history == 4


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"gird": (8, 8)}, "there is no setting 'gird'; grid?"),
        ({"grid": (8, -8)}, "the setting grid is .8, -8.; it must be two or three positive integers"),
        ({"compile": "maybe"}, "it must be one of auto, on, off"),
    ],
)
def test_a_wrong_setting(settings, said):
    pc = PETSc.PC().create()
    pc.setType("python")
    pc.setPythonType("petsc_dcdm.PC")
    with pytest.raises(OptionError, match=said):
        pc.getPythonContext().set(**settings)


@pytest.mark.parametrize(
    "entries, of_type, kind",
    [
        ({(0, 5): -0.1, (5, 0): -0.1}, "aij", "gamg"),
        ({(0, 1): -9.0}, "aij", "bjacobi"),
        ({(0, 5): -0.1, (5, 0): -0.1}, "dense", "bjacobi"),
    ],
)
def test_refusals_name_the_fallback_with_the_prefix_and_it_serves(entries, of_type, kind):
    """Another kind where the matrix is not symmetric; a sentence for those who have it does not advise it again."""
    A = poisson(SHAPE)
    A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    for (row, column), value in entries.items():
        A.setValue(row, column, value)
    A.assemble()
    A.convert(of_type)
    b, x = right_hand_side(A), A.createVecRight()
    database = PETSc.Options("own_")
    database["pc_dcdm_grid"] = "8,8,4"
    for fallback in ("none", kind):
        database["pc_dcdm_fallback"] = fallback
        ksp = PETSc.KSP().create()
        ksp.setOptionsPrefix("own_")
        ksp.setOperators(A)
        ksp.setType("python")
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setFromOptions()
        if fallback == "none":
            with refused(f"; -own_pc_dcdm_fallback {kind} would use another preconditioner$"):
                ksp.solve(b, x)
        else:
            ksp.solve(b, x)
            assert ksp.getConvergedReason() > 0 and "fallback" not in ksp.getPC().getPythonContext()._refusal
        ksp.destroy()
    for name in ("pc_dcdm_grid", "pc_dcdm_fallback"):
        database.delValue(name)


def test_a_matrix_that_is_no_matrix_gets_no_remedy():
    A = poisson(SHAPE)
    A.setValue(3, 3, np.nan)
    A.assemble()
    with refused("nan in row 3; check its assembly$"):
        solve(A, right_hand_side(A), pc_dcdm_grid="8,8,4")
