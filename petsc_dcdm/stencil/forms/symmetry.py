"""Whether a matrix of any pattern is symmetric on its coupled rows."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.errors import MatrixError, raise_together
from petsc_dcdm.stencil.local_csr import local_csr

TOLERANCE = 1e-6
"""Relative to the entries: how far a_ij and a_ji may be apart."""

LEAST = 1e-12
"""Relative to the geometric mean of both diagonals: differences that are smaller do not count."""

BILINEAR = 1e-9
"""How far y . A x and x . A y may be apart without a look at the entries, of A scaled to diagonals of 1. Rounding is
1e-12; one entry off by the tolerance, of the size of the diagonal, is 1e-6.
"""


class NotSymmetric(MatrixError):
    """Two rows are not coupled alike from both sides."""


def _random(rows: np.ndarray, stream: int) -> np.ndarray:
    """Numbers in +-[1/2, 1] that depend on the row only (splitmix64), the same however rows are distributed."""
    with np.errstate(over="ignore"):
        z = (rows.astype(np.uint64) + np.uint64(stream << 40)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    size = 0.5 + (z >> np.uint64(12)).astype(float) * 2.0**-53
    return np.where(z & np.uint64(1), size, -size)


def check_symmetry(A: PETSc.Mat, dirichlet: np.ndarray) -> None:
    """Collective; raises NotSymmetric, on all ranks alike, where entries between rows that are not in ``dirichlet``
    (int64, local) differ by more than the tolerance from those the other way. The bilinear form of two random vectors
    settles it where it is symmetric to rounding; else all entries are compared.
    """
    first, last = A.getOwnershipRange()
    diagonal = A.getDiagonal()
    d = np.abs(diagonal.getArray(readonly=True))
    scale = np.divide(1.0, np.sqrt(d), out=np.zeros(d.size), where=d > 0)
    scale[dirichlet] = 0.0
    vectors = []
    for stream in (1, 2):
        v = A.createVecRight()
        v.setArray(_random(np.arange(first, last), stream) * scale)
        vectors.append(v)
    x, y = vectors
    image = A.createVecLeft()
    A.mult(x, image)
    there = float(y.dot(image))
    A.mult(y, image)
    back = float(x.dot(image))
    for v in (x, y, image):
        v.destroy()
    if not abs(there - back) <= BILINEAR:
        _compare_entries(A, diagonal, dirichlet)
    diagonal.destroy()


def _entries(A: PETSc.Mat) -> tuple[np.ndarray, np.ndarray]:
    """Keys (local row times columns plus column), sorted, and values of the local entries."""
    with local_csr(A, blocks=False) as local:
        row = np.repeat(np.arange(local.indptr.size - 1), np.diff(local.indptr))
        key = row * A.getSize()[1] + local.indices
        order = np.argsort(key, kind="stable")
        return key[order], local.values[order].copy()


def _compare_entries(A: PETSc.Mat, diagonal: PETSc.Vec, dirichlet: np.ndarray) -> None:
    transposed = PETSc.Mat()
    A.transpose(transposed)
    here, own = _entries(A)
    there, other = _entries(transposed)
    transposed.destroy()
    keys = np.union1d(here, there)
    values = np.zeros((2, keys.size))
    values[0, np.searchsorted(keys, here)] = own
    values[1, np.searchsorted(keys, there)] = other
    n, first = A.getSize()[1], A.getOwnershipRange()[0]
    row, column = keys // n, keys % n
    coupled = np.abs(diagonal.getArray(readonly=True))
    coupled[dirichlet] = 0.0
    everyones = np.concatenate(A.getComm().tompi4py().allgather(coupled))
    size = np.sqrt(everyones[row + first]) * np.sqrt(everyones[column])
    difference = np.abs(values[0] - values[1])
    wrong = (size > 0) & (difference > TOLERANCE * np.abs(values).max(axis=0) + LEAST * size)
    error = None
    if wrong.any():
        at = int(np.argmax(np.where(wrong, difference, 0.0)))
        i, j = int(row[at]) + first, int(column[at])
        error = NotSymmetric(
            f"the matrix is not symmetric: the entry in row {i}, column {j} is {values[0, at]:g} and that in row {j}, "
            f"column {i} is {values[1, at]:g}; petsc_dcdm needs a symmetric matrix (only Dirichlet rows may couple one "
            "way)"
        )
    raise_together(A.getComm().tompi4py(), error)
