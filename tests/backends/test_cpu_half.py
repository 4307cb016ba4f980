"""The kernels with bfloat16 coefficients, which solvers use, against torch on numbers that are rounded likewise."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from grid_operators import PLANS, applied, damping, system, weights

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native import build
from petsc_dcdm.network import fields
from petsc_dcdm.network.multigrid import Smoother, TorchHierarchy
from petsc_dcdm.network.weights import ModelFile


def rounded(a: torch.Tensor) -> torch.Tensor:
    return a.to(torch.bfloat16).to(a.dtype)


@pytest.fixture(scope="module")
def pairs() -> bool:
    """Whether the kernels evaluate the field network on pairs of bfloat16, for which there are instructions."""
    command = [*build.find_compiler(), *build._flag_sets()[0], "-dM", "-E", "-x", "c", "/dev/null"]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "__AVX512BF16__" in found.stdout and "PAIRS 0" not in found.stdout


def rounded_weights(steps: int) -> ModelFile:
    """Random weights that bfloat16 holds, so that it does not matter where they are rounded."""
    file = weights(steps, steps)
    tensors = {
        name: rounded(torch.from_numpy(a)).numpy() if name.endswith(".weight") else a
        for name, a in file.tensors.items()
    }
    return replace(file, tensors=tensors)


def rounded_hierarchy(
    monkeypatch: pytest.MonkeyPatch,
    pairs: bool,
    file: ModelFile,
    w: list[np.ndarray],
    s: np.ndarray,
    layout: SerialLayout,
) -> TorchHierarchy:
    """The network in torch with coefficients in bfloat16 and, if `pairs`, features and hidden layers too."""
    features, relu = fields.features, torch.relu
    with monkeypatch.context() as patch:
        if pairs:
            patch.setattr(fields, "features", lambda *args: rounded(features(*args)))
            patch.setattr(torch, "relu", lambda a: rounded(relu(a)))
        hierarchy = TorchHierarchy(file, w, s, layout, "cpu")
    hierarchy._smoothers = [
        Smoother(
            replace(level.op, faces=tuple(rounded(face) for face in level.op.faces), s=rounded(level.op.s)),
            level.axes,
            rounded(level.omega),
        )
        for level in hierarchy._smoothers
    ]
    return hierarchy


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("visits", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize(("shape", "plan"), PLANS)
def test_equals_torch_on_rounded_numbers(
    monkeypatch: pytest.MonkeyPatch, pairs: bool, shape: Shape, plan: Plan, steps: int, visits: int, varying: bool
) -> None:
    plan = tuple(axes for axes in plan if axes)
    w, s = system(shape, steps, varying=varying)
    file, layout = rounded_weights(steps), SerialLayout(shape, plan, visits)
    reference = rounded_hierarchy(monkeypatch, pairs, file, w, s, layout)
    network = CpuHierarchy(file, w, s, layout, threads=2)
    for ours, theirs in zip(
        (*network.coarse.w, network.coarse.s), (*reference.coarse.w, reference.coarse.s), strict=True
    ):
        # the sums before a hidden number differ in their last bits, so that one in many is rounded to the other side
        assert np.allclose(ours, theirs, rtol=3e-3, atol=1e-5)
    network.coarse_solve = reference.coarse_solve = damping(network.coarse)
    r = np.random.default_rng(5).standard_normal(shape)
    want = applied(reference, r)
    assert np.abs(applied(network, r) - want).max() < 1e-3 * np.abs(want).max()
