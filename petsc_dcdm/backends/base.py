"""What a backend offers to the solver: a network on some device, and the method's loop there if it has one.

A backend is a folder with three classes: a hierarchy, which applies the network; an operator, which keeps the stencil
of the matrix; and a loop, which takes the steps of the method with both. The solver sees them through what stands here.
No class needs to derive from a protocol. Arrays are those of this rank's box, (nz, ny, nx) and C-contiguous, in host
memory where they are numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.hierarchy import Hierarchy
from petsc_dcdm.stencil.packed import PackedStencil

Residual = TypeVar("Residual", contravariant=True)
Direction = TypeVar("Direction", contravariant=True)


@dataclass(frozen=True)
class Problem:
    """The stencil of a matrix on this rank's box; numbers, no PETSc.

    Attributes
    ----------
    w, s
        float64 arrays (nz + 2, ny + 2, nx + 2) of the box with a halo of one cell: w[a] conductance of the low
        face along axis a, s extra diagonal; 0 at inactive cells, the largest diagonal is near 1. Or w is all of
        that in packed form and s is None
    layout
        this rank's box
    scale
        the matrix is ``scale`` times that operator; negative for a negative definite matrix
    exact
        whether that is the matrix to rounding, so that true residuals may be taken with it
    closed
        number of active cells of all ranks if constants on them are a null space of the matrix, else 0
    team
        who works on this rank's box; if it is more than one rank, w and s are in its memory
    """

    w: Sequence[np.ndarray] | PackedStencil
    s: np.ndarray | None
    layout: Layout
    scale: float
    exact: bool
    closed: int
    team: Workers = ONE_RANK

    def arrays(self) -> tuple[list[np.ndarray], np.ndarray]:
        """w and s without their halos, views; of copies where they are packed."""
        w, s = self.w.arrays() if isinstance(self.w, PackedStencil) else (self.w, self.s)
        assert s is not None
        return [interior(face) for face in w], interior(s)


class Directions(Hierarchy, Protocol[Residual, Direction]):
    """A hierarchy that the loop of the same backend takes its directions from, in whatever form both keep them."""

    def direction(self, r: Residual, d: Direction, scale: float) -> None:
        """``d = f(scale * r)``, what `apply` gives, to single precision. Collective."""


class Step(NamedTuple):
    """What one step found: |r| after it, d . A d of the direction taken, and r . d before it.

    Where ``energy`` or ``slope`` is 0 or not finite no step was taken, and r is where it was.
    """

    norm: float
    energy: float
    slope: float

    @property
    def taken(self) -> bool:
        """Whether a step was taken."""
        return isfinite(self.energy) and isfinite(self.slope) and self.energy != 0 and self.slope != 0


class DeviceArray(Protocol):
    """Values (nz, ny, nx) of this rank's box in the memory of a device, for backends that work there."""

    @property
    def address(self) -> int:
        """What tells it from other arrays."""

    def reading(self) -> Any:
        """A float64 tensor to be read; let go of it soon."""

    def writing(self) -> Any:
        """The same, to be written to from end to end."""


class Loop(Protocol):
    """The steps of the method from a given x and its residual. All methods are collective."""

    on_device: bool
    """Whether `start` and `residual` take `DeviceArray` as well as arrays of the host."""

    @property
    def exact(self) -> bool:
        """Whether `residual` is to be had, and as good as with the matrix."""

    def boxes(self, filled: bool = False) -> Sequence[np.ndarray]:
        """Room for x, r and the first r, float64, for callers whose vectors lie otherwise: the same arrays every time.
        x is 0 where nothing is active, whatever has been written to it since the last call. ``filled``, the same at
        every call: callers write to the first r, and to x where it is a guess, from end to end.
        """

    def spare_box(self) -> np.ndarray:
        """One more such array; the same every time."""

    def start(self, x: Any, r: Any, first: Any = None, guess: bool = True) -> None:
        """Begin with x and the residual ``first``, r itself if None; the last directions are forgotten.

        Steps change x and r, float64, in place or in copies on a device, and read ``first`` once; where nothing is
        active r is perhaps not written to. The loop may keep addresses only: the arrays are to live until the next
        start, or the last step, and ``first`` is not to change. Without a ``guess`` x counts as 0 and may be anything
        where something is active; it is 0 elsewhere.
        """

    def step(self, norm: float) -> Step:
        """One direction and one exact line search along it. ``norm`` is that of r over all ranks, above 0."""

    def residual(self, b: Any) -> float:
        """``r = b - A x`` wherever anything is active; returns its norm there. Directions are kept."""

    def store(self, residual: bool = False) -> None:
        """Bring x to its array, for others to look at, and r to its own if ``residual``."""

    def load(self, residual: bool) -> None:
        """Go on from what others have written to the array of x, and to that of r if ``residual``."""


class Operator(Protocol):
    """The matrix as the loops of a backend multiply by it."""

    @property
    def max_history(self) -> int:
        """How many of the last directions a loop can make a new one conjugate to."""

    def loop(self, history: int) -> Loop:
        """A loop that keeps so many directions. Allocates its vectors; collective.

        Raises ValueError for more than `max_history`.
        """


class Backend(Protocol):
    """A network made ready for one problem on a device, and what comes with it."""

    @property
    def hierarchy(self) -> Hierarchy: ...

    @property
    def description(self) -> str:
        """Where and how the network runs, for views."""

    def operator(self, problem: Problem) -> Operator | None:
        """The matrix of the problem that the network was made ready for, whose arrays it may keep; None where the
        backend takes no steps itself, or not on such a grid. Collective.
        """
