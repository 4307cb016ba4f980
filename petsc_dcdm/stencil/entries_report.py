"""What the readers of a matrix's rows report: the stencil's statistics, or why it is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

SUM_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Relative to the diagonal: what rounding leaves of row sums that are meant to be 0. Six faces are added up with six
roundings of half an eps, their values may have been scaled two or three times before that.
"""


class Problem(IntEnum):
    """Why a matrix is no stencil of a Poisson problem; the codes of csr.c."""

    NOT_FINITE = 1
    DIAGONAL = 2
    SIGN = 3
    ROW_SUM = 4
    NOT_NEIGHBOUR = 5
    OUTSIDE = 6


class StencilError(ValueError):
    """The first local row (lowest number) that does not fit, and why.

    Attributes
    ----------
    row
        local row number
    column
        column as stored in the matrix, -1 where the whole row is meant; for OUTSIDE in a row whose own
        cell lies outside of the grid or box, the cell number
    value
        what was found, with the matrix already multiplied by its sign: the entry; for ROW_SUM, the row
        sum
    """

    def __init__(self, problem: Problem, row: int, column: int, value: float) -> None:
        super().__init__(f"local row {row}, column {column}: {problem.name.lower().replace('_', ' ')} ({value:g})")
        self.problem, self.row, self.column, self.value = problem, row, column, value


class MoreDirichlet(Exception):
    """There are more Dirichlet rows than those that were looked for, or may be: the rows do not fit."""


@dataclass(frozen=True)
class StencilReport:
    """What was found in the local rows; conductances as in the matrix but for the sign, not scaled.

    Attributes
    ----------
    max_diagonal
        over the rows that are no Dirichlet rows
    w_min, w_max
        smallest and largest positive conductance per axis, 0 where there is none
    w_sum, w_count
        over the positive conductances per axis; each face is seen from the row on its high side,
        so that sums over ranks count it once
    least_diagonal
        over the same rows; infinite if there are none
    extra
        how many rows have an s
    row_sums
        the smallest and the largest over their diagonals; infinite if no row is coupled
    small_sums
        sums of those row sums over their diagonals that are at most ``rounding`` and yet count: of the
        negative ones, which are taken for zero, and of the positive ones
    stiff
        how many rows have an s beyond 1e6 times their couplings
    inexact
        whether more was taken for zero than the rounding of a row sum (1e-14 of the diagonal)
    wrapped
        whether rows couple round the ends of grid lines along x, y, z
    symmetry
        checksum: the sum over all ranks modulo 2**64 is 0 if every coupling between two rows has
        bitwise the same value from both sides. Not 0 may also mean that they differ by rounding.
        Always 0 where the stencil was packed, see `PackedStencil.asymmetry`
    """

    max_diagonal: float
    w_min: tuple[float, float, float]
    w_max: tuple[float, float, float]
    w_sum: tuple[float, float, float]
    w_count: tuple[int, int, int]
    least_diagonal: float
    extra: int
    row_sums: tuple[float, float]
    small_sums: tuple[float, float]
    stiff: int
    inexact: bool
    wrapped: tuple[bool, bool, bool]
    symmetry: int
