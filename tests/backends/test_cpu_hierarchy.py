"""The multigrid network in compiled kernels against the same network in torch, and on boxes with halos."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from grid_operators import PLANS, applied, damping, diagonal, system, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_ranks import in_threads

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.binding import kernels
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.network.multigrid import TorchHierarchy
from petsc_dcdm.network.weights import ModelFile, WeightsError


@pytest.mark.parametrize("visits", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize(("shape", "plan"), PLANS)
def test_equals_torch(shape: Shape, plan: Plan, steps: int, visits: int) -> None:
    plan = tuple(axes for axes in plan if axes)
    w, s = system(shape, steps)
    file, layout = weights(steps, steps), SerialLayout(shape, plan, visits)
    torch_network = TorchHierarchy(file, w, s, layout, "cpu")
    network = CpuHierarchy(file, w, s, layout, threads=2, half=False)
    assert network.levels == torch_network.levels
    for ours, theirs in zip(
        (*network.coarse.w, network.coarse.s), (*torch_network.coarse.w, torch_network.coarse.s), strict=True
    ):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    network.coarse_solve = torch_network.coarse_solve = damping(network.coarse)
    r = np.random.default_rng(5).standard_normal(shape)
    want = applied(torch_network, r)
    size = np.abs(want).max()
    for _ in range(2):
        assert np.abs(applied(network, r) - want).max() < 5e-6 * size


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40)),
    rings=st.tuples(*3 * [st.booleans()]),
    share=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
)
def test_active_cells_of_rows(
    shape: Shape, rings: tuple[bool, bool, bool], share: float, seed: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    wide = [rng.random([n + 2 for n in shape]) * (rng.random([n + 2 for n in shape]) < share) for _ in range(4)]
    arrays = [a[1:-1, 1:-1, 1:-1] for a in wide]
    expected = sum(arrays)
    for axis, face in enumerate(arrays[:3]):
        high = np.roll(face, -1, 2 - axis)
        if not rings[2 - axis]:
            high[(slice(None),) * (2 - axis) + (-1,)] = 0.0
        expected = expected + high
    lives = expected > 0
    own = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
    found = np.full((*shape[:2], 2), -1, np.int32)
    numbers = [(ctypes.c_int64 * len(a))(*a) for a in (shape, [int(ring) for ring in rings], np.ravel(own))]
    pointers = (ctypes.c_void_p * 4)(*(a.ctypes.data for a in arrays))
    planes, rows, _ = (stride // 8 for stride in arrays[0].strides)
    count = kernels().dcdm_active(pointers, numbers[0], planes, rows, *numbers[1:], 16, found.ctypes.data, threads)
    assert count == lives[tuple(slice(*ends) for ends in own)].sum()
    for row, ends in zip(lives.reshape(-1, shape[2]), found.reshape(-1, 2), strict=True):
        where = np.flatnonzero(row)
        assert list(ends) == ([where[0] // 16 * 16, where[-1] // 16 * 16 + 16] if where.size else [0, 0])


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    plan=st.lists(st.sampled_from([(0, 1, 2), (0,), (1,), (2,), (0, 1), (1, 2)]), min_size=1, max_size=3),
    solid=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    steps=st.integers(1, 4),
    seed=st.integers(0, 99),
    varying=st.booleans(),
)
def test_any_shape_plan_and_filling(
    shape: Shape, plan: list[tuple[int, ...]], solid: float, steps: int, seed: int, varying: bool
) -> None:
    if shape[0] == 1:
        plan = [tuple(a for a in axes if a < 2) or (0,) for axes in plan]
    w, s = system(shape, seed, solid, varying)
    file, layout = weights(steps, seed), SerialLayout(shape, tuple(plan))
    networks = [TorchHierarchy(file, w, s, layout, "cpu"), CpuHierarchy(file, w, s, layout, 1 + seed % 2, half=False)]
    outs = []
    for network in networks:
        network.coarse_solve = damping(networks[1].coarse)
        outs.append(applied(network, np.random.default_rng(seed).standard_normal(shape)))
    assert np.abs(outs[0] - outs[1]).max() <= 3e-5 * np.abs(outs[0]).max()
    d = diagonal(w, s)
    assert not outs[1][d == 0].any()


def test_fields_do_not_depend_on_who_has_which_planes() -> None:
    """Up to the last bit: pieces of planes, of which a grid of 32 has four, go to whichever thread comes first."""
    shape, plan = (32, 48, 64), ((0, 1, 2), (0, 1, 2))
    rng, cells = np.random.default_rng(0), np.indices(shape)
    active = np.ones(shape, bool)
    for _ in range(12):
        centre, radius = rng.random(3) * shape, rng.uniform(2, 7)
        active &= ((cells - centre[:, None, None, None]) ** 2).sum(axis=0) > radius**2
    w = [np.zeros(shape, np.float32) for _ in range(3)]
    w[0][:, :, 1:] = active[:, :, 1:] & active[:, :, :-1]
    w[1][:, 1:] = active[:, 1:] & active[:, :-1]
    w[2][1:] = active[1:] & active[:-1]
    s = (active & (cells[1] == 0)).astype(np.float32)
    file, layout = weights(3, 1), SerialLayout(shape, plan)
    found = [CpuHierarchy(file, w, s, layout, threads).coarse for threads in (1, 2, 3, 4)]
    for other in found[1:]:
        for a, b in zip((*found[0].w, found[0].s), (*other.w, other.s), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("solid", [0.0, 0.02, 0.25])
def test_answers_that_are_kept_are_those_of_their_cells(solid: float) -> None:
    """A plane of 64 x 64: one surrounding almost everywhere, many that come again, more than can be kept."""
    shape, plan = (6, 64, 64), ((0, 1, 2), (0, 1, 2))
    w, s = system(shape, 1, solid, varying=False)
    s[...] = np.where(s > 0, 0.5, 0.0) if solid == 0.02 else 0.0
    s[:, 0] = 0.5 * (diagonal(w, s)[:, 0] > 0)
    file, layout = weights(3, 1), SerialLayout(shape, plan)
    networks = [TorchHierarchy(file, w, s, layout, "cpu"), CpuHierarchy(file, w, s, layout, 1, half=False)]
    outs = []
    for network in networks:
        network.coarse_solve = damping(networks[1].coarse)
        outs.append(applied(network, np.random.default_rng(0).standard_normal(shape)))
    assert np.abs(outs[0] - outs[1]).max() <= 1e-5 * np.abs(outs[0]).max()


@pytest.mark.parametrize("shape", [(14, 11, 35), (1, 40, 37)])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("visits", [1, 2])
def test_symmetric_positive_and_linear(shape: Shape, half: bool, visits: int) -> None:
    w, s = system(shape, 2)
    plan: Plan = ((0, 1, 2), (0, 1)) if shape[0] > 1 else ((0, 1), (0,))
    network = CpuHierarchy(weights(3), w, s, SerialLayout(shape, plan, visits), 1, half)
    network.coarse_solve = damping(network.coarse)
    active = diagonal(w, s) > 0
    u, v = (np.random.default_rng(i).standard_normal(shape) * active for i in range(2))
    mu, mv, both = applied(network, u), applied(network, v), applied(network, u + 2 * v)
    size = abs((u * mu).sum()) + abs((v * mv).sum())
    assert abs((u * mv).sum() - (v * mu).sum()) < 1e-6 * size
    assert np.abs(both - mu - 2 * mv).max() < 1e-5 * np.abs(both).max()


def test_threads_do_not_change_the_answer() -> None:
    shape = (70, 12, 20)
    w, s = system(shape, 4, varying=False)
    outs = []
    for threads in (1, 2, 3):
        network = CpuHierarchy(weights(2), w, s, SerialLayout(shape, ((0, 1, 2), (2,))), threads)
        network.coarse_solve = damping(network.coarse)
        outs.append(applied(network, np.random.default_rng(0).standard_normal(shape)))
    assert np.array_equal(outs[0], outs[1])
    assert np.array_equal(outs[0], outs[2])


@pytest.mark.parametrize("visits", [1, 2])
@pytest.mark.parametrize("varying", [False, True])
def test_strips_of_rows_do_not_change_the_answer(varying: bool, visits: int) -> None:
    shape = (21, 37, 24)
    w, s = system(shape, 4, varying=varying)
    network = CpuHierarchy(weights(4), w, s, SerialLayout(shape, ((0, 1, 2), (1, 2)), visits), 2)
    network.coarse_solve = damping(network.coarse)
    r = np.random.default_rng(0).standard_normal(shape)
    outs = []
    for rows in (0, 2, 6, 20, 40):
        for level in network._levels[:-1]:
            level.strip = rows
        outs.append(applied(network, r))
    for out in outs[1:]:
        assert np.array_equal(out, outs[0])


@pytest.mark.parametrize("threads", [2, 3])
def test_parts_of_planes_are_as_even_as_pairs_of_planes_are(threads: int) -> None:
    """Where a third of the planes has coefficients of its own in each cell, and rows are short in another third."""
    shape = (96, 32, 128)
    w, s = system(shape, 4, solid=0.0, varying=False)
    s[:32] = 0.1
    for face in w:
        face[64:] *= np.random.default_rng(1).uniform(0.5, 1.0, face[64:].shape)
        face[32:64, :, 24:] = 0.0
    s[32:64, :, 24:] = 0.0
    network = CpuHierarchy(weights(4), w, s, SerialLayout(shape, ((0, 1, 2),)), threads)
    stage, level = network._stages[0], network._levels[0]
    classes = np.ctypeslib.as_array((ctypes.c_uint8 * (96 * 32 * 8)).from_address(level.block_class)).reshape(96, 32, 8)
    begin, end = stage.range[..., 0] // 16, stage.range[..., 1] // 16
    inside = (np.arange(8) >= begin[..., None]) & (np.arange(8) < end[..., None])
    work = (inside * (1 + (classes == 0)) + (inside.any(axis=-1, keepdims=True) / 4)).sum(axis=(1, 2))
    assert work[:32].sum() < 0.75 * work[64:].sum(), "the planes differ"
    assert len(stage.part) == threads + 1
    most = work.reshape(-1, 2).sum(axis=1).max()
    for a, b in zip(stage.part, stage.part[1:], strict=False):
        assert abs(work[a:b].sum() - work.sum() / threads) <= most
    assert (stage.part % 2 == 0).all()


def test_long_rows_are_worked_on_in_strips() -> None:
    shape = (3, 160, 1200)
    layout = SerialLayout(shape, ((0, 1, 2),))
    strips = []
    for varying in (False, True):
        w, s = system(shape, 4, varying=varying)
        strips.append(CpuHierarchy(weights(2), w, s, layout, 1)._levels[0].strip)
    assert strips[1] % 2 == 0
    assert 16 <= strips[1] <= strips[0] <= 160
    assert strips[1] < 160


@pytest.mark.parametrize("varying", [False, True])
def test_a_mostly_empty_grid_gives_what_its_full_part_gives(varying: bool) -> None:
    """The kernels leave out what has no active cell; inner cells of a uniform part share one evaluation."""
    inner, shape = (20, 24, 40), (44, 40, 96)
    w, s = system(inner, 1, 0.0, varying)
    at = tuple(slice(8, 8 + n) for n in inner)
    big_w, big_s = [np.zeros(shape) for _ in w], np.zeros(shape)
    for big, small in zip((*big_w, big_s), (*w, s), strict=True):
        big[at] = small
    plan: Plan = ((0, 1, 2), (0, 1, 2))
    small = CpuHierarchy(weights(2), w, s, SerialLayout(inner, plan), 1)
    big = CpuHierarchy(weights(2), big_w, big_s, SerialLayout(shape, plan), 1)
    small.coarse_solve = big.coarse_solve = lambda r: (0.7 * r).astype(np.float32)
    r = np.random.default_rng(0).standard_normal(shape)
    out = applied(big, r)
    want = applied(small, np.ascontiguousarray(r[at]))
    assert np.abs(out[at] - want).max() <= 1e-5 * np.abs(want).max()
    out[at] = 0
    assert not out.any()


def test_sources_may_be_views_and_of_either_precision() -> None:
    shape, plan = (10, 9, 21), ((0, 1, 2),)
    w, s = system(shape, 3)
    single = [a.astype(np.float32) for a in (*w, s)]
    padded = [np.zeros([n + 2 for n in shape], np.float32) for _ in single]
    views = [p[1:-1, 1:-1, 1:-1] for p in padded]
    for view, a in zip(views, single, strict=True):
        view[...] = a
    outs = []
    for arrays in ([*w, s], single, views, [*views[:3], s]):
        network = CpuHierarchy(weights(2), arrays[:3], arrays[3], SerialLayout(shape, plan), 1)
        network.coarse_solve = damping(network.coarse)
        outs.append(applied(network, np.random.default_rng(0).standard_normal(shape)))
    for out in outs[1:]:
        assert np.abs(out - outs[0]).max() < 1e-2 * np.abs(outs[0]).max()
    assert np.array_equal(outs[1], outs[2])


@pytest.mark.parametrize("nx", [14, 15, 21])
@pytest.mark.parametrize("at", [(0, 0, 0), (19, 10, 13), (7, 3, 13)])
def test_nan_comes_through_and_leaves_no_trace(at: Shape, nx: int) -> None:
    shape, plan = (20, 11, nx), ((0, 1, 2),)
    w, s = system(shape, 3, 0.0)
    network = CpuHierarchy(weights(3), w, s, SerialLayout(shape, plan), 1)
    network.coarse_solve = lambda r: r
    good = np.random.default_rng(0).standard_normal(shape)
    want = applied(network, good)
    bad = good.copy()
    bad[at] = np.nan
    assert np.isnan(applied(network, bad)[at])
    assert np.array_equal(applied(network, good), want)


def test_what_the_kernels_do_not_serve() -> None:
    shape, plan = (4, 4, 8), ((0,),)
    w, s = system(shape, 0)
    with pytest.raises(KernelsUnavailable, match="up to 8 smoothing steps"):
        CpuHierarchy(weights(9), w, s, SerialLayout(shape, plan), 1)
    with pytest.raises(KernelsUnavailable, match="16 channels"):
        CpuHierarchy(weights(2, hidden=24), w, s, SerialLayout(shape, plan), 1)
    with pytest.raises(WeightsError, match="expected 'multigrid'"):
        CpuHierarchy(ModelFile("cnn", (3,), {}, {}), w, s, SerialLayout(shape, plan), 1)
    network = CpuHierarchy(weights(2), w, s, SerialLayout(shape, plan), 1)
    with pytest.raises(RuntimeError, match="no coarse solver yet"):
        network.apply(np.zeros(shape), np.zeros(shape), 1.0, 1.0)


@pytest.mark.parametrize("visits", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("shape", "plan", "edges"),
    [
        ((17, 9, 21), ((0, 1, 2), (0, 1, 2)), ([0, 8, 17], [0, 4, 9], [0, 12, 21])),
        ((16, 5, 33), ((2,), (0,)), ([0, 2, 16], [0, 5], [0, 32, 33])),
        ((1, 21, 40), ((0, 1), (0, 1)), ([0, 1], [0, 8, 16, 21], [0, 20, 40])),
        ((12, 4, 22), ((0,), (0,)), ([0, 12], [0, 4], [0, 4, 8, 12, 16, 20, 22])),  # boxes thinner than a halo
        ((12, 4, 8), ((0, 1, 2),), ([0, 12], [0, 4], [0, 8])),
    ],
)
def test_boxes_give_the_answer_of_one(shape: Shape, plan: Plan, edges: Any, steps: int, visits: int) -> None:
    w, s = system(shape, steps)
    file = weights(steps, steps)
    serial = CpuHierarchy(file, w, s, SerialLayout(shape, plan, visits), 1)
    serial.coarse_solve = lambda r: (0.7 * r).astype(np.float32)
    r = np.random.default_rng(0).standard_normal(shape)
    want, out = applied(serial, r), np.full(shape, np.nan)

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        layout.visits = visits
        network = CpuHierarchy(file, [a[mine] for a in w], s[mine], layout, 1)
        assert [level.unknowns for level in network.levels] == [level.unknowns for level in serial.levels]
        network.coarse_solve = serial.coarse_solve
        for rows in (0, 2):
            for level in network._levels[:-1]:
                level.strip = rows
            out[mine] = applied(network, np.ascontiguousarray(r[mine]))

    in_threads(edges, shape, plan, work, idle=1)
    assert np.array_equal(out, want)
