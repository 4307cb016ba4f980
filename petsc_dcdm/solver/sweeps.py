"""Chebyshev sweeps of the matrix before and after the network, where that is set up on the nearest operator.

The nearest 5- or 7-point operator (:mod:`petsc_dcdm.stencil.forms.nearest`) has the smooth part of a compact matrix
and not the rest, which a sweep or two reduce. Sweeps before and after are the same polynomial of D^-1 A on
[lmax / 5, lmax], so that the whole is as symmetric as the network. They run on the grid in single precision, as the
network does: half of the couplings and no column numbers are a sixth of the matrix, and a sweep takes a quarter of the
time of a MatMult.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.native.build import KernelsUnavailable, library
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.stencil.forms.axis_sums import forward_places
from petsc_dcdm.stencil.forms.nearest import Nearness

RATIO = 5.0
"""Of the largest eigenvalue of D^-1 A to the smallest that sweeps are to reduce."""

SWEEPS = 2
"""Before the network, and as many after: what takes least time (docs/measurements/compact.md)."""

Cycle = Callable[[np.ndarray, np.ndarray], None]


class Sweeps:
    """Holds arrays of this rank's box: a symmetric matrix by its couplings, and what a residual goes through."""

    def __init__(self, near: Nearness, layout: BoxLayout, threads: int) -> None:
        """``near`` is kept by reference."""
        self._c, self._layout, self._threads, self._count = near.couplings, layout, threads, SWEEPS
        self._places = forward_places(3 if len(self._c) > 5 else 2)
        self._centre, self._radius = 0.5 * near.bound * (1 + 1 / RATIO), 0.5 * near.bound * (1 - 1 / RATIO)
        shape = layout.shape
        padded = tuple(n + 2 for n in shape)
        self._r, self._z, self._out = (aligned_zeros(int(np.prod(shape)), np.float64).reshape(shape) for _ in range(3))
        self._p, self._q = (aligned_zeros(int(np.prod(padded)), np.float32).reshape(padded) for _ in range(2))
        self._step: Callable[..., None] | None = None
        with suppress(KernelsUnavailable):
            self._step = library().dcdm_compact_step

    def apply(self, cycle: Cycle, r: np.ndarray, scale: float) -> np.ndarray:
        """Sweeps, ``cycle(left, out)`` on what they leave of ``scale r``, sweeps. Collective.

        All arrays are float64 (nz, ny, nx) of this rank's box; the result is overwritten by the next call.
        """
        left, z = self._r, self._z
        np.multiply(r, scale, out=left)
        z[...] = 0.0
        self._sweep(None, left, z)
        self._advance(self._p, left, None, None)
        cycle(left, self._out)
        z += self._out
        interior(self._p)[...] = self._out
        self._sweep(self._p, left, z)
        return z

    def _sweep(self, p: np.ndarray | None, left: np.ndarray, z: np.ndarray) -> None:
        """``left -= A p`` and then z += c(D^-1 A) D^-1 left, the last step of which is left in `_p`, not yet taken off
        ``left``. Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 12.1.
        """
        rho = self._radius / self._centre
        self._advance(p, left, self._q, z, 0.0, 1.0 / self._centre)
        self._p, self._q = self._q, self._p
        for _ in range(1, self._count):
            before, rho = rho, 1.0 / (2 * self._centre / self._radius - rho)
            self._advance(self._p, left, self._q, z, rho * before, 2 * rho / self._radius)
            self._p, self._q = self._q, self._p

    def _advance(
        self,
        p: np.ndarray | None,
        left: np.ndarray,
        q: np.ndarray | None,
        z: np.ndarray | None,
        beta: float = 0.0,
        alpha: float = 0.0,
    ) -> None:
        """``left -= A p``, ``q = beta p + alpha D^-1 left`` and ``z += q``. Collective."""
        if p is not None:
            self._layout.exchange(p, corners=True)
        if not left.size:
            return
        if self._step is None:
            self._advance_numpy(p, left, q, z, beta, alpha)
            return
        size = (ctypes.c_int64 * 3)(*left.shape[::-1])
        pointers = [None if a is None else ctypes.c_void_p(a.ctypes.data) for a in (p, left, q, z)]
        self._step(
            ctypes.c_void_p(self._c.ctypes.data),
            ctypes.c_int64(len(self._c)),
            size,
            *pointers,
            ctypes.c_double(beta),
            ctypes.c_double(alpha),
            self._threads,
        )

    def _advance_numpy(
        self,
        p: np.ndarray | None,
        left: np.ndarray,
        q: np.ndarray | None,
        z: np.ndarray | None,
        beta: float,
        alpha: float,
    ) -> None:
        c = self._c
        if p is not None:
            for here, place in zip(c, self._places, strict=True):
                if any(place):
                    left -= interior(here) * _moved(p, place) + _moved(here * p, [-step for step in place])
                else:
                    left -= interior(here * p)
        if q is None:
            return
        step = np.divide(alpha * left, interior(c[0]), out=np.zeros(left.shape), where=interior(c[0]) > 0)
        if p is not None:
            step += beta * interior(p)
        interior(q)[...] = step
        if z is not None:
            z += step


def _moved(padded: np.ndarray, steps: list[int] | tuple[int, int, int]) -> np.ndarray:
    """View of a padded array at the cells so many steps (x, y, z) from the inner ones."""
    return padded[tuple(slice(1 + step, n - 1 + step) for step, n in zip(steps[::-1], padded.shape, strict=True))]
