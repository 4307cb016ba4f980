"""Rows that were scaled one by one are solved as the symmetric system behind them; norms are the user's, b - A x."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from curvilinear import (
    aij,
    cylinder,
    divided,
    divided_by_r,
    error,
    even,
    finite_volumes,
    grid,
    random_vector,
    sphere,
    stretched,
    vector,
)
from petsc4py import PETSc
from systems import HAS_HYPRE, refused, relative_residual, solve

Reason = PETSc.KSP.ConvergedReason


def random_rows(shape):
    """Even cells, and each row divided by something of its own."""
    S, volume = finite_volumes([even(n) for n in reversed(shape)])
    return S, volume * 10.0 ** np.random.default_rng(8).uniform(-2, 2, volume.size)


SYSTEMS = {
    "stretched": ((1, 40, 48), lambda: finite_volumes([stretched(48, 1.15), stretched(40, 1.1), even(1)])),
    "stretched, 3D": ((18, 20, 24), lambda: finite_volumes([stretched(n, 1.2) for n in (24, 20, 18)])),
    "cylinder": ((1, 40, 48), lambda: cylinder(48, 40)),
    "cylinder, 3D": ((12, 20, 24), lambda: cylinder(24, 20, 12)),
    "sphere": ((1, 40, 48), lambda: sphere(48, 40)),
    "sphere, 3D": ((12, 20, 24), lambda: sphere(24, 20, 12)),
    "random": ((14, 20, 24), lambda: random_rows((14, 20, 24))),
}


@pytest.mark.parametrize("operator", ["mat", "stencil"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_solution_is_that_of_lu(name, operator):
    shape, make = SYSTEMS[name]
    S, volume = make()
    A, f = divided(S, volume), random_vector(volume.size)
    M, symmetric = aij(A), aij(S)
    options = {"ksp_rtol": 1e-9, "pc_dcdm_grid": grid(shape), "ksp_dcdm_operator": operator}
    b = vector(M, f)
    ksp, x = solve(M, b, **options)
    assert ksp.getConvergedReason() > 0 and relative_residual(M, x, b) < 1.01e-9
    assert ksp.getConvergenceHistory()[-1] == pytest.approx(relative_residual(M, x, b) * b.norm(), rel=1e-6)
    assert ksp.getConvergenceHistory()[0] == pytest.approx(b.norm())
    assert error(A, x, f) < 1e-7
    by_hand, _ = solve(symmetric, vector(symmetric, f * volume), **options)
    assert abs(ksp.getIterationNumber() - by_hand.getIterationNumber()) <= 2


@pytest.mark.parametrize("ratio", [1.05, 1.2])
@pytest.mark.parametrize("kind", ["2D", "3D"])
def test_stretched_grids_take_the_steps_of_their_symmetric_form(kind, ratio):
    shape = (1, 128, 128) if kind == "2D" else (40, 40, 40)
    S, volume = finite_volumes([stretched(n, ratio) if n > 1 else even(1) for n in reversed(shape)])
    A, symmetric, f = aij(divided(S, volume)), aij(S), random_vector(volume.size)
    ksp, _ = solve(A, vector(A, f), ksp_rtol=1e-6)
    by_hand, _ = solve(symmetric, vector(symmetric, f * volume), ksp_rtol=1e-6)
    assert ksp.getConvergedReason() > 0 and by_hand.getConvergedReason() > 0
    assert ksp.getIterationNumber() <= by_hand.getIterationNumber() + (2 if kind == "3D" or HAS_HYPRE else 3)


@pytest.mark.parametrize("ratio", [1.1, 1.2])
def test_where_cells_differ_without_measure_only_the_norm_asks_for_more(ratio):
    """Volumes 1 : 10^10 and 1 : 10^20: step by step x is that of the symmetric form, and in one norm steps are as many.
    |b - A x| itself, that of the smallest cells, is the user's, and asks for up to five steps more.
    """
    S, volume = finite_volumes([stretched(256, ratio), stretched(256, ratio), even(1)])
    A, symmetric, f = aij(divided(S, volume)), aij(S), random_vector(volume.size)
    pair = [(A, vector(A, f)), (symmetric, vector(symmetric, f * volume))]
    few = [solve(M, b, ksp_rtol=1e-13, ksp_max_it=4)[1].getArray() for M, b in pair]
    assert np.abs(few[0] - few[1]).max() < 1e-7 * np.abs(few[1]).max()
    alike = [solve(M, b, ksp_rtol=1e-6, ksp_norm_type="natural")[0] for M, b in pair]
    assert all(ksp.getConvergedReason() > 0 for ksp in alike)
    assert alike[0].getIterationNumber() == alike[1].getIterationNumber()
    ksp, x = solve(*pair[0], ksp_rtol=1e-6)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, pair[0][1]) < 1.01e-6
    if HAS_HYPRE:
        assert ksp.getIterationNumber() <= alike[0].getIterationNumber() + (3 if ratio < 1.15 else 7)


@pytest.mark.parametrize("operator", ["mat", "stencil"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_guess_and_another_sign(operator, sign):
    _, _, _, A = divided_by_r()
    M, f = aij(sign * A), random_vector(A.shape[0])
    b = vector(M, f)
    ksp, x = solve(M, b, vector(M, random_vector(A.shape[0], 2)), ksp_rtol=1e-8, ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() > 0 and relative_residual(M, x, b) < 1.01e-8
    assert error(sign * A, x, f) < 1e-6


@pytest.mark.parametrize("operator", ["mat", "stencil"])
def test_dirichlet_rows_inside_that_others_couple_to(operator):
    shape, S, volume, _ = divided_by_r()
    fixed = np.random.default_rng(3).choice(volume.size, 90, replace=False)
    volume[fixed] = 1.0
    S = S.tolil()
    S[fixed] = 0.0
    S[fixed, fixed] = 3.0
    S = S.tocsr()
    S.eliminate_zeros()
    A, f = divided(S, volume), random_vector(volume.size)
    M, symmetric = aij(A), aij(S)
    b, options = vector(M, f), {"ksp_rtol": 1e-9, "pc_dcdm_grid": grid(shape), "ksp_dcdm_operator": operator}
    ksp, x = solve(M, b, **options)
    assert ksp.getConvergedReason() > 0 and relative_residual(M, x, b) < 1.01e-9 and error(A, x, f) < 1e-7
    by_hand, _ = solve(symmetric, vector(symmetric, f * volume), **options)
    assert abs(ksp.getIterationNumber() - by_hand.getIterationNumber()) <= 2


def test_rooms_whose_rows_were_scaled_apart():
    """Each room has a factor of its own that no coupling tells of."""
    shape, S, volume, _ = divided_by_r()
    left = np.arange(volume.size) % shape[2] < 20
    rooms = [sp.diags(room.astype(float)) for room in (left, ~left)]
    S = sum(room @ S @ room for room in rooms).tocsr()
    A, f = divided(S, volume * np.where(left, 1e7, 1.0)), random_vector(volume.size)
    M = aij(A)
    b = vector(M, f)
    ksp, x = solve(M, b, ksp_rtol=1e-10, pc_dcdm_grid=grid(shape))
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 15
    exact, found = spla.splu(A.tocsc()).solve(f), x.getArray()
    for room in (left, ~left):
        assert np.linalg.norm((found - exact)[room]) < 1e-6 * np.linalg.norm(exact[room])


def test_scaled_rows_that_a_look_at_a_few_does_not_show():
    """Four rows of 27000 that were multiplied: they are noticed when both sides of their couplings are compared."""
    S, _ = finite_volumes([even(30)] * 3)
    d = np.ones(S.shape[0])
    d[[5, 7001, 16000, 26990]] = (3.0, 0.1, 1e3, 1e-4)
    A, f = divided(S, d), random_vector(d.size)
    M = aij(A)
    b = vector(M, f)
    ksp, x = solve(M, b, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 12
    assert relative_residual(M, x, b) < 1.01e-8


def test_the_view_tells_of_it(tmp_path):
    shape, _, volume, A = divided_by_r()
    M = aij(A)
    ksp, _ = solve(M, vector(M, random_vector(volume.size)), pc_dcdm_grid=grid(shape))
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.destroy()
    assert "rows were scaled one by one, by factors 1 : 95:" in (tmp_path / "view").read_text()


def test_values_change():
    """Another stretching, none at all, the first again: one solver, one pattern."""
    shape = (1, 40, 48)
    systems = [finite_volumes([stretched(48, q), stretched(40, 1.1), even(1)]) for q in (1.15, 1.02)]
    systems.append((systems[0][0], np.ones(48 * 40)))
    systems.append(systems[1])
    ksp, M, f = None, aij(divided(*systems[0])), random_vector(48 * 40)
    for S, volume in systems:
        A = divided(S, volume)
        A.sort_indices()
        M.setValuesCSR(A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType), A.data)
        M.assemble()
        b, x = vector(M, f), M.createVecRight()
        if ksp is None:
            ksp, x = solve(M, b, ksp_rtol=1e-9, pc_dcdm_grid=grid(shape))
        else:
            ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and error(A, x, f) < 1e-7


# Norms, other methods ------------------------------------------------------------------------------------------------


def test_every_norm_is_that_of_the_matrix():
    """On the grid, where the loop knows the residual of the symmetric system, as on PETSc's vectors."""
    histories = []
    for operator in ("mat", "stencil"):
        shape, _, volume, A = divided_by_r()
        M = aij(A)
        b = vector(M, random_vector(volume.size))
        ksp, _ = solve(M, b, ksp_rtol=1e-8, pc_dcdm_grid=grid(shape), ksp_dcdm_operator=operator)
        histories.append(ksp.getConvergenceHistory())
    np.testing.assert_allclose(*histories, rtol=1e-4)


