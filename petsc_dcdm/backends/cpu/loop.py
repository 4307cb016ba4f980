"""The deep conjugate direction method on the grid: compiled, two passes over memory and two reductions a step.

The same recurrence as `petsc_dcdm.KSP` runs on PETSc's vectors (Kaneda et al., ICML 2023), with the matrix
replaced by its stencil, extracted exactly. numpy only, no PETSc, no MPI.
"""

from __future__ import annotations

import ctypes
from collections import deque
from math import prod, sqrt
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.backends.base import Step
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.grid.scaling import power_of_two
from petsc_dcdm.grid.spans import span
from petsc_dcdm.native.binding import ALIGN, MAX_HISTORY, Loop, Padded, kernels
from petsc_dcdm.native.memory import address_of

if TYPE_CHECKING:
    from petsc_dcdm.backends.cpu.operator import BoxOperator


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
        self._written = False  # whether others have written to the x among them, perhaps where nothing is active
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
        self._one_box = (layout.alone or layout.one_team) and not level.halo
        self._parts = self._team.share(parts) if self._read_here else parts
        # Of all that is found in one call as well, of whose parts the sums are apart.
        rows, size = 1 + self._team.ahead, max(6, self._parts * (4 + 2 * history))
        room = self._team.zeros(rows * size, np.float64)
        self._apart, *sums = (self._team.seen(room, rows * size) if self._read_here else room).reshape(rows, size)
        self._room = deque(sums)
        self._sums = self._room[0]

    def boxes(self, filled: bool = False) -> list[np.ndarray]:
        """Room for x, r and the first r on this rank's box where the caller has none, the same arrays every time.

        0 where nothing is active. ``filled``: callers write to the first r, and to x where it is a guess, everywhere.
        """
        lean, stale = filled and self._one_box, self._boxes[: int(self._written)]
        if not self._boxes:
            make, shape = self._team.room if lean else self._team.zeros, self._layout.shape
            made = self._team.together(lambda: [make(prod(shape), np.float64) for _ in range(3)])
            self._boxes = [box.reshape(shape) for box in made]
            stale = self._boxes[: 2 * int(lean)]
        for box in stale:
            self._clear(address_of(box), lean)
        self._written = False
        return self._boxes

    def spare_box(self) -> np.ndarray:
        """An array of this rank's box for the caller's use; the same every time."""
        if self._spare_box is None:
            self._spare_box = self._team.zeros(prod(self._layout.shape), np.float64).reshape(self._layout.shape)
        return self._spare_box

    def start(self, x: np.ndarray, r: np.ndarray, first: np.ndarray | None = None, guess: bool = True) -> None:
        """Begin with another x and its residual, r or ``first``; float64 C-contiguous (nz, ny, nx) of the box.

        Only their addresses are kept. Without a ``guess`` x counts as 0, and is not read before it is written to.
        """
        while self._before:
            self._free.append(self._before.popleft()[0])
        address = self._network.address
        self._x, self._r, self._all_x = address(x), address(r), address_of(x)
        self._from_zero, self._written = not guess, self._written or guess
        self._now = self._r if first is None else address(first)

    def step(self, norm: float) -> Step:
        """One step, where ``norm`` = |r| > 0 over all ranks.

        Where the energy or the slope is 0 or not finite there is no direction, and x and r are left as they were.
        """
        # A power of two: the length of a direction is of no account, and r is only to be within single precision. The
        # sum behind a norm may have another order where ranks are more, and nothing else is to depend on it.
        scale, vectors = power_of_two(norm), (self._from_zero, self._x, self._now, self._r)
        for i, (p, energy, mean) in enumerate(self._before):
            self._pointers[i], self._known[2 * i], self._known[2 * i + 1] = p.address, energy, mean
        in_place = not self._free
        following = self._before[0][0] if in_place else self._free[-1]
        whole = self._network.whole_cycle()
        if whole is None:
            found = self._in_parts(scale, following, vectors)
        else:
            found = self._advance(whole, scale, following, vectors)
        if len(found) == 3:
            return Step(norm, found[0], found[1])
        energy, slope, mean, square, exact = found
        self._from_zero, self._now = False, self._r
        if not in_place:
            self._free.pop()
        self._before.append((following, exact, mean))
        if len(self._before) > self._history:
            oldest, _, _ = self._before.popleft()
            if not in_place:
                self._free.append(oldest)
        return Step(sqrt(square), energy, slope)

    def _advance(
        self, whole: tuple[int, ...], scale: float, following: Padded, vectors: tuple[int, ...]
    ) -> list[float]:
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
            *vectors,
            self._next_sums(),
        )
        *found, moved = self._sums[:6].tolist()
        return found if moved else found[:3]

    def _in_parts(self, scale: float, following: Padded, vectors: tuple[int, ...]) -> list[float]:
        """The same where ranks talk in between."""
        d, k, count = self._output, self._kernels, len(self._before)
        _, _, now, _ = vectors
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
                *vectors,
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
        self.store()
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
        """r is in its array from the first step on, and so is x; before it, x is made what it counts for."""
        if self._from_zero:
            self._clear(self._all_x)
            self._from_zero = False

    def load(self, residual: bool) -> None:
        """x and r are where they were."""
        self._written = True
        if residual:
            self._now = self._r

    def _clear(self, box: int, outside: bool = False) -> None:
        """Zeros in an array of this rank's box that begins there, only where steps never write if ``outside``."""
        size, k = prod(self._layout.shape), self._kernels
        if outside:
            self._team.do(k.dcdm_clear_outside, self._level, box, self._network.first_cell, size)
        else:
            self._team.do(k.dcdm_clear, box, size * np.dtype(np.float64).itemsize, self._threads)

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
