"""Regions that nothing holds, as they are told from the matrix."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix

from petsc_dcdm.stencil.regions import find_regions

SHAPE = (1, 6, 11)


def rooms():
    """Two rooms with a wall between them, cells of the wall as identity rows; the right one has 6 x 5 cells."""
    active = np.ones(SHAPE, bool)
    active[:, :, 5] = False
    return conductances(SHAPE, active, walls=0.0)


def test_two_rooms():
    A = matrix(*rooms())
    found = find_regions(A)
    assert list(found.rows) == [30, 30] and list(found.first) == [0, 6]
    b = A.createVecRight()
    b.setValue(7, 3.0)
    b.assemble()
    np.testing.assert_allclose(found.parts(b), [0.0, 3.0 / np.sqrt(30)])


@pytest.mark.parametrize("size", [1e-14, 1e-9, 1.0])
def test_an_s_in_one_row_holds_a_room(size):
    A = matrix(*rooms())
    A.setValue(7, 7, A.getValue(7, 7) * (1 + size))
    A.assemble()
    assert list(find_regions(A).first) == [0]


@pytest.mark.parametrize("one_way", [True, False])
def test_a_dirichlet_row_holds_a_room(one_way):
    """Though the sums of the rows beside it are 0 where they couple to it one way."""
    A = matrix(*rooms())
    A.setOption(PETSc.Mat.Option.KEEP_NONZERO_PATTERN, True)
    (A.zeroRows if one_way else A.zeroRowsColumns)([20], diag=1.0)
    assert list(find_regions(A).first) == [0]


def test_cells_that_lie_far_apart_in_size():
    """What holds is small beside the diagonals of the region, not beside that of its row."""
    h = 1.3 ** np.arange(64)
    w, s = conductances((1, 40, 64), walls=0.0)
    w[0][..., 1:] = 2 / (h[1:] + h[:-1])
    w[1][:, 1:] = h
    assert find_regions(matrix(w, s)).rows.size == 1
    s[0, 7, 0] = 2.0
    assert find_regions(matrix(w, s)).rows.size == 0
