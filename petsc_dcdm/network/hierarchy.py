"""What a network that has been made ready for one matrix offers, whatever it is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from petsc_dcdm.grid.layout import CoarseOperator, LevelInfo

CoarseSolve = Callable[[np.ndarray], np.ndarray]
"""Solves the coarsest system exactly: float32 array of shape ``coarse.shape`` in, the same out, which the next call may
overwrite. Collective.
"""


class Hierarchy(Protocol):
    """A network made ready for one matrix; classes need not derive from it.

    Attributes
    ----------
    levels
        what each level is, the finest first; a network without levels has one
    coarse_solve
        set by the owner before the first `apply` where there is a coarsest system, see `coarse`
    """

    levels: list[LevelInfo]
    coarse_solve: CoarseSolve

    @property
    def coarse(self) -> CoarseOperator | None:
        """The coarsest operator, for the owner to solve; None for a network without levels."""

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * f(scale_in * r)`` with f(r) near c A^-1 r for some c near 1, and f(a r) = a f(r) for
        a > 0. Collective.

        Both are C-contiguous float64 (nz, ny, nx) of this rank's box; ``out`` is 0 at inactive cells.
        """


def unset_coarse_solve(r: np.ndarray) -> np.ndarray:
    """Stands in until the owner of a hierarchy has set `coarse_solve`. Raises RuntimeError."""
    raise RuntimeError("the hierarchy has no coarse solver yet: set its coarse_solve attribute before apply")
