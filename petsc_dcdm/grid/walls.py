"""Where the grid stops making sense: walls that a coarser level would merge.

A coarse cell whose children lie on both sides of a thin wall joins what the wall separates, and its correction is wrong on both
sides (thin plates: more than 60 iterations instead of 6, DESIGN 3.3). The hierarchy leaves the grid before that level. A block of
children counts as torn when they are not connected through open faces within the block and one ring of cells around it:
children separated by a loose grain find a way around, those separated by a wall do not.
"""

from __future__ import annotations

import numpy as np

from petsc_dcdm.models.layout import Layout, Plan, Shape, coarse_box
from petsc_dcdm.models.plan import coarse_strength

TORN_LIMIT = 0.01
"""Share of torn coarse cells from which on a level is not used."""
SAMPLE = 4000
"""Coarse cells looked at per level, of those that have a closed face inside."""


def keep_walls(
    w: list[np.ndarray], layout: Layout, plan: Plan, mean_w: tuple[float, ...], threshold: float
) -> Plan:
    """The part of ``plan`` that keeps apart what walls separate. Collective; the same on any number of ranks.

    Where coarsening all axes of a level would tear coarse cells, only those axes are coarsened along which it does not, as
    long as the axes left out are not so strongly coupled (``threshold``, see :func:`plan_coarsening`) that the smoother
    could not do without; there the plan ends.

    w       padded arrays (nz + 2, ny + 2, nx + 2) of the finest level, conductances of the low faces along x, y, z
    mean_w  their global means
    """
    opened = [(face > 0).astype(np.float32) for face in w]
    strength = list(mean_w)
    offset = layout.offset
    kept: list[tuple[int, ...]] = []
    for axes in plan:
        for face in opened:
            layout.exchange(face, corners=True)

        def torn(chosen: tuple[int, ...], faces: list[np.ndarray] = opened, at: Shape = offset) -> bool:
            return _torn_share(faces, at, layout, chosen) > TORN_LIMIT

        if torn(axes):
            whole = tuple(axis for axis in axes if not torn((axis,)))
            left_out = max(strength[axis] for axis in axes if axis not in whole) if len(whole) < len(axes) else 0.0
            if not whole or torn(whole) or left_out > threshold * max(strength[axis] for axis in whole):
                break
            axes = whole
        strength = coarse_strength(strength, axes)
        opened = _coarsen(opened, axes)
        offset = coarse_box(layout.shape, offset, axes)[1]
        kept.append(axes)
    return tuple(kept)


def _torn_share(opened: list[np.ndarray], offset: tuple[int, ...], layout: Layout, axes: tuple[int, ...]) -> float:
    """Estimate of the share of torn coarse cells. Collective."""
    block = tuple(2 if 2 - i in axes else 1 for i in range(3))
    faces = [_even(face, block) for face in opened]
    count = tuple((n - 2) // b for n, b in zip(faces[0].shape, block, strict=True))
    alive = np.zeros(count, bool)
    broken = np.zeros(count, bool)
    for axis, face in enumerate(faces):
        a = 2 - axis
        for child in np.ndindex(*block):
            low = face[tuple(slice(1 + c, 1 + c + b * n, b) for c, b, n in zip(child, block, count, strict=True))] > 0
            up = tuple(c + (i == a) for i, c in enumerate(child))
            high = face[tuple(slice(1 + c, 1 + c + b * n, b) for c, b, n in zip(up, block, count, strict=True))] > 0
            alive |= low | high
            if child[a]:
                broken |= ~low
    suspects = np.argwhere(alive & broken)
    totals = layout.sum(np.array([np.count_nonzero(alive), len(suspects)], dtype=float))
    if not totals[1]:
        return 0.0
    # The sample is drawn by global cell number, so that it does not depend on the split over ranks.
    number = np.zeros(len(suspects), np.uint64)
    for i in range(3):
        number = number * np.uint64(1_000_003) + (suspects[:, i] + offset[i] // block[i]).astype(np.uint64)
    keep = (number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    chosen = suspects[keep < min(1.0, SAMPLE / totals[1]) * 2.0**32]
    torn, seen = layout.sum(np.array([_count_torn(faces, chosen, block), len(chosen)], dtype=float))
    return float(torn / max(seen, 1.0) * totals[1] / totals[0])


def _count_torn(faces: list[np.ndarray], blocks: np.ndarray, block: tuple[int, ...]) -> int:
    """How many of the given coarse cells have children that are not connected within the block and its ring."""
    patch = tuple(b + 2 for b in block)
    first = blocks * np.array(block)  # of the ring, in padded indices
    index = [first[:, i].reshape(-1, 1, 1, 1) + np.arange(patch[i]).reshape([-1 if j == i else 1 for j in range(3)]) for i in range(3)]
    z, y, x = np.broadcast_arrays(*index)
    opened = [face[z, y, x] > 0 for face in faces]
    children = np.zeros(z.shape, bool)
    inner = (slice(None), *(slice(1, 1 + b) for b in block))
    for axis, face in enumerate(opened):
        beyond = [*inner]
        beyond[3 - axis] = slice(2, 2 + block[2 - axis])
        children[inner] |= face[inner] | face[tuple(beyond)]
    start = np.argmax(children.reshape(len(children), -1), axis=1)
    reached = np.zeros_like(children).reshape(len(children), -1)
    reached[np.arange(len(children)), start] = True
    reached = reached.reshape(children.shape)
    for _ in range(sum(patch)):
        before = np.count_nonzero(reached)
        for axis, face in enumerate(opened):
            a = 3 - axis
            low, high = [slice(None)] * 4, [slice(None)] * 4
            low[a], high[a] = slice(0, -1), slice(1, None)
            through = face[tuple(high)]
            reached[tuple(high)] |= reached[tuple(low)] & through
            reached[tuple(low)] |= reached[tuple(high)] & through
        if np.count_nonzero(reached) == before:
            break
    return int(np.count_nonzero((children & ~reached).any(axis=(1, 2, 3))))


def _even(face: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """Padded array with a whole number of blocks inside the halo."""
    return np.pad(face, [(0, (face.shape[i] - 2) % block[i]) for i in range(3)])


def _coarsen(opened: list[np.ndarray], axes: tuple[int, ...]) -> list[np.ndarray]:
    """A coarse face is open where one of its fine faces is."""
    coarse = []
    block = tuple(2 if 2 - i in axes else 1 for i in range(3))
    for axis, face in enumerate(opened):
        even = _even(face, block)
        count = tuple((n - 2) // b for n, b in zip(even.shape, block, strict=True))
        out = np.zeros(tuple(n + 2 for n in count), np.float32)
        for child in np.ndindex(*block):
            if child[2 - axis] == 0:
                part = even[tuple(slice(1 + c, 1 + c + b * n, b) for c, b, n in zip(child, block, count, strict=True))]
                np.maximum(out[1:-1, 1:-1, 1:-1], part, out=out[1:-1, 1:-1, 1:-1])
        coarse.append(out)
    return coarse
