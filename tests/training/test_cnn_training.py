"""The training of the published network: loss, chains of residuals, interrupted runs, stages, the command."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from petsc_dcdm.network import weights
from petsc_dcdm.network.cnn import DcdmNet, from_file, parameter_count
from petsc_dcdm.training import cnn_run
from petsc_dcdm.training.cnn import Settings, Trainer
from petsc_dcdm.training.cnn_recipes import RECIPES, Stage, TrainingError
from petsc_dcdm.training.dcdm import Chain, dcdm_history, paper_loss, random_rhs, smooth_rhs, unit_rms
from petsc_dcdm.training.ritz import box_operator
from petsc_dcdm.training.run_log import read_csv


def test_loss_is_the_residual_after_an_exact_line_search():
    r, f = torch.randn(2, 3, 1, 5, 5, 5, dtype=torch.float64).unbind(0)
    want = []
    for i in range(3):
        a = box_operator(f[i, 0])
        alpha = (r[i, 0] * f[i, 0]).sum() / (f[i, 0] * a).sum()
        want.append(((r[i, 0] - alpha * a) ** 2).sum() / (r[i, 0] ** 2).sum())
    assert torch.allclose(paper_loss(r, f), torch.stack(want))
    assert torch.allclose(paper_loss(r, f), paper_loss(r, -7.0 * f))
    assert paper_loss(box_operator(f), f).max() < 1e-20


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
    torch.manual_seed(3)
    net = DcdmNet().eval()

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
        (["--stage", "steps=1,warm_up=0"], "a warm-up of 0 steps"),
        (["--stage", "steps=1,energy=1"], "energy=1 of a stage is a part of log=1"),
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


def test_the_logarithm_changes_the_gradient_and_not_what_is_logged(tmp_path):
    """Of two samples whose losses are far apart, both count as much; the table of losses stays the paper's."""
    trainers = [Trainer(settings(log=log), tmp_path / str(log)) for log in (0, 1)]
    assert trainers[0].train_step() == trainers[1].train_step()
    mean, log = ([p.grad.clone() for p in trainer.net.parameters()] for trainer in trainers)
    fresh = Trainer(settings(), tmp_path / "fresh")
    r = fresh._next_residuals(0)
    fresh.forward(unit_rms(r))
    each = paper_loss(r, fresh.forward(unit_rms(r)))
    for wanted, weight in ((mean, torch.ones(2)), (log, 1.0 / each.detach())):
        got = torch.autograd.grad((each * weight).mean(), list(fresh.net.parameters()), retain_graph=True)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(got, wanted, strict=True))


def test_exact_modes_need_no_basis_and_resume(tmp_path):
    stages = settings(exact=1, follow=3, log=1, energy=1)
    whole = Trainer(stages, tmp_path / "whole")
    losses = [whole.train_step() for _ in range(4)]
    first = Trainer(stages, tmp_path / "parts")
    parts = [first.train_step() for _ in range(2)]
    first.save_checkpoint()
    second = Trainer(stages, tmp_path / "parts")
    assert parts + [second.train_step() for _ in range(2)] == losses
    assert not list(tmp_path.rglob("basis*"))


def test_the_recipe_for_128_runs_with_the_larger_network(tmp_path, monkeypatch, capsys):
    """Every stage of it, two steps each and on few cells."""
    small = tuple(replace(stage, steps=2, resolution=max(8, stage.resolution // 8)) for stage in RECIPES[128])
    monkeypatch.setitem(RECIPES, 128, small)
    assert cnn_run.run(options("--resolution", "128", "--variant", "128", "--run-dir", str(tmp_path))) == 0
    file = weights.load(tmp_path / "cnn.safetensors")
    assert file.meta["variant"] == "128" and file.meta["training_steps"] == str(2 * len(small))
    assert file.meta["command"].endswith("--resolution 128")
    assert parameter_count(from_file(file)) == 152881
