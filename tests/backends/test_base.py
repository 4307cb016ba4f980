"""What every backend and network must do, one table of cases for all of them; see petsc_dcdm.backends.base."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from grid_operators import packed as packed_form
from test_cpu_hierarchy import damping, diagonal, system, weights
from test_loop import matrix, padded
from triton_interpreter import with_triton

from petsc_dcdm.backends.base import Backend, Directions, Hierarchy, Loop, Operator, Problem
from petsc_dcdm.backends.cpu.backend import CpuBackend
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.loop import DirectionLoop
from petsc_dcdm.backends.cpu.operator import BoxOperator
from petsc_dcdm.backends.reference import ReferenceBackend
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.binding import Padded
from petsc_dcdm.network.cnn import DcdmNet, to_tensors
from petsc_dcdm.network.weights import ModelFile

SCALE = -3.0


class Case(NamedTuple):
    """A grid, the axes coarsened between its levels, and whether its conductances vary, so that nothing is packed."""

    shape: Shape
    plan: tuple[tuple[int, ...], ...]
    varying: bool


CASES = {
    "two levels": Case((12, 9, 21), ((0, 1, 2),), True),
    "packed": Case((12, 9, 21), ((0, 1, 2),), False),
    "three levels, the second visited twice": Case((16, 6, 33), ((0, 1, 2), (2,)), True),
    "one cell thick": Case((9, 14, 1), ((1, 2),), True),
    "flat": Case((1, 14, 20), ((0, 1),), False),
}


def cnn() -> ModelFile:
    torch.manual_seed(0)
    return ModelFile("cnn", (2, 3), to_tensors(DcdmNet("64")), {"variant": "64"}, "random")


def compiled(problem: Problem) -> Backend:
    return CpuBackend(weights(2), problem, 2)


def reference(problem: Problem) -> Backend:
    return ReferenceBackend(weights(2), problem, "cpu", 1)


def published(problem: Problem) -> Backend:
    return ReferenceBackend(cnn(), problem, "cpu", 1)


def triton(problem: Problem) -> Backend:
    """Under the interpreter, with the coarse solver of others."""
    from petsc_dcdm.backends.gpu.backend import GpuBackend

    return GpuBackend(weights(2), problem, "cpu", dense_limit=0)


BACKENDS = {"compiled": compiled, "torch": reference, "cnn": published, "triton": triton}
LINEAR = ("compiled", "torch", "triton")
LOOPS = ("compiled", "triton")
STEPS = {"compiled": 8, "triton": 4}


@functools.cache  # the interpreter takes seconds for a set-up
def build(
    make: Callable[[Problem], Backend], case: Case, exact: bool = False
) -> tuple[Backend, Problem, list[np.ndarray], np.ndarray]:
    """The backend with a coarse solver, its problem, and the low conductances and extra diagonal of that."""
    w, s = system(case.shape, 7, 0.1, case.varying)
    s = s + 0.01 * (diagonal(w, s) > 0)  # no region without it
    layout = SerialLayout(case.shape, case.plan, min(len(case.plan), 2))
    faces, extra = [padded(a) for a in w], padded(s)
    packed = None if case.varying else packed_form(faces, extra)
    problem = Problem(packed or faces, None if packed else extra, layout, SCALE, exact, 0)
    backend = make(problem)
    coarse = backend.hierarchy.coarse
    if coarse is not None:
        backend.hierarchy.coarse_solve = damping(coarse)
    return backend, problem, w, s


def applied(hierarchy: Hierarchy, r: np.ndarray, scale_in: float = 1.0, scale_out: float = 1.0) -> np.ndarray:
    out = np.full(r.shape, np.nan)
    hierarchy.apply(r, out, scale_in, scale_out)
    return out


def among(names: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [pytest.param(n, marks=with_triton if n == "triton" else ()) for n in names])


everyone, linear, with_loop = among(BACKENDS), among(LINEAR), among(LOOPS)
everywhere = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@everyone
@everywhere
def test_apply_is_homogeneous_and_zero_where_nothing_is_active(name: str, case: Case) -> None:
    backend, _, w, s = build(BACKENDS[name], case)
    active = diagonal(w, s) > 0
    assert not active.all()
    r = np.random.default_rng(0).standard_normal(case.shape)
    given = r.copy()
    out = applied(backend.hierarchy, r)
    assert out.dtype == np.float64 and np.isfinite(out).all() and out[active].any()
    assert not out[~active].any() and np.array_equal(r, given)
    tolerance = 1e-5 * np.abs(out).max()
    for scale_in, scale_out in ((0.5, 4.0), (1e-9, 1e9)):
        factor = scale_in * scale_out
        assert np.abs(applied(backend.hierarchy, r, scale_in, scale_out) / factor - out).max() < tolerance
    assert np.array_equal(applied(backend.hierarchy, r), out)
    assert not applied(backend.hierarchy, np.zeros(case.shape)).any()


@linear
@everywhere
def test_apply_is_linear(name: str, case: Case) -> None:
    hierarchy = build(BACKENDS[name], case)[0].hierarchy
    a, b = np.random.default_rng(1).standard_normal((2, *case.shape))
    both = applied(hierarchy, 2.0 * a - b)
    assert np.abs(both - 2.0 * applied(hierarchy, a) + applied(hierarchy, b)).max() < 1e-5 * np.abs(both).max()


@everyone
@everywhere
def test_levels_are_those_of_the_plan(name: str, case: Case) -> None:
    backend, _, w, s = build(BACKENDS[name], case)
    levels, coarse = backend.hierarchy.levels, backend.hierarchy.coarse
    assert levels[0].shape == levels[0].global_shape == case.shape and levels[0].offset == (0, 0, 0)
    assert levels[0].unknowns == np.count_nonzero(diagonal(w, s) > 0)
    plan = case.plan if name in LINEAR else ()
    assert [level.coarsened for level in levels] == [*plan, ()]
    assert backend.description
    if not plan:
        assert coarse is None
        return
    assert coarse is not None and coarse.shape == levels[-1].shape
    assert all(a.shape == coarse.shape and a.dtype == np.float64 for a in (*coarse.w, coarse.s))


@pytest.mark.parametrize("name", sorted(set(BACKENDS) - set(LOOPS)))
def test_others_leave_the_steps_to_whoever_applies_them(name: str) -> None:
    backend, problem, _, _ = build(BACKENDS[name], CASES["two levels"])
    assert backend.operator(problem) is None


@with_loop
def test_a_grid_of_one_level_is_the_coarse_solvers_alone(name: str) -> None:
    backend, problem, _, _ = build(BACKENDS[name], Case((4, 5, 6), (), True))
    assert backend.operator(problem) is None and np.isfinite(applied(backend.hierarchy, np.ones((4, 5, 6)))).all()


@everywhere
def test_a_compiled_direction_is_what_apply_gives(case: Case) -> None:
    backend, _, w, s = build(compiled, case)
    assert isinstance(backend, CpuBackend)
    network: Directions[int, Padded] = backend.hierarchy
    r = np.random.default_rng(2).standard_normal(case.shape) * (diagonal(w, s) > 0)
    room = backend.hierarchy.geometry.zeros()
    network.direction(backend.hierarchy.address(r), room, 0.5)
    out = applied(network, r, 0.5)
    box = backend.hierarchy.box
    found = room.inner[tuple(slice(n) for n in out[box].shape)]
    assert np.abs(found - out[box]).max() < 1e-6 * np.abs(out).max()


@with_loop
@everywhere
@pytest.mark.parametrize("history", [0, 2])
def test_steps_are_exact_line_searches(name: str, case: Case, history: int) -> None:
    """r stays b - A x, falls in the energy norm of the error, and what was found is what happened."""
    backend, problem, w, s = build(BACKENDS[name], case, exact=True)
    operator = backend.operator(problem)
    assert operator is not None and operator.max_history >= 2
    with pytest.raises(ValueError, match="history"):
        operator.loop(operator.max_history + 1)
    loop = operator.loop(history)
    active = diagonal(w, s) > 0
    b = np.random.default_rng(3).standard_normal(case.shape) * active
    boxes = loop.boxes()
    assert all(a.shape == case.shape and a.dtype == np.float64 for a in (*boxes, loop.spare_box()))
    x, r, first = boxes
    x[...], r[...], first[...] = np.where(active, np.nan, 0.0), 0.0, b
    loop.start(x, r, first, guess=False)
    norm, falls = float(np.sqrt((b * b).sum())), []
    for _ in range(STEPS[name]):
        found = loop.step(norm)
        falls.append(found.slope**2 / found.energy / SCALE)
        loop.store(residual=True)
        assert np.abs(b - SCALE * matrix(w, s, x) - r).max() < 1e-12 * np.abs(b).max()
        assert np.isclose(found.norm, np.sqrt((r * r).sum()), rtol=1e-6)
        norm = found.norm
    assert np.isclose(sum(falls), (x * (b + r)).sum() / SCALE, rtol=1e-6) and min(falls) > 0  # = x.Ax + 2 x.r
    assert np.array_equal(first, b) and loop.boxes()[0] is x and not x[~active].any()


@with_loop
@everywhere
def test_residuals_and_what_others_have_written(name: str, case: Case) -> None:
    backend, problem, w, s = build(BACKENDS[name], case, exact=True)
    operator = backend.operator(problem)
    assert operator is not None
    loop = operator.loop(2)
    assert loop.exact
    active = diagonal(w, s) > 0
    b, x = np.random.default_rng(4).standard_normal((2, *case.shape)) * active
    r = np.zeros(case.shape)
    loop.start(x, r, b)
    right = b - SCALE * matrix(w, s, x)
    assert np.isclose(loop.residual(b), np.sqrt((right**2).sum()), rtol=1e-13)
    loop.load(residual=False)
    first = loop.step(float(np.sqrt((right**2).sum())))
    loop.store()
    after = x.copy()
    x += active  # an x and its r from elsewhere
    r[...] = b - SCALE * matrix(w, s, x)
    loop.load(residual=True)
    again = loop.step(float(np.sqrt((r * r).sum())))
    loop.store()
    assert again.energy != first.energy and not np.allclose(x, after)
    assert np.abs(b - SCALE * matrix(w, s, x) - loop_residual(loop, b, r)).max() < 1e-12 * np.abs(b).max()


def loop_residual(loop: Loop, b: np.ndarray, r: np.ndarray) -> np.ndarray:
    loop.residual(b)
    loop.store(residual=True)
    return r


def test_the_compiled_classes_are_of_the_interface() -> None:
    """For mypy; here that they can be made."""
    backend, problem, _, _ = build(compiled, CASES["two levels"])
    operator: Operator | None = backend.operator(problem)
    assert isinstance(operator, BoxOperator) and isinstance(backend.hierarchy, CpuHierarchy)
    loop: Loop = operator.loop(1)
    assert isinstance(loop, DirectionLoop)
