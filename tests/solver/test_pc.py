"""The preconditioner's life: installed by the KSP, set up once per matrix, safe when the matrix is not one it can
serve.
"""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import (
    conductances,
    matrix,
    poisson,
    random_solids,
    refused,
    relative_residual,
    right_hand_side,
    solve,
    triangles,
)

import petsc_dcdm
from petsc_dcdm.network import weights
from petsc_dcdm.solver import pc as pc_module

SHAPE = (18, 20, 22)


def python_pc(A, **options):
    database = PETSc.Options()
    for name, value in options.items():
        database[name] = value
    pc = PETSc.PC().create()
    pc.setOperators(A)
    pc.setType("python")
    pc.setPythonType("petsc_dcdm.PC")
    pc.setFromOptions()
    return pc


@pytest.fixture(scope="module")
def A():
    return matrix(*conductances(SHAPE, random_solids(SHAPE, fraction=0.1)))


@pytest.mark.parametrize("program_sets", [None, "none"])
def test_choosing_the_ksp_installs_the_pc(A, program_sets):
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    if program_sets:
        ksp.getPC().setType(program_sets)
    PETSc.Options()["ksp_type"] = "python"
    PETSc.Options()["ksp_python_type"] = "petsc_dcdm.KSP"
    ksp.setFromOptions()
    b = right_hand_side(A)
    ksp.solve(b, b.duplicate())
    assert isinstance(ksp.getPC().getPythonContext(), petsc_dcdm.PC) and ksp.getConvergedReason() > 0


def test_another_pc_type_is_the_users_choice(A):
    ksp, _ = solve(A, right_hand_side(A), pc_type="jacobi", ksp_rtol=1e-5)
    assert ksp.getPC().getType() == "jacobi" and ksp.getConvergedReason() > 0
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.getPC().setType("jacobi")
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    ksp.setUp()
    assert ksp.getPC().getType() == "jacobi"


def test_works_without_set_from_options_and_with_a_prefix(A):
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    b = right_hand_side(A)
    ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() > 0
    PETSc.Options()["p_pc_dcdm_grid"] = "3,3"
    ksp = PETSc.KSP().create()
    ksp.setOptionsPrefix("p_")
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setFromOptions()
    with refused("3 x 3 = 9 cells"):
        ksp.setUp()


def test_a_second_set_from_options_and_later_solves(A):
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    ksp.setFromOptions()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0


def count_builds(monkeypatch):
    calls = []
    original = pc_module.build_system
    monkeypatch.setattr(pc_module, "build_system", lambda *a, **k: calls.append(1) or original(*a, **k))
    return calls


def test_set_up_once_per_matrix_and_again_when_values_change(monkeypatch):
    calls = count_builds(monkeypatch)
    A = poisson(SHAPE)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    ksp.solve(b, x)
    assert len(calls) == 1
    A.setOption(PETSc.Mat.Option.NEW_NONZERO_LOCATION_ERR, False)
    A.zeroRowsColumns(np.arange(300, dtype=PETSc.IntType), diag=2.0)
    ksp.solve(b, x)
    assert len(calls) == 2 and relative_residual(A, x, b) < 1.1e-5
    ksp.getPC().setReusePreconditioner(True)
    A.scale(2.0)
    ksp.solve(b, x)
    assert len(calls) == 2 and ksp.getConvergedReason() > 0


def test_the_matrix_is_left_as_it_was(A):
    before = A.copy()
    solve(A, right_hand_side(A))
    assert A.equal(before)


def test_apply_is_linear_symmetric_positive_and_close_to_the_inverse(A):
    pc = python_pc(A)
    pc.setUp()
    u, v = right_hand_side(A, 1), right_hand_side(A, 2)
    Mu, Mv, Mw = u.duplicate(), u.duplicate(), u.duplicate()
    pc.apply(u, Mu)
    pc.apply(v, Mv)
    pc.apply(2.0 * u - 1e-3 * v, Mw)
    assert (Mw - (2.0 * Mu - 1e-3 * Mv)).norm() < 1e-5 * Mw.norm()
    assert abs(u.dot(Mv) - v.dot(Mu)) < 1e-5 * np.sqrt(u.dot(Mu) * v.dot(Mv))
    assert u.dot(Mu) > 0
    smooth = A * Mu
    pc.apply(smooth, Mv)
    assert (Mv - Mu).norm() < 0.7 * Mu.norm()


def test_scale_of_the_residual_and_of_the_matrix_do_not_matter():
    A = poisson(SHAPE)
    b = right_hand_side(A)
    reference, _ = solve(A, b, ksp_rtol=1e-8)
    A.scale(-1e-7)
    for factor in (1e-30, 1e25):
        ksp, _ = solve(A, factor * b, ksp_rtol=1e-8, ksp_atol=0.0)
        assert ksp.getConvergedReason() > 0
        assert abs(ksp.getIterationNumber() - reference.getIterationNumber()) <= 1


