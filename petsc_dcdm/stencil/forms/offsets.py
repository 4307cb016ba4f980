"""The grid of a compact 9- or 27-point matrix in lexicographic order, from the distances of its entries."""

from __future__ import annotations

from collections.abc import Sequence

COMPACT_OFFSETS = 13
"""As many distances column - row > 0 has a 27-point stencil."""

FEWEST = 3
"""As few has a 9-point stencil whose couplings along one axis are 0: bilinear elements stretched by the root of 2."""


def _reached(offset: int, nx: int, plane: int) -> bool:
    """Whether it is one step or none along each of x, y, z; there is no z where plane is 0."""
    return any(
        offset == abs(dx + dy * nx + dz * plane)
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
        for dz in ((-1, 0, 1) if plane else (0,))
    )


def compact_strides(offsets: Sequence[int], rows: int) -> tuple[int, int] | None:
    """(nx, nx ny) of the grid of so many rows whose neighbours, faces, edges and corners, are at these distances; 2D
    rather than 3D, where nx ny is all rows. None if there is none, or if it is not certain which: single entries, those
    of the faces of trilinear elements for one, may be 0 everywhere.

    offsets: distinct, positive, sorted.
    """
    if len(offsets) < FEWEST:
        return None
    last = offsets[-1]
    near = sorted({offset + step for offset in offsets for step in (-1, 0, 1)})
    flat = {nx for nx in (last - 1, last, last + 1) if nx > 1 and rows % nx == 0 and rows > nx}
    found = {(nx, rows) for nx in flat if all(_reached(offset, nx, 0) for offset in offsets)}
    if not found:
        found = {
            (nx, plane)
            for nx in near
            if nx > 1
            for plane in {last + dx + dy * nx for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
            if plane > nx and plane % nx == 0 and rows % plane == 0 and rows > plane
            if all(_reached(offset, nx, plane) for offset in offsets)
        }
    return _most_likely(found, offsets)


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
