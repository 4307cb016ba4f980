"""The compiled outer loop against the same recurrence in numpy and double precision."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from grid_operators import damping, diagonal, packed, padded, system, weights
from thread_ranks import in_threads

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.loop import DirectionLoop
from petsc_dcdm.backends.cpu.operator import BoxOperator
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.build import about
from petsc_dcdm.stencil.packed import PackedStencil


def matrix(w: list[np.ndarray], s: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = s * x
    for a in range(3):
        flux = w[a] * (x - np.roll(x, 1, 2 - a))
        y = y + flux - np.roll(flux, -1, 2 - a)
    return y


def reference(
    network: CpuHierarchy, apply: Any, b: np.ndarray, history: int, steps: int
) -> tuple[np.ndarray, list[float]]:
    x, r = np.zeros_like(b), b.copy()
    before: list[tuple[np.ndarray, np.ndarray, float]] = []
    norms = []
    for _ in range(steps):
        d = np.empty_like(b)
        network.apply(r, d, 1 / np.sqrt((r * r).sum()), 1.0)
        for p, beta in [(p, (d * Ap).sum() / pAp) for p, Ap, pAp in before]:
            d = d - beta * p
        Ad = apply(d)
        alpha = (r * d).sum() / (d * Ad).sum()
        x, r = x + alpha * d, r - alpha * Ad
        before = [*before, (d, Ad, (d * Ad).sum())][-history:] if history else []
        norms.append(float(np.sqrt((r * r).sum())))
    return x, norms


CASES: list[tuple[Shape, Plan, bool]] = [
    ((12, 9, 21), ((0, 1, 2),), True),
    ((12, 9, 21), ((0, 1, 2),), False),
    ((40, 6, 33), ((0, 1, 2), (2,)), False),
    ((1, 33, 50), ((0, 1),), True),
    ((1, 33, 50), ((0, 1),), False),
    ((9, 8, 2), ((1, 2),), True),
]


def box_operator(network: CpuHierarchy, w: list[np.ndarray], s: np.ndarray, layout: Any, varying: bool) -> BoxOperator:
    """-3 times the operator, packed unless its conductances vary."""
    faces, extra = [padded(a) for a in w], padded(s)
    if varying:
        return BoxOperator(network, faces, extra, layout, -3.0, 2)
    for face in faces:
        layout.exchange(face)
    stencil = packed(faces, extra)
    assert stencil is not None
    return BoxOperator(network, stencil, None, layout, -3.0, 2)


def build(
    shape: Shape, plan: Plan, varying: bool, layout: Any, at: Any = ...
) -> tuple[CpuHierarchy, BoxOperator, list, Any]:
    w, s = system(shape, 7, 0.1, varying)
    s = s + 0.01 * (diagonal(w, s) > 0)  # no isolated singular parts
    network = CpuHierarchy(weights(2), [a[at] for a in w], s[at], layout, 2)
    operator = box_operator(network, [a[at] for a in w], s[at], layout, varying)
    network.coarse_solve = damping(network.coarse) if at is ... else lambda r: (0.7 * r).astype(np.float32)
    return network, operator, w, s


@pytest.mark.parametrize("history", [0, 1, 2, 4])
@pytest.mark.parametrize(("shape", "plan", "varying"), CASES)
def test_steps_are_those_of_double_precision(shape: Shape, plan: Plan, varying: bool, history: int) -> None:
    layout = SerialLayout(shape, plan)
    network, operator, w, s = build(shape, plan, varying, layout)
    active = diagonal(w, s) > 0
    b = np.random.default_rng(0).standard_normal(shape) * active
    loop = DirectionLoop(network, operator, layout, history)
    x_ref, norms_ref = reference(network, lambda x: -3.0 * matrix(w, s, x), b, history, 12)
    for _ in range(2):
        x, r, norm, norms = np.zeros(shape), b.copy(), float(np.sqrt((b * b).sum())), []
        loop.start(x, r)
        for _ in range(12):
            step = loop.step(norm)
            norm = step.norm
            norms.append(norm)
        assert np.allclose(norms, norms_ref, rtol=1e-4)
        assert np.abs(x - x_ref).max() < 1e-4 * np.abs(x_ref).max()
        assert np.abs(b + 3.0 * matrix(w, s, x) - r).max() < 1e-13 * np.abs(b).max()
    again, other = np.zeros(shape), np.full(shape, 7.0)
    loop.start(again, other, b)
    first = loop.step(norms[0])
    assert np.allclose(first.norm, norms[0]) and np.isin(other[~active], (0.0, 7.0)).all() and b.any()
    assert np.abs(b + 3.0 * matrix(w, s, again) - other)[active].max() < 1e-13 * np.abs(b).max()


@pytest.mark.parametrize(("shape", "plan", "varying"), CASES)
def test_residual_is_that_of_the_matrix(shape: Shape, plan: Plan, varying: bool) -> None:
    layout = SerialLayout(shape, plan)
    network, operator, w, s = build(shape, plan, varying, layout)
    active = diagonal(w, s) > 0
    x, b = np.random.default_rng(1).standard_normal((2, *shape)) * active
    assert not DirectionLoop(network, operator, layout, 2).exact
    operator.exact = True
    loop = DirectionLoop(network, operator, layout, 2)
    first = np.zeros(shape), b.copy()
    loop.start(*first)
    loop.step(1.0)
    assert loop.exact
    right = b + 3.0 * matrix(w, s, x)
    for _ in range(2):
        r = np.full(shape, 7.0)
        loop.start(x, r)
        norm = loop.residual(b)
        assert np.abs(r - right)[active].max() < 1e-14 * np.abs(right).max() and np.isin(r[~active], (0.0, 7.0)).all()
        assert np.isclose(norm, np.sqrt((right[active] ** 2).sum()), rtol=1e-13)


@pytest.mark.parametrize("varying", [False, True])
def test_arrays_that_callers_fill_hold_anything_before(varying: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps from 0 do not read x, and what they never write to, beyond walls, is 0 whatever a guess was there."""
    shape, plan = (24, 9, 37), ((0, 1, 2),)
    layout = SerialLayout(shape, plan)
    beyond = np.zeros(shape, bool)
    beyond[:5] = beyond[:, 4] = beyond[-3:] = beyond[12:14, :, 16:] = beyond[..., -12:] = True
    w, s = system(shape, 7, 0.1, varying)
    for axis, a in enumerate(w):
        a[beyond | np.roll(beyond, 1, 2 - axis)] = 0.0
    s = np.where(beyond, 0.0, s)
    s = s + 0.01 * (diagonal(w, s) > 0)
    active = diagonal(w, s) > 0
    network = CpuHierarchy(weights(2), w, s, layout, 2)
    operator = box_operator(network, w, s, layout, varying)
    network.coarse_solve, operator.exact = damping(network.coarse), True
    loop = DirectionLoop(network, operator, layout, 2)
    monkeypatch.setattr("petsc_dcdm.native.node_team.aligned_empty", lambda n, *_, **__: np.full(n, np.nan))
    rng = np.random.default_rng(5)
    b = rng.standard_normal(shape) * active
    for guess in (False, True, False):
        x, r, first = loop.boxes(filled=True)
        assert not x[beyond].any() and (guess or not r[:4].any())
        first[...] = b
        if guess:
            x[...] = rng.standard_normal(shape)
        loop.start(x, r, first, guess)
        norm = loop.residual(first) if guess else float(np.sqrt((b * b).sum()))
        for _ in range(3):
            norm = loop.step(norm).norm
        left = b + 3.0 * matrix(w, s, np.where(active, x, 0.0))
        assert np.abs(left - r)[active].max() < 1e-13 * np.abs(x).max() and not r[~active].any()
        assert guess or not x[~active].any()
    loop.start(x, r, first, guess=False)
    assert loop.residual(first) == np.sqrt((b * b).sum()) and not x.any()
    loop.start(x, r, first, guess=False)
    x[...] = 1.0
    loop.store()
    assert not x.any()
    theirs = np.ones(shape)
    kept = weakref.ref(theirs)
    loop.start(theirs, r, first)
    del theirs
    assert kept() is None, "a vector of the caller's would live as long as the loop"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("shape", "plan", "varying"), [case for case in CASES if not case[2]])