@pytest.mark.parametrize("ksp_type", ["cg", "fcg", "fgmres", "gmres", "richardson", "bcgs"])
def test_the_pc_works_under_petscs_own_methods(A, ksp_type):
    b = right_hand_side(A)
    ksp, x = solve(
        A,
        b,
        ksp_type=ksp_type,
        pc_type="python",
        pc_python_type="petsc_dcdm.PC",
        ksp_rtol=1e-8,
        ksp_max_it=60,
        ksp_norm_type="preconditioned" if ksp_type in ("gmres", "bcgs") else "unpreconditioned",
    )
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-6


def test_dirichlet_rows_are_solved_exactly_even_where_others_couple_to_them():
    A = poisson(SHAPE)
    A.zeroRows(np.arange(0, 700, 3, dtype=PETSc.IntType), diag=3.0)
    b = right_hand_side(A)
    x = right_hand_side(A, 9)
    for guess in (None, x):
        ksp, y = solve(A, b, x=guess, ksp_rtol=1e-10)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 16
        np.testing.assert_allclose(y.getArray()[:700:3], b.getArray()[:700:3] / 3.0, rtol=1e-12)
        assert relative_residual(A, y, b) <= 1e-10
    assert ksp.getInitialGuessNonzero()
    ksp, _ = solve(A, b)
    assert not ksp.getInitialGuessNonzero()


def test_fallback_serves_what_the_network_cannot(capsys):
    A = triangles(40)
    b = right_hand_side(A)
    with refused("no grid could be found"):
        solve(A, b)
    ksp, x = solve(A, b, pc_dcdm_fallback="jacobi", ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-8
    assert "using -pc_type jacobi instead" in capsys.readouterr().err


def test_after_a_refusal_the_same_solver_serves_a_good_matrix():
    bad = triangles(40)
    ksp = PETSc.KSP().create()
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setOperators(bad)
    ksp.setFromOptions()
    with refused("no grid could be found"):
        ksp.setUp()
    good = poisson((4, 5, 6))
    b = right_hand_side(good)
    ksp.setOperators(good)
    ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() > 0


def test_view_says_what_was_chosen(A, tmp_path):
    ksp, _ = solve(A, right_hand_side(A))
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view.txt"))
    ksp.view(viewer)
    viewer.destroy()
    text = (tmp_path / "view.txt").read_text()
    for words in (
        "history 2",
        "network multigrid",
        "grid 22 x 20 x 18 from offsets",
        "level 1: 11 x 10 x 9",
        "pc_dcdm_coarse_",
    ):
        assert words in text


def test_options_of_the_coarse_solver_are_read(A):
    ksp, _ = solve(A, right_hand_side(A), pc_dcdm_coarse_pc_type="jacobi", pc_dcdm_coarse_ksp_type="cg", ksp_rtol=1e-8)
    assert ksp.getPC().getPythonContext()._coarse.ksp.getType() == "cg" and ksp.getConvergedReason() > 0


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("pc_dcdm_grid", "12", "two or three positive integers nx,ny"),
        ("pc_dcdm_grid", "4,x", "two or three positive integers nx,ny"),
        ("pc_dcdm_device", "tpu", "auto, cpu, cuda or cuda:N"),
        ("pc_dcdm_compile", "maybe", "one of auto, on, off"),
    ],
)
def test_bad_option_values(A, option, value, message):
    with refused(f"-{option} is '{value}'; it must be {message}"):
        solve(A, right_hand_side(A), **{option: value})


def test_bad_weights_files(A, tmp_path):
    b = right_hand_side(A)
    with refused("nowhere.safetensors"):
        solve(A, b, pc_dcdm_model=str(tmp_path / "nowhere.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with refused("broken.safetensors"):
        solve(A, b, pc_dcdm_model=str(broken))
    file = weights.load("multigrid")
    flat = tmp_path / "flat.safetensors"
    weights.save(
        flat,
        "multigrid",
        (2,),
        file.tensors,
        training_domain="test",
        seed=0,
        command="test",
        hyper={k: v for k, v in file.meta.items() if k not in weights.REQUIRED_META},
    )
    with refused("2D grids but the grid is 3D"):
        solve(A, b, pc_dcdm_model=str(flat))


def test_help_lists_the_options(A, capfd):
    solve(A, right_hand_side(A), help="1")
    out = capfd.readouterr().out
    assert "-ksp_dcdm_history <2>" in out and "-pc_dcdm_grid" in out


def test_cuda_is_refused_where_there_is_none(A, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with refused("finds no CUDA device"):
        solve(A, right_hand_side(A), pc_dcdm_device="cuda")
