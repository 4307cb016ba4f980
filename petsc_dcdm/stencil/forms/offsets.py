"""The grid of a compact 9- or 27-point matrix in lexicographic order, from the distances of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

COMPACT_OFFSETS = 62
"""As many distances column - row > 0 has a 27-point stencil where all grid lines are closed to rings: each step is one,
none or all the way round; it has 13 without rings.
"""

FEWEST = 3
"""As few has a 9-point stencil whose couplings along one axis are 0: bilinear elements stretched by the root of 2."""


def compact_strides(offsets: Sequence[int], rows: int) -> tuple[int, int] | None:
    """(nx, nx ny) of the grid of so many rows whose neighbours, faces, edges and corners, are at these distances; 2D
    where nx ny is all rows. Some of its lines may be rings. Of several grids the one that has the fewest other
    distances, if half of them are there. None if there is none, or if it is not certain which: single entries, those of
    the faces of trilinear elements for one, may be 0 everywhere.

    offsets: distinct, positive, sorted.
    """
    if len(offsets) < FEWEST:
        return None
    wanted = set(offsets)
    near = {offset + step for offset in offsets for step in (-1, 0, 1)}
    found: dict[tuple[int, int], int] = {}
    for nx in (n for n in near if 1 < n < rows and rows % n == 0):
        planes = {offset + dx + dy * nx for offset in offsets for dx in (-1, 0, 1) for dy in (-1, 0, 1)} | {rows}
        for plane in (n for n in planes if nx < n <= rows and n % nx == 0 and rows % n == 0):
            lengths = nx, plane // nx, rows // plane
            for rings in product((False, True), repeat=3):
                closed = [n for n, ring in zip(lengths, rings, strict=True) if ring]
                reached = _distances(lengths, rings) if min(closed, default=3) > 2 else set()
                if (
                    wanted <= reached
                    and len(reached) <= 2 * len(wanted)
                    and len(reached) < found.get((nx, plane), len(reached) + 1)
                ):
                    found[nx, plane] = len(reached)
    fewest = min(found.values(), default=0)
    return _most_likely({strides for strides, size in found.items() if size == fewest}, offsets)


def _distances(lengths: tuple[int, int, int], rings: tuple[bool, ...]) -> set[int]:
    """Those of the neighbours, faces, edges and corners, on a grid of which some lines are rings."""
    along = [
        [0] if n == 1 else [-1, 0, 1, *((n - 1, 1 - n) if ring else ())] for n, ring in zip(lengths, rings, strict=True)
    ]
    nx, ny, _ = lengths
    return {abs(x + y * nx + z * nx * ny) for x, y, z in product(*along)} - {0}


def _most_likely(found: set[tuple[int, int]], offsets: Sequence[int]) -> tuple[int, int] | None:
    """Of several grids the one that has the corners (x, y, z all one) of both signs among the distances."""
    if len(found) < 2:
        return next(iter(found), None)

    def corners(strides: tuple[int, int]) -> int:
        nx, plane = strides
        far = (nx - 1, nx + 1, plane - nx - 1, plane + nx + 1, plane - nx, plane + nx, plane - 1, plane + 1)
        return sum(distance in offsets for distance in far)

    counts = sorted(((corners(strides), strides) for strides in found), reverse=True)
    return counts[0][1] if counts[0][0] > counts[1][0] else None
