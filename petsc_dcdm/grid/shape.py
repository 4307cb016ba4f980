"""The size of a grid: how it is kept, read and written. (nz, ny, nx) in arrays, nx,ny,nz wherever people see it."""

from __future__ import annotations

Shape = tuple[int, int, int]
"""Cells along z, y, x, the order of the arrays: x is fastest, as in PETSc. A 2D grid has nz = 1."""

Periodic = tuple[bool, bool, bool]
"""Whether the first and the last cell along z, y, x are neighbours."""

NOT_PERIODIC: Periodic = (False, False, False)


def parse_shape(text: str, *, cube: bool = False, least: int = 1) -> Shape:
    """``nx,ny`` or ``nx,ny,nz`` (an x may separate as well as a comma), each number at least `least`.

    `cube`: a single number is a grid of as many cells along all three axes. Raises ValueError that says what is
    allowed, to end a sentence with.
    """
    try:
        sizes = [int(n) for n in text.replace("x", ",").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2, 3)[not cube :] or min(sizes) < least:
        numbers = "positive integers" if least == 1 else f"integers of at least {least}"
        allowed = f"n for a cube, nx,ny or nx,ny,nz in {numbers}" if cube else f"two or three {numbers} nx,ny[,nz]"
        raise ValueError(allowed)
    nx, ny, nz = sizes * 3 if len(sizes) == 1 else (*sizes, 1)[:3]
    return nz, ny, nx


def parse_axes(text: str) -> Periodic:
    """Axes as ``x,y``, in the order of a shape. Raises ValueError that says what is allowed, to end a sentence with."""
    named = text.lower().split(",")
    if not set(named) <= set("xyz") or len(set(named)) < len(named):
        near = ",".join(axis for axis in "xyz" if axis in text.lower())
        raise ValueError("axes as x, y, z or several of them, such as x,y" + (f"; {near}?" if near else ""))
    return "z" in named, "y" in named, "x" in named


def axes_argument(text: str) -> Periodic:
    """Axes given to argparse; ArgumentTypeError otherwise."""
    try:
        return parse_axes(text)
    except ValueError as allowed:
        from argparse import ArgumentTypeError  # a solve has no use for it

        raise ArgumentTypeError(f"{text!r} must be {allowed}") from None


def shape_argument(text: str) -> Shape:
    """A grid to solve on, given to argparse: at least two cells along its axes; ArgumentTypeError otherwise."""
    try:
        return parse_shape(text, cube=True, least=2)
    except ValueError as allowed:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is no grid: {allowed}") from None


def shape_option(option: str, text: str) -> Shape:
    """The grid that the option called `option` gives on a command line; ValueError with a sentence otherwise."""
    try:
        return parse_shape(text, cube=True)
    except ValueError as allowed:
        raise ValueError(f"--{option} {text!r} is no grid: {allowed}.") from None


def size_text(shape: Shape, between: str = " x ") -> str:
    """``nx x ny x nz``; a 2D grid without its nz. As an option takes it: ``between=","``."""
    return between.join(str(n) for n in (shape[::-1] if shape[0] > 1 else shape[:0:-1]))
