"""Whether a medium is nearly a product of one function per axis, and what these are. numpy only.

On a grid stretched along its axes the conductances along x are a_x(x) m_y(y) m_z(z), those along y m_x a_y m_z, those
along z m_x m_y a_z, and the extra diagonal is m_x m_y m_z times a sum of functions of x, y and z: what walls of a fixed
value, a uniform term of time and any widths of cells make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

RATIO = 2.0
"""Most that the ratios of conductances to those of the product may differ by, the largest over the smallest: an exact
inverse of the product then takes eight iterations to 1e-6."""

LONGEST = 1200
"""Cells along an axis: eigenvectors of so many take half a second."""

SAMPLE = 12
"""Points along each axis that are looked at first, and whose lines say what its function is."""

MOST_RANGE = 1e60
"""Of m: its root is kept in single precision."""

ROUNDING = 1e-12
"""Extra diagonal over all of a diagonal that is nothing."""


@dataclass(eq=False)
class Factors:
    """What belongs to one axis, float64 [n]: ``m``, which scales what belongs to the other axes; ``a``, coupling to the
    cell before, 0 of the first; ``s``, extra diagonal over the m of the other axes.
    """

    m: np.ndarray
    a: np.ndarray
    s: np.ndarray

    def same(self, other: Factors) -> bool:
        """Whether all numbers are the same."""
        return all(map(np.array_equal, vars(self).values(), vars(other).values()))


def factors_of(w: Sequence[np.ndarray], s: np.ndarray) -> list[Factors] | None:
    """The factors along x, y, z of a medium that is nearly a product of them (`RATIO`); None of any other.

    Parameters
    ----------
    w, s
        conductances of the low faces along x, y, z and extra diagonal, float64 (nz, ny, nx); those of the lowest faces
        are not looked at

    Most other media are told by a few of their faces.
    """
    axes = [axis for axis in range(3) if s.shape[2 - axis] > 1]
    if max(s.shape) > LONGEST or len(axes) < 2:
        return None
    fitted = _fit(w, axes)
    if fitted is None:
        return None
    m, a = fitted
    if np.prod([values.max() / values.min() for values in m]) > MOST_RANGE:
        return None
    for axis in axes:
        inner = (slice(None),) * (2 - axis) + (slice(1, None),)
        functions = [a[i][1:] if i == axis else m[i] for i in range(3)]
        ratio = w[axis][inner] / _product(functions)
        low, high = ratio.min(), ratio.max()
        if not (low > 0.0 and high <= RATIO * low):
            return None
        a[axis] *= np.sqrt(low * high)  # in the middle
    extra = _extra(w, s, m)
    return None if extra is None else [Factors(m[axis], a[axis], extra[axis]) for axis in range(3)]


def _along(axis: int, values: np.ndarray) -> np.ndarray:
    """A function of one axis on the grid."""
    return values.reshape([-1 if i == 2 - axis else 1 for i in range(3)])


def _product(functions: Sequence[np.ndarray]) -> np.ndarray:
    """(nz, ny, nx) of functions of x, y, z."""
    return reduce(np.multiply, (_along(axis, values) for axis, values in enumerate(functions)))


def _fit(w: Sequence[np.ndarray], axes: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """m and a along x, y, z, from lines through sampled points; None where sampled faces are no such product."""
    shape = w[0].shape
    sizes = [shape[2 - axis] for axis in range(3)]
    points = [[np.unique(np.linspace(first, n - 1, SAMPLE).astype(int)) for first in (0, min(1, n - 1))] for n in sizes]
    logarithms: list[list[np.ndarray]] = [[] for _ in range(3)]
    own = [np.zeros(n) for n in sizes]
    means = [0.0] * 3
    for axis in axes:
        some = [points[i][i == axis] for i in range(3)]
        values = w[axis][np.ix_(*reversed(some))]
        if not (values.min() > 0.0 and np.isfinite(values.max())):
            return None
        left = values = np.log(values)
        for i in range(3):
            left = left - left.mean(axis=tuple(2 - j for j in range(3) if j != i), keepdims=True)
        if left.max() - left.min() > np.log(RATIO):
            return None
        means[axis] = float(values.mean())
        for i in axes:
            first = int(i == axis)
            lines = w[axis][np.ix_(*(np.arange(first, sizes[j]) if j == i else some[j] for j in (2, 1, 0)))]
            if not lines.min() > 0.0:
                return None
            line = np.log(lines).mean(axis=tuple(2 - j for j in range(3) if j != i)) - means[axis]
            if i == axis:
                own[i][1:] = line
            else:
                logarithms[i].append(line)
    m = [np.exp(sum(found) / len(found)) if found else np.ones(n) for found, n in zip(logarithms, sizes, strict=True)]
    a = [np.zeros(n) for n in sizes]
    for axis in axes:
        a[axis][1:] = np.exp(own[axis][1:] + means[axis])
    return m, a


def _extra(w: Sequence[np.ndarray], s: np.ndarray, m: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """s along x, y, z, from the lines through the middle; None where it is not m times a sum of three functions."""
    middle = [n // 2 for n in reversed(s.shape)]
    product = _product(m)
    t = s / product
    common = t[middle[2], middle[1], middle[0]]
    found = []
    for axis in range(3):
        at = tuple(slice(None) if i == axis else middle[i] for i in (2, 1, 0))
        found.append(np.maximum(t[at] - common, 0.0))
    total = reduce(np.add, (_along(axis, values) for axis, values in enumerate(found))) + common
    diagonal = t + sum(face for face in w) / product
    if np.any(np.abs(t - total) > (1 - 1 / RATIO) * np.maximum(t, total) + ROUNDING * diagonal):
        return None
    found[0] = found[0] + common
    return [values * function for values, function in zip(found, m, strict=True)]
