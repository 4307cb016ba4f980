"""The Triton kernels of set-up and cycle, under the interpreter, against torch on numbers that are rounded likewise."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from grid_operators import damping, diagonal, packed, padded, system, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_systems import assembled, conductances
from scipy import sparse
from scipy.sparse.linalg import spsolve
from triton_interpreter import MISSING, WHY

from petsc_dcdm.grid.layout import CoarseOperator, Plan, SerialLayout
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.network.multigrid import Smoother, TorchHierarchy
from petsc_dcdm.network.weights import ModelFile, WeightsError

if MISSING:
    pytest.skip(WHY, allow_module_level=True)

from petsc_dcdm.backends.gpu.coarse import DenseInverse, shift
from petsc_dcdm.backends.gpu.hierarchy import GpuHierarchy
from petsc_dcdm.backends.gpu.levels import Blocks, tiling

CPU = torch.device("cpu")
SMALL = Blocks(64, 16, 64, 3, 16, fit=True)
"""Several tiles and programs on small grids."""


class Case(NamedTuple):
    shape: Shape
    plan: Plan
    steps: int
    visits: int = 1
    varying: bool = True
    periodic: Periodic = NOT_PERIODIC
    blocks: Blocks | None = None


CASES = [
    Case((9, 7, 11), ((0, 1, 2), (0, 1, 2)), 4, 2),
    Case((9, 7, 11), ((0, 1, 2),), 2, varying=False),
    Case((6, 5, 9), ((0,), (1, 2)), 3, 2, varying=False, blocks=SMALL),
    Case((1, 13, 20), ((0, 1), (0, 1)), 1, 2),
    Case((1, 13, 20), ((0, 1), (1,)), 2, 2, varying=False),
    Case((5, 1, 12), ((0, 2),), 2),
    Case((6, 7, 1), ((1, 2),), 2, varying=False),
    Case((1, 12, 10), ((0, 1), (0, 1)), 2, 2, periodic=(False, True, True)),
    Case((1, 11, 9), ((0, 1), (0,)), 2, 2, varying=False, periodic=(False, True, True)),
    Case((4, 6, 2), ((0, 2),), 2, periodic=(True, False, True)),
]


def rounded(a: torch.Tensor) -> torch.Tensor:
    return a.to(torch.bfloat16).to(a.dtype)


def ring_system(shape: Shape, periodic: Periodic, varying: bool, seed: int, solid: float) -> tuple[list, np.ndarray]:
    """As `system`, with conductances through the ends of periodic axes."""
    if not any(periodic):
        return system(shape, seed, solid, varying)
    rng = np.random.default_rng(seed)
    k = np.where(rng.random(shape) < solid, 0.0, rng.uniform(0.3, 1.0, shape) if varying else 1.0)
    w, s = conductances(shape, periodic, coefficient=k)
    scale = float(diagonal(w, s).max())
    return [a / scale for a in w], s / scale


def wrapped(w: list[np.ndarray], layout: SerialLayout) -> list[np.ndarray]:
    """Padded, with the halo of rings."""
    wide = [padded(a) for a in w]
    for a in wide:
        layout.exchange(a)
    return wide


def both(case: Case, seed: int = 3, solid: float = 0.2) -> tuple[GpuHierarchy, TorchHierarchy, tuple[list, np.ndarray]]:
    """The Triton hierarchy and torch's with the coefficients it is to have."""
    w, s = ring_system(case.shape, case.periodic, case.varying, seed, solid)
    layout = SerialLayout(case.shape, case.plan, case.visits, case.periodic)
    file = weights(case.steps, seed)
    theirs = TorchHierarchy(file, w, s, layout)
    levels = theirs._smoothers
    for i, level in enumerate(levels):
        op = level.op
        if i or case.varying:
            x, y, z = (rounded(face) for face in op.faces)
            op = replace(op, faces=(x, y, z), s=rounded(op.s))
        levels[i] = Smoother(op, level.axes, rounded(level.omega))
    wide = wrapped(w, layout)
    stencil = None if case.varying else packed(wide, padded(s))
    assert (stencil is None) == case.varying
    source = (wide, padded(s)) if stencil is None else (stencil, None)
    return GpuHierarchy(file, *source, layout, CPU, -1, case.blocks), theirs, (w, s)


