"""Values change, the pattern stays: on ranks whose rows are not their boxes."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

import petsc_dcdm.stencil.system as system_module
from petsc_dcdm.stencil.ghosts import Ghosts

RANKS = (3,)
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
