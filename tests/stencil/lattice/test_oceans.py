"""Cells for the rows of an ocean model: wet cells only, in lexicographic order, on lines that are rings."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from ring_systems import assembled, conductances, ocean, sizes, to_petsc
from scipy.sparse.linalg import spsolve
from systems import refused, relative_residual, right_hand_side, solve

from petsc_dcdm.grid.shape import NOT_PERIODIC
from petsc_dcdm.stencil.lattice.search import embed

X = (False, False, True)
OCEANS = [((1, 30, 48), seed) for seed in range(4)] + [((6, 20, 36), seed) for seed in range(2)]


def check_cells(m, shape, cells, nx):
    """Distinct cells, and coupled rows side by side or at both ends of a line."""
    place = np.stack(np.unravel_index(cells, shape))
    edges = m.tocoo()
    apart = np.abs(place[:, edges.row] - place[:, edges.col])
    steps = apart.sum(axis=0)[edges.row != edges.col]
    ends = (apart[2] == nx - 1) & (apart[:2] == 0).all(axis=0)
    assert shape[2] == nx and np.unique(cells).size == cells.size
    assert ((steps == 1) | ends[edges.row != edges.col]).all() and ends.any()


@pytest.mark.parametrize("shape, seed", OCEANS)
def test_an_ocean_is_found(shape, seed):
    m, _ = ocean(shape, seed)
    A = to_petsc(m)
    found, cells = embed(A, A.getComm().tompi4py())
    check_cells(m, found, cells, shape[2])


@pytest.mark.parametrize("shape, seed", [((1, 40, 60), 1), ((6, 20, 36), 0)])
def test_its_solution_is_that_of_the_whole_grid(shape, seed):
    """Nothing said, and as many steps as with the cells told, give or take one."""
    m, cells = ocean(shape, seed)
    A = to_petsc(m)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-9
    assert ksp.getPC().getPythonContext().layout.periodic == X
    np.testing.assert_allclose(x.getArray(), spsolve(m.tocsc(), b.getArray()), atol=1e-6 * abs(x.getArray()).max())
    A.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType), comm=PETSc.COMM_SELF))
    told, _ = solve(A, b, ksp_rtol=1e-9, pc_dcdm_grid=sizes(shape))
    assert told.getPC().getPythonContext().layout.periodic == X
    assert abs(told.getIterationNumber() - ksp.getIterationNumber()) <= 1


def basin(wet, rings=X):
    """The matrix of these cells, as rows in their order."""
    shape = (1, *wet.shape)
    w, s = conductances(shape, rings, 0.0, coefficient=wet.reshape(shape).astype(float))
    cells = np.flatnonzero(wet.ravel())
    return assembled(w, s + 0.01)[cells][:, cells].tocsr()


def test_a_bay_and_a_lake_across_the_seam():
    """The bay's eastern half hangs on its western one by couplings round the end only; the lake on nothing."""
    wet = np.zeros((14, 20), bool)
    wet[:4] = True
    wet[4:7, :2] = wet[5:7, 18:] = True
    wet[9:12, :3] = wet[9:11, 18:] = True
    m = basin(wet)
    A = to_petsc(m)
    found, cells = embed(A, A.getComm().tompi4py())
    check_cells(m, found, cells, 20)
    assert found[0] == 1 and found[1] <= 16


def test_what_no_line_of_its_rows_shows_is_refused_with_the_remedy():
    """Rows in another order: with the cell of each the same matrix is served."""
    m, cells = ocean((1, 30, 48), 2)
    order = np.random.default_rng(0).permutation(cells.size)
    A = to_petsc(m, order=order)
    b = right_hand_side(A)
    with refused("-pc_dcdm_cells FILE or an index set 'dcdm_cells'.*-pc_dcdm_grid"):
        solve(A, b)
    A.compose("dcdm_cells", PETSc.IS().createGeneral(cells[order].astype(PETSc.IntType), comm=PETSc.COMM_SELF))
    ksp, x = solve(A, b, ksp_rtol=1e-9, pc_dcdm_grid="48,30")
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-9
    assert ksp.getPC().getPythonContext().layout.periodic == X


def test_lines_without_rings_are_as_they_were():
    wet = np.ones((9, 12), bool)
    wet[3:5, 4:9] = False
    A = to_petsc(basin(wet, NOT_PERIODIC))
    found, cells = embed(A, A.getComm().tompi4py())
    assert found == (1, 9, 12)
    np.testing.assert_array_equal(cells, np.flatnonzero(wet.ravel()))
