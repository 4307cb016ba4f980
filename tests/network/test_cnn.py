"""The published network: its size, masks, odd grids, several ranks in one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.network import cnn
from petsc_dcdm.network.cnn import CnnHierarchy, DcdmNet, from_file, inferred, parameter_count, to_tensors
from petsc_dcdm.network.weights import ModelFile, WeightsError
from petsc_dcdm.training.dcdm import dcdm_history, random_rhs, unit_rms
from petsc_dcdm.training.ritz import box_operator


def model_file(variant: str = "64", seed: int = 0) -> ModelFile:
    torch.manual_seed(seed)
    return ModelFile("cnn", (3,), to_tensors(DcdmNet(variant)), {"variant": variant}, "random")


def box(shape: tuple[int, int, int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Stencil (w, s) of the box with Dirichlet walls."""
    w, s = [], np.zeros(shape)
    for a in range(3):
        wa = np.ones(shape)
        low = [slice(None)] * 3
        low[2 - a] = slice(0, 1)
        wa[tuple(low)] = 0.0
        high = [slice(None)] * 3
        high[2 - a] = slice(-1, None)
        s[tuple(low)] += 1.0
        s[tuple(high)] += 1.0
        w.append(wa)
    return w, s


def with_solid(w: list[np.ndarray], s: np.ndarray, solid: np.ndarray) -> None:
    """Take the cells of `solid` and their faces out of the stencil, in place."""
    s[solid] = 0.0
    for a in range(3):
        axis = 2 - a
        w[a][solid | np.roll(solid, 1, axis)] = 0.0


@pytest.mark.parametrize(("variant", "count"), [("64", 97457), ("128", 152881)])
def test_parameter_counts_of_the_paper(variant, count):
    assert parameter_count(DcdmNet(variant)) == count


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 7, 9), (2, 3, 16), (1, 1, 4)])
def test_any_grid_size(shape):
    y = DcdmNet()(torch.randn(2, 1, *shape))
    assert y.shape == (2, 1, *shape) and torch.isfinite(y).all()


def test_odd_size_equals_keras_same_pooling():
    """The pooled cell at an odd end is the mean of the cells that exist."""
    from petsc_dcdm.network.cnn import _pool

    a = torch.arange(5.0).view(1, 1, 1, 1, 5).expand(1, 16, 1, 1, 5)
    assert torch.equal(_pool(a)[0, 0, 0, 0], torch.tensor([0.5, 2.5, 4.0]))


def test_apply_is_homogeneous_and_keeps_its_scales():
    shape = (6, 8, 7)
    op = CnnHierarchy(model_file(), *box(shape), SerialLayout(shape, ()))
    r = np.random.default_rng(0).standard_normal(shape)
    one, two = np.empty(shape), np.empty(shape)
    op.apply(r, one, 1.0, 1.0)
    op.apply(1e-9 * r, two, 2.0, 3.0)
    assert np.allclose(two, 6e-9 * one, rtol=1e-5, atol=1e-14)
    op.apply(-r, one, -1.0, 1.0)
    op.apply(r, two, 1.0, 1.0)
    assert np.array_equal(one, two)
    with torch.no_grad():
        x = unit_rms(torch.from_numpy(r).float()[None, None])
        y = from_file(model_file())(x)[0, 0].double() * np.sqrt((r**2).mean())
    assert np.allclose(two, y.numpy(), atol=1e-5)


def test_zero_and_nan_residuals():
    shape = (4, 4, 4)
    op = CnnHierarchy(model_file(), *box(shape), SerialLayout(shape, ()))
    out = np.ones(shape)
    op.apply(np.zeros(shape), out, 1.0, 1.0)
    assert not out.any()
    op.apply(np.full(shape, np.nan), out, 1.0, 1.0)
    assert np.isnan(out).all()


def test_inactive_cells_are_zero_and_unseen():
    shape = (9, 8, 8)
    w, s = box(shape)
    solid = np.zeros(shape, dtype=bool)
    solid[3:6, 2:5, 2:5] = True
    with_solid(w, s, solid)
    op = CnnHierarchy(model_file(), w, s, SerialLayout(shape, ()))
    assert op.levels[0].unknowns == (~solid).sum()
    r = np.random.default_rng(1).standard_normal(shape)
    one, two = np.empty(shape), np.empty(shape)
    op.apply(r, one, 1.0, 1.0)
    assert not one[solid].any() and one[~solid].all()
    op.apply(np.where(solid, 1e3, r), two, 1.0, 1.0)
    assert np.array_equal(one, two)


def test_flat_grid_is_refused_in_one_sentence():
    shape = (1, 8, 8)
    with pytest.raises(WeightsError, match="serve 3D grids but the grid is 2D"):
        CnnHierarchy(model_file(), *box(shape), SerialLayout(shape, ()))