def compare(case: Case, seed: int = 3, solid: float = 0.2) -> None:
    ours, theirs, _ = both(case, seed, solid)
    assert ours.levels == theirs.levels
    for level, smoother in zip(ours.stages, theirs._smoothers, strict=False):
        for m in range(case.steps):
            found, right = level.view(level.omega[m]).float(), smoother.omega[m]
            assert (found - right).abs().max() <= 0.004 * right.abs().max()  # one of the last bits, here and there
            assert ((found - right).abs() > 1e-6 * right.abs().max()).float().mean() < 0.01
    assert ours.coarse is not None
    for found, right in zip((*ours.coarse.w, ours.coarse.s), (*theirs.coarse.w, theirs.coarse.s), strict=True):
        assert np.abs(found - right).max(initial=0.0) <= 2e-6 * max(np.abs(right).max(initial=0.0), 1e-3)
    ours.coarse_solve = theirs.coarse_solve = damping(theirs.coarse)
    r = np.random.default_rng(seed).standard_normal(case.shape)
    outs = np.full((2, *case.shape), np.nan)
    for hierarchy, out in zip((ours, theirs), outs, strict=True):
        hierarchy.apply(r, out, 0.5, 2.0)
    assert np.abs(outs[0] - outs[1]).max() <= 2e-3 * np.abs(outs[1]).max()
    assert np.median(np.abs(outs[0] - outs[1])) <= 1e-5 * np.abs(outs[1]).max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.shape}-{case.plan}-{case.steps}")
def test_equals_torch_on_rounded_numbers(case: Case) -> None:
    compare(case)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, int, float]:
    """Small grids of any shape, rings, axes and solids."""
    z, y, x = (draw(st.integers(1, most)) for most in (4, 5, 6))
    shape = z, y, x
    long = [axis for axis in range(3) if shape[2 - axis] > 1] or [0]
    axes = draw(st.lists(st.sampled_from(long), min_size=1, max_size=2, unique=True))
    rings = [draw(st.booleans()) and n > 1 for n in shape]
    periodic = rings[0], rings[1], rings[2]
    case = Case(shape, (tuple(sorted(axes)),), draw(st.integers(1, 2)), 1, draw(st.booleans()), periodic, SMALL)
    return case, draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.3, 0.8]))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cases())
def test_any_small_grid(given_: tuple[Case, int, float]) -> None:
    case, seed, solid = given_
    w, s = ring_system(case.shape, case.periodic, case.varying, seed, solid)
    if not case.varying and packed(wrapped(w, SerialLayout(case.shape, (), 1, case.periodic)), padded(s)) is None:
        case = case._replace(varying=True)
    compare(case, seed, solid)


def test_wider_networks_are_served() -> None:
    case = Case((1, 6, 8), ((0, 1),), 2)
    w, s = system(case.shape, 0)
    layout = SerialLayout(case.shape, case.plan)
    file = weights(2, 1, hidden=24)
    ours, theirs = (
        GpuHierarchy(file, [padded(a) for a in w], padded(s), layout, CPU),
        TorchHierarchy(file, w, s, layout),
    )
    for m in range(2):
        found, right = ours.stages[0].view(ours.stages[0].omega[m]).float(), theirs._smoothers[0].omega[m]
        assert torch.allclose(found, right, rtol=0.005)
    with pytest.raises(WeightsError, match="expected 'multigrid'"):
        GpuHierarchy(ModelFile("cnn", (3,), {}, {}), w, s, layout, CPU)


@pytest.mark.parametrize("periodic", [NOT_PERIODIC, (True, True, False), (False, False, True)])
def test_the_dense_inverse_is_that_of_the_coarsest_system(periodic: Periodic) -> None:
    """With solid cells, closed pockets and rings of two cells."""
    shape = (2, 5, 4)
    rng = np.random.default_rng(1)
    w, s = conductances(shape, periodic, walls=0.0, coefficient=np.where(rng.random(shape) < 0.3, 0.0, 1.0))
    s[0, 0, 0] += w[0][0, 0, 1] > 0
    made = DenseInverse(CoarseOperator((w[0], w[1], w[2]), s, (0, 0, 0), shape, shape), periodic, CPU)
    cell = made.cell.numpy()
    matrix = assembled(w, s)
    matrix = (matrix + sparse.diags(matrix.diagonal()) * shift(shape))[cell][:, cell].tocsc()
    r = rng.standard_normal(cell.size)
    found = made.matrix[: cell.size, : cell.size].numpy() @ r
    right = spsolve(matrix, r)
    assert np.array_equal(cell, np.flatnonzero(diagonal(w, s) > 0))
    assert np.abs(found - right).max() < 1e-5 * np.abs(right).max()


def test_tiles_cover_every_cell_once() -> None:
    for shape in ((1, 1, 1), (1, 7, 130), (33, 2, 5), (3, 100, 1), (9, 9, 9)):
        for block in (16, 64, 512):
            tiles = tiling(shape, block)
            bz = block >> (tiles.bx + tiles.by)
            across = [-(-n // b) for n, b in zip(shape, (bz, 1 << tiles.by, 1 << tiles.bx), strict=True)]
            assert bz >= 1 and tiles.tiles == np.prod(across)
            assert tiles.tiles * block <= 8 * max(block, np.prod(shape))  # not much is wasted
