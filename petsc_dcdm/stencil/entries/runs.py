"""Runs of rows whose cells follow each other on grid lines: found, joined, and values copied along them."""

from __future__ import annotations

import ctypes

import numpy as np

from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import KernelsUnavailable, have_kernels, library
from petsc_dcdm.native.memory import address_of

PIECE = 1 << 14
"""Values that are copied at once."""

SHORT = 3
"""Mean length of runs up to which one rank moves values one by one."""


def lines_of_cells(cells: np.ndarray, nx: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The runs (row, cell, length), int64 [runs, 3], that rows of these cells (int64) are on grid lines of nx cells,
    and the same ones `joined`. None where they are short, or there are no kernels.
    """
    if not have_kernels():
        return None
    cells = np.ascontiguousarray(cells, np.int64)
    capacity, joins = cells.size // SHORT + 1, ctypes.c_int64(0)
    lines, whole = (np.empty((capacity, 3), np.int64) for _ in range(2))
    i64, at = ctypes.c_int64, ctypes.c_void_p
    c = declared(library(), {"dcdm_lines_of_cells": (i64, [i64, at, i64, i64, i64, at, at, at])})
    found = address_of(lines), address_of(whole), ctypes.addressof(joins)
    count = c.dcdm_lines_of_cells(cells.size, address_of(cells), nx, PIECE, capacity, *found)
    return None if count < 0 else (lines[:count], whole[: joins.value])


def joined(runs: np.ndarray) -> np.ndarray:
    """Runs (from, to, n), those that go on where the one before ends as one, but in pieces for threads to share."""
    if not runs.size:
        return runs
    piece = (np.cumsum(runs[:, 2]) - runs[:, 2]) // PIECE
    goes_on = (runs[1:, :2] == runs[:-1, :2] + runs[:-1, 2:]).all(axis=1) & (piece[1:] == piece[:-1])
    first = np.flatnonzero(np.concatenate(([True], ~goes_on)))
    return np.column_stack([runs[first, :2], np.add.reduceat(runs[:, 2], first)])


def breaks_of(cells: np.ndarray) -> np.ndarray:
    """The rows whose cells do not follow those of the rows before them, but for the first row."""
    return 1 + np.flatnonzero(cells[1:] - cells[:-1] != 1)


def copy_rows(places: np.ndarray, source: np.ndarray, target: np.ndarray, threads: int = 1, back: bool = False) -> None:
    """``target[places] = source``, or with ``back`` ``target = source[places]``; places int64, arrays of one dtype.
    Raises KernelsUnavailable.
    """
    if source.dtype != target.dtype or not (source.flags.c_contiguous and target.flags.c_contiguous):
        raise ValueError(f"expected contiguous arrays of one type; got {source.dtype} and {target.dtype}")
    library().dcdm_copy_rows(
        ctypes.c_int64(places.size),
        *(ctypes.c_void_p(address_of(a)) for a in (places, source, target)),
        ctypes.c_int64(source.itemsize),
        int(back),
        threads,
    )


def copy_runs(runs: np.ndarray, source: np.ndarray, target: np.ndarray, threads: int = 1, back: bool = False) -> None:
    """``target[to : to + n] = source[from : from + n]`` for all runs (from, to, n), int64 [runs, 3]; one dtype. With
    ``back`` runs are (to, from, n). In numpy where there is no compiler.
    """
    if source.dtype != target.dtype or not (source.flags.c_contiguous and target.flags.c_contiguous):
        raise ValueError(f"expected contiguous arrays of one type; got {source.dtype} and {target.dtype}")
    if not runs.size:
        return
    runs = np.ascontiguousarray(runs, np.int64)
    try:
        c = library()
    except KernelsUnavailable:
        within = np.arange(int(runs[:, 2].sum())) - np.repeat(np.cumsum(runs[:, 2]) - runs[:, 2], runs[:, 2])
        source_at, target_at = (np.repeat(runs[:, int(side)], runs[:, 2]) + within for side in (back, not back))
        target[target_at] = source[source_at]
        return
    c.dcdm_copy_runs(
        ctypes.c_int64(runs.shape[0]),
        *(ctypes.c_void_p(address_of(a)) for a in (runs, source, target)),
        ctypes.c_int64(source.itemsize),
        int(back),
        threads,
    )
