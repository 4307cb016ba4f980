"""What the rows of a compact 9- or 27-point matrix add up to, axis by axis: arrays for the readers of its entries."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from petsc_dcdm.native.memory import aligned_zeros


def forward_places(dimension: int) -> list[tuple[int, int, int]]:
    """The steps (x, y, z) from a cell to itself and to that half of its neighbours that lie after it."""
    steps = [(q % 3 - 1, q // 3 % 3 - 1, q // 9 - 1) for q in range(13, 27)]
    return [step for step in steps if dimension == 3 or step[2] == 0]


@dataclass
class AxisSums:
    """All arrays are 0 at what is no coupled row, and entries in the columns of Dirichlet rows are left out.

    Attributes
    ----------
    low, high
        along x, y, z: the sum of all entries one to the low (high) side, whatever their other steps, with the other
        sign: what the row gives a linear function. float64
    s
        the sum of the row, of any sign
    diagonal
        that of the row
    couplings
        float32 [5 or 14, ...]: the entries at the `forward_places`
    mixture
        over the rows, the sum of what mixes two axes (xy, xz, yz): the magnitude of the sum of a row's entries times
        both of their steps, over the diagonal
    magnitude
        the largest sum of the magnitudes of a row, over its diagonal
    symmetry
        checksum: the sum over all ranks modulo 2**64 is 0 if every coupling has bitwise the same value from both sides
    wrapped
        along which of x, y, z rows are coupled round the ends of grid lines
    twists
        of such couplings: bit 9 a + 3 b + t + 1 is set where one steps t along b as it steps 1 round the ends of a
    """

    low: list[np.ndarray]
    high: list[np.ndarray]
    s: np.ndarray
    diagonal: np.ndarray
    couplings: np.ndarray
    mixture: np.ndarray = field(default_factory=lambda: np.zeros(3))
    magnitude: float = 0.0
    symmetry: int = 0
    wrapped: tuple[bool, bool, bool] = (False, False, False)
    twists: int = 0

    @staticmethod
    def winds(twists: int) -> bool:
        """Whether all couplings round the ends of an axis lead to the next line, or all to the one before: the lines
        are parts of longer ones, and no rings.
        """
        seen = [twists >> (9 * a + 3 * b) & 7 for a in range(3) for b in range(3) if a != b]
        return any(bits in (1, 4) for bits in seen)

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dimension: int) -> AxisSums:
        """``shape``: (rows,), or that of a padded box."""
        places, size = len(forward_places(dimension)), int(np.prod(shape))
        several = [aligned_zeros(size, np.float64).reshape(shape) for _ in range(8)]
        couplings = aligned_zeros(places * size, np.float32).reshape(places, *shape)
        return cls(several[:3], several[3:6], several[6], several[7], couplings)
