"""Set-up of the levels of a box that those of other ranks adjoin: level by level, with messages in between."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np

from petsc_dcdm.backends.cpu.levels import PackedNetwork, Stage, box_at, plus, roles, size_of, width_of
from petsc_dcdm.backends.cpu.sources import Source, described
from petsc_dcdm.grid.faces import all_but_first, all_but_last, interior
from petsc_dcdm.grid.layout import Layout, Reach
from petsc_dcdm.native.binding import ALIGN, Padded
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.stencil.packed import PackedStencil


class AdjoiningBoxes:
    """What makes the levels of `stages`, which have their memory. All is collective."""

    def __init__(self, kernels: ctypes.CDLL, stages: list[Stage], layout: Layout, threads: int, team: Workers) -> None:
        self._kernels, self._stages, self._layout, self._threads, self._team = kernels, stages, layout, threads, team
        self._flat = layout.global_shape[0] == 1
        self._empty = 0 in layout.shape
        self._width = width_of(stages[0].level.steps)

    def make(self, nets: list[PackedNetwork], source: Source) -> tuple[list[int], list[np.ndarray]]:
        """Coefficients and division of all levels from the conductances of this rank's box; active cells of each, and
        the coarsest operator.
        """
        active = []
        source = self._with_halo(source)
        for number, net in enumerate(nets):
            cells, source = self._set_up_level(number, net, source)
            self._stages[number].share_out(self._threads)
            active.append(cells)
        assert not isinstance(source, PackedStencil)
        last = self._stages[-1]
        source = [np.asarray(a, np.float64) for a in source]
        active.append(self._find_active(last, source))
        if not nets:
            last.share_out(self._threads)
        return active, [a[last.own] for a in source]

    def _with_halo(self, source: Source) -> Source:
        """The finest source with the cells around the box where there are some."""
        stage = self._stages[0]
        if not isinstance(source, PackedStencil):
            # A level of the cycle works in single precision, a coarsest one is solved as it is.
            padded = [stage.geometry.zeros(np.float32 if self._layout.plan else np.float64) for _ in source]
            for a, values in zip(padded, source, strict=True):
                a.inner[stage.own] = values
            self._fill(0, *(a.view for a in padded))
            return [a.inner for a in padded]
        nz, ny, nx = stage.geometry.shape
        size = (nz + 2, ny + 2, nx + 2)
        cells, s_index = (self._team.zeros(prod(size), np.uint8).reshape(size) for _ in range(2))
        for wide, values in ((cells, source.cells), (s_index, source.s_index)):
            interior(wide)[stage.own] = interior(values)
        self._fill(0, cells, s_index)
        return PackedStencil(cells, s_index, source.c, source.s_value)

    def _fill(self, level: int, *arrays: np.ndarray) -> None:
        """All that arrays with a halo of one cell hold of other boxes, once."""
        margin = plus(self._stages[level].low, 1)
        width = 1 + self._width
        exchange = self._layout.exchange_of(*[Reach(level, margin, (width, width, width))] * len(arrays))
        exchange.start(*arrays)
        exchange.finish()
        exchange.close()

    def _set_up_level(self, number: int, net: PackedNetwork, source: Source) -> tuple[int, list[np.ndarray]]:
        """Coefficients of a level from its conductances; returns its active cells and the next level's source, which
        covers what the arrays of that level do.
        """
        stage, next_ = self._stages[number : number + 2]
        coarse = next_.geometry
        *new, share_x, share_y, share_z = coarse.several(7)
        shares = share_x, share_y, share_z
        # The parent of our first cell, which may lie in the middle of what the next level has around its box.
        begin = [a - b for a, b in zip(next_.low, stage.parents_around(self._layout.plan[number])[0], strict=True)]
        pitches = (coarse.pitches[0], 0, 1) if self._flat else (*coarse.pitches, 1)
        by_role = (begin[1], 0, begin[2]) if self._flat else begin
        setup = described(source, box_at((0, 0, 0), size_of(stage.own)), self._flat, self._team)
        setup.c_pitch_w, setup.c_pitch_r = coarse.pitches
        setup.c_origin = coarse.origin + sum(b * p for b, p in zip(by_role, pitches, strict=True))
        setup.range, setup.prepared = stage.level.range, address_of(net.prepared)
        for i, cells in enumerate(reversed(stage.own_by_role())):
            setup.own[i][0], setup.own[i][1] = cells.start, cells.stop
        for name, axis in zip("xrw", roles(self._flat), strict=True):
            setattr(setup, f"c_{name}", new[axis].address)
            setattr(setup, f"share_{name}", shares[axis].address)
        setup.c_s = new[3].address
        high: list[Padded] = []
        if not isinstance(source, PackedStencil):
            high = self._high(number, source)
            for name, axis in zip("xrw", roles(self._flat), strict=True):
                setattr(setup, f"high_{name}", high[axis].inner.ctypes.data)
        c = ctypes.byref(stage.level)
        memory = self._team.room(0 if self._empty else self._threads * self._kernels.dcdm_setup_bytes(c), np.uint8)
        set_up, join = self._kernels.dcdm_set_up, self._kernels.dcdm_join_shares
        self._team.do(None if self._empty else set_up, c, net.network, setup, address_of(memory), self._threads)
        setup.c_origin = coarse.origin
        self._team.do(None if self._empty else join, ctypes.byref(next_.level), setup, self._threads)
        del high, source  # what the kernel has just read
        self._fill(number + 1, *(a.view for a in new))
        return int(setup.active), [a.inner for a in new]

    def _high(self, number: int, source: list[np.ndarray]) -> list[Padded]:
        """The high conductances, which a cell at the edge of the arrays can not look up."""
        stage = self._stages[number]
        high = [stage.geometry.zeros() for _ in range(3)]
        for axis, a in enumerate(high):
            all_but_last(a.inner, axis)[...] = all_but_first(source[axis], axis)
            if stage.geometry.rings[2 - axis]:
                _layer(a.inner, axis, -1)[...] = _layer(source[axis], axis, 0)
        self._fill(number, *(a.view for a in high))
        return high

    def _find_active(self, stage: Stage, source: list[np.ndarray]) -> int:
        """Where the coarsest level has active cells; `source`, float64 and all in memory alike, covers its arrays."""
        if self._empty:
            return 0
        arrays = (ctypes.c_void_p * 4)(*(a.ctypes.data for a in source))
        planes, rows = (stride // source[0].itemsize for stride in source[0].strides[:2])
        ends = [end for part in stage.own for end in (part.start, part.stop)]
        numbers = np.array([*source[0].shape, *stage.geometry.rings, *ends], np.int64)
        shape, rings, own = (address_of(numbers) + numbers.itemsize * first for first in (0, 3, 6))
        where, threads = stage.level.range, self._threads if self._team.ranks == 1 else 1
        return int(self._kernels.dcdm_active(arrays, shape, planes, rows, rings, own, ALIGN, where, threads))


def _layer(a: np.ndarray, axis: int, number: int) -> np.ndarray:
    """View of one layer of cells along an axis (0, 1, 2 = x, y, z)."""
    return np.moveaxis(a, 2 - axis, 0)[number]
