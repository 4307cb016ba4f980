"""The size of a matrix: its sign, and powers of two that bring its diagonals to 1."""

from __future__ import annotations

from ctypes import c_double, c_int, c_int64, c_void_p

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.errors import MatrixError
from petsc_dcdm.grid.reductions import of_all
from petsc_dcdm.grid.scaling import power_of_two
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.entries.rows import CsrRows

WIDE, TOO_WIDE = 1e-10, 1e-24
"""Ratios of the smallest diagonal to the largest: below the first both are kept within the range of single precision,
with products of three of them; below the second they cannot be.
"""

FEW = 256
"""Diagonals of a rank from which the size of all is guessed."""


def sign_and_scale(rows: CsrRows | NumpyRows, comm: MPI.Intracomm) -> tuple[float, float]:
    """The sign of the matrix, and a scale, a power of two lest anything be rounded, that makes its diagonals at most 1.

    Collective. The scale only has to be of the right size: a few diagonals will do, the rest is settled by the largest.
    """
    own = rows.first_sign(), rows.some_diagonal(max(1, rows.rows // FEW))
    known = of_all(comm, np.array(own)).tolist()
    largest = max(size for _, size in known)
    scale = power_of_two(largest) if 0 < largest < np.inf else 1.0
    return next((s for s, _ in known if s), 1.0), scale


def scaled(kind: type, arrays: list[np.ndarray], factor: float, team: Workers, threads: int) -> None:
    """Arrays (C-contiguous, of the team's memory) times a number, by all who work on them. Collective on the team."""
    if kind is not CsrRows:
        for array in arrays:
            array *= factor
        return
    scale = declared(library(), {"dcdm_scale": (None, [c_void_p, c_int64, c_double, c_int])}).dcdm_scale
    for array in arrays:
        team.do(scale, address_of(array), array.size, factor, team.threads or threads)


def range_factor(least: float, largest: float, scale: float) -> float:
    """A power of two that brings diagonals of this range, times ``scale``, to at most 1, or to both sides of 1.

    Raises MatrixError where single precision cannot hold them.
    """
    if 0 < least < TOO_WIDE * largest:
        raise MatrixError(
            f"the diagonals of coupled rows range from {least:.1e} to {largest:.1e}; the network works in single "
            "precision, which holds ratios up to 1e24"
        )
    largest, least = scale * largest, scale * least
    if 0 < least < WIDE * largest:
        largest *= float(np.sqrt(least / largest))  # as many powers of ten above 1 as below
    return power_of_two(largest) if largest > 0 and not 0.5 <= largest <= 1.0 else 1.0
