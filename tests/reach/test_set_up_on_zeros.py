"""KSPSetUp on a matrix whose values are still to come, as ground-water codes call it: set-up waits for the solve."""

from __future__ import annotations

import numpy as np
import pytest
from lone_rows import CELLS, GRID, check, laplacian, share, solution, to_petsc
from petsc4py import PETSc

B = np.random.default_rng(3).standard_normal(CELLS)
A = laplacian(-1.0)
Reason = PETSc.KSP.ConvergedReason
GUESS = np.arange(CELLS) + 1.0


def zero() -> PETSc.Mat:
    M = to_petsc(A)
    M.zeroEntries()
    return M


def fill(M: PETSc.Mat) -> None:
    to_petsc(A).copy(M, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)


def solver(M: PETSc.Mat, grid: str | None = GRID, kind: str = "python") -> PETSc.KSP:
    if grid:
        PETSc.Options()["pc_dcdm_grid"] = grid
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    ksp.setType(kind)
    if kind == "python":
        ksp.setPythonType("petsc_dcdm.KSP")
    else:
        ksp.getPC().setType("python")
        ksp.getPC().setPythonType("petsc_dcdm.PC")
    ksp.setTolerances(rtol=1e-10, max_it=50)
    ksp.setFromOptions()
    return ksp


def view(ksp: PETSc.KSP, path) -> str:
    viewer = PETSc.Viewer().createASCII(str(path), "w")
    ksp.view(viewer)
    viewer.destroy()
    return path.read_text()


@pytest.mark.parametrize("kind", ["python", "fcg"])
@pytest.mark.parametrize("grid", [GRID, None])
def test_values_come_between_set_up_and_solve(grid, kind, tmp_path):
    M = zero()
    ksp = solver(M, grid, kind)
    ksp.setUp()
    assert "the matrix was all zero, the solve will do it" in view(ksp, tmp_path / "before")
    fill(M)
    b, x = share(M.createVecLeft(), B), M.createVecRight()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 5
    np.testing.assert_allclose(x.getArray(), solution(A, B, 0 * B), atol=1e-8 * np.abs(solution(A, B, 0 * B)).max())
    assert f"grid {GRID.replace(',', ' x ')} from" in view(ksp, tmp_path / "after")
    alone = check(A, B, grid)
    if kind == "python":
        assert alone.getIterationNumber() == ksp.getIterationNumber()


def test_under_a_preconditioner_that_is_to_be_kept():
    """PCSetUp is not called again: the first solve finds the values all the same."""
    M = zero()
    ksp = solver(M)
    ksp.getPC().setReusePreconditioner(True)
    ksp.setUp()
    fill(M)
    b, x = share(M.createVecLeft(), B), M.createVecRight()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 5


@pytest.mark.parametrize("norm", ["unpreconditioned", "natural"])
@pytest.mark.parametrize("null_space", [False, True])
@pytest.mark.parametrize("guess", [False, True])
def test_a_solve_with_a_matrix_that_is_still_zero(guess, null_space, norm, capfd):
    """A true reason, whatever the right-hand side; none of it is remembered, nor that all vectors were null vectors."""
    M = zero()
    if null_space:
        M.setNullSpace(PETSc.NullSpace().create(constant=True))
    PETSc.Options()["ksp_norm_type"] = norm
    ksp = solver(M, None)
    ksp.setInitialGuessNonzero(guess)
    b, x = share(M.createVecLeft(), B), share(M.createVecRight(), GUESS)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN
    assert "the matrix is all zero and its right-hand side is not" in capfd.readouterr().err
    b.set(0.0)
    share(x, GUESS)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() == 0
    assert np.array_equal(x.getArray(), GUESS if guess else 0 * GUESS)
    fill(M)
    share(b, B)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    np.testing.assert_allclose(x.getArray(), solution(A, B, 0 * B), atol=1e-7 * np.abs(solution(A, B, 0 * B)).max())


@pytest.mark.parametrize("kind", ["fcg", "cg", "gmres", "bcgs", "gcr"])
def test_under_other_methods_a_zero_matrix_is_no_success(kind):
    M = zero()
    ksp = solver(M, None, kind)
    b, x = share(M.createVecLeft(), B), M.createVecRight()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() < 0


def test_zero_after_values():
    """What was set up before does not serve a matrix that has become zero."""
    M = to_petsc(A)
    ksp = solver(M)
    b, x = share(M.createVecLeft(), B), M.createVecRight()
    ksp.solve(b, x)
    first = x.getArray().copy()
    M.zeroEntries()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN
    fill(M)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and np.array_equal(x.getArray(), first)
