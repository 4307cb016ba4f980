"""Media that are products of one function per axis, solved by fast diagonalisation (Lynch, Rice and Thomas, Numer.
Math. 6, 1964): a grid stretched along its axes has conductances of any ratio, of which no cell's is like its
neighbours', and yet its inverse is a product of small matrices along each axis. numpy and compiled code.

With m the product of one factor per axis the operator is m times a sum of one tridiagonal matrix per axis; their
eigenvectors, scaled by m^(-1/2), are those of all of it. A medium that is nearly such a product has one beside it that
is as good a preconditioner as the ratio of the two is small.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from math import prod

import numpy as np

from petsc_dcdm.backends.cpu.separable_fit import Factors
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import library
from petsc_dcdm.native.node_team import ONE_RANK, Workers

ACCURATE = 1e-6
"""Share of the largest eigenvalue down to which they are found well at once; below it they are found anew, of what the
matrix is on the rest. Widths of 1 : 10^7 have eigenvalues of 1 : 10^15: 5 iterations instead of 2."""

PANEL = 64
"""As in separable.c."""


@functools.cache
def _kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    p, i64, i32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    signatures = {
        "dcdm_separable_turn": (None, [p, p, i64, i64, i64, p, p, p, i32]),
        "dcdm_separable_scale": (None, [p, p, p, p, p, p, i32]),
        "dcdm_separable_divide": (None, [p, p, p, p, p, i32]),
    }
    return declared(library(), signatures)


class SeparableSolver:
    """The inverse of a product of functions per axis, exact but for single precision.

    Raises KernelsUnavailable where there is no compiler. Not collective.
    """

    def __init__(self, factors: Sequence[Factors], threads: int, team: Workers = ONE_RANK) -> None:
        """``factors``: along x, y, z, of :func:`petsc_dcdm.backends.cpu.separable_fit.factors_of`. ``team``: who works
        on solutions, kernels of `Workers.do` with arrays of its memory; then ``threads`` are those of all of it.
        """
        self._c, self._threads, self._team = _kernels(), threads, team
        shape = tuple(factor.m.size for factor in reversed(factors))
        self._cells = prod(shape)
        self._shape = (ctypes.c_int64 * 3)(*shape)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for i, factor in enumerate(factors):
            same = [j for j in range(i) if factor.same(factors[j])]
            found.append(found[same[0]] if same else _eigen(factor))

        def kept(values: np.ndarray) -> np.ndarray:
            """Single precision, of the team's memory."""
            array = team.room(values.size, np.float32).reshape(values.shape)
            array[...] = values
            return array

        self._values = [kept(values) for values, _ in reversed(found)]
        self._vectors = [kept(vectors) for _, vectors in reversed(found)]
        self._transposed = [kept(vectors.T) for _, vectors in reversed(found)]
        self._scales = [kept(factor.m**-0.5) for factor in reversed(factors)]
        self._buffers = [team.zeros(self._cells, np.float32) for _ in range(2)]
        self._room = team.zeros(threads * max(shape) * PANEL, np.float32)

    def solve(self, r: np.ndarray, x: np.ndarray) -> None:
        """``x`` for the right-hand side ``r``, float32 (nz, ny, nx), x contiguous and of the team's memory. What no x
        gives, the constant where nothing holds it, is left out.
        """
        if not (r.dtype == np.float32 and r.flags.c_contiguous and self._team.has(r)):
            self._buffers[1].reshape(r.shape)[...] = r
            r = self._buffers[1]
        self._scale(r, self._buffers[0])
        self._turn(self._vectors, self._transposed)
        values = [array.ctypes.data for array in self._values]
        self._c.dcdm_separable_divide(self._buffers[0].ctypes.data, self._shape, *values, self._threads)
        self._turn(self._transposed, self._vectors)
        self._scale(self._buffers[0], x)

    def _scale(self, source: np.ndarray, to: np.ndarray) -> None:
        scales = [array.ctypes.data for array in self._scales]
        self._c.dcdm_separable_scale(source.ctypes.data, to.ctypes.data, self._shape, *scales, self._threads)

    def _turn(self, matrices: list[np.ndarray], transposed: list[np.ndarray]) -> None:
        """The first buffer, times the transposes of ``matrices`` along z, y, x."""
        for axis, (matrix, other) in enumerate(zip(matrices, transposed, strict=True)):
            n, inner = self._shape[axis], prod(self._shape[axis + 1 :])
            if n == 1:
                continue
            source, to = (buffer.ctypes.data for buffer in self._buffers)
            outer = self._cells // (n * inner)
            pointers = matrix.ctypes.data, other.ctypes.data, self._room.ctypes.data
            self._c.dcdm_separable_turn(source, to, outer, n, inner, *pointers, self._threads)
            self._buffers.reverse()


def _eigen(factor: Factors) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, float64 [n], and orthonormal eigenvectors [n, n] (columns) of the matrix of an axis, scaled by
    m^(-1/2) from both sides; those of small eigenvalues are as accurate as those of large ones.
    """
    n, q = factor.m.size, factor.m**-0.5
    # The matrix is B' B: a row of B for each coupling and for each s.
    B = np.zeros((2 * n, n))
    at = np.arange(n)
    root = np.sqrt(factor.a)
    B[at, at] = root * q
    B[at[1:], at[:-1]] = -root[1:] * q[:-1]
    B[n + at, at] = np.sqrt(factor.s) * q
    values, vectors = np.linalg.eigh(B.T @ B)
    count = n
    while (some := int(np.count_nonzero(values[:count] < ACCURATE * values[count - 1]))) > 1:
        image = B @ vectors[:, :some]
        values[:some], turned = np.linalg.eigh(image.T @ image)
        vectors[:, :some] = vectors[:, :some] @ turned
        if some == count:
            break
        count = some
    values = np.maximum(values, 0.0)
    if not factor.s.any():
        values[0] = 0.0  # of the constant
    return values, vectors
