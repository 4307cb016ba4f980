"""Constants, where they are a null space or nearly one: the direction that the network does not find."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.solver.loop.scaled_rows import Weights
from petsc_dcdm.stencil.extract import NEARLY_CLOSED
from petsc_dcdm.stencil.fixed import LAST_BITS, FixedRows
from petsc_dcdm.stencil.forms.row_scaling import RowFactors

NULL = 1e-14
"""Row sums relative to diagonals up to which they are rounding, of a matrix whose stencil has not been read."""


class Closed(Enum):
    """What constants on the rows that are not fixed are to a matrix."""

    NO = 0
    NEARLY = 1
    ENTIRELY = 2


class ConstantMode:
    """The vector n of ones on the rows that are not fixed. All methods are collective.

    Where it is a null vector directions are freed of it; where it nearly is one they are made A-orthogonal to it, and
    steps along it are taken by themselves. Of a matrix that is symmetric in the inner product of ``weights`` W, as in
    :class:`petsc_dcdm.solver.loop.steps.System`, it is W n that right-hand sides have no part along; and where that is
    constant, of a transposed matrix, n is W^-1 1.
    """

    def __init__(
        self,
        mult: Callable[[PETSc.Vec, PETSc.Vec], None],
        like: PETSc.Vec,
        fixed: FixedRows,
        closed: Closed,
        weights: Weights | None = None,
    ) -> None:
        self.closed = closed
        self._null, self._left = like.duplicate(), like.duplicate()
        for vec in (self._null, self._left):
            vec.set(1.0)
        if weights is not None:  # of D^-1 for A = D S, of D for A' = S D
            weights.factors.divide(self._null if weights.transposed else self._left)
        for vec in (self._null, self._left):
            fixed.clear(vec)
        self._square = float(self._null.dot(self._null))
        self._image: PETSc.Vec | None = None
        self._energy = 0.0
        if closed is Closed.NEARLY:
            self._image = like.duplicate()
            mult(self._null, self._image)
            fixed.clear(self._image)
            if weights is not None:
                weights.apply(self._image)
            self._energy = float(self._null.dot(self._image))

    def part(self, b: PETSc.Vec) -> float:
        """Norm of the part of ``b`` that no x can answer to."""
        if self.closed is not Closed.ENTIRELY or not self._square:
            return 0.0
        return abs(float(b.dot(self._left))) / float(self._left.norm())

    def correct(self, r: PETSc.Vec, x: PETSc.Vec) -> bool:
        """An exact line search along the constants. Returns whether x moved beyond its last bits."""
        if not self._energy:
            return False
        step = float(r.dot(self._left)) / self._energy
        if not abs(step) > LAST_BITS * abs(float(x.dot(self._null))) / self._square:
            return False
        x.axpy(step, self._null)
        return True

    def remove(self, d: PETSc.Vec) -> None:
        """Frees ``d`` of the constants."""
        if self._image is not None and self._energy:
            d.axpy(-float(d.dot(self._image)) / self._energy, self._null)
        elif self._square:
            d.axpy(-float(d.dot(self._null)) / self._square, self._null)

    def destroy(self) -> None:
        for vec in (self._null, self._left, self._image):
            if vec is not None:
                vec.destroy()


def largest_image(A: PETSc.Mat, diagonal: PETSc.Vec, n: PETSc.Vec, fixed: FixedRows) -> float:
    """The largest of D^-1 A n in rows that are not ``fixed``, D the diagonal. Collective."""
    image = A.createVecLeft()
    A.mult(n, image)
    image.pointwiseDivide(image, diagonal)
    fixed.clear(image)
    largest = float(image.norm(PETSc.NormType.NORM_INFINITY))
    image.destroy()
    return largest


def how_closed(A: PETSc.Mat, fixed: FixedRows) -> Closed:
    """What constants on the rows that are not ``fixed`` are to a matrix with entries. Collective."""
    ones = A.createVecRight()
    ones.set(1.0)
    fixed.clear(ones)
    diagonal = A.getDiagonal()
    largest = largest_image(A, diagonal, ones, fixed)
    for vec in (ones, diagonal):
        vec.destroy()
    return Closed.ENTIRELY if largest <= NULL else Closed.NEARLY if largest <= NEARLY_CLOSED else Closed.NO


def constant_part(
    b: PETSc.Vec, fixed: FixedRows, count: int, comm: MPI.Intracomm, factors: RowFactors | None = None
) -> float:
    """Norm of the part of ``b`` along constants on the ``count`` rows that are not ``fixed``, or along those divided by
    ``factors``: what a matrix whose null space is constant has no answer to. Collective.
    """
    if factors is not None:
        left = factors.null_vector(b)
        fixed.clear(left)
        part = abs(float(b.dot(left))) / float(left.norm())
        left.destroy()
        return part
    total = float(b.sum()) - comm.allreduce(float(b.getArray(readonly=True)[fixed.rows].sum()))
    return float(abs(total) / np.sqrt(count))


def remove_constant(z: PETSc.Vec, fixed: FixedRows, count: int, comm: MPI.Intracomm) -> None:
    """Frees ``z`` of constants on the ``count`` rows that are not ``fixed``, where it becomes 0. Collective."""
    with z as values:
        values[fixed.rows] = 0.0
        values -= comm.allreduce(float(values.sum())) / count
        values[fixed.rows] = 0.0
