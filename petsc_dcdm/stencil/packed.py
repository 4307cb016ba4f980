"""Stencils of voxel geometry, one byte a cell: every conductance along an axis is 0 or the same, s takes few values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.binding import kernels
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers

HAS_S = 64

Renumber = Callable[[np.ndarray, np.ndarray], None]
"""``renumber(s_index, table)``: what the table, uint8 [256], has for them in the place of the numbers; 0 for 0."""


def renumber_all(s_index: np.ndarray, table: np.ndarray) -> None:
    """Of a contiguous array, in place."""
    kernels().dcdm_renumber(address_of(s_index), s_index.size, address_of(table))


@dataclass
class PackedStencil:
    """The stencil of this rank's box with a halo of one cell.

    Attributes
    ----------
    cells
        uint8 (nz + 2, ny + 2, nx + 2), C-contiguous (while it is read one byte a row): bits 0 .. 5 where the low
        and the high face along x, y, z conducts, HAS_S where the cell has an s; 0 at inactive cells
    s_index
        uint8, of the same shape: which of the `s_value`, where HAS_S is set
    c
        conductance along x, y, z
    s_value
        float64 [256], 0 where unused

    On several ranks it is complete after `agreed`, and halos are filled by those who use it.
    """

    cells: np.ndarray
    s_index: np.ndarray
    c: tuple[float, float, float]
    s_value: np.ndarray

    @property
    def shape(self) -> Shape:
        """Of the box, without the halo."""
        nz, ny, nx = self.cells.shape
        return (nz - 2, ny - 2, nx - 2)

    def scaled(self, factor: float) -> PackedStencil:
        """The same stencil times `factor` > 0; the arrays of cells are shared."""
        x, y, z = (float(c) * factor for c in self.c)
        return PackedStencil(self.cells, self.s_index, (x, y, z), self.s_value * factor)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> PackedStencil:
        """The same stencil with the arrays of cells brought elsewhere by `move`."""
        return PackedStencil(move(self.cells), move(self.s_index), self.c, self.s_value)

    def values(self) -> list[float]:
        """The values of s that are in use: those of the numbers from 1 on."""
        last = int(self.s_value.nonzero()[0].max(initial=0))
        values: list[float] = self.s_value[1 : last + 1].tolist()
        return values

    def agreed(
        self,
        all_c: Sequence[Sequence[float]],
        all_values: Sequence[Sequence[float]],
        renumber: Renumber = renumber_all,
    ) -> PackedStencil | None:
        """With the conductances and values of s of all ranks, which must be the same on each before halos are filled.

        `all_c` and `all_values`, by :meth:`values`, are those of every rank; None where they can not be brought
        together. `s_index` is renumbered in place, by a `renumber` that does so where this rank's cells are.
        """
        if all(c == all_c[0] for c in all_c) and all(values == all_values[0] for values in all_values):
            return self
        known = [{c[axis] for c in all_c if c[axis]} for axis in range(3)]
        # In the order of a rank that has most of them: where others have the same nothing is renumbered.
        common = list(dict.fromkeys(chain(*sorted(all_values, key=len, reverse=True))))
        if max(map(len, known)) > 1 or len(common) > 255:
            return None
        mine, s_value = self.values(), np.zeros(256)
        s_value[1 : len(common) + 1] = common
        if mine != common[: len(mine)]:
            number = {value: 1 + i for i, value in enumerate(common)}
            table = np.zeros(256, np.uint8)
            table[1 : len(mine) + 1] = [number[value] for value in mine]
            renumber(self.s_index, table)
        x, y, z = (max(k, default=0.0) for k in known)
        return PackedStencil(self.cells, self.s_index, (x, y, z), s_value)

    def asymmetry(self, threads: int = 1, team: Workers = ONE_RANK) -> tuple[int, Shape, bool] | None:
        """The first face that only one of its cells couples through: axis, the cell (z, y, x) below it in the box, and
        whether it is that one; None if there is none. Halos are filled. Collective on the team.
        """
        at = team.do(kernels().dcdm_packed_asymmetry, address_of(self.cells), *self.shape[::-1], threads)
        if at is None or at < 0:
            return None
        z, y, x = (int(i) for i in np.unravel_index(at, self.cells.shape))
        for axis, above in enumerate(((z, y, x + 1), (z, y + 1, x), (z + 1, y, x))):
            here = bool(self.cells[z, y, x] & 2 << 2 * axis)
            if here != bool(self.cells[above] & 1 << 2 * axis):
                break
        return axis, (z - 1, y - 1, x - 1), here

    def arrays(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Low conductances along x, y, z and s as padded float64 arrays, for whoever can not use the packed form."""
        w = [np.where(self.cells & (1 << 2 * axis), self.c[axis], 0.0) for axis in range(3)]
        return w, np.where(self.cells & HAS_S, self.s_value[self.s_index], 0.0)
