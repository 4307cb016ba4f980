"""Operators on small grids as arrays, and random weights, for tests of the network and of what runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from petsc_dcdm.grid.layout import Plan
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.network.initial import initial_tensors
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import HAS_S, PackedStencil

System = tuple[list[np.ndarray], np.ndarray]


def weights(steps: int, seed: int = 0, hidden: int = 16) -> ModelFile:
    """Random weights: every field varies from cell to cell."""
    rng = np.random.default_rng(seed)
    tensors = initial_tensors(steps, hidden, seed)
    for name, a in tensors.items():
        if name.endswith("bias") or name in ("out.weight", "log_c"):
            tensors[name] = a + (0.3 * rng.standard_normal(a.shape)).astype(np.float32)
    return ModelFile("multigrid", (2, 3), tensors, {})


def system(
    shape: Shape, seed: int, solid: float = 0.2, varying: bool = True, periodic: Periodic = NOT_PERIODIC
) -> System:
    """Conductances scaled to a largest diagonal of 1, with some cells solid."""
    rng = np.random.default_rng(seed)
    active = rng.random(shape) >= solid
    w = []
    for a in range(3):
        wa = rng.uniform(0.1, 1, shape) if varying else np.ones(shape)
        low = [slice(None)] * 3
        low[2 - a] = slice(0, 1)
        wa *= active & np.roll(active, 1, 2 - a)
        if not periodic[2 - a] or shape[2 - a] == 1:
            wa[tuple(low)] = 0
        w.append(wa)
    s = np.where(active, rng.choice([0, 0, 0.5], shape), 0.0)
    scale = max(float(diagonal(w, s).max()), 1e-30)
    return [wa / scale for wa in w], s / scale


def diagonal(w: list[np.ndarray], s: np.ndarray) -> np.ndarray:
    return s + sum(w) + sum(np.roll(wa, -1, 2 - a) for a, wa in enumerate(w))


def padded(a: np.ndarray) -> np.ndarray:
    """With a halo of one cell, which is 0."""
    return np.pad(a, 1)


def packed(w: list[np.ndarray], s: np.ndarray) -> PackedStencil | None:
    """Padded arrays in packed form, if it can hold them; the halo of w on the high side is valid."""
    c = [float(a[1:-1, 1:-1, 1:-1].max(initial=0.0)) for a in w]
    values = np.unique(s[s != 0])
    cells = np.where(s != 0, HAS_S, 0)
    for axis, face in enumerate(w):
        for side, bit in ((0, 1), (-1, 2)):
            conducts = np.roll(face, side, 2 - axis)
            if not np.isin(conducts[1:-1, 1:-1, 1:-1], (0.0, c[axis])).all():
                return None
            cells |= np.where(conducts != 0, bit << 2 * axis, 0)
    if values.size > 255:
        return None
    inside = np.pad(np.ones([n - 2 for n in s.shape], bool), 1)
    index = np.where(s != 0, np.searchsorted(values, s) + 1, 0)
    s_value = np.zeros(256)
    s_value[1 : values.size + 1] = values
    parts = [np.where(inside, a, 0).astype(np.uint8) for a in (cells, index)]
    return PackedStencil(parts[0], parts[1], (c[0], c[1], c[2]), s_value)


def damping(coarse: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Some linear map in place of the coarse solver; zero at inactive cells."""
    active = diagonal(list(coarse.w), coarse.s) > 0
    return lambda r: np.where(active, 0.7 * r, 0).astype(np.float32)


def applied(hierarchy: Any, r: np.ndarray) -> np.ndarray:
    out = np.full(r.shape, np.nan)
    hierarchy.apply(r, out, 0.5, 2.0)
    return out


#: Boxes with odd sides, thin ones, flat ones, and the axes along which their levels are coarsened.
PLANS: list[tuple[Shape, Plan]] = [
    ((8, 8, 8), ((0, 1, 2),)),
    ((9, 7, 21), ((0, 1, 2), (0, 1, 2))),
    ((12, 10, 33), ((0,), (1, 2), (0, 1, 2))),
    ((40, 3, 18), ((2,), (2,), (0, 2))),
    ((1, 13, 40), ((0, 1), (0, 1))),
    ((1, 1, 50), ((0,),)),
    ((5, 1, 20), ((0, 2),)),
    ((6, 7, 1), ((1, 2),)),
    ((2, 2, 2), ((0, 1, 2), ())),
]
