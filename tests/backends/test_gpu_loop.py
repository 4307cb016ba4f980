"""The steps in Triton kernels, under the interpreter, against the same recurrence in numpy and double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from grid_operators import diagonal, packed, padded, system, weights
from test_loop import matrix, reference
from thread_ranks import in_threads
from triton_interpreter import MISSING, WHY

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

if MISSING:
    pytest.skip(WHY, allow_module_level=True)

from petsc_dcdm.backends.gpu.backend import GpuBackend
from petsc_dcdm.backends.gpu.levels import Blocks
from petsc_dcdm.backends.gpu.loop import GpuLoop

SCALE = -3.0
CASES: list[tuple[Shape, Plan, bool, int]] = [
    ((6, 5, 9), ((0, 1, 2),), True, 2),
    ((1, 9, 12), ((0, 1),), False, 4),
    ((1, 9, 12), ((0, 1),), False, 0),
]


def build(
    shape: Shape, plan: Plan, varying: bool, layout: Any = None, at: Any = ..., **how: Any
) -> tuple[GpuBackend, Problem, list[np.ndarray], np.ndarray]:
    layout = layout or SerialLayout(shape, plan)
    w, s = system(shape, 7, 0.1, varying, layout.periodic)
    s = s + 0.01 * (diagonal(w, s) > 0)
    faces, extra = [padded(a[at]) for a in w], padded(s[at])
    whole = [padded(a) for a in w]
    for a in whole:
        SerialLayout(shape, plan, periodic=layout.periodic).exchange(a)
    stencil = None if varying else packed(whole, padded(s))
    if stencil is not None:
        stencil = stencil.moved(lambda a: padded(a[1:-1, 1:-1, 1:-1][at]))
    problem = Problem(stencil or faces, None if stencil else extra, layout, SCALE, True, 0)
    return GpuBackend(weights(2), problem, "cpu", **how), problem, w, s


@pytest.mark.parametrize(("shape", "plan", "varying", "history"), CASES)
def test_steps_are_those_of_double_precision(shape: Shape, plan: Plan, varying: bool, history: int) -> None:
    """With the coarsest system on the device."""
    backend, problem, w, s = build(shape, plan, varying, blocks=Blocks(128, 64, 128, 2, 16, fit=True))
    assert backend.hierarchy.coarse is None and "one CUDA graph" in backend.description
    b = np.random.default_rng(0).standard_normal(shape) * (diagonal(w, s) > 0)
    apply = lambda x: SCALE * matrix(w, s, x)  # noqa: E731
    x_ref, norms_ref = reference(backend.hierarchy, apply, b, history, 4)
    operator = backend.operator(problem)
    assert operator is not None
    loop = operator.loop(history)
    x, r = np.full(shape, 5.0), b.copy()
    loop.start(x, np.full(shape, 7.0), b)
    loop.step(1.0)  # nothing of this is left
    loop.start(x, r, guess=False)
    norms = [float(np.sqrt((b * b).sum()))]
    for _ in range(4):
        norms.append(loop.step(norms[-1]).norm)
    loop.store(residual=True)
    assert np.allclose(norms[1:], norms_ref, rtol=1e-4)
    assert np.abs(x - x_ref).max() < 1e-4 * np.abs(x_ref).max()
    assert np.abs(b - apply(x) - r)[diagonal(w, s) > 0].max() < 1e-13 * np.abs(b).max()
    assert np.isclose(loop.residual(b), norms[-1], rtol=1e-9)


def test_no_direction_leaves_everything_alone() -> None:
    backend, problem, w, s = build((1, 9, 12), ((0, 1),), True)
    operator = backend.operator(problem)
    assert operator is not None
    loop = operator.loop(1)
    active = diagonal(w, s) > 0
    for value in (np.nan, 0.0):
        x, r = np.ones(active.shape), np.full(active.shape, value)
        loop.start(x, r)
        for _ in range(2):
            found = loop.step(1.0)
            assert not found.energy > 0 and found.norm == 1.0
        loop.store(residual=True)
        assert (x == 1.0).all() and np.array_equal(r, np.full(active.shape, value), equal_nan=True)
    b = np.random.default_rng(0).standard_normal(active.shape) * active
    loop.start(np.zeros(active.shape), b)  # and no NaN is left anywhere
    assert loop.step(float(np.sqrt((b * b).sum()))).energy != 0


def test_sums_are_the_same_every_time_and_nearly_so_however_they_are_shared() -> None:
    found = []
    for blocks in (Blocks(64, 16, 64, 2, 16, fit=True), Blocks(64, 16, 16, 7, 16, fit=True)):
        for _ in range(2):
            backend, problem, w, s = build((1, 9, 12), ((0, 1),), False, blocks=blocks)
            operator = backend.operator(problem)
            assert operator is not None
            loop = operator.loop(1)
            b = np.random.default_rng(0).standard_normal((1, 9, 12)) * (diagonal(w, s) > 0)
            loop.start(np.zeros(b.shape), b)
            found.append(loop.step(float(np.sqrt((b * b).sum()))))
    assert found[0] == found[1] and found[2] == found[3]
    assert np.allclose([found[0].norm, found[0].energy], [found[2].norm, found[2].energy], rtol=1e-10)


def test_constants_of_a_closed_grid_do_not_count() -> None:
    """What rounding has left of them in r would grow beside a small rest of it."""
    shape = (1, 8, 12)
    w, s = system(shape, 1, 0.0)
    s[...] = 0.0
    problem = Problem([padded(a) for a in w], padded(s), SerialLayout(shape, ((0, 1),)), 1.0, True, s.size)
    backend = GpuBackend(weights(2), problem, "cpu")
    operator = backend.operator(problem)
    assert operator is not None
    loop = operator.loop(1)
    r = 0.5 + np.random.default_rng(1).standard_normal(shape)
    loop.start(np.zeros(shape), r)
    before: list[tuple[np.ndarray, np.ndarray, float]] = []
    norm = float(np.sqrt((r * r).sum()))
    for _ in range(2):
        found = loop.step(norm)
        d = np.empty(shape)
        backend.hierarchy.apply(r, d, 1 / norm, 1.0)
        for p, Ap, energy in before:
            d = d - (d * Ap).sum() / energy * p
        Ad = matrix(w, s, d)
        slope, energy = (d * (r - r.mean())).sum(), (d * Ad).sum()
        assert np.isclose(found.slope**2 / found.energy, slope**2 / energy, rtol=1e-3)
        assert not np.isclose(slope, (d * r).sum(), rtol=0.01)
        before = [(d, Ad, energy)]
        r = r - slope / energy * Ad
        norm = float(np.sqrt((r * r).sum()))
        assert np.isclose(found.norm, norm, rtol=1e-4)


def test_what_is_not_served() -> None:
    backend, problem, _, _ = build((1, 9, 12), ((0, 1),), True)
    operator = backend.operator(problem)
    assert operator is not None
    with pytest.raises(ValueError, match="0 to 4"):
        operator.loop(5)


@pytest.mark.parametrize(
    ("shape", "plan", "periodic", "edges", "varying"),
    [
        ((1, 7, 20), ((0, 1), (0, 1)), NOT_PERIODIC, ([0, 1], [0, 7], [0, 12, 20]), False),
        ((1, 7, 20), ((0, 1), (0, 1)), NOT_PERIODIC, ([0, 1], [0, 7], [0, 12, 20]), True),
        # rings that are cut: even on the first level and odd on the second, odd, shorter than what reaches round
        ((1, 7, 18), ((0, 1), (0, 1)), (False, False, True), ([0, 1], [0, 7], [0, 12, 18]), True),
        ((1, 9, 21), ((0, 1), (0, 1)), (False, True, True), ([0, 1], [0, 4, 9], [0, 8, 21]), False),
        ((3, 4, 7), ((0, 1, 2), (0,)), (True, False, True), ([0, 2, 3], [0, 4], [0, 4, 7]), True),
    ],
)
def test_boxes_take_the_steps_of_one(shape: Shape, plan: Plan, periodic: Periodic, edges: Any, varying: bool) -> None:
    """Directions to the last bit, sums to rounding; one of the ranks has no box."""
    layout = SerialLayout(shape, plan, 2, periodic)
    backend, problem, w, s = build(shape, plan, varying, layout, (slice(None),) * 3, dense_limit=-1)
    b = np.random.default_rng(0).standard_normal(shape) * (diagonal(w, s) > 0)
    damp = lambda r: (0.7 * r).astype(np.float32)  # noqa: E731

    def solve(backend: GpuBackend, problem: Problem, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
        backend.hierarchy.coarse_solve = damp
        out, x, r = np.empty(b.shape), np.zeros(b.shape), b.copy()
        backend.hierarchy.apply(b, out, 1.0, 1.0)
        operator = backend.operator(problem)
        assert operator is not None
        loop: GpuLoop = operator.loop(2)
        loop.start(x, r)
        norms = [float(np.sqrt(problem.layout.sum(np.array([(b * b).sum()]))[0]))]
        for _ in range(2):
            norms.append(loop.step(norms[-1]).norm)
        loop.store()
        return out, x, norms

    want, x, norms = solve(backend, problem, b)
    out, found = np.full(shape, np.nan), np.full(shape, np.nan)

    def work(box: BoxLayout, at: tuple[slice, ...]) -> None:
        box.visits = 2
        mine, part, *_ = build(shape, plan, varying, box, at, dense_limit=-1)
        unknowns, all_ = ([a.unknowns for a in b.hierarchy.levels] for b in (mine, backend))
        assert unknowns == all_
        out[at], found[at], norms_here = solve(mine, part, np.ascontiguousarray(b[at]))
        assert np.allclose(norms_here, norms, rtol=1e-10)

    in_threads(edges, shape, plan, work, idle=1, periodic=periodic)
    assert np.array_equal(out, want) and np.allclose(found, x, rtol=1e-9, atol=1e-12)


def test_vectors_on_a_device_are_read_and_written_where_they_are() -> None:
    backend, problem, w, s = build((1, 9, 12), ((0, 1),), True)
    b = np.random.default_rng(0).standard_normal((1, 9, 12)) * (diagonal(w, s) > 0)

    class Array:
        def __init__(self, values: np.ndarray) -> None:
            self.tensor, self.modes, self.address = torch.from_numpy(values), "", id(self)

        def reading(self) -> torch.Tensor:
            self.modes += "r"
            return self.tensor

        def writing(self) -> torch.Tensor:
            self.modes += "w"
            return self.tensor

    operator = backend.operator(problem)
    assert operator is not None
    loop = operator.loop(2)
    norm, xs = float(np.sqrt((b * b).sum())), []
    for make in (np.asarray, Array):
        x, r, first = (make(a) for a in (np.zeros(b.shape), np.zeros(b.shape), b.copy()))
        loop.start(x, r, first, guess=False)
        after = loop.step(norm).norm
        assert np.isclose(loop.residual(first), after)
        loop.store()
        xs.append(x)
    assert np.array_equal(xs[0], xs[1].tensor.numpy()) and xs[1].modes == "w" and first.modes == "r"
    outs = np.zeros(b.shape), Array(np.zeros(b.shape))
    backend.hierarchy.apply(b, outs[0], 1.0, 1.0)
    backend.hierarchy.apply(first, outs[1], 1.0, 1.0)
    assert np.array_equal(outs[0], outs[1].tensor.numpy())