def test_a_residual_may_grow_as_far_as_the_factors_differ():
    """Cells of 1 : 10^10: after the first step |b - A x| is that of the smallest ones, 10^5 times |b|."""
    h = 1.2 ** np.arange(128.0)
    corner = lambda x, y, z: 1.0 + 9.0 * (x > 0.5) * (y > 0.5)  # noqa: E731, without it the medium is a product
    S, volume = finite_volumes([h / h.sum(), h / h.sum(), even(1)], (corner,) * 3)
    M = aij(divided(S, volume))
    b = vector(M, random_vector(volume.size))
    ksp, x = solve(M, b, ksp_rtol=1e-5)
    assert ksp.getConvergedReason() > 0 and relative_residual(M, x, b) < 1.01e-5
    assert ksp.getConvergenceHistory().max() > 1e5 * b.norm()


def test_the_natural_norm_is_that_of_the_symmetric_system():
    shape, S, volume, A = divided_by_r()
    M, symmetric, f = aij(A), aij(S), random_vector(volume.size)
    options = {"ksp_rtol": 1e-8, "ksp_norm_type": "natural", "pc_dcdm_grid": grid(shape)}
    ksp, x = solve(M, vector(M, f), **options)
    by_hand, _ = solve(symmetric, vector(symmetric, f * volume), **options)
    assert ksp.getConvergedReason() > 0 and error(A, x, f) < 1e-6
    ours, theirs = ksp.getConvergenceHistory(), by_hand.getConvergenceHistory()
    np.testing.assert_allclose(ours / ours[0], theirs / theirs[0], rtol=0.2, atol=1e-9)


