"""The deep conjugate direction method on the grid: compiled, two passes over memory and two reductions a step.

The same recurrence as `petsc_dcdm.KSP` runs on PETSc's vectors (Kaneda et al., ICML 2023), with the matrix
replaced by its stencil, extracted exactly. numpy only, no PETSc, no MPI.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from math import prod, sqrt

import numpy as np

from petsc_dcdm.backends.base import Step
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.levels import roles
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.grid.scaling import power_of_two
from petsc_dcdm.grid.spans import span
from petsc_dcdm.native.binding import ALIGN, FEW_EXTRA, MAX_HISTORY, Loop, Operator, Padded, kernels
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


class DirectionLoop:
    """Takes steps from a given x and r = b - A x, both in place; see `petsc_dcdm.backends.base.Loop`.

    Parameters
    ----------
    network
        gives the directions.
    operator
        the matrix. Where constants are a null space of it what rounding leaves of them in r grows beside what
        is left of it; it does not count in r . d.
    layout
        this rank's box.
    history
        how many of the last directions a new one is made conjugate to, at most MAX_HISTORY.

    Allocates a float32 and ``history`` float64 arrays of the padded box once, one more on several ranks. All methods
    are collective.
    """

    on_device = False

    def __init__(self, network: CpuHierarchy, operator: BoxOperator, layout: Layout, history: int) -> None:
        if not 0 <= history <= MAX_HISTORY:
            raise ValueError(f"a history of {history} directions; the kernels serve 0 to {MAX_HISTORY}")
        self._network, self._operator, self._layout = network, operator, layout
        self._threads = operator.threads
        self._kernels = kernels()
        level, geometry = network.finest, network.geometry
        self._level = ctypes.addressof(level)
        self._team = network.team
        # Without halos a new direction is made in the place of the oldest.
        kept = history + (history == 0 or bool(level.halo))
        # Kernels write to all of a direction that they read but what is beyond walls. With a packed stencil they leave
        # that out, with arrays of conductances they multiply it by 0.
        whole = bool(level.halo) or not operator.c.packed
        made = self._team.together(lambda: [geometry.zeros(), *geometry.several(kept, np.float64, zeros=whole)])
        self._output, *self._free = made
        self._boxes: list[np.ndarray] = []
        self._spare_box: np.ndarray | None = None
        self._history, self._closed = history, operator.closed
        self._before: deque[tuple[Padded, float, float]] = deque()  # a direction, its energy, its mean if closed
        parts = int(level.parts)
        plane = (level.n_r + 2) * level.pitch_r + 2 * ALIGN
        self._work = self._team.zeros(3 * parts * plane, np.float64)
        self._flops = 20.0 * prod(layout.shape)  # a product with the stencil, two sums, two updates for each direction
        # Of the last directions: where they are, energy and mean of each.
        self._pointers, self._known = (ctypes.c_void_p * MAX_HISTORY)(), (ctypes.c_double * (2 * MAX_HISTORY))()
        self._lasts = ctypes.addressof(self._pointers), ctypes.addressof(self._known)
        self._betas, self._found, self._sum = np.zeros(MAX_HISTORY), np.zeros(5), np.zeros(4 + 2 * MAX_HISTORY)
        self._planes, self._found_at, self._sum_at = map(address_of, (self._work, self._found, self._sum))
        self._whole: tuple[int, ...] | None = None
        self._c = Loop()
        # All ranks of one team read the sums of the leader, each of those of a kernel before it writes there again.
        self._read_here = layout.one_team and not level.halo
        self._parts = self._team.share(parts) if self._read_here else parts
        # Of all that is found in one call as well, of whose parts the sums are apart.
        rows, size = 1 + self._team.ahead, max(6, self._parts * (4 + 2 * history))
        room = self._team.zeros(rows * size, np.float64)
        self._apart, *sums = (self._team.seen(room) if self._read_here else room).reshape(rows, size)
        self._room = deque(sums)
        self._sums = self._room[0]

    def boxes(self) -> list[np.ndarray]:
        """Room for x, which is 0, r and the first r on this rank's box where the caller has none.

        The same arrays every time; where nothing is active they stay 0.
        """
        shape = self._layout.shape
        if self._boxes:
            x = self._boxes[0]
            self._team.do(kernels().dcdm_clear, address_of(x), x.nbytes, self._threads)
        else:
            size = prod(shape)
            made = self._team.together(lambda: [self._team.zeros(size, np.float64) for _ in range(3)])
            self._boxes = [box.reshape(shape) for box in made]
        return self._boxes

    def spare_box(self) -> np.ndarray:
        """An array of this rank's box for the caller's use; the same every time."""
        if self._spare_box is None:
            self._spare_box = self._team.zeros(prod(self._layout.shape), np.float64).reshape(self._layout.shape)
        return self._spare_box

    def start(self, x: np.ndarray, r: np.ndarray, first: np.ndarray | None = None, guess: bool = True) -> None:
        """Begin with another x and its residual, r or ``first``; float64 C-contiguous (nz, ny, nx) of the box.

        Only their addresses are kept. x is what it is, with or without a ``guess``.
        """
        while self._before:
            self._free.append(self._before.popleft()[0])
        address = self._network.address
        self._x, self._r = address(x), address(r)
        self._now = self._r if first is None else address(first)

    def step(self, norm: float) -> Step:
        """One step, where ``norm`` = |r| > 0 over all ranks.

        Where the energy or the slope is 0 or not finite there is no direction, and x and r are left as they were.
        """
        # A power of two: the length of a direction is of no account, and r is only to be within single precision. The
        # sum behind a norm may have another order where ranks are more, and nothing else is to depend on it.
        scale, now = power_of_two(norm), self._now
        for i, (p, energy, mean) in enumerate(self._before):
            self._pointers[i], self._known[2 * i], self._known[2 * i + 1] = p.address, energy, mean
        in_place = not self._free
        following = self._before[0][0] if in_place else self._free[-1]
        whole = self._network.whole_cycle()
        if whole is None:
            found = self._in_parts(now, scale, following)
        else:
            found = self._advance(whole, now, scale, following)
        if len(found) == 3:
            return Step(norm, found[0], found[1])
        energy, slope, mean, square, exact = found
        self._now = self._r
        if not in_place:
            self._free.pop()
        self._before.append((following, exact, mean))
        if len(self._before) > self._history:
            oldest, _, _ = self._before.popleft()
            if not in_place:
                self._free.append(oldest)
        return Step(sqrt(square), energy, slope)

    def _advance(self, whole: tuple[int, ...], now: int, scale: float, following: Padded) -> list[float]:
        """All of a step in one call, where one rank has the grid: energy, slope and mean of the direction, and unless
        there was none the square of the norm and the energy found with the direction as it is kept.
        """
        if whole and whole is not self._whole:
            self._whole = whole
            operator, output = ctypes.addressof(self._operator.c), self._output.address
            self._c = Loop(*whole, self._level, operator, output, self._planes, address_of(self._apart), self._closed)
        self._team.do(
            self._kernels.dcdm_advance,
            ctypes.addressof(self._c),
            scale,
            *self._lasts,
            len(self._before),
            following.address,
            self._x,
            now,
            self._r,
            self._next_sums(),
        )
        *found, moved = self._sums[:6].tolist()
        return found if moved else found[:3]

    def _in_parts(self, now: int, scale: float, following: Padded) -> list[float]:
        """The same where ranks talk in between."""
        d, k, count = self._output, self._kernels, len(self._before)
        self._network.direction(now, d, scale)
        with span("orthogonalisation", self._flops * (1 + count)):
            level, operator = self._level, ctypes.addressof(self._operator.c)
            pointers, known = self._lasts
            self._team.do(k.dcdm_dots, level, operator, d.address, pointers, count, now, self._next_sums())
            total = self._total(4 + 2 * count)
            betas = address_of(self._betas)
            moves = k.dcdm_conjugate(address_of(total), known, count, self._closed, betas, self._found_at)
            energy, slope, mean = self._found.tolist()[:3]
            if not moves:
                return [energy, slope, mean]
            self._team.do(
                k.dcdm_step,
                level,
                operator,
                following.address,
                d.address,
                pointers,
                betas,
                count,
                slope / energy,
                self._x,
                now,
                self._r,
                self._planes,
                self._next_sums(),
            )
            return [energy, slope, mean, *self._total(2).tolist()]

    @property
    def exact(self) -> bool:
        """Whether :meth:`residual` is to be had and as good as with the matrix. Between boxes PETSc's product is as
        fast.
        """
        return self._operator.exact and not self._network.finest.halo

    def residual(self, b: np.ndarray) -> float:
        """``r = b - A x`` wherever anything is active; returns its norm there. b as r in :meth:`start`."""
        self._now = self._r
        sums = self._next_sums()
        self._team.do(
            self._kernels.dcdm_residual,
            self._level,
            ctypes.addressof(self._operator.c),
            self._x,
            self._network.address(b),
            self._r,
            self._planes,
            sums,
        )
        return sqrt(self._total(1)[0])

    def store(self, residual: bool = False) -> None:
        """x and, from the first step on, r are in their arrays already."""

    def load(self, residual: bool) -> None:
        """x and r are where they were."""
        if residual:
            self._now = self._r

    def _next_sums(self) -> int:
        """Where the next kernel puts the sums of its parts."""
        self._room.rotate(1)
        self._sums = self._room[0]
        return address_of(self._sums)

    def _total(self, count: int) -> np.ndarray:
        """The sums of all parts and ranks."""
        self._kernels.dcdm_total(address_of(self._sums), self._parts, count, self._sum_at)
        found = self._sum[:count]
        return found if self._read_here else self._layout.sum(found)
