"""The `multigrid` network on CPUs: its cycle in compiled, threaded kernels. numpy only.

Mirrors `petsc_dcdm.network.multigrid` (torch), to rounding; a test holds the two together. Coefficients are stored
as bfloat16: they enter a preconditioner, the conductances stay symmetric and positive, and half the bytes are half
the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from petsc_dcdm.backends.cpu.band import BandFactors
from petsc_dcdm.backends.cpu.levels import Box, plus
from petsc_dcdm.backends.cpu.setup import CpuLevels
from petsc_dcdm.grid.layout import Exchange, Layout, Reach
from petsc_dcdm.grid.spans import recording, span
from petsc_dcdm.native.binding import ALIGN, Geometry, Level, Padded
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.hierarchy import CoarseSolve, unset_coarse_solve
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil

ONE_LEVEL = 6000
"""Unknowns of a grid of one level from which on steps are taken on the grid."""


class CpuHierarchy:
    """The network made ready for one matrix; see `petsc_dcdm.backends.base.Directions`.

    Parameters
    ----------
    file
        weights of kind ``multigrid``.
    w, s
        low-face conductances along x, y, z and extra diagonal, each float32 or float64 (nz, ny, nx) of this
        rank's box, scaled to a largest diagonal of 1. Not kept. Or a `PackedStencil` and None.
    layout
        this rank's box.
    threads
        OpenMP threads of this rank.
    half
        store coefficients as bfloat16, else as float32.
    team
        who works on the box; then ``threads`` are those of all of them, and arrays that `apply` and `direction` get
        lie in the team's memory.

    Attributes
    ----------
    levels
        list of `LevelInfo`, the finest first, the coarsest included.
    coarse_solve
        to be set before `apply`: float32 right-hand side (nz, ny, nx) of this rank's coarsest box -> solution. If it
        has a ``serve``, ranks of a team that do not lead call that meanwhile.
    first_cell
        which cell of this rank's box is the first one of the part that the finest level covers.

    Collective. Raises `WeightsError` for weights of another kind and `KernelsUnavailable` where the kernels can not
    be compiled, or the network is wider or the box larger than they are made for.
    """

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        threads: int,
        half: bool = True,
        team: Workers = ONE_RANK,
    ) -> None:
        made = CpuLevels(file, w, s, layout, threads, half, team)
        self.team = team
        self._kernels, self._stages, self._box = made.kernels, made.stages, made.box
        self._levels, self._work, self._memory = made.levels, made.work, made.memory
        self._halo, self._empty = made.halo, made.empty
        self.levels, self.coarse, self._coarse_box = made.infos, made.coarse, made.coarse_box
        self._steps = steps_of(file.tensors)
        self._layout = layout
        self._threads = threads
        self._visits = layout.visits if len(layout.plan) > 1 else 1
        self._flops = self._count_flops()
        _, ny, nx = layout.shape
        z, y, x = (part.start for part in self._box)
        self.first_cell = (z * ny + y) * nx + x
        self._coarse_r = team.zeros(prod(made.coarse.shape), np.float32).reshape(made.coarse.shape)
        self.coarse_solve: CoarseSolve = unset_coarse_solve
        self._factors: tuple[CoarseSolve, ctypes.Structure] | None = None
        self._whole: tuple[CoarseSolve, tuple[int, ...]] | None = None
        self._count = len(layout.plan)
        # Where no box adjoins a level sees the next one as that is.
        self._finest, self._parents_at = self._levels[0], ctypes.addressof(self._levels) + ctypes.sizeof(Level)
        if self._halo:
            self._look_beyond()

    def _count_flops(self) -> float:
        """Of this rank in one cycle: a sweep is a product with the stencil, a difference, and a weighted sum; a leg has
        as many sweeps as the network has steps, and the restriction or the correction.
        """
        sweep = 2 * (2 * (3 if self.levels[0].global_shape[0] > 1 else 2) + 1) + 3
        work = 0.0
        for number, level in enumerate(self.levels[:-1]):
            share = prod(level.shape) / max(prod(level.global_shape), 1)
            cells = share * level.unknowns
            work += (self._visits if number else 1) * 2 * (self._steps * sweep + 2) * cells
        return work

    def _look_beyond(self) -> None:
        """What legs see of their levels where boxes of other ranks adjoin, and their messages."""
        stages, plan = self._stages, self._layout.plan
        self._windows = [stages[0].window((0, 0, 0), (0, 0, 0), ALIGN)]
        for stage, next_, axes in zip(stages, stages[1:], plan, strict=False):
            self._windows.append(next_.window(*stage.parents_around(axes), 1))
        self._finest = self._windows[0].level
        self._finest.full_w, self._finest.full_r = self._levels[0].full_w, self._levels[0].full_r
        self._parents = (Level * max(self._count, 1))(*(window.level for window in self._windows[1:]))
        self._parents_at = ctypes.addressof(self._parents)
        self._make_exchanges()

    def _make_exchanges(self) -> None:
        """The messages of a cycle: of every level the right-hand side and the iterate of the way down as far as a leg
        reaches, the correction as far as its children do, of a result that is gone on from one cell more, and of the
        finest result what the outer loop looks at.
        """
        reach = self._steps
        self._exchanges: list[tuple[Exchange, Exchange, Exchange]] = []
        for i, axes in enumerate(self._layout.plan):
            here, next_ = (plus(stage.low, 1) for stage in self._stages[i : i + 2])
            z, y, x = (self._parents_of(i, reach, a) if 2 - a in axes else reach for a in range(3))
            reaches = (
                Reach(i, here, (reach, reach, reach)),
                Reach(i, here, (reach, reach, reach)),
                Reach(i + 1, next_, (z, y, x)),
            )
            r, x_, e = (self._layout.exchange_of(wide) for wide in reaches)
            self._exchanges.append((r, x_, e))
        if self._visits > 1:
            wide = Reach(1, plus(self._stages[1].low, 1), (reach + 1, reach + 1, reach + 1))
            self._exchange_result = self._layout.exchange_of(wide)
        if self._layout.plan:
            one = Reach(0, plus(self._stages[0].low, 1), (1, 1, 1))
            self._exchange_direction = self._layout.exchange_of(one, corners=False)

    def _parents_of(self, level: int, cells: int, axis: int) -> int:
        """In how many coarse cells so many cells beside a box may lie, along an axis (0, 1, 2 = z, y, x) that is
        coarsened. At the end of a ring of odd length there may be one more that is half a cell.
        """
        n = self.levels[level].global_shape[axis]
        thin = 1 + (cells - 1) // n if self._layout.periodic[axis] and n % 2 else 0
        return -(-(cells + thin) // 2)

    # Apply ------------------------------------------------------------------------------------------------------

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * cycle(scale_in * r)``; C-contiguous float64 (nz, ny, nx) of this rank's box, zero at
        inactive cells. Collective.
        """
        if self._count == 0 and not self.team.leads:
            self._serve_coarsest()
            return
        if self._count == 0:
            self._coarse_r[...] = scale_in * r
            out[...] = scale_out * self.coarse_solve(self._coarse_r)
            return
        self._cycle(self.address(r), scale_in, self.address(out), scale_out, None)
        for axis, part in enumerate(self._box):
            for outside in (slice(0, part.start), slice(part.stop, out.shape[axis])):
                out[(slice(None),) * axis + (outside,)] = 0.0

    def direction(self, r: int, d: Padded, scale: float) -> None:
        """``d = cycle(scale * r)`` in single precision, from the `address` of r to an array of the finest level's
        `geometry`, with the halo cells that share a face with the box. Collective.
        """
        if self._count == 0:
            stage = self._stages[0]
            self._run(self._kernels.dcdm_load, self._finest, r, scale, self._threads)
            solve = getattr(self.coarse_solve, "solve", None)  # from array to array, without copies
            if not self.team.leads:
                self._serve_coarsest()
            elif solve is not None:
                solve(stage.r.inner, d.inner)
            else:
                self._coarse_r[...] = stage.r.inner
                d.inner[...] = self.coarse_solve(self._coarse_r)
                if self._finest.wrap_x:  # rows that are rings hold what lies around their ends, as after a cycle
                    d.view[..., 0], d.view[..., -1] = d.view[..., -2], d.view[..., 1]
            return
        self._cycle(r, scale, None, 1.0, d.address)
        if self._halo:
            self._exchange_direction.start(d.view)
            self._exchange_direction.finish()

    def address(self, a: np.ndarray) -> int:
        """Where the part of the grid that the finest level covers begins in a float64 array of this rank's box."""
        return address_of(a) + self.first_cell * np.dtype(np.float64).itemsize

    @property
    def steps_on_grid(self) -> bool:
        """Whether `direction` serves: not where several ranks have one level only, which is the coarse solver's, nor on
        one so small that PETSc's vectors are as good.
        """
        return self._count > 0 or (not self._halo and self.levels[0].unknowns > ONE_LEVEL)

    @property
    def memory(self) -> int:
        """Bytes of the levels' weights, fields and vectors on this rank."""
        return sum(memory.nbytes for memory in self._memory)

    @property
    def geometry(self) -> Geometry:
        """How arrays of the finest level lie in memory."""
        return self._stages[0].geometry

    @property
    def finest(self) -> Level:
        """The finest level for loops that work in its layout: this rank's box in them. Lives with the network."""
        return self._finest

    @property
    def box(self) -> Box:
        """The part (z, y, x) of this rank's box that it covers; nothing is active outside."""
        return self._box

    def _cycle(self, r: int, scale_in: float, out: int | None, scale_out: float, direction: int | None) -> None:
        """From the address of the right-hand side to that of the result or of the direction."""
        if self._within_c():
            more = self._count, self._visits, self._coarse_factors(), r, scale_in, out, scale_out, direction
            self._run(self._kernels.dcdm_cycle, *self._from(0), *more)
            return
        with span("cycle", self._flops):
            self._down(0, r, scale_in)
            for _ in range(self._visits - 1):
                self._up(1, None, 0.0, None, 0.0, None)
                self._down(1, None, 0.0)
            self._up(0, r, scale_in, out, scale_out, direction)

    def _within_c(self) -> bool:
        """Whether all between the legs of a cycle is in C, and nobody wants to know how long each of them takes."""
        return not self._halo and getattr(self.coarse_solve, "within_cycle", False) and not recording()

    def whole_cycle(self) -> tuple[int, ...] | None:
        """What dcdm_cycle wants first on the rank that has the grid: addresses of levels, parents and workspaces,
        numbers of levels and visits, and the address of the coarse solver's factors; nothing on those that work on it.
        None on all where not all of a cycle is in C. Addresses are good until `coarse_solve` is another.
        """
        if self._count == 0 or not self._within_c():
            return None
        if self._empty:
            return ()
        if self._whole is None or self._whole[0] is not self.coarse_solve:
            factors = self._coarse_factors()
            assert factors is not None
            self._whole = self.coarse_solve, (*self._from(0), self._count, self._visits, factors)
        return self._whole[1]

    def _coarse_factors(self) -> int | None:
        """The address of the coarse solver's factors for the arrays of the coarsest level; None where no box is."""
        band = getattr(self.coarse_solve, "factors", None)
        if band is None:
            return None
        if self._factors is None or self._factors[0] is not self.coarse_solve:
            self._place = self._places_of(band)
            self._factors = self.coarse_solve, band.banded(self._place)
        return ctypes.addressof(self._factors[1])

    def _places_of(self, band: BandFactors) -> np.ndarray:
        """int32: where the arrays of the coarsest level have the unknowns of the coarse solver."""
        level = self._stages[-1].geometry
        pitch_z, pitch_y, origin = (level.shape[1] + 2) * level.pitch, level.pitch, level.origin
        z, y, x = (part.start for part in self._coarse_box)
        return band.places(origin - z * pitch_z - y * pitch_y - x, pitch_y, pitch_z)

    def _run(self, kernel: Callable[..., None], *arguments: object) -> None:
        """Where there is a box."""
        self.team.do(None if self._empty else kernel, *arguments)

    def _serve_coarsest(self) -> None:
        """Work for the one that leads while it solves, where its solver has use for others."""
        serve = getattr(self.coarse_solve, "serve", None)
        if serve is not None:
            serve()

    def _solve_coarsest(self) -> None:
        if not self.team.leads:
            self._serve_coarsest()
            return
        last = self._stages[-1]
        self._coarse_r[self._coarse_box] = last.r.inner[last.own]
        with span("coarse solve"):
            last.y.inner[last.own] = self.coarse_solve(self._coarse_r)[self._coarse_box]

    def _from(self, level: int) -> tuple[int, int, int]:
        """The addresses that the kernels want for legs that begin at a level."""
        size, pointer = ctypes.sizeof(Level) * level, ctypes.sizeof(ctypes.c_void_p) * level
        levels, work = ctypes.addressof(self._levels), ctypes.addressof(self._work)
        return levels + size, self._parents_at + size, work + pointer

    def _down(self, first: int, r: int | None, scale: float) -> None:
        """From a level to the solution on the coarsest; from the finest, of the right-hand side `r`, or from the second
        of what its result leaves. With boxes level by level, with the halos filled in between; the iterate, which is
        wanted again on the way up only, travels while the coarser levels are worked on.
        """
        k, stages = self._kernels, self._stages
        if not self._halo:
            self._run(k.dcdm_down, *self._from(first), self._count - first, r, scale, first)
        else:
            if first == 0:
                self._run(k.dcdm_load, self._finest, r, scale, self._threads)
            for i in range(first, self._count):
                fill_r, fill_x, _ = self._exchanges[i]
                again = int(i == first > 0)
                fill, field = (self._exchange_result, stages[i].y) if again else (fill_r, stages[i].r)
                fill.start(field.view)
                fill.finish()
                self._run(k.dcdm_down, *self._from(i), 1, None, 0.0, again)
                fill_x.start(stages[i].x.view)
        self._solve_coarsest()

    def _up(
        self, last: int, r: int | None, scale_in: float, out: int | None, scale_out: float, direction: int | None
    ) -> None:
        """Back up to a level: the finest, where the result goes, or the second."""
        k, stages = self._kernels, self._stages
        if not self._halo:
            target = stages[last].y.address if last else direction
            self._run(k.dcdm_up, *self._from(last), self._count - last, r, scale_in, out, scale_out, target)
            return
        for i in range(self._count - 1, last - 1, -1):
            _, fill_x, fill_e = self._exchanges[i]
            fill_e.start(stages[i + 1].y.view)
            fill_e.finish()
            fill_x.finish()
            target = direction if direction and i == 0 else stages[i].y.address
            self._run(k.dcdm_up, *self._from(i), 1, None, 0.0, None, 0.0, target)
        if out is not None:
            self._run(k.dcdm_unload, self._finest, out, scale_out, self._threads)
