"""Fine-tuning: training systems cut from operators of the user's own, to go on with from weights that there are.

`petsc_dcdm/commands/finetune.py` reads the matrices and judges the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from petsc_dcdm.grid.layout import coarse_box
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.training.domains import Rng, System, finish
from petsc_dcdm.training.train import COARSE_LIMITS, MOST_DENSE, Settings, train_multigrid

PIECE_3D, PIECE_2D, LEAST_PIECE = 24, 96, 12
"""Cells along the edges of a piece: dense solves of its coarse system take milliseconds."""


def piece(system: System, offset: Shape, shape: Shape) -> System:
    """A box of a system, with the plan of the whole. Where it is cut off the outside is held at zero pressure: its
    faces count into s. A ring that it has all of stays one.
    """
    box = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
    z, y, x = (ring and n == m for ring, n, m in zip(system.periodic, shape, system.shape, strict=True))
    w, s = [], system.s[box].astype(float)
    for axis, face in enumerate(system.w):
        inner = face[box].astype(float)
        low: list[slice | int] = [slice(None)] * 3
        high, beyond = low.copy(), list[slice | int](box)
        end, n = offset[2 - axis] + shape[2 - axis], face.shape[2 - axis]
        low[2 - axis], high[2 - axis], beyond[2 - axis] = 0, -1, end % n
        w.append(inner)
        if (x, y, z)[axis]:
            continue
        s[tuple(low)] += inner[tuple(low)]
        if end < n or system.periodic[2 - axis]:
            s[tuple(high)] += face[tuple(beyond)]
        inner[tuple(low)] = 0.0
    return replace(finish((w[0], w[1], w[2]), s, (z, y, x)), plan=system.plan)


def piece_shape(system: System) -> Shape:
    """The shape of pieces: as large as allowed, but small enough to be coarsened as a solve coarsens the whole."""
    edge = PIECE_2D if 1 in system.shape else PIECE_3D
    while True:
        z, y, x = left = (min(system.shape[0], edge), min(system.shape[1], edge), min(system.shape[2], edge))
        for axes in system.plan or ():
            left, _ = coarse_box(left, (0, 0, 0), axes)
        if system.plan is None or edge <= LEAST_PIECE or math.prod(left) <= MOST_DENSE:
            return z, y, x
        edge -= 4


def pieces(systems: Sequence[System]) -> Callable[[Rng], System]:
    """A source of training systems: random pieces, or the whole where it is small. Pieces of under 50 unknowns, and
    those that are solved exactly at once, are drawn again.
    """

    def draw(rng: Rng) -> System:
        for _ in range(100):
            system = systems[int(rng.integers(len(systems)))]
            n = piece_shape(system)
            z, y, x = (int(rng.integers(size - m + 1)) for size, m in zip(system.shape, n, strict=True))
            found = piece(system, (z, y, x), n)
            if np.count_nonzero(found.active) >= 50 and found.active.size > max(COARSE_LIMITS):
                return found
        raise ValueError(
            "The matrices have too few coupled cells to train on: no piece of them has 50, and more than "
            f"{max(COARSE_LIMITS)} cells in all, without which there is no level for the network."
        )

    return draw


def fine_tune(
    start: dict[str, np.ndarray],
    systems: Sequence[System],
    settings: Settings,
    report: Callable[[int, float], None] | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a weights file after training on pieces of ``systems``, from ``start`` on."""
    fitted = replace(settings, smoothing=steps_of(start), hidden=start["hidden.bias"].size)
    return train_multigrid(fitted, report, start, pieces(systems))