@pytest.mark.parametrize("kind", ["fgmres", "gcr"])
def test_the_preconditioner_under_other_methods(kind):
    """It stands for the inverse of the user's matrix."""
    shape, _, _, A = divided_by_r()
    M, f = aij(A), random_vector(A.shape[0])
    PETSc.Options()["pc_dcdm_grid"] = grid(shape)
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    ksp.setType(kind)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonType("petsc_dcdm.PC")
    ksp.setTolerances(rtol=1e-8)
    ksp.setFromOptions()
    x = M.createVecRight()
    ksp.solve(vector(M, f), x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 12 and error(A, x, f) < 1e-6


@pytest.mark.parametrize("walls", [2.0, 0.0])
def test_the_transposed_system(walls):
    """A' = S D; where constants are the null space of A it is that of D^-1 1, and b adds up to 0."""
    shape, S, volume, A = divided_by_r(walls=walls)
    M, f = aij(A), random_vector(A.shape[0])
    f -= f.mean() * (walls == 0)
    if walls == 0:
        M.setNullSpace(PETSc.NullSpace().create(constant=True))
    PETSc.Options()["pc_dcdm_grid"] = grid(shape)
    ksp = PETSc.KSP().create()
    ksp.setOperators(M)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-8)
    ksp.setFromOptions()
    x = M.createVecRight()
    ksp.solveTranspose(vector(M, f), x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 12
    assert np.linalg.norm(f - A.T @ x.getArray()) < 1.01e-8 * np.linalg.norm(f)
    if walls:
        assert error(A.T, x, f) < 1e-6


# What is not of this form --------------------------------------------------------------------------------------------


def convection(n, swirl):
    """Upwind differences of -div grad + u . grad on n x n cells: u is even, or goes around the middle."""
    S, volume = finite_volumes([even(n), even(n), even(1)])
    A = divided(S, volume).tolil()
    j, i = (index.ravel() + 0.5 for index in np.indices((n, n)))
    u, v = (j - n / 2, n / 2 - i) if swirl else (np.full(n * n, 2.0), np.full(n * n, -1.0))
    for speed, place, step in ((20.0 * u, i, 1), (20.0 * v, j, n)):
        for row in np.flatnonzero((place > 1) & (place < n - 1)):
            A[row, row - int(np.sign(speed[row])) * step] -= abs(speed[row])
            A[row, row] += abs(speed[row])
    return A.tocsr()


def test_convection_around_a_centre_is_refused_and_a_fallback_solves_it():
    A = convection(24, swirl=True)
    M, f = aij(A), random_vector(A.shape[0])
    b = vector(M, f)
    with refused("matrix is not symmetric: cell .* coupled back with .* no moderate scaling of its rows"):
        solve(M, b, pc_dcdm_grid="24,24")
    ksp, x = solve(M, b, ksp_rtol=1e-8, pc_dcdm_grid="24,24", pc_dcdm_fallback="bjacobi")
    assert ksp.getConvergedReason() > 0 and error(A, x, f) < 1e-6


def test_even_convection_is_of_this_form_as_far_as_single_precision_reaches():
    S, volume = finite_volumes([even(24), even(24), even(1)])
    A = divided(S, volume).tolil()
    for row in range(24 * 24):  # everywhere, so that all couplings along x are of one ratio
        A[row, row] += 400.0
        if row % 24:
            A[row, row - 1] -= 400.0
    A = A.tocsr()
    M, f = aij(A), random_vector(A.shape[0])
    ksp, x = solve(M, vector(M, f), ksp_rtol=1e-8, pc_dcdm_grid="24,24")
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 12 and error(A, x, f) < 1e-6
