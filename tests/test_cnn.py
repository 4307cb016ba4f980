"""The published network: its size, masks, odd grids, several ranks in one process, and its training."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from petsc_dcdm.models import cnn, weights
from petsc_dcdm.models.cnn import CnnOperator, DcdmNet, from_file, inferred, parameter_count, to_tensors
from petsc_dcdm.models.layout import SerialLayout
from petsc_dcdm.models.weights import ModelFile, WeightsError
from petsc_dcdm.training import cnn_run
from petsc_dcdm.training.cnn import Settings, Trainer
from petsc_dcdm.training.cnn_recipes import RECIPES, Stage, TrainingError
from petsc_dcdm.training.dcdm import Chain, dcdm_history, paper_loss, random_rhs, smooth_rhs, unit_rms
from petsc_dcdm.training.ritz import box_operator
from petsc_dcdm.training.run_log import read_csv


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
    from petsc_dcdm.models.cnn import _pool

    a = torch.arange(5.0).view(1, 1, 1, 1, 5).expand(1, 16, 1, 1, 5)
    assert torch.equal(_pool(a)[0, 0, 0, 0], torch.tensor([0.5, 2.5, 4.0]))


def test_apply_is_homogeneous_and_keeps_its_scales():
    shape = (6, 8, 7)
    op = CnnOperator(model_file(), *box(shape), SerialLayout(shape, ()))
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
    op = CnnOperator(model_file(), *box(shape), SerialLayout(shape, ()))
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
    op = CnnOperator(model_file(), w, s, SerialLayout(shape, ()))
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
        CnnOperator(model_file(), *box(shape), SerialLayout(shape, ()))


def test_box_edges_that_cannot_be_pooled_are_refused():
    shape = (8, 8, 8)
    with pytest.raises(ValueError, match="even edges"):
        CnnOperator(model_file(), *box(shape), PartLayout(shape, (3, 0, 0), (5, 8, 8), [], []))


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
    serial = CnnOperator(file, w, s, SerialLayout(shape, ()))
    inputs = []

    def record(layer, x):
        if layer is not serial._net.last:
            inputs.append(x[0].numpy().copy())
        return inferred(layer, x)

    monkeypatch.setattr(cnn, "inferred", record)
    serial.apply(r, whole, 1.0, 1.0)
    sums = [np.array([float(r.size)]), np.array([(r**2).sum()])]
    layout = PartLayout(shape, (cut, 0, 0), (shape[0] - cut, *shape[1:]), [*w, *inputs], sums)
    part = CnnOperator(file, [a[cut:] for a in w], s[cut:], layout)
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
    op = CnnOperator(model_file(), [np.zeros(empty)] * 3, np.zeros(empty), layout)
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


def test_loss_is_the_residual_after_an_exact_line_search():
    r, f = torch.randn(2, 3, 1, 5, 5, 5, dtype=torch.float64).unbind(0)
    want = []
    for i in range(3):
        a = box_operator(f[i, 0])
        alpha = (r[i, 0] * f[i, 0]).sum() / (f[i, 0] * a).sum()
        want.append(((r[i, 0] - alpha * a) ** 2).sum() / (r[i, 0] ** 2).sum())
    assert torch.allclose(paper_loss(r, f), torch.stack(want).mean())
    assert torch.allclose(paper_loss(r, f), paper_loss(r, -7.0 * f))
    assert paper_loss(box_operator(f), f) < 1e-20


def test_gradient_of_the_loss():
    r = torch.randn(1, 1, 3, 3, 3, dtype=torch.float64)
    f = torch.randn(1, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: paper_loss(r, g), (f,))


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cnn_run.add_arguments(parser)
    return parser.parse_args([*words, "--device", "cpu"])


def settings(*more: Stage, **other) -> Settings:
    return Settings((Stage(**{"resolution": 8, "steps": 4, "batch": 2, "ritz": 30, **other}), *more))


SECOND = Stage(3, resolution=10, batch=2, ritz=20, follow=3, bfloat16_until=0.5)


@pytest.mark.parametrize("cut", [2, 4, 5])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, cut):
    """Cut within the first stage, between the two and within the second, which follows the solver."""
    whole = Trainer(settings(SECOND), tmp_path / "whole")
    losses = [whole.train_step() for _ in range(7)]
    first = Trainer(settings(SECOND), tmp_path / "parts")
    parts = [first.train_step() for _ in range(cut)]
    first.save_checkpoint()
    first.train_step()  # a step after the last checkpoint is lost
    second = Trainer(settings(SECOND), tmp_path / "parts")
    assert second.step == cut
    parts += [second.train_step() for _ in range(7 - cut)]
    assert parts == losses
    for name, p in whole.net.state_dict().items():
        assert torch.equal(p, second.net.state_dict()[name])


def test_every_stage_has_an_adam_of_its_own(tmp_path):
    trainer = Trainer(settings(SECOND), tmp_path)
    ages = []
    for _ in range(7):
        trainer.train_step()
        ages.append(int(next(iter(trainer.optimiser.state.values()))["step"]))
    assert ages == [1, 2, 3, 4, 1, 2, 3]


def test_more_stages_go_on_where_the_first_ended(tmp_path):
    whole = Trainer(settings(SECOND), tmp_path / "whole")
    losses = [whole.train_step() for _ in range(7)]
    first = Trainer(settings(), tmp_path / "parts")
    parts = [first.train_step() for _ in range(4)]
    first.save_checkpoint()
    second = Trainer(settings(SECOND), tmp_path / "parts")
    assert parts + [second.train_step() for _ in range(3)] == losses


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    """kill -9 in the middle: the command that is given again ends with the file of one that was left alone."""
    words = ["--validate-every", "20", "--stage", "steps=60,resolution=6,batch=2,ritz=20"]
    words += ["--stage", "steps=15,resolution=6,ritz=20,follow=4", "--run-dir"]
    command = [sys.executable, "-m", "petsc_dcdm.cli", "train", "cnn", "--device", "cpu", *words, tmp_path / "parts"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "parts" / "checkpoint.safetensors").is_file() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "parts" / "cnn.safetensors").exists()
    with (tmp_path / "parts" / "loss.csv").open("a") as f:
        f.write("61,1")  # a line that the end of the process cut off
    for name in ("parts", "whole"):
        assert cnn_run.run(options(*words, str(tmp_path / name))) == 0
    hashes = [weights.load(tmp_path / name / "cnn.safetensors").meta["hash"] for name in ("whole", "parts")]
    assert hashes[0] == hashes[1]
    logs = [[row["loss"] for row in read_csv(tmp_path / name / "loss.csv")] for name in ("whole", "parts")]
    assert logs[0] == logs[1] and len(logs[0]) == 75


def test_a_chain_of_residuals_is_the_solver():
    b = random_rhs(8, 1)
    net = from_file(model_file(seed=3))

    def direction(r):
        with torch.no_grad():
            return net(unit_rms(r[None, None].float()))[0, 0].double()

    norms = dcdm_history(box_operator, direction, b, tolerance=0.0, most=5)
    chain, size = Chain(), 1.0
    chain.r = (b / b.norm())[None, None]
    for want in norms[1:]:
        r = chain.r
        chain.advance(r, direction(r[0, 0])[None, None])
        size *= float((r - (r * chain.p).sum() * chain.ap).norm())
        assert size == pytest.approx(want, rel=1e-4)
    chain.restart([0], r)
    assert torch.equal(chain.r, r) and not chain.p.any()


def test_a_run_is_not_resumed_with_other_settings(tmp_path):
    trainer = Trainer(settings(), tmp_path)
    trainer.save_checkpoint()
    with pytest.raises(TrainingError, match="another seed, stages"):
        Trainer(replace(settings(low=1.0), seed=1), tmp_path)


def test_the_command_trains_writes_and_resumes(tmp_path, capsys):
    stage = "steps=30,resolution=8,batch=2,ritz=30"
    args = options("--stage", stage, "--validate-every", "15", "--run-dir", str(tmp_path))
    assert cnn_run.run(args) == 0
    file = weights.load(tmp_path / "cnn.safetensors")
    assert file.kind == "cnn" and file.dims == (3,) and file.meta["training_steps"] == "30"
    assert stage in file.meta["command"] and str(tmp_path) not in file.meta["command"]
    loss = [row["loss"] for row in read_csv(tmp_path / "loss.csv")]
    assert len(loss) == 30 and np.mean(loss[-5:]) < 0.8 * loss[0]
    validation = read_csv(tmp_path / "validation.csv")
    assert [row["step"] for row in validation] == [15, 30]
    assert cnn_run.run(args) == 0
    assert len(read_csv(tmp_path / "loss.csv")) == 30
    assert parameter_count(from_file(file)) == 97457


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resolution", "48"], "no recipe for a resolution of 48; there are 32, 64, 128"),
        (["--stage", "steps=3,hight=9"], "'hight=9' is not NAME=VALUE"),
        (["--stage", "steps=many"], "steps is 'many', expected int"),
        (["--stage", "low=3"], "give its length as steps=NUMBER"),
        (["--stage", "steps=0"], "a stage has 0 steps"),
        (["--stage", "steps=1,batch=1"], "must be at least 2"),
    ],
)
def test_the_command_names_what_it_cannot_do(tmp_path, capsys, words, message):
    assert cnn_run.run(options(*words, "--run-dir", str(tmp_path))) == 2
    assert message in capsys.readouterr().err


def test_stages_of_a_command_line_are_those_of_the_class():
    args = options("--stage", "steps=3,rate=5e-4,low=3", "--stage", "steps=2,resolution=128,follow=8")
    chosen = cnn_run.settings_from(args)
    assert chosen.stages == (Stage(3, rate=5e-4, low=3.0), Stage(2, resolution=128, follow=8))
    assert chosen.variant == "128"


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_recipes_end_at_their_resolution(resolution):
    stages = cnn_run.settings_from(options("--resolution", str(resolution))).stages
    assert stages[-1].resolution == resolution and stages[: len(RECIPES[32])] == RECIPES[32]


def test_right_hand_sides_are_what_they_say():
    smooth, rough = smooth_rhs(16, 3), random_rhs(16, 3)
    ratio = [float(b.flatten() @ box_operator(b).flatten() / b.square().sum()) for b in (smooth, rough)]
    assert ratio[0] < 1.0 < 5.0 < ratio[1]
