"""Compact 9- and 27-point stencils on grids of which some axes are periodic: the iterations of walls, LU's answers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from compact_systems import folded, to_petsc
from petsc4py import PETSc
from ring_systems import rings_of, sizes
from systems import refused, relative_residual, right_hand_side, solve

from petsc_dcdm.studies.compact import elements

FLAT, SOLID = (40, 36), (13, 14, 12)


def variable(cells, seed=0, spread=0.3):
    return 10 ** (spread * np.random.default_rng(seed).standard_normal(cells))


def axes(rings):
    """As ``-pc_dcdm_periodic`` takes them."""
    return ",".join(name for name, ring in zip("zyx"[-len(rings) :], rings, strict=True) if ring)


def steps(cells, rings, walls=True, shear=0.0, known=True, **options):
    """Iterations to 1e-6 and, once more, the answer of LU."""
    matrix, shape = folded(elements(cells, variable(cells), shear=shear), cells, rings, walls)
    A = to_petsc(matrix)
    b = right_hand_side(A)
    grid = {"pc_dcdm_grid": sizes(shape), "pc_dcdm_periodic": axes(rings) or None} if known else {}
    given = {name: value for name, value in {**grid, **options}.items() if value is not None}
    closed = np.abs(matrix.sum(axis=1)).max() < 1e-12
    if closed:
        b.shift(-b.sum() / b.getSize())
    ksp, x = solve(A, b, ksp_rtol=1e-10, **given)
    first = int(closed)  # of a closed system the value of one cell is given
    exact = np.zeros(b.getSize())
    exact[first:] = spl.spsolve(matrix[first:, first:].tocsc(), b.getArray()[first:])
    exact -= closed * exact.mean()
    assert np.linalg.norm(x.getArray() - exact) <= 1e-6 * np.linalg.norm(exact)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-10
    padded = (False, *rings)[-3:]
    assert ksp.getPC().getPythonContext().layout.periodic == rings_of(shape, padded)
    return solve(A, b, ksp_rtol=1e-6, **given)[0].getIterationNumber()


@pytest.mark.parametrize("cells", [FLAT, SOLID])
@pytest.mark.parametrize("walls", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_as_many_iterations_as_with_walls(cells, walls, known):
    none = (False,) * len(cells)
    with_walls = steps(cells, none, walls, known=known)
    for rings in [(*none[1:], True), (True, *none[1:]), (*none[2:], True, True), (True,) * len(cells)]:
        assert steps(cells, rings, walls, known=known) <= with_walls + 1, rings


@pytest.mark.parametrize("thin", [1, 2, 3])
def test_thin_rings(thin):
    """Of one cell it is none; each of two cells is on both sides of the other, by steps along one axis and diagonal
    ones.
    """
    for cells, rings in [((30, thin), (False, True)), ((20, 18, thin), (False, False, True))]:
        assert steps(cells, rings) <= 7
    assert steps((20, thin, thin), (False, True, True)) <= 7


def test_cross_terms_go_round():
    """Parallelograms: the couplings to the corners of both diagonals are not the same."""
    assert steps(FLAT, (False, True), shear=0.3) <= steps(FLAT, (False, False), shear=0.3) + 1
    assert steps(FLAT, (True, True), walls=False, shear=0.3) <= 9


@pytest.mark.parametrize("cells, rings", [((18, 21), (False, True)), ((7, 9, 11), (True, False, True))])
def test_a_dmda_with_a_box_stencil(cells, rings):
    matrix, shape = folded(elements(cells, variable(cells)), cells, rings)
    kind = PETSc.DM.BoundaryType
    dm = PETSc.DMDA().create(
        shape[::-1][: len(cells)],
        boundary_type=[kind.PERIODIC if ring else kind.NONE for ring in rings[::-1]],
        stencil_type=PETSc.DMDA.StencilType.BOX,
        stencil_width=1,
        dof=1,
    )
    A = dm.createMat()
    given = matrix.tocoo()
    for row, column, value in zip(given.row, given.col, given.data, strict=True):
        A.setValue(row, column, value)
    A.assemble()
    b = right_hand_side(A)
    ksp, x = solve(A, b, dm=dm, ksp_rtol=1e-9)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 9
    np.testing.assert_allclose(x.getArray(), spl.spsolve(given.tocsc(), b.getArray()), atol=1e-6)


def test_negative_row_sums_on_a_ring():
    """The lowest wave of a ring between walls is constant along it: what Bratu's Jacobian may take off is less."""
    matrix, _ = folded(elements(FLAT), FLAT, (False, True))
    lowest = float(spl.eigsh(matrix, 1, sigma=0)[0][0])
    for share, served in ((0.7, True), (3.0, False)):
        A = to_petsc(matrix - share * lowest * folded(mass(FLAT), FLAT, (False, True))[0])
        b = right_hand_side(A)
        if not served:
            with refused("hardly is positive definite"):
                solve(A, b)
            continue
        ksp, x = solve(A, b, ksp_rtol=1e-8)
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-8


def mass(cells):
    """Of the nodes, lumped."""
    weight = np.ones([n + 1 for n in cells])
    for axis in range(len(cells)):
        np.moveaxis(weight, axis, 0)[[0, -1]] *= 0.5
    return sp.diags(weight.ravel()).tocsr()


@pytest.mark.parametrize("kind", ["smooth", "six decades", "one row"])
@pytest.mark.parametrize("cells, rings", [(FLAT, (False, False)), (FLAT, (False, True)), (SOLID, (False, True, True))])
def test_compact_rows_that_were_scaled_one_by_one(kind, cells, rings):
    """The nearest operator is that of the symmetric matrix, whose rows these were."""
    symmetric, _ = folded(elements(cells, variable(cells)), cells, rings)
    n = symmetric.shape[0]
    d = {
        "smooth": 1 + 0.5 * np.sin(np.arange(n) / 30),
        "six decades": 10 ** np.random.default_rng(3).uniform(-3, 3, n),
        "one row": np.where(np.arange(n) == 5, 3.0, 1.0),
    }[kind]
    matrix = (sp.diags(d) @ symmetric).tocsr()
    A = to_petsc(matrix)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-9
    assert ksp.getIterationNumber() <= (12 if kind == "six decades" else 9)
    exact = spl.spsolve(matrix.tocsc(), b.getArray())
    assert np.linalg.norm(x.getArray() - exact) <= 1e-7 * np.linalg.norm(exact)


def test_compact_rows_that_no_factors_make_symmetric():
    matrix = folded(elements(FLAT), FLAT, (False, True))[0].tolil()
    matrix[200, 201] *= 1.5
    A = to_petsc(matrix)
    with refused("not symmetric: the entry in row 20[01], column 20[10]"):
        solve(A, right_hand_side(A))
