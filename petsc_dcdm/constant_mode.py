"""Constants where they nearly are a null space: one direction that the network does not find is taken by itself."""

from __future__ import annotations

from collections.abc import Callable

from petsc4py import PETSc

from petsc_dcdm.grid.fixed import LAST_BITS, FixedRows


class ConstantMode:
    """The vector of ones on the rows that are not fixed, and A times it. All methods are collective."""

    def __init__(self, mult: Callable[[PETSc.Vec, PETSc.Vec], None], like: PETSc.Vec, fixed: FixedRows) -> None:
        self._ones, self._image = like.duplicate(), like.duplicate()
        self._ones.set(1.0)
        fixed.clear(self._ones)
        mult(self._ones, self._image)
        fixed.clear(self._image)
        self._energy = float(self._ones.dot(self._image))
        self._count = float(self._ones.sum())

    def correct(self, r: PETSc.Vec, x: PETSc.Vec) -> bool:
        """An exact line search along the constants. Returns whether x moved beyond its last bits."""
        if not self._energy:
            return False
        step = float(r.dot(self._ones)) / self._energy
        if not abs(step) > LAST_BITS * abs(float(x.dot(self._ones))) / self._count:
            return False
        x.axpy(step, self._ones)
        return True

    def remove(self, d: PETSc.Vec) -> None:
        """Makes ``d`` A-orthogonal to the constants."""
        if self._energy:
            d.axpy(-float(d.dot(self._image)) / self._energy, self._ones)

    def destroy(self) -> None:
        self._ones.destroy()
        self._image.destroy()
