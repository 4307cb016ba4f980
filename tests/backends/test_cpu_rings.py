"""Periodic axes in the compiled kernels: against torch, against scipy's matrices, turned round, and cut over ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from grid_operators import applied, damping, diagonal, packed, system, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_ranks import in_threads

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.loop import DirectionLoop
from petsc_dcdm.backends.cpu.operator import BoxOperator
from petsc_dcdm.grid.faces import interior, padded
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Layout, Plan, SerialLayout
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.network.multigrid import TorchHierarchy
from petsc_dcdm.stencil.packed import PackedStencil

AXES = st.sampled_from([(0, 1, 2), (0,), (1,), (2,), (0, 1), (1, 2)])
PERIODIC = st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 40)),
    st.tuples(st.just(1), st.integers(1, 50), st.sampled_from([2, 3, 14, 15, 16, 31, 32, 33])),
    st.tuples(st.integers(20, 50), st.integers(1, 4), st.integers(1, 18)),
)


def rings_of(shape: Shape, periodic: Periodic) -> Periodic:
    z, y, x = (bool(p) and n > 1 for p, n in zip(periodic, shape, strict=True))
    return z, y, x


def plan_of(shape: Shape, plan: list[tuple[int, ...]]) -> Plan:
    return tuple(tuple(a for a in axes if a < 2) or (0,) for axes in plan) if shape[0] == 1 else tuple(plan)


def matrix(w: list[np.ndarray], s: np.ndarray) -> sp.csr_matrix:
    """Of the operator, from its faces one by one."""
    number = np.arange(s.size).reshape(s.shape)
    rows, columns, values = [number.ravel()], [number.ravel()], [s.ravel()]
    for a, wa in enumerate(w):
        here, below, face = number.ravel(), np.roll(number, 1, 2 - a).ravel(), wa.ravel()
        rows += [here, below, here, below]
        columns += [here, below, below, here]
        values += [face, face, -face, -face]
    return sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))))


def stencil(w: list[np.ndarray], s: np.ndarray, layout: Layout) -> PackedStencil:
    found = packed([padded(a, layout) for a in w], padded(s))
    assert found is not None
    return found


def part_of(whole: PackedStencil | None, mine: tuple[slice, ...]) -> PackedStencil:
    assert whole is not None
    cells, s_index = (padded(interior(a)[mine]) for a in (whole.cells, whole.s_index))
    return PackedStencil(cells, s_index, whole.c, whole.s_value)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    plan=st.lists(AXES, min_size=1, max_size=3),
    periodic=PERIODIC,
    solid=st.sampled_from([0.0, 0.3, 0.9]),
    steps=st.integers(1, 4),
    visits=st.integers(1, 2),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["varying", "alike", "packed"]),
)
def test_equals_torch(
    shape: Shape,
    plan: list[tuple[int, ...]],
    periodic: Periodic,
    solid: float,
    steps: int,
    visits: int,
    threads: int,
    seed: int,
    kind: str,
) -> None:
    w, s = system(shape, seed, solid, kind == "varying", periodic)
    layout = SerialLayout(shape, plan_of(shape, plan), visits if len(plan) > 1 else 1, rings_of(shape, periodic))
    file = weights(steps, seed)
    reference = TorchHierarchy(file, w, s, layout, "cpu")
    source: Any = (stencil(w, s, layout), None) if kind == "packed" else (w, s)
    network = CpuHierarchy(file, *source, layout, threads, half=False)
    assert network.levels == reference.levels
    both = zip((*network.coarse.w, network.coarse.s), (*reference.coarse.w, reference.coarse.s), strict=True)
    assert all(np.allclose(ours, theirs, rtol=1e-5, atol=1e-6) for ours, theirs in both)
    network.coarse_solve = reference.coarse_solve = damping(network.coarse)
    r = np.random.default_rng(seed).standard_normal(shape)
    want = applied(reference, r)
    for _ in range(2):
        assert np.abs(applied(network, r) - want).max() <= 3e-5 * np.abs(want).max()
    assert not applied(network, r)[diagonal(w, s) == 0].any()


def test_the_last_cell_of_an_odd_ring_is_short_in_an_empty_grid_too() -> None:
    """Nothing is active but at the high end: what is left out of the grid must not make a line of it."""
    w, s = system((1, 5, 20), 0, 1.0)
    w[1][0, 4, 12] = 0.5
    layout = SerialLayout((1, 5, 20), ((0,), (0, 1)), 1, (False, True, True))
    coarse = [
        TorchHierarchy(weights(3), w, s, layout, "cpu").coarse,
        CpuHierarchy(weights(3), w, s, layout, 1, half=False).coarse,
    ]
    assert np.isclose(coarse[0].w[1][0, 2, 3], coarse[1].w[1][0, 2, 3], rtol=1e-5) and coarse[0].w[1][0, 2, 3] > 0


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        ((12, 100, 6), ((0, 1, 2), (1,), (1,))),
        ((96, 4, 20), ((2,), (0, 2), (2,))),
        ((1, 30, 100), ((0, 1), (0,))),
        ((2, 2, 2), ((0, 1, 2),)),
        ((3, 3, 3), ((0, 1, 2), (0, 1, 2))),
    ],
)
def test_threads_do_not_change_the_answer(shape: Shape, plan: Plan) -> None:
    w, s = system(shape, 4, 0.1, False, (True, True, True))
    layout, outs = SerialLayout(shape, plan, 2, rings_of(shape, (True, True, True))), []
    for threads in (1, 2, 3):
        network = CpuHierarchy(weights(4), w, s, layout, threads, half=False)
        network.coarse_solve = damping(network.coarse)
        outs.append(applied(network, np.random.default_rng(0).standard_normal(shape)))
    assert outs[0].any() and max(np.abs(out - outs[0]).max() for out in outs) < 1e-6 * np.abs(outs[0]).max()


@pytest.mark.parametrize(
    ("shape", "shift"), [((8, 12, 32), (4, 8, 20)), ((1, 28, 24), (0, 12, 4)), ((24, 4, 4), (8, 0, 0))]
)
@pytest.mark.parametrize("half", [False, True])
def test_a_grid_that_is_turned_round_gives_an_answer_turned_round(shape: Shape, shift: Shape, half: bool) -> None:
    """Nothing is special about cell 0 of a ring, but that coarse cells begin there."""
    plan: Plan = ((0, 1, 2), (0, 1, 2)) if shape[0] > 1 else ((0, 1), (0, 1))
    periodic = rings_of(shape, (True, True, True))
    w, s = system(shape, 5, 0.1, True, periodic)
    r, outs = np.random.default_rng(0).standard_normal(shape), []
    for turn in ((0, 0, 0), shift):
        arrays = [np.roll(a, turn, (0, 1, 2)) for a in (*w, s)]
        network = CpuHierarchy(weights(3), arrays[:3], arrays[3], SerialLayout(shape, plan, 2, periodic), 2, half)
        network.coarse_solve = lambda coarse: (0.7 * coarse).astype(np.float32)
        outs.append(np.roll(applied(network, np.roll(r, turn, (0, 1, 2))), [-t for t in turn], (0, 1, 2)))
    assert np.abs(outs[0] - outs[1]).max() < 1e-5 * np.abs(outs[0]).max()


@pytest.mark.parametrize("at", [(0, 0, 0), (19, 10, 13)])
def test_nan_leaves_no_trace(at: Shape) -> None:
    shape: Shape = (20, 11, 14)
    w, s = system(shape, 3, 0.0, True, (True, True, True))
    layout = SerialLayout(shape, ((0, 1, 2), (0, 1)), 2, (True, True, True))
    network = CpuHierarchy(weights(3), w, s, layout, 1)
    network.coarse_solve = lambda r: r
    bad = np.random.default_rng(0).standard_normal(shape)
    want = applied(network, bad)
    good = bad.copy()
    bad[at] = np.nan
    assert np.isnan(applied(network, bad)[at])
    assert np.array_equal(applied(network, good), want)


@pytest.mark.parametrize("at", [(0, 0, 0), (8, 8, 40), (0, 8, 64)])
def test_a_ring_with_a_gap_is_a_line(at: Shape) -> None:
    """Wherever the gap is, if the ends do not meet on a coarser level."""
    inner, shape = (20, 24, 30), (44, 40, 100)
    w, s = system(inner, 1, 0.1)
    place = tuple(slice(a, a + n) for a, n in zip(at, inner, strict=True))
    wide = [np.zeros(shape) for _ in range(4)]
    for big, small in zip(wide, (*w, s), strict=True):
        big[place] = small
    plan: Plan = ((0, 1, 2), (0, 1, 2))
    networks = [
        CpuHierarchy(weights(2), w, s, SerialLayout(inner, plan), 1),
        CpuHierarchy(weights(2), wide[:3], wide[3], SerialLayout(shape, plan, periodic=(True, True, True)), 1),
    ]
    r, outs = np.random.default_rng(0).standard_normal(inner), []
    for network, whole in zip(networks, (inner, shape), strict=True):
        network.coarse_solve = lambda coarse: (0.7 * coarse).astype(np.float32)
        right = np.zeros(whole)
        right[place if whole == shape else ...] = r
        outs.append(applied(network, right))
    assert np.abs(outs[1][place] - outs[0]).max() <= 1e-5 * np.abs(outs[0]).max()


@settings(max_examples=40, deadline=None)
@given(
    shape=SHAPES,
    axes=AXES,
    periodic=PERIODIC,
    threads=st.integers(1, 3),
    history=st.integers(0, 3),
    seed=st.integers(0, 99),
    varying=st.booleans(),
)
def test_steps_are_those_of_the_matrix(
    shape: Shape, axes: tuple[int, ...], periodic: Periodic, threads: int, history: int, seed: int, varying: bool
) -> None:
    """A direction after the other, each made conjugate to the last ones; x, r and norms in double precision."""
    w, s = system(shape, seed, 0.1, varying, periodic)
    s = s + 0.01 * (diagonal(w, s) > 0)
    a = -3.0 * matrix(w, s)
    layout = SerialLayout(shape, plan_of(shape, [axes]), 1, rings_of(shape, periodic))
    network = CpuHierarchy(weights(2), w, s, layout, threads)
    network.coarse_solve = damping(network.coarse)
    if varying:
        operator = BoxOperator(network, [padded(f) for f in w], padded(s), layout, -3.0, threads, True)
    else:
        operator = BoxOperator(network, stencil(w, s, layout), None, layout, -3.0, threads, True)
    b = np.random.default_rng(seed).standard_normal(shape) * (diagonal(w, s) > 0)
    if np.count_nonzero(b) <= 2 * (3 + history):
        return  # few cells are solved before the last step, which would divide rounding by rounding
    loop, x, r = DirectionLoop(network, operator, layout, history), np.zeros(shape), b.copy()
    loop.start(x, r)
    norm, right, before = float(np.linalg.norm(b)), b.ravel().copy(), []
    for _ in range(3 + history):
        d = np.empty(shape)
        network.apply(right.reshape(shape), d, 1 / norm, 1.0)
        p = d.ravel()
        for q in before:
            p = p - (d.ravel() @ (a @ q)) / (q @ (a @ q)) * q
        right = right - (right @ p) / (p @ (a @ p)) * (a @ p)
        before = [*before, p][-history:] if history else []
        norm = loop.step(norm).norm
        assert np.isclose(norm, np.linalg.norm(right), rtol=1e-4)
        assert np.abs(b.ravel() - a @ x.ravel() - r.ravel()).max() < 1e-13 * np.abs(b).max()
        right = r.ravel().copy()  # steps that gain little make the difference a hundred times as large each
    assert np.isclose(loop.residual(b), norm, rtol=1e-6)
    assert np.abs(b.ravel() - a @ x.ravel() - r.ravel()).max() < 1e-14 * np.abs(b).max()


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(
    ("shape", "plan", "periodic", "edges"),
    [
        # cut and whole rings, of even and odd lengths; boxes thinner than what reaches round; flat
        ((16, 8, 24), ((0, 1, 2),), (True, True, True), ([0, 8, 16], [0, 8], [0, 12, 24])),
        ((17, 9, 21), ((0, 1, 2), (0, 1, 2)), (True, True, True), ([0, 8, 17], [0, 4, 9], [0, 12, 21])),
        ((5, 9, 21), ((0, 1, 2), (2,)), (True, False, True), ([0, 4, 5], [0, 9], [0, 21])),
        ((3, 9, 27), ((0,),), (True, True, True), ([0, 1, 3], [0, 9], [0, 20, 26, 27])),
        ((1, 21, 40), ((0, 1), (0, 1)), (False, True, True), ([0, 1], [0, 8, 16, 21], [0, 40])),
        ((1, 22, 37), ((0, 1),), (False, True, True), ([0, 1], [0, 22], [0, 20, 37])),
    ],
)
def test_boxes_give_the_answer_of_one(
    shape: Shape, plan: Plan, periodic: Periodic, edges: Any, varying: bool, steps: int
) -> None:
    visits, file = len(plan), weights(steps, steps)
    w, s = system(shape, steps, 0.1, varying, periodic)
    s = s + 0.01 * (diagonal(w, s) > 0)
    serial_layout = SerialLayout(shape, plan, visits, periodic)
    serial = CpuHierarchy(file, w, s, serial_layout, 1)
    serial.coarse_solve = lambda r: (0.7 * r).astype(np.float32)
    b = np.random.default_rng(0).standard_normal(shape) * (diagonal(w, s) > 0)
    want, out, found = applied(serial, b), np.full(shape, np.nan), np.full(shape, np.nan)

    def solve(network: CpuHierarchy, layout: Layout, mine: tuple[slice, ...]) -> np.ndarray:
        faces = [padded(a[mine]) for a in w] if varying else part_of(whole, mine)
        operator = BoxOperator(network, faces, padded(s[mine]) if varying else None, layout, -3.0, 1)
        loop, r = operator.loop(2), b[mine].copy()
        x, norm = np.zeros(r.shape), float(np.linalg.norm(b))
        loop.start(x, r)
        for _ in range(5):
            norm = loop.step(norm).norm
        return x

    whole = None if varying else stencil(w, s, serial_layout)
    x = solve(serial, serial_layout, (slice(None),) * 3)

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        layout.visits = visits
        source: Any = ([a[mine] for a in w], s[mine]) if varying else (part_of(whole, mine), None)
        network = CpuHierarchy(file, *source, layout, 2)
        assert [level.unknowns for level in network.levels] == [level.unknowns for level in serial.levels]
        network.coarse_solve = serial.coarse_solve
        for _ in range(2):
            out[mine] = applied(network, np.ascontiguousarray(b[mine]))
        found[mine] = solve(network, layout, mine)

    in_threads(edges, shape, plan, work, idle=1, periodic=periodic)
    assert np.abs(out - want).max() <= 1e-6 * np.abs(want).max()
    assert np.allclose(found, x, rtol=1e-8, atol=1e-11 * np.abs(x).max())