def test_packed_stencils_are_the_same_matrix(shape: Shape, plan: Plan, varying: bool, half: bool) -> None:
    layout = SerialLayout(shape, plan)
    w, s = system(shape, 7, 0.1, varying)
    stencil = packed([padded(a) for a in w], padded(s))
    assert stencil is not None
    back, extra = stencil.arrays()
    assert all(np.array_equal(a, padded(b)) for a, b in zip((*back, extra), (*w, s), strict=True))
    networks = [
        CpuHierarchy(weights(2), w, s, layout, 1, half),
        CpuHierarchy(weights(2), stencil, None, layout, 2, half),
    ]
    assert networks[0].levels == networks[1].levels
    r, outs = np.random.default_rng(0).standard_normal(shape), []
    for network in networks:
        network.coarse_solve = damping(network.coarse)
        outs.append(np.empty(shape))
        network.apply(r, outs[-1], 1.0, 1.0)
    assert np.array_equal(*outs)
    arrays = BoxOperator(networks[0], [padded(a) for a in w], padded(s), layout)
    direct = BoxOperator(networks[1], stencil, None, layout)
    steps = []
    for operator in (arrays, direct):
        loop, x, rest = operator.loop(1), np.zeros(shape), r.copy()
        loop.start(x, rest)
        steps.append(loop.step(1.0))
    assert np.allclose(*([step.norm, step.energy, step.slope] for step in steps), rtol=1e-13)


