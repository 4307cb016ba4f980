"""Chebyshev sweeps of the matrix itself before and after the network, where that is set up on the nearest operator.

The nearest 5- or 7-point operator (:mod:`petsc_dcdm.stencil.forms.nearest`) has the smooth part of a compact matrix and
not the rest, which a sweep or two reduce. Sweeps before and after are the same polynomial of D^-1 A on [lmax / 5, lmax],
so that the whole is as symmetric as the network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.stencil.fixed import FixedRows

RATIO = 5.0
"""Of the largest eigenvalue of D^-1 A to the smallest that sweeps are to reduce."""


class Sweeps:
    """All methods are collective."""

    def __init__(self, A: PETSc.Mat, fixed: FixedRows, largest: float, count: int) -> None:
        """``largest``: no eigenvalue of D^-1 A is larger; ``count`` sweeps before and as many after."""
        self._A, self._fixed, self.count, self.largest = A, fixed, count, largest
        self._inverse = A.getDiagonal()
        with self._inverse as d:
            d[:] = np.divide(1.0, d, out=np.zeros(d.size), where=d != 0.0)
            d[fixed.rows] = 0.0
        self._r, self._p, self._z = (A.createVecRight() for _ in range(3))

    def apply(self, network: Callable[[PETSc.Vec, PETSc.Vec], None], r: PETSc.Vec, z: PETSc.Vec) -> None:
        """z = sweeps, ``network(r, z)`` on what they leave, sweeps; 0 in the fixed rows."""
        left = self._r
        r.copy(left)
        self._fixed.clear(left)
        self._sweep(left, z, begin=True)
        self._subtract(z, left, r)
        network(left, self._z)
        z.axpy(1.0, self._z)
        self._fixed.clear(z)
        self._subtract(z, left, r)
        self._sweep(left, z, begin=False)

    def _subtract(self, z: PETSc.Vec, left: PETSc.Vec, r: PETSc.Vec) -> None:
        """left = r - A z, 0 in the fixed rows."""
        self._A.mult(z, left)
        left.aypx(-1.0, r)
        self._fixed.clear(left)

    def _sweep(self, left: PETSc.Vec, z: PETSc.Vec, begin: bool) -> None:
        """z += p(D^-1 A) D^-1 left, where z is 0 to ``begin`` with; ``left`` is overwritten. Saad, Iterative Methods for
        Sparse Linear Systems (2003), algorithm 12.1.
        """
        centre, radius = 0.5 * self.largest * (1 + 1 / RATIO), 0.5 * self.largest * (1 - 1 / RATIO)
        p, rho = self._p, radius / centre
        p.pointwiseMult(self._inverse, left)
        p.scale(1.0 / centre)
        for _ in range(1, self.count):
            if begin:
                p.copy(z)
            else:
                z.axpy(1.0, p)
            begin = False
            self._A.mult(p, self._z)
            left.axpy(-1.0, self._z)
            before, rho = rho, 1.0 / (2 * centre / radius - rho)
            self._z.pointwiseMult(self._inverse, left)
            p.scale(rho * before)
            p.axpy(2 * rho / radius, self._z)
        if begin:
            p.copy(z)
        else:
            z.axpy(1.0, p)

    def destroy(self) -> None:
        for v in (self._inverse, self._r, self._p, self._z):
            v.destroy()
