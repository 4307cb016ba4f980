"""Periodic sides, from the matrix to the solution: any axes, any number of cells, walls or none on the others."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from ring_systems import assembled, conductances, rings_of, sizes, to_petsc
from scipy.sparse.linalg import spsolve
from systems import refused, relative_residual, right_hand_side, solve

from petsc_dcdm.grid.shape import Periodic, Shape

X, Y, Z = (False, False, True), (False, True, False), (True, False, False)
XY, XYZ, NONE = (False, True, True), (True, True, True), (False, False, False)
COMPILED = ("off", "on")


@pytest.fixture(params=COMPILED)
def compiled(request: pytest.FixtureRequest) -> str:
    PETSc.Options()["pc_dcdm_compile"] = request.param
    return request.param


def steps(shape: Shape, periodic: Periodic, walls: float = 2.0, **options: object) -> int:
    """Iterations to a relative residual of 1e-6 with a random right-hand side, which has a solution."""
    w, s = conductances(shape, periodic, walls)
    A = to_petsc(assembled(w, s))
    b = right_hand_side(A)
    if not s.any():
        b.shift(-b.sum() / b.getSize())
    ksp, x = solve(A, b, ksp_rtol=1e-6, **options)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-6
    assert ksp.getPC().getPythonContext().layout.periodic == rings_of(shape, periodic)
    return ksp.getIterationNumber()


@pytest.mark.parametrize("shape", [(32, 32, 32), (31, 24, 25), (1, 96, 100), (1, 127, 60)])
@pytest.mark.parametrize("walls", [2.0, 0.0])
def test_as_many_iterations_as_with_walls(compiled: str, shape: Shape, walls: float) -> None:
    with_walls = steps(shape, NONE, walls)
    for periodic in (X, Y, Z, XY, XYZ) if shape[0] > 1 else (X, Y, XY):
        assert steps(shape, periodic, walls) <= with_walls + 1, periodic


@pytest.mark.parametrize("shape", [(1, 96, 100), (20, 21, 22)])
def test_media_without_a_plan(compiled: str, shape: Shape) -> None:
    """The coarsest solver has all of the grid, and the steps see round the rings what it gave: 6 or 7 of them. With the
    default in space, BoomerAMG's aggressive coarsening, 14 or 15, each of half the time (BOOMERAMG_ALONE): more than it
    costs elsewhere, as here no two cells have the same coefficient.
    """
    k = 10.0 ** (6.0 * np.random.default_rng(4).random(shape))
    for periodic in (X, Y, XY, XYZ):
        w, s = conductances(shape, periodic, 2.0, coefficient=k)
        A = to_petsc(assembled(w, s))
        b = right_hand_side(A)
        if not s.any():
            b.shift(-b.sum() / b.getSize())
        for options, most in (({"pc_dcdm_coarse_pc_hypre_boomeramg_agg_nl": 0}, 10), ({}, 16 if shape[0] > 1 else 10)):
            ksp, x = solve(A, b, ksp_rtol=1e-6, pc_dcdm_net="none", **options)
            assert ksp.getPC().getPythonContext().layout.plan == ()
            assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-6
            assert ksp.getIterationNumber() <= most, (periodic, options)


@pytest.mark.parametrize("thin", [1, 2, 3, 4])
def test_thin_rings(compiled: str, thin: int) -> None:
    """Of one cell it is none; of two it is one if that is known, else a line, which is the same matrix."""
    known = {"pc_dcdm_periodic": "z"} if thin == 2 else {}
    assert steps((thin, 40, 40), Z, **known) <= 4
    known = {"pc_dcdm_periodic": "x"} if thin == 2 else {}
    assert steps((40, 40, thin), X, 0.0, **known) <= 4
    A = to_petsc(assembled(*conductances((2, 40, 40), Z)))
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6)
    assert ksp.getIterationNumber() <= 5 and ksp.getPC().getPythonContext().layout.periodic == NONE


def random_medium(shape: Shape, periodic: Periodic, seed: int, walls: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Coefficients within a decade, a tenth of the cells solid; no other sealed cells than single ones."""
    rng = np.random.default_rng(seed)
    k = np.where(rng.random(shape) < 0.1, 0.0, 10.0 ** rng.random(shape))
    return conductances(shape, periodic, walls, coefficient=k)


