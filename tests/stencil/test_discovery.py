"""The ways to a grid, and what is said when there is none; that through the graph is tested in lattice/."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, poisson, random_solids, triangles

from petsc_dcdm.grid.errors import GridError, MatrixError
from petsc_dcdm.stencil.discovery import find_grid
from petsc_dcdm.stencil.forms.conversion import as_aij


def pc_for(A, dm=None):
    pc = PETSc.PC().create(A.getComm())
    pc.setOperators(A)
    if dm is not None:
        pc.setDM(dm)
    return pc


def test_dmda_on_the_pc_or_on_the_matrix():
    da = PETSc.DMDA().create([5, 4, 3], stencil_width=1)
    A = da.createMat()
    A.assemble()
    assert find_grid(pc_for(A, da), A, None).shape == (3, 4, 5)
    B = poisson((3, 4, 5))
    B.setDM(da)
    grid = find_grid(pc_for(B), B, None)
    assert grid.shape == (3, 4, 5) and grid.source == "DMDA"


def test_dmda_in_2d_has_one_plane():
    da = PETSc.DMDA().create([5, 4], stencil_width=1)
    grid = find_grid(pc_for(poisson((1, 4, 5)), da), poisson((1, 4, 5)), None)
    assert grid.shape == (1, 4, 5) and grid.dimension == 2


def test_cells_index_set_with_the_grid_option():
    active = random_solids((4, 5, 6))
    cells = np.flatnonzero(active.ravel())
    A = matrix(*conductances((4, 5, 6), active), cells=cells)
    A.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType)))
    grid = find_grid(pc_for(A), A, (4, 5, 6))
    assert (grid.cells == cells).all()
    assert find_grid(pc_for(A), A, None).shape == (4, 5, 6)
    with pytest.raises(GridError, match="outside the 6 x 5 x 3 grid"):
        find_grid(pc_for(A), A, (3, 5, 6))


@pytest.mark.parametrize(
    "cells, message", [([0, 1, 2], "one cell per local row"), ([0, 1, 1, 2, 3, 4, 5, 6], "one unknown per cell")]
)
def test_cells_that_do_not_fit(cells, message):
    A = poisson((1, 2, 4))
    A.compose("dcdm_cells", PETSc.IS().createGeneral(np.array(cells, PETSc.IntType)))
    with pytest.raises(GridError, match=message):
        find_grid(pc_for(A), A, (1, 2, 4))


def test_grid_option_alone():
    A = poisson((3, 4, 5))
    assert find_grid(pc_for(A), A, (3, 4, 5)).shape == (3, 4, 5)
    with pytest.raises(GridError, match="5 x 4 x 2 = 40 cells but the matrix has 60 rows"):
        find_grid(pc_for(A), A, (2, 4, 5))


def test_a_dmda_of_more_cells_than_rows():
    """Where SNES holds bounds it solves for the other rows, with the DMDA of all: the couplings tell the grid."""
    active = random_solids((4, 5, 6))
    cells = np.flatnonzero(active.ravel())
    A = matrix(*conductances((4, 5, 6), active), cells=cells)
    A.setDM(PETSc.DMDA().create([6, 5, 4], dof=1, stencil_width=1))
    found = find_grid(pc_for(A), A, None)
    assert found.source == "graph of the matrix" and found.rows == cells.size
    assert find_grid(pc_for(A), A, (4, 5, 6)).source == "graph of the matrix"
    star = PETSc.Mat().createAIJ((40, 40), nnz=40)
    for row in range(40):
        star[row, row] = 40.0
        star[0, row] = star[row, 0] = 40.0 if row == 0 else -1.0
    star.assemble()
    star.setDM(PETSc.DMDA().create([7, 6], dof=1, stencil_width=1))
    with pytest.raises(GridError, match="the DMDA is 7 x 6 = 42 cells but the matrix has 40 rows; attach"):
        find_grid(pc_for(star), star, None)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 6, 7), (1, 1, 9), (2, 2, 8), (7, 3, 4)])
def test_offsets_of_a_lexicographic_matrix(shape):
    A = poisson(shape)
    assert find_grid(pc_for(A), A, None).shape == shape


def test_no_grid_to_be_found():
    A = triangles(40)
    with pytest.raises(GridError, match=r"no grid could be found.*120 rows.*-pc_dcdm_grid nx,ny"):
        find_grid(pc_for(A), A, None)


def test_dof_and_size_of_a_dmda():
    two = PETSc.DMDA().create([5, 4, 3], dof=2, stencil_width=1)
    A = poisson((3, 4, 5))
    with pytest.raises(GridError, match=r"2 unknowns per cell \(dof\)"):
        find_grid(pc_for(A, two), A, None)
    other = PETSc.DMDA().create([5, 4, 4], stencil_width=1)
    assert find_grid(pc_for(A, other), A, None).source == "offsets of the matrix"


def test_other_matrix_types_are_refused():
    shell = PETSc.Mat().createPython([4, 4], context=object())
    for A, message in [
        (shell, "type python"),
        (PETSc.Mat().createBAIJ([4, 4], bsize=2, nnz=1), "block size 2"),
        (PETSc.Mat().createAIJ([4, 5], nnz=1), "4 x 5"),
        (PETSc.Mat().createAIJ([4, 4], bsize=2, nnz=1), "block size 2"),
    ]:
        A.setUp()
        A.assemble()
        with pytest.raises(MatrixError, match=message):
            find_grid(pc_for(A), as_aij(A), None)
