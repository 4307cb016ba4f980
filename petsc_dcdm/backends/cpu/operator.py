"""The matrix as the loop on the grid multiplies by it: one byte a cell, two, or arrays of its stencil."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.levels import roles
from petsc_dcdm.backends.cpu.loop import DirectionLoop
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.native.binding import FEW_EXTRA, MAX_HISTORY, Operator, kernels
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.stencil.packed import PackedStencil

BLOCK = 8


class BoxOperator:
    """A matrix on this rank's box: `factor` times the operator with low-face conductances w and extra diagonal s.

    Parameters
    ----------
    network
        the hierarchy that was set up on this operator; its finest level's layout and active cells are used.
    w, s
        a `PackedStencil` and None: one byte a cell. Or float64 arrays (nz + 2, ny + 2, nx + 2), C-contiguous, the
        box with a halo of one cell, which is filled here for w: 32 bytes a cell, kept by reference unless they have
        few values and two bytes a cell tell which (operator.h).
    factor
        negative for a negative definite matrix.
    exact
        whether this is the matrix to rounding, so that true residuals may be taken with it; else it is near
        enough for steps only.
    closed
        number of active cells of all ranks if constants on them are a null space of the matrix, else 0.

    Collective. See `petsc_dcdm.backends.base.Operator`.
    """

    max_history = MAX_HISTORY

    def __init__(
        self,
        network: CpuHierarchy,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        factor: float = 1.0,
        threads: int = 1,
        exact: bool = False,
        closed: int = 0,
    ) -> None:
        self.c = Operator(factor=factor)
        self.exact, self.closed = exact, closed
        self._layout = layout
        self._network, self.threads = network, threads
        shape = tuple(n + 2 for n in layout.shape)
        flat = network.geometry.flat
        pitches = (shape[1] * shape[2], shape[2], 1)
        self._pitch_r, self._pitch_w = shape[2], shape[2] if flat else shape[1] * shape[2]
        self._origin = sum((b.start + 1) * pitch for b, pitch in zip(network.box, pitches, strict=True))
        if isinstance(w, PackedStencil):
            self._use_packed(w, flat)
        else:
            assert s is not None
            for a in (*w, s):
                if a.dtype != np.float64 or a.shape != shape or not a.flags.c_contiguous:
                    raise ValueError(f"expected contiguous float64 arrays {shape}; got {a.dtype} {a.shape}")
            if layout.shape != layout.global_shape or any(layout.periodic):
                for a in w:
                    layout.exchange(a)
            self._use_arrays([*w, s], flat)

    def _use_packed(self, packed: PackedStencil, flat: bool) -> None:
        level = self._network.finest
        team = self._network.team
        words = team.room(level.n_w * level.n_r * -(-level.n_x // BLOCK), np.uint64)
        cells, address = address_of(packed.cells) + self._origin, address_of(words)
        make = None if 0 in self._layout.shape else kernels().dcdm_words
        team.do(make, ctypes.addressof(level), cells, self._pitch_w, self._pitch_r, address, self.threads)
        for i, axis in enumerate(roles(flat)):
            self.c.c[i] = packed.c[axis]
        self.c.packed, self.c.words = 1, address
        self.c.s_index, self.c.s_value = address_of(packed.s_index), address_of(packed.s_value)
        self.c.s_pitch_r, self.c.s_pitch_w, self.c.s_origin = self._pitch_r, self._pitch_w, self._origin
        self._kept = [words, packed.s_index, packed.s_value]

    def _use_arrays(self, arrays: list[np.ndarray], flat: bool) -> None:
        x, r, w = roles(flat)
        self.c.w_x, self.c.w_r, self.c.w_w, self.c.s = (address_of(arrays[i]) for i in (x, r, w, 3))
        self.c.pitch_r, self.c.pitch_w, self.c.origin = self._pitch_r, self._pitch_w, self._origin
        codes, values = self._coded(arrays[3].size)
        self._kept = [codes, values] if self.c.codes else arrays

    def _coded(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """What stands for the arrays, which have so many elements each, in C from now on: if they have few values."""
        level, team = self._network.finest, self._network.team
        codes, values = team.room(size, np.uint16), team.room(FEW_EXTRA, np.float64)
        make = None if 0 in self._layout.shape else kernels().dcdm_codes
        places = address_of(codes), address_of(values)
        team.do(make, ctypes.addressof(level), ctypes.addressof(self.c), *places, self.threads)
        return codes, values

    def loop(self, history: int) -> DirectionLoop:
        """Its steps; ValueError for a history of more than `max_history` directions. Collective."""
        return DirectionLoop(self._network, self, self._layout, history)
