"""Values change, the pattern stays: on ranks whose rows are not their boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

import petsc_dcdm.stencil.system as system_module
from petsc_dcdm.stencil.discovery import find_grid
from petsc_dcdm.stencil.ghosts import Ghosts

RANKS = (3, 4)
SHAPE = (17, 14, 24)


def counted(module, name, made):
    original = getattr(module, name)

    def count(*arguments, **options):
        made.append(name)
        return original(*arguments, **options)

    setattr(module, name, count)
    return original


def test_ghosts_and_ways_are_kept():
    made = []
    original = counted(system_module, "RowMap", made)
    fetched = []
    init = Ghosts.__init__
    Ghosts.__init__ = lambda self, *a: (fetched.append(1), init(self, *a))[1]
    try:
        cells = np.random.default_rng(0).permutation(int(np.prod(SHAPE)))
        A = matrix(*conductances(SHAPE, random_solids(SHAPE)), cells=cells)
        first, last = A.getOwnershipRange()
        A.compose("dcdm_cells", PETSc.IS().createGeneral(cells[first:last].astype(PETSc.IntType), comm=A.getComm()))
        b = right_hand_side(A)
        ksp, x = solve(A, b, pc_dcdm_grid="24,14,17", ksp_rtol=1e-10)
        for factor in (2.0, -0.5):
            A.scale(factor)
            ksp.solve(b, x)
            assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-9
        diagonal = A.createVecLeft()
        A.getDiagonal(diagonal)
        diagonal.scale(1.5)
        A.setDiagonal(diagonal)
        ksp.solve(b, x)
        assert relative_residual(A, x, b) < 1e-9
        assert made == ["RowMap"] and fetched == [1], (made, fetched)
    finally:
        system_module.RowMap, Ghosts.__init__ = original, init


def test_cells_of_ghosts_are_those_that_their_owners_have():
    rank = PETSc.COMM_WORLD.rank
    for sizes in ((7, 9, 11), (13, 6, 5), (12, 8)):
        dm = PETSc.DMDA().create(sizes, dof=1, stencil_width=1)
        A = dm.createMatrix()
        pc = PETSc.PC().create(A.getComm())
        pc.setDM(dm)
        grid = find_grid(pc, A, None)
        first, last = A.getOwnershipRange()
        columns = np.random.default_rng(rank).permutation(A.getSize()[0])[:60]
        columns = np.unique(columns[(columns < first) | (columns >= last)]).astype(np.int64)
        numbers = np.arange(first, last) if grid.cells is None else grid.cells
        told, asked = Ghosts(A, columns, grid), Ghosts(A, columns, replace(grid, cells=numbers, edges=None))
        assert np.array_equal(told.cells, asked.cells)
        for ghosts in (told, asked):
            ghosts.destroy()
        pc.destroy()