@pytest.mark.skipif("AVX-512" not in about(), reason="without AVX-512 arrays are read as they are")
@pytest.mark.parametrize(("shape", "plan"), [case[:2] for case in CASES])
def test_stencils_of_few_values_are_the_same_matrix(shape: Shape, plan: Plan) -> None:
    layout, rng = SerialLayout(shape, plan), np.random.default_rng(3)
    w, s = system(shape, 7, 0.1, False)
    w = [face * rng.choice([1.0, 1e-3, 2.0 / 1001.0, 0.3, 7.0, 1.0 / 3.0, 11.0], shape) for face in w]
    active = diagonal(w, s) > 0
    s = active * rng.choice([0.0, 0.0, *(0.01 * (1.0 + rng.random(100)))], shape)
    s[active & (diagonal(w, s) == 0)] = 0.01
    b, found = np.random.default_rng(0).standard_normal(shape) * active, []
    for coded in (True, False):
        network = CpuHierarchy(weights(2), w, s, layout, 2)
        network.coarse_solve = damping(network.coarse)
        faces, extra = [padded(a) for a in w], padded(s)
        operator = BoxOperator(network, faces, extra, layout, -3.0, 2, True)
        assert operator.c.codes
        if coded:
            for array in (*faces, extra):
                array[...] = np.nan  # they are not looked at any more
        else:
            operator.c.codes = None
        x, r = np.zeros(shape), b.copy()
        loop = DirectionLoop(network, operator, layout, 2)
        loop.start(x, r)
        norms = [loop.step(float(np.sqrt((b * b).sum()))).norm for _ in range(5)]
        assert np.abs(b + 3.0 * matrix(w, s, x) - r).max() < 1e-13 * np.abs(b).max()
        found.append((norms, x, loop.residual(b)))
    assert all(np.allclose(here, there, rtol=1e-11, atol=0) for here, there in zip(*found, strict=True))


@pytest.mark.parametrize("extra", [False, True])
def test_stencils_of_many_values_are_kept(extra: bool) -> None:
    shape, plan = (12, 9, 21), ((0, 1, 2),)
    layout = SerialLayout(shape, plan)
    w, s = system(shape, 7, 0.1, False)
    varied = s if extra else w[1]
    at = np.nonzero(s if extra else w[1])
    varied[at] = 1.0 + np.arange(at[0].size) % (128 if extra else 8)  # one more than there are codes, with the 0
    network = CpuHierarchy(weights(2), w, s, layout, 2)
    assert not BoxOperator(network, [padded(a) for a in w], padded(s), layout).c.codes
    varied[varied == varied.max()] = 1.0
    assert bool(BoxOperator(network, [padded(a) for a in w], padded(s), layout).c.codes) == ("AVX-512" in about())


