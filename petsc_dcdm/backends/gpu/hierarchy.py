"""The `multigrid` network on a GPU: its cycle in Triton kernels.

Mirrors `petsc_dcdm.network.multigrid` (torch), to rounding; a test holds the two together. Coefficients are stored as
bfloat16, or one byte a cell where the stencil is packed; vectors are in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.gpu.coarse import DENSE_LIMIT, DenseInverse
from petsc_dcdm.backends.gpu.halos import Halos
from petsc_dcdm.backends.gpu.kernels import cycle as kernels
from petsc_dcdm.backends.gpu.kernels.outer import scaled
from petsc_dcdm.backends.gpu.launches import LaunchSequence, on
from petsc_dcdm.backends.gpu.levels import Blocks
from petsc_dcdm.backends.gpu.setup import GpuLevels
from petsc_dcdm.backends.gpu.transfer import Staging
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.network.hierarchy import CoarseSolve, unset_coarse_solve
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil

COLUMNS = 256
"""Of the coarse inverse, that a program works on at a time."""


class GpuHierarchy:
    """The network made ready for one matrix; see `petsc_dcdm.network.hierarchy.Hierarchy`.

    Parameters
    ----------
    file
        weights of kind ``multigrid``
    w, s
        padded float64 arrays (nz + 2, ny + 2, nx + 2), the conductances of the low faces along x, y, z, and the extra
        diagonal, scaled to a largest diagonal of 1; or a `PackedStencil` and None. Not kept
    layout
        this rank's box
    device
        of torch: CUDA, or the CPU under Triton's interpreter
    dense_limit
        unknowns up to which the coarsest system is solved here, on one rank; `coarse` is None then. -1: never
    blocks
        how cells are shared out among programs; None: what suits the device

    Attributes
    ----------
    stages, levels
        lists of `Level`, what the kernels see, and of `LevelInfo`, the finest first, the coarsest included
    halo
        bool, the same on all ranks: whether a rank's box is less than the grid

    Collective. Raises `WeightsError` for weights of another kind.
    """

    on_device = True

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        device: torch.device,
        dense_limit: int = DENSE_LIMIT,
        blocks: Blocks | None = None,
    ) -> None:
        file.require_kind("multigrid")
        self.device, self.blocks = device, blocks or Blocks.of(device)
        made = GpuLevels(file, w, s, layout, device, self.blocks)
        self.stages, self.levels, self.halo = made.levels, made.infos, made.halo
        self._layout, self._steps = layout, made.steps
        self._visits = layout.visits if len(layout.plan) > 1 else 1
        self._operator, self._active, self.set_up = made.coarse, made.active, made.sequence
        last = made.infos[-1]
        alone = not self.halo and last.unknowns <= dense_limit  # on all ranks alike, those without a box too
        self.inverse = DenseInverse(made.coarse, layout.periodic, device) if alone else None
        self.coarse_solve: CoarseSolve = unset_coarse_solve
        pinned = {"pin_memory": device.type == "cuda"}
        self._coarse_r = torch.zeros(last.shape, dtype=torch.float32, **pinned)
        self._coarse_e = torch.zeros(last.shape, dtype=torch.float32, **pinned)
        self._allocate()
        self._halos = Halos(layout, self.stages, self._steps, device) if self.halo else None
        self._sequence: LaunchSequence | None = None
        self.user: object = None
        """Whose residual is in the finest level's r."""
        self._staging = Staging(device)
        self._scale = torch.ones(1, dtype=torch.float64, device=device)

    def _allocate(self) -> None:
        count = len(self.stages)
        for i, level in enumerate(self.stages):
            level.r, level.x = (level.zeros(torch.float32, self.device) for _ in range(2))
            level.y = level.zeros(torch.float32, self.device) if i < count - 1 else level.x

    @property
    def coarse(self) -> CoarseOperator | None:
        """The coarsest operator, for the owner to solve; None where the device does that itself."""
        return None if self.inverse is not None else self._operator

    def arrays(self) -> list[torch.Tensor]:
        """All that is kept on the device, some of it more than once."""
        kept = [a for level in self.stages for a in (*level.stencil, *level.omega, level.x, level.y, level.r)]
        return kept + ([] if self.inverse is None else [self.inverse.matrix, self.inverse.cell])

    @property
    def solver_of_the_coarsest(self) -> str:
        """For views."""
        unknowns = self.levels[-1].unknowns
        if self.inverse is not None:
            return f"coarsest level: a dense inverse of {unknowns} unknowns on the device"
        return f"coarsest level: {unknowns} unknowns, solved on the host, to and from there in every visit"

    # The cycle as a sequence of launches -----------------------------------------------------------------------------

    def add_cycle(self, sequence: LaunchSequence) -> torch.Tensor:
        """Add the cycle of the finest level's r; returns the array that its result will be in, 0 at inactive cells,
        with the cells that share a face with the box.
        """
        if len(self.stages) == 1:
            self._add_coarsest(sequence)
            return self.stages[0].y
        at = self._add_down(sequence, 0, None)
        for _ in range(self._visits - 1):
            result = self._add_up(sequence, 1, at)
            at[1:] = self._add_down(sequence, 1, result)[1:]
        out = self._add_up(sequence, 0, at)
        self._exchange(sequence, 0, out, "direction", 1, corners=False)
        return out

    def _add_down(self, sequence: LaunchSequence, first: int, result: torch.Tensor | None) -> list[torch.Tensor]:
        """From a level to the solution on the coarsest; `result`: of this level, to go on from. Returns the iterates by
        level.
        """
        at = [level.x for level in self.stages]
        for i in range(first, len(self.stages) - 1):
            level, begin = self.stages[i], 0
            if result is not None and i == first:
                self._exchange(sequence, i, result, "result", self._steps + 1)
                now = result
            else:
                self._exchange(sequence, i, level.r, "right", self._steps)
                now = level.x
                if self._steps > 1:
                    self._smooth(sequence, i, level.y, now, 1, kernels.FIRST, before=0)
                    begin = 2
                else:
                    self._smooth(sequence, i, level.y, now, 0, kernels.SCALE)
                    begin = 1
            for m in range(begin, self._steps):
                other = level.y if now is level.x else level.x
                self._smooth(sequence, i, now, other, m, kernels.PLAIN)
                now = other
            self._restrict(sequence, i, now)
            if self._halos is not None:  # wanted again on the way up only
                self._halos.of(i, "iterate", self._steps).add_start(sequence, now)
            at[i] = now
        self._add_coarsest(sequence)
        return at

    def _add_up(self, sequence: LaunchSequence, last: int, at: list[torch.Tensor]) -> torch.Tensor:
        """Back up to a level, from the iterates; returns that with the result."""
        now = self.stages[-1].y
        for i in range(len(self.stages) - 2, last - 1, -1):
            level, correction = self.stages[i], now
            self._exchange(sequence, i + 1, correction, "correction", self._steps)
            now = at[i]
            if self._halos is not None:
                self._halos.of(i, "iterate", self._steps).add_finish(sequence, now)
            for m in reversed(range(self._steps)):
                other = level.y if now is level.x else level.x
                mode = kernels.CORRECT if m == self._steps - 1 else kernels.PLAIN
                self._smooth(sequence, i, now, other, m, mode, correction=correction, last=m == 0)
                now = other
        return now

    def _smooth(
        self,
        sequence: LaunchSequence,
        number: int,
        source: torch.Tensor,
        target: torch.Tensor,
        m: int,
        mode: object,
        *,
        before: int | None = None,
        correction: torch.Tensor | None = None,
        last: bool = False,
    ) -> None:
        """One step with the weights m, from one array to another."""
        level = self.stages[number]
        if not level.cells:
            return
        tiles = self.blocks.tiling(level.shape, self.blocks.cycle)
        mode = int(getattr(mode, "value", mode))  # type: ignore[call-overload]
        earlier = level.omega[before] if before is not None else level.omega[m]
        parent = correction if correction is not None and mode == kernels.CORRECT.value else source
        moved = [target, level.r, level.omega[m]]
        moved += level.moved() if mode != kernels.SCALE.value else []
        moved += [source] if mode in (kernels.PLAIN.value, kernels.CORRECT.value) else []
        moved += [earlier] if mode == kernels.FIRST.value else []
        moved += [parent] if mode == kernels.CORRECT.value else []
        sequence.launch(
            kernels.smooth,
            (tiles.tiles,),
            (target, source, level.r, level.omega[m], earlier, parent, *level.stencil, *level.grid, *level.way,
             tiles.bx, tiles.by),
            moved,
            MODE=mode,
            LAST=last,
            PACKED=level.packed,
            SEAMS=level.seams and mode == kernels.CORRECT.value,
            BLOCK=tiles.block,
        )  # fmt: skip

    def _restrict(self, sequence: LaunchSequence, number: int, x: torch.Tensor) -> None:
        level, next_ = self.stages[number : number + 2]
        if not level.cells:
            return
        tiles = self.blocks.tiling(level.coarse, self.blocks.cycle // kernels.CHILDREN.value)
        sequence.launch(
            kernels.restrict,
            (tiles.tiles,),
            (next_.r, x, level.r, level.omega[0], *level.stencil, *level.grid, *level.way, tiles.bx, tiles.by),
            [next_.r, x, level.r, *level.moved(), *([] if level.packed else level.omega[:1])],
            PACKED=level.packed,
            SEAMS=level.seams,
            BLOCK=tiles.block,
            num_warps=2,
        )

    def _add_coarsest(self, sequence: LaunchSequence) -> None:
        last, inverse = self.stages[-1], self.inverse
        if inverse is None:
            nbytes = 2 * self._coarse_r.numel() * self._coarse_r.element_size()
            sequence.on_host("solve the coarsest level", self._solve_on_host, nbytes)
            return
        if not last.cells:
            return
        n, rows = inverse.cell.numel(), self.blocks.rows
        sequence.launch(
            kernels.dense,
            (max(1, -(-n // rows)),),
            (last.y, last.r, inverse.cell, inverse.matrix, n, inverse.pitch),
            [inverse.matrix, inverse.cell, last.r, last.y],
            ROWS=rows,
            COLUMNS=COLUMNS,
        )

    def _solve_on_host(self) -> None:
        last = self.stages[-1]
        self._coarse_r.copy_(last.inner(last.r), non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self._coarse_e.copy_(torch.from_numpy(np.ascontiguousarray(self.coarse_solve(self._coarse_r.numpy()))))
        last.inner(last.y).copy_(self._coarse_e, non_blocking=True)

    def _exchange(
        self, sequence: LaunchSequence, number: int, a: torch.Tensor, use: str, width: int, corners: bool = True
    ) -> None:
        """Fill what an array of a level holds of other boxes."""
        if self._halos is not None:
            fill = self._halos.of(number, use, width, corners)
            fill.add_start(sequence, a)
            fill.add_finish(sequence, a)

    # Apply -----------------------------------------------------------------------------------------------------------

    def apply(self, r: Any, out: Any, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * cycle(scale_in * r)``, 0 at inactive cells. Collective.

        Both are C-contiguous float64 (nz, ny, nx) of this rank's box, on the host, or
        `petsc_dcdm.backends.base.DeviceArray`.
        """
        level, self.user = self.stages[0], None
        if self._sequence is None:
            self._double = level.zeros(torch.float64, self.device)
            self._sequence = LaunchSequence(self.device)
            self._result = self.add_cycle(self._sequence)
        else:
            self._sequence.capture()  # the kernels are there since the first time
        self._staging.to_device(r, level.inner(self._double))
        if len(self.stages) == 1:
            level.inner(level.r).copy_(level.inner(self._double) * scale_in)
            self._sequence.run()
            found = torch.where(self._active, level.inner(self._result).double(), 0.0)
        else:
            self.load(self._double, level.r, scale_in)
            self._sequence.run()
            found = level.inner(self._result).double()
        self._staging.to_host(found * scale_out, out)

    def fill(self, arrays: Sequence[torch.Tensor]) -> None:
        """What arrays of the finest level hold of other boxes, once. Collective."""
        if self._halos is not None:
            self._halos.once(0, arrays)

    def load(self, source: torch.Tensor, target: torch.Tensor, scale: float) -> None:
        """target = scale source at active cells of the finest level, 0 elsewhere, in whatever precision they have."""
        level = self.stages[0]
        if not level.cells:
            return
        self._scale.fill_(scale)
        block = self.blocks.cycle
        with on(self.device):
            scaled[(-(-level.cells // block),)](target, source, self._scale, level.omega[0], level.cells, BLOCK=block)
