"""Periodic axes: what lies beyond the ends of a box is on the other side of the grid, however it is split."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from thread_ranks import in_threads

from petsc_dcdm.grid.boxes import partition
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Reach, SerialLayout
from petsc_dcdm.grid.shape import Periodic, Shape

SHAPE: Shape = (6, 5, 7)
NUMBERS = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1
RINGS = [ring for ring in product((False, True), repeat=3) if any(ring)]
SPLITS = [
    ((0, 6), (0, 5), (0, 7)),
    ((0, 4, 6), (0, 5), (0, 7)),
    ((0, 2, 6), (0, 4, 5), (0, 7)),
    ((0, 6), (0, 5), (0, 2, 4, 7)),
]


def around(a: np.ndarray, widths: tuple[int, ...], rings: tuple[bool, ...]) -> np.ndarray:
    """The grid and so many cells around it: 0, or round and round."""
    for axis, (width, ring) in enumerate(zip(widths, rings, strict=True)):
        pads = [(width, width) if i == axis else (0, 0) for i in range(3)]
        a = np.pad(a, pads, mode="wrap") if ring else np.pad(a, pads)
    return a


def faces_only(a: np.ndarray) -> np.ndarray:
    """The array without the edges and corners of its halo."""
    outside = sum(
        (np.arange(n) % (n - 1) == 0).reshape(np.roll([n, 1, 1], i)).astype(int) for i, n in enumerate(a.shape)
    )
    return np.where(np.asarray(outside) > 1, 0, a)


@pytest.mark.parametrize("periodic", RINGS)
@pytest.mark.parametrize("corners", [False, True])
def test_one_rank_fills_its_own_halo(periodic: Periodic, corners: bool) -> None:
    layout = SerialLayout(SHAPE, (), periodic=periodic)
    want = around(NUMBERS, (1, 1, 1), periodic)
    got = np.pad(NUMBERS, 1)
    layout.exchange(got, corners)
    assert np.array_equal(got, want if corners else faces_only(want))
    tensor = torch.from_numpy(np.pad(np.stack([NUMBERS, -NUMBERS]), [(0, 0)] + [(1, 1)] * 3))
    layout.exchange(tensor, corners)
    assert np.array_equal(tensor[1].numpy(), -got)
    thin = np.pad(np.ones((1, 4, 4)), 1)  # one cell is no neighbour of itself
    SerialLayout((1, 4, 4), (), periodic=(True, False, False)).exchange(thin, True)
    assert thin.sum() == 16


@pytest.mark.parametrize("edges", SPLITS)
@pytest.mark.parametrize("periodic", RINGS)
def test_ranks_fill_each_others_halos(edges: tuple[tuple[int, ...], ...], periodic: Periodic) -> None:
    """Two boxes are neighbours on both sides; halos of 3 and 9 cells reach past them, round the ring and again."""

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        at = tuple(slice(b.start, b.stop + 2) for b in mine)
        want = around(NUMBERS, (1, 1, 1), periodic)[at]
        for corners in (False, True):
            a = np.pad(NUMBERS[mine], 1)
            layout.exchange(a, corners)
            assert np.array_equal(a, want if corners else faces_only(want))
        cut = tuple(ring and len(e) > 2 for ring, e in zip(periodic, edges, strict=True))
        for width in (1, 3, 9):
            low, high = layout.around(0, width)
            assert all(
                (below, above) == ((width, width) if ring else (min(width, b.start), min(width, n - b.stop)))
                for below, above, ring, b, n in zip(low, high, cut, mine, SHAPE, strict=True)
            )
            exchange = layout.exchange_of(*[Reach(0, (width,) * 3, (width,) * 3)] * 2)
            a = np.pad(NUMBERS[mine], width)
            b = 2 * a
            exchange.start(a, b)
            exchange.finish()
            at = tuple(slice(b.start, b.stop + 2 * width) for b in mine)
            want = around(NUMBERS, (width,) * 3, cut)[at]
            assert np.array_equal(a, want) and np.array_equal(b, 2 * want)
        layout.close()

    in_threads(edges, SHAPE, (), work, periodic=periodic)


def test_coarse_levels_of_a_ring_are_rings() -> None:
    """7 cells become 4, the last of them thin, then 2; as few as that are met several times."""
    plan = ((0,), (0,))

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        for level, n in ((1, 4), (2, 2)):
            size = layout._edges(level)[2]
            rank = layout.comm.Get_rank()
            values = np.arange(n, dtype=np.float32)[None, None]
            a = np.pad(values[..., size[rank] : size[rank + 1]], 3)
            exchange = layout.exchange_of(Reach(level, (3, 3, 3), (0, 0, 3)))
            exchange.start(a)
            exchange.finish()
            assert np.array_equal(a[3, 3], np.arange(size[rank] - 3, size[rank + 1] + 3) % n)

    in_threads(((0, 1), (0, 1), (0, 4, 7)), (1, 1, 7), plan, work, periodic=(False, False, True))


def test_neighbours_round_a_ring() -> None:
    boxes = partition((8, 8, 8), 2, (), periodic=(True, True, False))
    assert boxes.procs == (2, 1, 1) and boxes.periodic == (True, True, False)
    assert [boxes.neighbour(0, axis, step) for axis in range(3) for step in (-1, 1)] == [1, 1, 0, 0, -1, -1]
    assert partition((8, 8, 8), 4, (), None, (0, 2), (True, False, False)).neighbour(2, 0, 1) == 0
    assert partition((8, 8, 8), 1, (), ((0, 8),) * 3, None, (True, False, False)).neighbour(0, 0, -1) == 0
