"""The families of systems that there are, by name, and what makes a function one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import Box
from petsc_dcdm.poisson.scene import World

Build = Callable[[Shape, int, Box], World]


@dataclass(frozen=True)
class Family:
    """A family of systems, and what those who measure on it have to know.

    Attributes
    ----------
    build
        (global shape, seed, the box of a rank) -> that rank's part of the world.
    limit
        iterations of `petsc_dcdm.KSP` to a relative residual of 1e-6 that are promised; None: no promise.
    more_if_smooth
        how many more a smooth right-hand side may take where an axis has 128 cells or more.
    random
        whether another seed makes another world.
    """

    name: str
    build: Build
    limit: int | None = None
    more_if_smooth: int = 0
    random: bool = True

    @property
    def about(self) -> str:
        """One line for people."""
        return (self.build.__doc__ or "").strip().split("\n")[0]


families: dict[str, Family] = {}


def catalogue() -> str:
    """The families that are known so far, a line each: what ``--family list`` prints."""
    return "\n".join(f"{name:15} {family.about}" for name, family in families.items())


def family(limit: int | None = None, more_if_smooth: int = 0, random: bool = True) -> Callable[[Build], Build]:
    """Decorator: make a function a family under its own name; the arguments are those of :class:`Family`.

    Public: a program of one's own may add families. ValueError if another function has the name already.
    """

    def register(build: Build) -> Build:
        name = build.__name__
        if name in families and families[name].build.__module__ != build.__module__:
            raise ValueError(f"There is a family {name!r} already.")
        families[name] = Family(name, build, limit, more_if_smooth, random)
        return build

    return register
