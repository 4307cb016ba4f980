"""Matrices in CSR and what their stencils are, in numpy and scipy, for tests of the extraction."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.rows import CsrRows

System = tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def csr_rows(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, shape: Shape, threads: int = 1, **given: Any
) -> CsrRows:
    return CsrRows(RowsOnGrid(indptr, indices, values, shape, **given), threads)


def random_system(shape: Shape, rng: np.random.Generator, solid: float, lone: float) -> System:
    """w [3], s, and which cells have a row (`present`) and which rows are Dirichlet rows (`fixed`)."""
    present = rng.random(shape) >= solid
    fixed = present & (rng.random(shape) < lone)
    w = []
    for a in range(3):
        wa = rng.uniform(0.5, 2.0, shape)
        low = [slice(None)] * 3
        low[2 - a] = slice(0, 1)
        neighbour = np.roll(present, 1, 2 - a)
        neighbour[tuple(low)] = False
        w.append(np.where(present & neighbour, wa, 0.0))
    s = np.where(present, rng.choice([0.0, 0.7], shape), 0.0)
    return w, s, present, fixed


def assemble(w: list[np.ndarray], s: np.ndarray, present: np.ndarray, fixed: np.ndarray) -> sparse.csr_matrix:
    """Rows of the present cells, x fastest; Dirichlet rows are identity rows, couplings to them stay."""
    shape = s.shape
    number = np.arange(s.size).reshape(shape)
    rows, columns, values = [number.ravel()], [number.ravel()], [np.zeros(s.size)]
    d = s.copy()
    for a in range(3):
        axis = 2 - a
        high = np.roll(w[a], -1, axis)
        d += w[a] + high
        here, there = number[w[a] > 0], np.roll(number, 1, axis)[w[a] > 0]
        rows += [here, there]
        columns += [there, here]
        values += [-w[a][w[a] > 0]] * 2
    values[0] = np.where(d > 0, d, 1.0).ravel()
    m = sparse.coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))).tolil()
    for r in np.flatnonzero(fixed):
        m[r] = 0
        m[r, r] = 1.0
    cells = np.flatnonzero(present)
    m = m.tocsr()[cells][:, cells]
    m.sort_indices()
    return m


def expected(
    w: list[np.ndarray], s: np.ndarray, present: np.ndarray, fixed: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """w_low, w_high, s of every cell as `extract` defines them."""
    lows, highs, extra = [], [], s.copy()
    for a in range(3):
        axis = 2 - a
        high = np.roll(w[a], -1, axis)
        fixed_low, fixed_high = np.roll(fixed, 1, axis), np.roll(fixed, -1, axis)
        lows.append(np.where(fixed | fixed_low, 0.0, w[a]))
        highs.append(np.where(fixed | fixed_high, 0.0, high))
        extra += np.where(fixed_low, w[a], 0.0) + np.where(fixed_high, high, 0.0)
    extra[fixed | ~present] = 0.0
    return lows, highs, extra
