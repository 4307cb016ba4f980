"""The deep conjugate direction method on a device: all of a step is launched at once, and three numbers are read.

The same recurrence as `petsc_dcdm.backends.cpu.loop` (Kaneda et al., ICML 2023). On one rank with the coarsest system
on the device a step is one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.base import Problem, Step
from petsc_dcdm.backends.gpu.hierarchy import GpuHierarchy
from petsc_dcdm.backends.gpu.kernels import outer as kernels
from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.backends.gpu.transfer import Staging
from petsc_dcdm.stencil.packed import PackedStencil

MAX_HISTORY = 4
_NORM, _SLOTS = 0, 16
"""Where in the state the norm is, and where the slots of the directions begin, see the kernels."""


class GpuOperator:
    """The matrix of a problem in double precision on a device; see `petsc_dcdm.backends.base.Operator`.

    Packed stencils share their cells with the network; others take 32 bytes a cell more. Collective.
    """

    max_history = MAX_HISTORY

    def __init__(self, network: GpuHierarchy, problem: Problem) -> None:
        self.network, self.layout = network, problem.layout
        level, device = network.stages[0], network.device
        self.exact = problem.exact and not network.halo
        self.packed = isinstance(problem.w, PackedStencil)
        self.stencil: list[torch.Tensor] = []
        if isinstance(problem.w, PackedStencil):
            c = torch.tensor(problem.w.c, dtype=torch.float64, device=device)
            self.stencil = [*level.stencil[:2], c, torch.from_numpy(problem.w.s_value).to(device)]
        else:
            assert problem.s is not None
            for a in (*problem.w, problem.s):
                wide = level.zeros(torch.float64, device)
                level.inner(wide).copy_(torch.from_numpy(a[1:-1, 1:-1, 1:-1]))
                self.stencil.append(wide)
            network.fill(self.stencil)
        own = [edge for part in level.own[::-1] for edge in (part.start, part.stop)]
        self.own = torch.tensor(own, dtype=torch.int32, device=device)
        self.factor = torch.tensor([problem.scale], dtype=torch.float64, device=device)
        self.closed = torch.tensor([float(problem.closed)], dtype=torch.float64, device=device)

    def loop(self, history: int) -> GpuLoop:
        """Its steps; ValueError for a history of more than `max_history` directions. Collective."""
        return GpuLoop(self, history)


class GpuLoop:
    """Takes steps from a given x and r = b - A x in copies on the device; see `petsc_dcdm.backends.base.Loop`.

    Arrays are numpy's, or `petsc_dcdm.backends.base.DeviceArray`. Allocates 8 (4 + history) bytes a cell once. All
    methods are collective.
    """

    on_device = True

    def __init__(self, operator: GpuOperator, history: int) -> None:
        if not 0 <= history <= MAX_HISTORY:
            raise ValueError(f"a history of {history} directions; the kernels serve 0 to {MAX_HISTORY}")
        self._operator, self._network, self._history = operator, operator.network, history
        self._level, self._layout = self._network.stages[0], operator.layout
        device = self._network.device
        self._device, self._slots = device, history + 1
        self._x, self._r, self._b = (self._level.zeros(torch.float64, device) for _ in range(3))
        self._before = torch.zeros(self._slots * self._level.pitch, dtype=torch.float64, device=device)
        self._state = torch.zeros(_SLOTS + 3 * self._slots, dtype=torch.float64, device=device)
        self._count = 4 + 2 * history
        self._columns = self._network.blocks.columns(self._level.shape)
        self._programs = max(1, min(self._columns.walks, self._network.blocks.sums))
        self._sums = torch.zeros(self._count * self._programs, dtype=torch.float64, device=device)
        self._totals = torch.zeros(self._count, dtype=torch.float64, device=device)
        self._report = torch.zeros(3, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._staging = Staging(device)
        self._boxes: list[np.ndarray] = []
        self._spare_box: np.ndarray | None = None
        self._fresh, self._right = True, 0
        self._idle = bool(self._layout.max(np.array([float(not self._level.cells)]))[0])
        self._step = self._step_sequence()
        self._true = self._residual_sequence()
        for sequence in (self._step, self._true):  # (no step is taken from a residual of 0)
            sequence.capture()

    # The sequences of launches ---------------------------------------------------------------------------------------

    def arrays(self) -> list[torch.Tensor]:
        """All that is kept on the device beside the network's."""
        return [*self._operator.stencil, self._x, self._r, self._b, self._before, self._sums]

    @property
    def sequence(self) -> LaunchSequence:
        """A step, to be counted."""
        return self._step

    @property
    def true_sequence(self) -> LaunchSequence:
        """A true residual, to be counted."""
        return self._true

    def _arguments(self) -> tuple[Any, ...]:
        """Of every kernel that multiplies by the matrix, from its stencil to the columns."""
        o, columns = self._operator, self._columns
        return (*o.stencil, o.factor, o.own, *self._level.grid, columns.bx, columns.tiles, columns.planes)

    def _constants(self) -> dict[str, Any]:
        return {"PACKED": self._operator.packed, "BLOCK": self._columns.block}

    def _stencil(self) -> list[torch.Tensor]:
        """The arrays of the matrix that a pass over the grid reads."""
        return self._operator.stencil[:1] if self._operator.packed else self._operator.stencil

    def _step_sequence(self) -> LaunchSequence:
        """A step; bytes are counted with all directions of the past."""
        sequence, level = LaunchSequence(self._device), self._level
        d = self._network.add_cycle(sequence)
        past = [self._before[: level.pitch]] * self._history
        if level.cells:
            sequence.launch(
                kernels.dots,
                (self._programs,),
                (self._sums, d, self._r, self._before, self._state, *self._arguments(), level.pitch),
                [self._sums, d, self._r, *past, *self._stencil()],
                HISTORY=self._history,
                **self._constants(),
            )
        self._add_totals(sequence, self._count)
        if level.cells:
            sequence.launch(
                kernels.line_search,
                (1,),
                (self._state, self._totals, self._operator.closed),
                [self._state, self._totals],
                HISTORY=self._history,
            )
            sequence.launch(
                kernels.step,
                (self._programs,),
                (self._sums, self._x, self._r, level.r, d, self._before, self._state, *self._arguments(),
                 level.pitch),
                [self._sums[: 2 * self._programs], *[self._x] * 2, *[self._r] * 2, level.r, d, *past,
                 self._before[: level.pitch], *self._stencil()],
                HISTORY=self._history,
                **self._constants(),
            )  # fmt: skip
        self._add_totals(sequence, 2)
        if level.cells:
            sequence.launch(
                kernels.end_step, (1,), (self._state, self._totals), [self._state, self._totals], HISTORY=self._history
            )
            sequence.copy(self._report, self._state[:3])
        self._add_tell(sequence)
        return sequence

    def _add_tell(self, sequence: LaunchSequence) -> None:
        if self._idle:
            sequence.on_host("tell ranks without a box", self._tell, 24)

    def _tell(self) -> None:
        """What the first rank with a box has found, to those that have no GPU to find it with."""
        first = self._level.cells and not any(self._layout.offset)
        self._report.copy_(torch.from_numpy(self._layout.sum(self._report.numpy() if first else np.zeros(3))))

    def _residual_sequence(self) -> LaunchSequence:
        """r = b - A x and its norm."""
        sequence = LaunchSequence(self._device)
        if self._level.cells:
            sequence.launch(
                kernels.residual,
                (self._programs,),
                (self._sums, self._r, self._b, self._x, *self._arguments()),
                [self._sums[: self._programs], self._r, self._b, self._x, *self._stencil()],
                **self._constants(),
            )
        self._add_totals(sequence, 1)
        if self._level.cells:
            sequence.copy(self._report[:1], self._totals[:1])
        self._add_tell(sequence)
        return sequence

    def _add_totals(self, sequence: LaunchSequence, count: int) -> None:
        """The sums of all programs and ranks."""
        programs = self._programs
        if self._level.cells:
            sequence.launch(
                kernels.add_up,
                (count,),
                (self._totals, self._sums, programs),
                [self._sums[: count * programs], self._totals[:count]],
                BLOCK=1 << (programs - 1).bit_length(),
            )
        else:
            sequence.on_host("nothing to add", self._totals.zero_)
        if self._network.halo:
            totals = self._totals[:count]

            def reduce() -> None:
                totals.copy_(torch.from_numpy(self._layout.sum(totals.cpu().numpy())))

            sequence.on_host("sum over the ranks", reduce, 16 * count)

    # The interface ---------------------------------------------------------------------------------------------------

    def boxes(self, filled: bool = False) -> Sequence[np.ndarray]:
        """Room on the host for x, r and the first r, where the caller has none; the same every time.

        x is 0, unless it is ``filled`` anyway: by the caller if there is a guess, and by `store`.
        """
        shape = self._layout.shape
        if not self._boxes:
            self._boxes = [np.zeros(prod(shape)).reshape(shape) for _ in range(3)]
        elif not filled:
            self._boxes[0][...] = 0.0
        return self._boxes

    def spare_box(self) -> np.ndarray:
        """One more such array; the same every time."""
        if self._spare_box is None:
            self._spare_box = np.zeros(self._layout.shape)
        return self._spare_box

    def start(self, x: Any, r: Any, first: Any = None, guess: bool = True) -> None:
        """Begin with another x, which is 0 without a ``guess``, and its residual, r or ``first``.

        x and r are kept by reference, for `store` and `load`.
        """
        self._x_outside, self._r_outside = x, r
        source = r if first is None else first
        if guess:
            self._staging.to_device(x, self._level.inner(self._x))
        else:
            self._x.zero_()
        self._staging.to_device(source, self._level.inner(self._r))
        self._b.copy_(self._r)
        self._right, self._fresh = _address(source), True
        self._state[3:] = 0.0

    def step(self, norm: float) -> Step:
        """One step, where ``norm`` = |r| > 0 over all ranks.

        Where the energy or the slope is 0 or not finite there is no direction, and x and r are left as they were.
        """
        if self._fresh or self._network.user is not self:
            self._state[_NORM] = norm
            self._network.load(self._r, self._level.r, 1.0 / norm)
            self._fresh, self._network.user = False, self
        self._step.run()
        after, energy, slope = self._reported()
        found = Step(norm, energy, slope)
        return found._replace(norm=after) if found.taken else found

    def _reported(self) -> tuple[float, float, float]:
        """What the last sequence has found; waits for its end."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        first, second, third = self._report.tolist()
        return first, second, third

    @property
    def exact(self) -> bool:
        """Whether :meth:`residual` is to be had and as good as with the matrix; on one rank only."""
        return self._operator.exact

    def residual(self, b: Any) -> float:
        """``r = b - A x`` wherever anything is active; returns its norm there. What `start` was given as the first
        residual is there already, and is not looked at again.
        """
        if _address(b) != self._right:
            self._staging.to_device(b, self._level.inner(self._b))
            self._right = _address(b)
        self._true.run()
        self._fresh = True
        square, _, _ = self._reported()
        return float(np.sqrt(square))

    def store(self, residual: bool = False) -> None:
        """Bring x to its array, and r to its own if ``residual``."""
        self._staging.to_host(self._level.inner(self._x), self._x_outside)
        if residual:
            self._staging.to_host(self._level.inner(self._r), self._r_outside)

    def load(self, residual: bool) -> None:
        """Go on from the array of x, and that of r if ``residual``."""
        self._staging.to_device(self._x_outside, self._level.inner(self._x))
        if residual:
            self._staging.to_device(self._r_outside, self._level.inner(self._r))
            self._fresh = True


def _address(a: Any) -> int:
    return int(a.ctypes.data if isinstance(a, np.ndarray) else a.address)