@pytest.mark.parametrize("shape", [(12, 13, 14), (1, 40, 37), (2, 3, 150), (1, 1, 400)])
@pytest.mark.parametrize("periodic", [X, XY, XYZ])
def test_solutions_are_those_of_a_factorisation(compiled: str, shape: Shape, periodic: Periodic) -> None:
    """To 1e-9, in the order of the cells, in another one, and for a negative matrix."""
    w, s = random_medium(shape, periodic, 0, 2.0)
    s = s + 1e-3 * (sum(face + np.roll(face, -1, 2 - axis) for axis, face in enumerate(w)) > 0)
    m = assembled(w, s)
    exact = np.random.default_rng(1).standard_normal(m.shape[0])
    for sign, order in ((1.0, None), (-1.0, np.random.default_rng(2).permutation(m.shape[0]))):
        A = to_petsc(sign * m, order=order)
        if order is not None:
            cells = PETSc.IS().createGeneral(order.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
            A.compose("dcdm_cells", cells)
        x = A.createVecRight()
        x.setArray(exact if order is None else exact[order])
        b = A * x
        want = spsolve(m.tocsc(), (m @ exact))
        ksp, x = solve(A, b, ksp_rtol=1e-12, pc_dcdm_grid=sizes(shape))
        assert ksp.getConvergedReason() > 0
        np.testing.assert_allclose(x.getArray(), want if order is None else want[order], atol=1e-8)


@pytest.mark.parametrize("shape", [(16, 18, 21), (1, 50, 63)])
def test_waves_on_a_closed_domain(compiled: str, shape: Shape) -> None:
    """Nothing holds it: eigenvectors that are known, b with a part along constants, and a solution of mean 0."""
    w, s = conductances(shape, XYZ, 0.0)
    A = to_petsc(assembled(w, s))
    A.setNullSpace(PETSc.NullSpace().create(constant=True, comm=PETSc.COMM_SELF))
    place = np.indices(shape)
    waves = [(1 if n > 1 else 0) * (i + 1) for i, n in enumerate(shape)]
    angle = sum(2 * np.pi * k * at / n for k, at, n in zip(waves, place, shape, strict=True))
    rate = sum(2 - 2 * np.cos(2 * np.pi * k / n) for k, n in zip(waves, shape, strict=True))
    x, b = A.createVecs()
    b.setArray((rate * np.cos(angle) + 0.5).ravel())
    ksp, x = solve(A, b, ksp_rtol=1e-10)
    assert ksp.getConvergedReason() > 0
    np.testing.assert_allclose(x.getArray(), np.cos(angle).ravel(), atol=1e-7)


def test_where_the_grid_begins_does_not_matter(compiled: str) -> None:
    """A ring has no first cell: turned by a coarsest cell or two, the residuals are the same."""
    shape = (16, 16, 24)
    w, s = conductances(shape, XY, coefficient=10.0 ** np.random.default_rng(3).random(shape))
    found = []
    for turn in (0, 8, 16):
        faces = [np.roll(face, (turn, turn), (1, 2)) for face in w]
        A = to_petsc(assembled(faces, np.roll(s, (turn, turn), (1, 2))))
        b = A.createVecRight()
        b.setArray(np.roll(np.random.default_rng(4).standard_normal(shape), (turn, turn), (1, 2)).ravel())
        ksp, _ = solve(A, b, ksp_rtol=1e-8)
        found.append(ksp.getConvergenceHistory())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-3)


def test_the_published_network_is_periodic(compiled: str) -> None:
    shape = (8, 16, 12)
    w, s = conductances(shape, XYZ)
    A = to_petsc(assembled(w, s + 0.1))
    r = np.random.default_rng(0).standard_normal(shape)
    found = []
    for turn in (0, 2, 6):
        b, x = A.createVecs()
        b.setArray(np.roll(r, [turn] * 3, (0, 1, 2)).ravel())
        ksp, _ = solve(A, b, ksp_max_it=1, pc_dcdm_model="cnn")
        ksp.getPC().apply(b, x)
        found.append(np.roll(x.getArray().reshape(shape), [-turn] * 3, (0, 1, 2)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5 * abs(found[0]).max())
    np.testing.assert_allclose(found[2], found[0], atol=1e-5 * abs(found[0]).max())


def test_plates_on_a_ring_are_kept_apart(compiled: str) -> None:
    """Walls of no thickness with holes, one of them at the seam of an odd ring."""
    w, s = conductances((16, 16, 33), X)
    rng = np.random.default_rng(0)
    for at in (0, 7, 15, 26):
        closed = np.ones((16, 16), bool)
        z, y = rng.integers(0, 14, 2)
        closed[z : z + 2, y : y + 2] = False
        w[0][:, :, at][closed] = 0.0
    A = to_petsc(assembled(w, s))
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 9


def test_dirichlet_rows_beside_the_seam(compiled: str) -> None:
    """Their values reach the rows at the other end of the line."""
    shape = (6, 20, 22)
    m = assembled(*conductances(shape, XYZ)).tolil()
    rows = [0, 21, 40, 2639, 1000]
    for row in rows:
        m[row] = 0
        m[row, row] = 1.0
    m = m.tocsr()
    b = np.random.default_rng(0).standard_normal(m.shape[0])
    A = to_petsc(m)
    v = A.createVecRight()
    v.setArray(b)
    ksp, x = solve(A, v, ksp_rtol=1e-12)
    assert ksp.getConvergedReason() > 0
    np.testing.assert_allclose(x.getArray(), spsolve(m.tocsc(), b), atol=1e-8)


def test_the_view_names_the_rings(tmp_path) -> None:
    A = to_petsc(assembled(*conductances((4, 5, 6), (True, False, True))))
    ksp, _ = solve(A, right_hand_side(A))
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.destroy()
    assert "grid 6 x 5 x 4 (periodic along x, z) from offsets of the matrix" in (tmp_path / "view").read_text()


@pytest.mark.parametrize("text, hint", [("xy", "x,y"), ("w", "x, y, z or several"), ("x,x", "x"), ("", "such as x,y")])
def test_bad_axes_are_refused(text: str, hint: str) -> None:
    A = to_petsc(assembled(*conductances((1, 5, 6), X)))
    with refused(f"-pc_dcdm_periodic is '{text}'; it must be axes as.*{hint}"):
        solve(A, right_hand_side(A), pc_dcdm_periodic=text)