def test_box_edges_that_cannot_be_pooled_are_refused():
    shape = (8, 8, 8)
    with pytest.raises(ValueError, match="even edges"):
        CnnHierarchy(model_file(), *box(shape), PartLayout(shape, (3, 0, 0), (5, 8, 8), [], []))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.tensors.pop("last.bias"), "last.bias' is missing"),
        (lambda f: f.meta.update(variant="7"), "variant '7'"),
        (lambda f: f.tensors.update({"last.bias": np.zeros(3, np.float32)}), r"of shape \(3,\)"),
    ],
)
def test_files_that_do_not_fit(change, words):
    file = model_file()
    change(file)
    with pytest.raises(WeightsError, match=words):
        from_file(file)


class PartLayout:
    """One rank's box of a grid; `exchange` takes the halos from what a serial run convolved."""

    plan = ((0, 1, 2),)

    def __init__(self, global_shape, offset, shape, answers, sums):
        self.global_shape, self.offset, self.shape = global_shape, offset, shape
        self.answers, self.sums = answers, sums

    def exchange(self, a, corners=False):
        """Take the halo from the array that a serial run convolved at this call."""
        whole = self.answers.pop(0)
        half = whole.shape[-1] != self.global_shape[-1]
        o = [v // 2 if half else v for v in self.offset]
        padded = np.pad(whole, [(0, 0)] * (whole.ndim - 3) + [(1, 1)] * 3)
        n = a.shape[-3:]
        inside = tuple(slice(v, v + m) for v, m in zip(o, n, strict=True))
        a[...] = torch.from_numpy(padded[(..., *inside)]) if torch.is_tensor(a) else padded[(..., *inside)]

    def sum(self, values):
        return self.sums.pop(0)

    def max(self, values):
        return values


@pytest.mark.parametrize("variant", ["64", "128"])
def test_a_part_of_the_grid_with_halos_equals_the_whole(variant, monkeypatch):
    shape, cut = (8, 10, 9), 4
    w, s = box(shape)
    file = model_file(variant)
    r = np.random.default_rng(2).standard_normal(shape)
    whole = np.empty(shape)
    serial = CnnHierarchy(file, w, s, SerialLayout(shape, ()))
    inputs = []

    def record(layer, x):
        if layer is not serial._net.last:
            inputs.append(x[0].numpy().copy())
        return inferred(layer, x)

    monkeypatch.setattr(cnn, "inferred", record)
    serial.apply(r, whole, 1.0, 1.0)
    sums = [np.array([float(r.size)]), np.array([(r**2).sum()])]
    layout = PartLayout(shape, (cut, 0, 0), (shape[0] - cut, *shape[1:]), [*w, *inputs], sums)
    part = CnnHierarchy(file, [a[cut:] for a in w], s[cut:], layout)
    out = np.empty(layout.shape)
    part.apply(np.ascontiguousarray(r[cut:]), out, 1.0, 1.0)
    assert not layout.answers and np.allclose(out, whole[cut:], atol=1e-5)


def test_a_rank_without_cells_takes_part():
    shape = (4, 4, 4)
    empty = (0, 4, 4)
    sums = [np.array([64.0]), np.array([64.0])]
    calls = []
    layout = PartLayout(shape, (4, 0, 0), empty, [], sums)
    layout.exchange = lambda a, corners=False: calls.append(a.shape)
    op = CnnHierarchy(model_file(), [np.zeros(empty)] * 3, np.zeros(empty), layout)
    out = np.empty(empty)
    op.apply(np.zeros(empty), out, 1.0, 1.0)
    assert len(calls) == 3 + 15 and out.shape == empty


@pytest.mark.parametrize("history", [0, 1, 2])
def test_random_weights_never_let_the_error_grow(history):
    n = 8
    net = from_file(model_file(seed=3))
    steps = []

    def direction(r):
        with torch.no_grad():
            return net(unit_rms(r[None, None].float()))[0, 0].double()

    def operator(d):
        steps.append(d)
        return box_operator(d)

    b = random_rhs(n, 0)
    dcdm_history(operator, direction, b, tolerance=1e-8, most=25, history=history)
    dense = box_operator(torch.eye(n**3, dtype=torch.float64).view(-1, n, n, n)).flatten(1)
    error = torch.linalg.solve(dense, b.flatten())
    norms, r = [float(error @ dense @ error)], b.clone()
    for k, d in enumerate(steps):
        ad = box_operator(d)
        for p in steps[max(0, k - history) : k]:
            size = float((d * ad).sum() * (p * box_operator(p)).sum()) ** 0.5
            assert abs(float((p * ad).sum())) < 1e-6 * size
        alpha = (r * d).sum() / (d * ad).sum()
        r = r - alpha * ad
        error = error - alpha * d.flatten()
        norms.append(float(error @ dense @ error))
    assert all(after <= before * (1 + 1e-12) for before, after in zip(norms, norms[1:], strict=False))