def test_no_direction_leaves_everything_alone() -> None:
    shape, plan = (12, 9, 21), ((0, 1, 2),)
    layout = SerialLayout(shape, plan)
    network, operator, _, _ = build(shape, plan, True, layout)
    loop = DirectionLoop(network, operator, layout, 2)
    r = np.full(shape, np.nan)
    x = np.zeros(shape)
    loop.start(x, r)
    for _ in range(5):
        step = loop.step(1.0)
        assert np.isnan(step.energy)
    assert not x.any()
    r[...] = 0.0
    loop.start(x, r)
    assert loop.step(1.0).slope == 0.0  # and no NaN is left anywhere


def test_what_is_not_served() -> None:
    shape, plan = (12, 9, 21), ((0, 1, 2),)
    layout = SerialLayout(shape, plan)
    network, operator, w, s = build(shape, plan, True, layout)
    with pytest.raises(ValueError, match="0 to 8"):
        DirectionLoop(network, operator, layout, 9)
    with pytest.raises(ValueError, match="contiguous float64"):
        BoxOperator(network, w, s, layout)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(
    ("shape", "plan", "edges"),
    [
        ((18, 9, 21), ((0, 1, 2),), ([0, 10, 18], [0, 4, 9], [0, 12, 21])),
        ((1, 21, 40), ((0, 1), (0, 1)), ([0, 1], [0, 8, 21], [0, 20, 40])),
    ],
)
def test_boxes_take_the_steps_of_one(shape: Shape, plan: Plan, edges: Any, varying: bool) -> None:
    layout = SerialLayout(shape, plan)
    network, operator, w, s = build(shape, plan, varying, layout, (slice(None),) * 3)
    b = np.random.default_rng(0).standard_normal(shape) * (diagonal(w, s) > 0)

    def solve(
        network: CpuHierarchy, operator: BoxOperator, layout: Any, b: np.ndarray
    ) -> tuple[np.ndarray, list[float]]:
        loop = DirectionLoop(network, operator, layout, 2)
        x, r, norms = np.zeros(b.shape), b.copy(), [float(np.sqrt(layout.sum(np.array([(b * b).sum()]))[0]))]
        loop.start(x, r)
        for _ in range(6):
            norms.append(loop.step(norms[-1]).norm)
        return x, norms

    x, norms = solve(network, operator, layout, b)
    found = np.full(shape, np.nan)
    everyones: dict[tuple[int, ...], PackedStencil] = {}

    def work(box: BoxLayout, at: tuple[slice, ...]) -> None:
        parts = build(shape, plan, varying, box, at)
        if not varying:
            faces = [padded(a[at]) for a in w]
            for face in faces:
                box.exchange(face)
            stencil = packed(faces, padded(s[at]))
            assert stencil is not None
            everyones[at[0].start, at[1].start, at[2].start] = stencil
            box.sum(np.zeros(1))
            stencil = stencil.agreed([e.c for e in everyones.values()], [e.values() for e in everyones.values()])
            assert stencil is not None
            outs = [np.empty(box.shape), np.empty(box.shape)]
            for network, out in zip((parts[0], CpuHierarchy(weights(2), stencil, None, box, 1)), outs, strict=True):
                network.coarse_solve = parts[0].coarse_solve
                network.apply(np.ascontiguousarray(b[at]), out, 1.0, 1.0)
            assert np.array_equal(*outs)
        found[at], mine = solve(parts[0], parts[1], box, np.ascontiguousarray(b[at]))
        assert np.allclose(mine, norms, rtol=1e-10)

    in_threads(edges, shape, plan, work)
    assert np.allclose(found, x, rtol=1e-9, atol=1e-12)
