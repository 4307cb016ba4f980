"""What the readers of rows are given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape


class RowsOnGrid(NamedTuple):
    """The local rows of a matrix in compressed form, and where they are on a grid of cells.

    Attributes
    ----------
    indptr, indices
        int32 or int64 (both the same), columns are global. As from ``Mat.getValuesCSR``.
    values
        float64
    shape
        (nz, ny, nx) of the global grid
    first_column
        local row r is column ``first_column + r`` (the start of the ownership range)
    cells
        int64 [rows], global cell number of each local row; None: local row r is cell ``first_cell + r``
    periodic
        the axes (z, y, x) of the grid that are known to be: along one of two cells an entry is the sum of two faces.
        Couplings between the ends of longer lines are read as such whether that is known or not
    other
        where the matrix is in two blocks, that of the other ranks' columns: (indptr, indices, values,
        columns); its indices point into the int64 global `columns`, those of the first block are local
        rows
    line
        how many rows make a line, where all are the cells of a box of the grid, in order; 0 if that is not known
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    shape: Shape
    first_column: int = 0
    cells: np.ndarray | None = None
    first_cell: int = 0
    periodic: Periodic = NOT_PERIODIC
    other: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
    line: int = 0
