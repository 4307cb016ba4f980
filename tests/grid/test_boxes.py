"""Boxes: every cell has one owner, edges keep to the coarse cells, neighbours agree."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from petsc_dcdm.backends.devices import first_of_each
from petsc_dcdm.grid.boxes import alignment, partition, units_of
from petsc_dcdm.stencil.plan import coarse_limit, plan_coarsening

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, ranks=st.integers(1, 12), limit=st.sampled_from([8, 100, 5000]), long_x=st.booleans())
def test_every_cell_has_one_owner_and_boxes_are_aligned(shape, ranks, limit, long_x):
    plan = plan_coarsening(shape, (10.0 if long_x else 1.0, 1.0, 1.0), 2.5, limit)
    boxes = partition(shape, ranks, plan)
    unit = alignment(plan)
    owned = np.zeros(prod(shape), int)
    cells = np.arange(prod(shape))
    owner, place = boxes.locate(cells)
    for rank in range(ranks):
        offset, size = boxes.box(rank)
        mine = cells[owner == rank]
        assert sorted(place[mine]) == list(range(prod(size)))
        owned[mine] += 1
        if prod(size):
            inside = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
            assert (place[cells.reshape(shape)[inside].ravel()] == np.arange(mine.size)).all()
            assert all(o % u == 0 for o, u in zip(offset, unit, strict=True))
        for axis in range(3):
            for step in (-1, 1):
                other = boxes.neighbour(rank, axis, step)
                assert other < 0 or boxes.neighbour(other, axis, -step) == rank
    assert (owned == 1).all()


@settings(max_examples=60, deadline=None)
@given(shape=shapes, ranks=st.integers(2, 12), limit=st.sampled_from([8, 100]), seed=st.integers(0, 99))
def test_boxes_that_are_even_in_rows_are_aligned_and_cover_the_grid(shape, ranks, limit, seed):
    plan = plan_coarsening(shape, (1.0, 1.0, 1.0), 2.5, limit)
    rng, unit = np.random.default_rng(seed), alignment(plan)
    rows = [
        rng.permutation(np.bincount(rng.integers(0, len(c) - 1, 50), minlength=len(c) - 1))
        for c in units_of(shape, plan)
    ]
    boxes = partition(shape, ranks, plan, rows=rows)
    assert prod(boxes.procs) <= ranks
    for cuts, n, u in zip(boxes.edges, shape, unit, strict=True):
        assert cuts[0] == 0 and cuts[-1] == n
        assert all(a < b and a % u == 0 for a, b in zip(cuts, cuts[1:], strict=False))


def test_boxes_are_even_in_rows_where_those_are_known():
    """A pool whose upper half is air, and a column in one corner of it."""
    plan, n = plan_coarsening((64, 64, 64), (1, 1, 1), 2.5, 1000), 8
    low = [8, 8, 8, 8, 2, 2, 0, 0]
    for ranks, most in ((2, 0.56), (3, 0.45), (4, 0.34)):
        boxes = partition((64, 64, 64), ranks, plan, rows=(low, low, low))
        shares = [max(sum(low[a // n : b // n]) for a, b in zip(c, c[1:], strict=False)) / 36 for c in boxes.edges]
        assert prod(shares) <= most
    slabs = partition((512, 1, 1), 4, ((2,),) * 6, rows=([5, 1, 1, 1, 1, 1, 5, 5], [20], [20]))
    assert slabs.edges[0] == (0, 64, 384, 448, 512)
    empty = partition((64, 64, 64), 2, plan, rows=([0] * 8,) * 3)
    assert empty == partition((64, 64, 64), 2, plan)
    held = partition((64, 64, 64), 4, plan, None, (0, 2), rows=([9, 1, 1, 1, 1, 1, 1, 1], [2] * 8, [2] * 8))
    assert held.holders == (0, 2)
    assert held.edges == partition((64, 64, 64), 2, plan, rows=([9, 1, 1, 1, 1, 1, 1, 1], [2] * 8, [2] * 8)).edges


def test_a_hint_is_snapped_and_used_where_every_rank_keeps_a_box():
    plan = plan_coarsening((64, 64, 64), (1, 1, 1), 2.5, 1000)
    kept = partition((64, 64, 64), 2, plan, ((0, 31, 64), (0, 64), (0, 64)))
    assert kept.edges == ((0, 32, 64), (0, 64), (0, 64))
    too_thin = partition((64, 64, 64), 40, plan, (tuple(range(0, 61, 2)) + tuple(range(62, 71)), (0, 64), (0, 64)))
    assert too_thin.procs != (40, 1, 1)


def test_more_ranks_than_cells_leave_empty_boxes():
    boxes = partition((1, 1, 3), 8, ())
    assert [prod(boxes.box(rank)[1]) for rank in range(8)] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert boxes.neighbour(7, 2, -1) == -1


def test_boxes_on_some_of_the_ranks_only():
    everywhere, some = (partition((40, 40, 40), ranks, (), None, held) for ranks, held in ((2, None), (6, (1, 4))))
    assert [some.box(rank)[1] for rank in range(6) if rank not in (1, 4)] == [(0, 0, 0)] * 4
    for number, rank in enumerate((1, 4)):
        assert some.box(rank) == everywhere.box(number)
        assert some.neighbour(rank, 0, 1 - 2 * number) == (4, 1)[number]
    assert some.neighbour(0, 0, 1) == -1
    for ours, theirs in zip(some.locate(np.arange(64000)), everywhere.locate(np.arange(64000)), strict=True):
        assert (ours == (theirs if theirs.max() > 1 else np.array((1, 4))[theirs])).all()


def test_the_lowest_rank_on_a_gpu_holds_the_box_of_all_that_share_it():
    assert first_of_each([(0, 0), (0, 0), (0, 1), (0, 1), (4, 0), (4, 1)]) == (0, 2, 4, 5)
    assert first_of_each([(0, 0)] * 3) == (0,)


def test_plan_semi_coarsens_strong_axes_first_and_stops_small():
    def plan(shape, mean_w):
        return plan_coarsening(shape, mean_w, 2.5, coarse_limit(shape))

    assert plan((64, 64, 64), (1, 1, 1)) == ((0, 1, 2),) * 3
    assert plan((64, 64, 64), (100, 1, 1))[:3] == ((0,), (0,), (0,))
    assert plan((9, 9, 9), (1, 1, 1)) == ()
    assert plan((200, 200, 200), (0, 0, 0)) == ()
    # an exact solve of more cells is cheap in the plane and beside a large grid
    assert plan((256, 256, 256), (1, 1, 1)) == ((0, 1, 2),) * 4
    assert plan((1, 256, 256), (1, 1, 0)) == ((0, 1),) * 2
    assert plan((1, 2048, 2048), (1, 1, 0)) == ((0, 1),) * 5
