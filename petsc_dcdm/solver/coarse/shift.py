"""What keeps the coarsest system definite."""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.layout import CoarseOperator


def shift_of(operator: CoarseOperator) -> float:
    """By what part of them its diagonals are raised: a thousandth of a lower bound of the smallest eigenvalue of an
    open box of this size. Regions without any Dirichlet coupling (all of a pure Neumann problem, or a pocket in the
    solid) stay definite, and no other mode feels it.
    """
    return float(1e-3 * (np.pi / (2 * max(operator.global_shape))) ** 2 / 6)
