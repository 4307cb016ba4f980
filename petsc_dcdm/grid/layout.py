"""How a network sees the grid it works on: boxes, halos and reductions, levels.

The networks import neither MPI nor PETSc. They get a `Layout`, which knows this rank's box and how to fill
halos; on one rank that is `SerialLayout`. Shapes and offsets are (z, y, x) throughout, x fastest as in
PETSc's natural ordering.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

Plan = tuple[tuple[int, ...], ...]


class Exchange(Protocol):
    """Halos of certain arrays, to be filled together again and again: one message to each neighbour. Collective."""

    def start(self, *arrays: Any) -> None:
        """Send what others need of `arrays`, which lie as those it was made for."""

    def finish(self) -> None:
        """Fill the halos; the arrays may be written to from `start` on, but for their halos."""

    def close(self) -> None:
        """Give back buffers and requests until the next start; not collective."""


@dataclass(frozen=True)
class Reach:
    """The cells around this rank's box at one level, `width` (z, y, x) of them on every side as far as the grid goes;
    round and round where a periodic axis is cut, none along one that lies on one rank.

    `margin` (z, y, x): where the box begins in an array that is exchanged; the array reaches at least as far.
    """

    level: int
    margin: Shape
    width: Shape


class Layout(Protocol):
    """This rank's box of a grid that is split over ranks.

    `plan` holds the axes coarsened from each level to the next (`petsc_dcdm.stencil.plan`). Along every axis
    the box's edges are multiples of 2 to the number of times the plan coarsens it, except at the high end
    of the grid: the cells of a coarse cell are never on two ranks. A box may be empty.

    Along a periodic axis the low face of cell 0 lies between the last cell and cell 0. At a level where such an axis
    has one cell left it is none any more: its faces have no conductance, and its halo lies outside the grid.
    """

    @property
    def global_shape(self) -> Shape: ...

    @property
    def offset(self) -> Shape: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def periodic(self) -> Periodic:
        """The periodic axes (z, y, x) of the finest grid, each at least two cells long."""

    @property
    def plan(self) -> Plan: ...

    @property
    def visits(self) -> int:
        """How often a cycle visits the second level, each time with what is left of its residual; 1 where the second
        level is the coarsest.
        """

    @property
    def alone(self) -> bool:
        """Whether there is one rank only."""

    @property
    def one_team(self) -> bool:
        """Whether several ranks, all that there are, share the memory that one box is in."""

    def exchange(self, a: Any, corners: bool = False) -> None:
        """Fill the one-cell halo of the padded array `a` of any level, in place. Collective.

        `a` is a numpy array or torch tensor whose last three dimensions are (nz + 2, ny + 2, nx + 2). Without
        `corners` only the halo cells that share a face with the box are filled. Cells outside the grid stay
        as they are. Along a periodic axis the low halo of the first cells holds the last ones, the high halo of the
        last cells the first ones.
        """

    def around(self, level: int, width: int) -> tuple[Shape, Shape]:
        """How many cells (z, y, x) there are below and above this rank's box at a level, at most `width`; as many as
        that along a periodic axis that is cut, 0 along one that is not.
        """

    def exchange_of(self, *reaches: Reach, corners: bool = True) -> Exchange:
        """For one array per reach. All ranks make the same exchanges and start them in the same order.

        Without `corners` cells that share no face with a layer of the box, along one axis, stay as they are.
        """

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Element-wise sum over all ranks. Collective."""

    def max(self, values: np.ndarray) -> np.ndarray:
        """Element-wise maximum over all ranks. Collective."""


@dataclass(frozen=True)
class SerialLayout:
    """The whole grid on one rank: the halo lies outside the grid and stays zero, but along periodic axes."""

    global_shape: Shape
    plan: Plan
    visits: int = 1
    periodic: Periodic = NOT_PERIODIC

    @property
    def alone(self) -> bool:
        return True

    @property
    def one_team(self) -> bool:
        return False

    @property
    def offset(self) -> Shape:
        return (0, 0, 0)

    @property
    def shape(self) -> Shape:
        return self.global_shape

    def exchange(self, a: Any, corners: bool = False) -> None:
        """One end of the array to the other along periodic axes. Gradients go through it."""
        for i in range(3) if any(self.periodic) else ():
            if not self.periodic[i] or a.shape[i - 3] <= 3:
                continue
            layer: list[Any] = [slice(None) if corners else slice(1, -1)] * 3
            for to, source in ((0, -2), (-1, 1)):
                there = (..., *layer[:i], to, *layer[i + 1 :])
                a[there] = a[(..., *layer[:i], source, *layer[i + 1 :])]

    def around(self, level: int, width: int) -> tuple[Shape, Shape]:
        return (0, 0, 0), (0, 0, 0)

    def exchange_of(self, *reaches: Reach, corners: bool = True) -> Exchange:
        raise ValueError("one rank has nobody to exchange with")

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values

    def max(self, values: np.ndarray) -> np.ndarray:
        return values


class LevelInfo(NamedTuple):
    """One level of a hierarchy, for views and tests.

    `coarsened` holds the axes (0, 1, 2 = x, y, z) halved on the way to the next level, empty on the coarsest;
    `unknowns` counts the active cells of all ranks.
    """

    global_shape: Shape
    offset: Shape
    shape: Shape
    coarsened: tuple[int, ...]
    unknowns: int


@dataclass
class CoarseOperator:
    """The coarsest operator: local float64 arrays in the convention of the fine one.

    ``w[a]`` (a = 0, 1, 2 for x, y, z) and `s` have the shape `shape`; ``w[a]`` is the conductance of the
    low face.
    """

    w: Sequence[np.ndarray]
    s: np.ndarray
    offset: Shape
    shape: Shape
    global_shape: Shape

    def take(self) -> list[np.ndarray]:
        """w and s, which this has no more: where no level is above they are the matrix, and their memory is wanted as
        soon as something is made of them.
        """
        taken = [*self.w, self.s]
        self.w, self.s = (), np.zeros(0)
        return taken


@functools.lru_cache(maxsize=1024)
def coarse_box(shape: Shape, offset: Shape, axes: tuple[int, ...]) -> tuple[Shape, Shape]:
    """Shape and offset of a box after halving `axes`; an odd size leaves a last coarse cell that is one
    cell thick.
    """
    halve = [2 - i in axes for i in range(3)]
    new_shape = [(n + 1) // 2 if h else n for n, h in zip(shape, halve, strict=True)]
    new_offset = [o // 2 if h else o for o, h in zip(offset, halve, strict=True)]
    return (new_shape[0], new_shape[1], new_shape[2]), (new_offset[0], new_offset[1], new_offset[2])
