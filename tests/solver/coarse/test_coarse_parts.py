"""The coarse solver on cells of several parts, in a solve: iterations, answers, options, other values."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, relative_residual, right_hand_side, solve

from petsc_dcdm.solver.coarse import solver as coarse
from petsc_dcdm.solver.coarse.parts import PartsCoarseSolver


def noise(shape, deviation=3.0, seed=4):
    return conductances(shape, coefficient=np.exp(deviation * np.random.default_rng(seed).standard_normal(shape)))


def bodies(shape, edge, contrast, share=0.15):
    """Small cubes anywhere."""
    rng, k = np.random.default_rng(1), np.ones(shape)
    for _ in range(int(share * k.size / edge**3)):
        z, y, x = (rng.integers(0, n) for n in shape)
        k[z : z + edge, y : y + edge, x : x + edge] = contrast
    return conductances(shape, coefficient=k)


@pytest.mark.parametrize("make, most", [(noise, 14), (lambda shape: bodies(shape, 3, 1000.0), 11)])
def test_few_iterations_and_the_right_answer(make, most, tmp_path):
    A = matrix(*make((20, 24, 28)))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-6, pc_dcdm_grid="28,24,20")
    pc = ksp.getPC().getPythonContext()
    assert isinstance(pc._coarse, PartsCoarseSolver) and pc.layout.plan == ()
    assert 0 < ksp.getIterationNumber() <= most and relative_residual(A, x, b) <= 1.1e-6
    assert not isinstance(pc.direction_loop(A, 2), str), "steps are taken on the grid"
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.destroy()
    assert "coarse cells of several parts" in (tmp_path / "view").read_text()
    tight, y = solve(A, b, ksp_rtol=1e-11, pc_dcdm_grid="28,24,20")
    direct, exact = solve_directly(A, b)
    y.axpy(-1.0, exact)
    assert tight.getConvergedReason() > 0 and y.norm() <= 1e-7 * exact.norm(), direct


def solve_directly(A, b):
    ksp = PETSc.KSP().create(A.getComm())
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    x = b.duplicate()
    ksp.solve(b, x)
    return ksp, x


def test_below_learned_levels_and_with_options_of_the_user(monkeypatch):
    monkeypatch.setattr(coarse, "DIRECT_LIMIT", 100)
    shape = (24, 24, 48)
    k = np.kron(np.where(np.random.default_rng(0).random((3, 3, 6)) < 0.5, 1000.0, 1.0), np.ones((8, 8, 8)))
    A = matrix(*conductances(shape, coefficient=k))
    b = right_hand_side(A)
    taken = []
    for options in ({}, {"pc_dcdm_coarse_pc_type": "cholesky"}):
        ksp, x = solve(A, b, ksp_rtol=1e-6, pc_dcdm_grid="48,24,24", **options)
        assert relative_residual(A, x, b) <= 1.1e-6
        pc = ksp.getPC().getPythonContext()
        assert len(pc.layout.plan) >= 1 and isinstance(pc._coarse, PartsCoarseSolver) == (not options)
        taken.append(ksp.getIterationNumber())
    assert taken[0] <= taken[1] + 2


def test_values_change_on_the_way():
    w, s = noise((20, 20, 24), 2.5)
    A, other = matrix(w, s), matrix(*noise((20, 20, 24), 2.5, seed=9))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid="24,20,20")
    coarsest, first = ksp.getPC().getPythonContext()._coarse, ksp.getIterationNumber()
    other.copy(A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    ksp.solve(b, x)
    assert ksp.getPC().getPythonContext()._coarse is coarsest and isinstance(coarsest, PartsCoarseSolver)
    assert relative_residual(A, x, b) <= 1.1e-8 and ksp.getIterationNumber() <= first + 4
