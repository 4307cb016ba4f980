"""Torn coarse cells in plain numpy: what walls.c does, for machines without a compiler, and to compare it with."""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.shape import Shape

WEAK = 0.01
"""Part of the strongest face of a cell from which on a face connects."""

WEAK_BETWEEN_BODIES, WEAK_BETWEEN_BODIES_FLAT = 0.025, 0.02
"""The same where all axes are halved, the second in the plane: jumps of 1 : 80 and 1 : 100, as a face has the harmonic
mean of its cells. Steps on levels that ignore blocks of 8 cells of 1 and 100 leave 0.6 of the error each at 64^3, or
take 20 iterations at 512^2; without them 6 will do. A correlated log-normal coefficient of deviation 3 at 1024^2 takes
a tenth longer with 0.025. Where only strong axes are halved, layers and channels differ by as much, and levels serve.
"""


def weak_face(axes: tuple[int, ...], shape: Shape) -> float:
    """Below which part of the strongest face of a cell another does not connect, if ``axes`` of a grid are halved."""
    if not all(axis in axes for axis in range(3) if shape[2 - axis] > 1):
        return WEAK
    return WEAK_BETWEEN_BODIES_FLAT if shape[0] == 1 else WEAK_BETWEEN_BODIES


def whole_blocks(face: np.ndarray, block: Shape) -> np.ndarray:
    """Padded array with a whole number of blocks inside the halo."""
    return np.pad(face, [(0, (face.shape[i] - 2) % block[i]) for i in range(3)])


def children(face: np.ndarray, child: tuple[int, ...], block: Shape) -> np.ndarray:
    """The values of one child of every block; ``face`` has whole blocks, ``child`` may be one beyond its block."""
    count = tuple((n - 2) // b for n, b in zip(face.shape, block, strict=True))
    return face[tuple(slice(1 + c, 1 + c + b * (n - 1) + 1, b) for c, b, n in zip(child, block, count, strict=True))]


def count_torn(faces: list[np.ndarray], block: Shape, skinless: int, weak: float = WEAK) -> tuple[int, int]:
    """Living and torn coarse cells; ``faces``: the low ones along x, y, z, float64 (nz + 2, ny + 2, nx + 2); ``weak``:
    as `WEAK`.
    """
    cut = [(n - 2) % b for n, b in zip(faces[0].shape, block, strict=True)]
    faces = [whole_blocks(face, block) for face in faces]
    count = tuple((n - 2) // b for n, b in zip(faces[0].shape, block, strict=True))
    patch = tuple(b + 2 for b in block)
    value = [np.zeros((*patch, *count)) for _ in range(3)]
    for at in np.ndindex(*patch):
        for axis, face in enumerate(faces):
            if at[2 - axis]:  # the lowest faces lead out of the patch
                value[axis][at] = children(face, tuple(i - 1 for i in at), block)
    strongest = np.zeros((*patch, *count))
    for axis, face in enumerate(value):
        low, high = _sides(axis)
        np.maximum(strongest, face, out=strongest)
        np.maximum(strongest[low], face[high], out=strongest[low])
    opened: list[np.ndarray] = []
    ajar: list[np.ndarray] = []
    for axis, face in enumerate(value):
        low, high = _sides(axis)
        for found, choose in ((opened, np.maximum), (ajar, np.minimum)):
            there = np.zeros_like(face, bool)
            there[high] = (face[high] > 0) & (face[high] >= weak * choose(strongest[low], strongest[high]))
            found.append(there)
    inner = tuple(slice(1, -1) for _ in range(3))
    living = np.zeros((*patch, *count), bool)
    living[inner] = strongest[inner] > 0
    for i, odd in enumerate(cut):
        if odd:  # the last block has one cell, and beside it there may be the first one of the grid
            living[(slice(None),) * i + (2,) + (slice(None),) * 2 + (-1,)] = False
    cells = (0, 1, 2)
    one = _flood(living, opened)
    rest = living & ~one
    other = _flood(rest, opened)
    resolved = np.minimum(one.sum(axis=cells), other.sum(axis=cells)) > skinless
    skin = resolved & ~(rest & ~other).any(axis=cells) & ~(living & ~_flood(living, ajar)).any(axis=cells)
    follows = ~(living & ~_flood(living, ajar)).any(axis=cells)
    torn = rest.any(axis=cells) & ~skin & ~(follows & _soft_grains(strongest, living, opened, weak))
    return int(living.any(axis=cells).sum()), int(torn.sum())


def _soft_grains(strongest: np.ndarray, living: np.ndarray, opened: list[np.ndarray], weak: float) -> np.ndarray:
    """bool per patch: one stiff and even part has most of its cells, the living ones that are not its own are softer by
    more than ``weak``. (Noise of deviation 2 takes 15 iterations at 128^3 on a plan that ignores what is uneven.)
    """
    cells = (0, 1, 2)
    strength = np.where(living, strongest, 0.0)
    most = strength.max(axis=cells)
    first = np.zeros((strength.shape[0] * strength.shape[1] * strength.shape[2], most.size), bool)
    first[strength.reshape(first.shape).argmax(axis=0), np.arange(most.size)] = True
    stiff = _flood(first.reshape(strength.shape), opened) & (strongest > 0)
    large = 2 * stiff.sum(axis=cells) > (strongest > 0).sum(axis=cells)
    uneven = (stiff & (strongest < 0.1 * most)).any(axis=cells)
    return large & ~uneven & ~(living & ~stiff & (strongest >= weak * most)).any(axis=cells)


def _flood(start: np.ndarray, opened: list[np.ndarray]) -> np.ndarray:
    """The cells of each patch that can be reached from the first of ``start``."""
    flat = start.reshape(np.prod(start.shape[:3]), -1)
    reached = np.zeros_like(flat)
    reached[flat.argmax(axis=0), np.arange(flat.shape[1])] = flat.any(axis=0)
    reached = reached.reshape(start.shape)
    before = -1
    while np.count_nonzero(reached) != before:
        before = np.count_nonzero(reached)
        for axis, face in enumerate(opened):
            low, high = _sides(axis)
            reached[high] |= reached[low] & face[high]
            reached[low] |= reached[high] & face[high]
    return reached


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Cells of a patch below and above its faces along ``axis``."""
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[2 - axis], high[2 - axis] = slice(0, -1), slice(1, None)
    return tuple(low), tuple(high)
