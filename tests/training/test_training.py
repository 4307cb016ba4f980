"""Training: systems are what they say, a few steps help and repeat from the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from petsc_dcdm.cli import main
from petsc_dcdm.grid.faces import connected
from petsc_dcdm.network import multigrid, weights
from petsc_dcdm.network.initial import initial_tensors
from petsc_dcdm.training import domains, losses, train, validation
from petsc_dcdm.training.multigrid_run import command as describe
from petsc_dcdm.training.multigrid_run import training_domain

SMALL = train.Settings(steps=12, seed=5, batch=1, learning_rate=1e-2)


def small_system(rng: np.random.Generator) -> domains.System:
    shape = (12, 12, 12) if rng.random() < 0.5 else (1, 28, 28)
    return domains.family_mixed(shape, rng) if rng.random() < 0.8 else domains.family_box(shape, rng)


@pytest.mark.parametrize("shape", [(10, 12, 9), (1, 25, 18)])
@pytest.mark.parametrize("name", list(domains.FAMILIES))
def test_training_systems_are_sound(name, shape):
    for seed in range(3):
        system = domains.FAMILIES[name][0](shape, np.random.default_rng(seed))
        again = domains.FAMILIES[name][0](shape, np.random.default_rng(seed))
        assert all((x == y).all() for x, y in zip((*system.w, system.s), (*again.w, again.s), strict=True))
        d = system.diagonal()
        assert system.s.dtype == np.float32 and system.shape == shape
        assert min(float(x.min()) for x in (*system.w, system.s)) >= 0
        if not system.active.any():
            continue
        assert float(d.max()) == pytest.approx(1)
        for a in range(3):
            first: list[slice | int] = [slice(None)] * 3
            first[2 - a] = 0
            assert (system.w[a][tuple(first)] == 0).all()
        assert system.closed == (not (system.s > 0).any())
        # one connected part when closed, every cell reached by a given pressure when not
        seeds = system.s > 0
        if system.closed:
            seeds.flat[int(np.flatnonzero(system.active)[0])] = True
        assert (connected(seeds, system.w) == system.active).all()


@pytest.mark.parametrize("name", list(validation.FAMILIES))
def test_validation_systems_are_nonsingular_unless_closed(name):
    for shape in [(12, 12, 12), (1, 32, 30)]:
        system = validation.FAMILIES[name](shape, 0)
        assert system.closed == (name == "neumann")
        op = validation.double_operator(system)
        lowest = torch.linalg.eigvalsh(losses.dense(op))[:2]
        assert (lowest[0] > 0) != system.closed or abs(lowest[0]) < 1e-7
        assert lowest[1] > 1e-8


def test_exact_solver_of_a_closed_system():
    system = validation.neumann((8, 8, 8), 0)
    op = validation.double_operator(system)
    b = torch.from_numpy(validation.right_hand_side(system, "random", 0))[None]
    x = losses.exact_solver(op, True)(b + op.active)  # the constant part of the right-hand side is dropped
    assert torch.allclose(multigrid.apply_operator(op, x, train.no_exchange), b, atol=1e-10)
    assert abs(float(x.sum())) < 1e-8


def test_exact_preconditioner_converges_at_once():
    system = validation.box((6, 6, 6), 0)
    op = validation.double_operator(system)
    b = torch.from_numpy(validation.right_hand_side(system, "smooth", 0))
    solve = losses.exact_solver(op, False)
    assert validation.iterations(op, lambda r: solve(r[None])[0], b, (1e-6, 1e-10)) == [1, 1]


def test_loop_equals_conjugate_gradients_on_a_symmetric_preconditioner():
    """With a linear symmetric preconditioner a history of two is all that conjugate gradients need."""
    system = domains.family_mixed((8, 8, 8), np.random.default_rng(1))
    op = validation.double_operator(system)
    b = torch.from_numpy(validation.right_hand_side(system, "random", 0))
    matrix, rhs = losses.dense(op), b[op.active > 0]
    x, r = torch.zeros_like(rhs), rhs.clone()
    p = r.clone()
    for _ in range(4):
        alpha = (r @ r) / (p @ matrix @ p)
        x, new = x + alpha * p, r - alpha * (matrix @ p)
        p, r = new + (new @ new) / (r @ r) * p, new
    expected = float(torch.log(r.norm() / rhs.norm())) / 4
    assert float(losses.unrolled_loss(op, lambda v: v, b[None], 4)) == pytest.approx(expected, rel=1e-6)


def test_training_lowers_the_loss_and_repeats():
    torch.set_num_threads(1)
    seen: list[float] = []
    first = train.train_multigrid(SMALL, lambda step, loss: seen.append(loss), draw=small_system)
    again = train.train_multigrid(SMALL, draw=small_system)
    other = train.train_multigrid(train.Settings(**{**vars(SMALL), "seed": 6}), draw=small_system)
    assert len(seen) == SMALL.steps
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
    before, after = (mean_loss(tensors) for tensors in (initial_tensors(4, 16, SMALL.seed), first))
    assert after < before - 0.02


def mean_loss(tensors: dict[str, np.ndarray]) -> float:
    """Over systems that training has not drawn."""
    loaded = {name: torch.from_numpy(a) for name, a in tensors.items()}
    total = 0.0
    with torch.no_grad():
        for seed in range(4):
            rng = np.random.default_rng([999, seed])
            system = small_system(rng)
            op, precondition = train.prepare(loaded, system, SMALL.threshold, 100)
            b = train.right_hand_sides(op, precondition, system.closed, np.random.default_rng(0))
            total += float(losses.unrolled_loss(op, precondition, b, 5))
    return total / 4


def command(*words: str) -> int:
    return main(["train", "multigrid", *words])


def test_command_gives_the_same_bytes_each_time(tmp_path, capsys):
    """On one machine: tensors, metadata and their order in the file."""
    once, again = tmp_path / "a" / "w.safetensors", tmp_path / "b" / "w.safetensors"
    for out in (once, again):
        assert command("--steps", "2", "--batch", "1", "--no-validation", "--out", str(out)) == 0
    assert once.read_bytes() == again.read_bytes()
    file = weights.load(once)
    assert file.meta["command"] == "petsc-dcdm train multigrid --steps 2 --seed 1 --batch 1"
    assert "mixed" in file.meta["training_domain"]
    assert "wrote" in capsys.readouterr().out


def test_shipped_file_is_as_the_command_writes_it(tmp_path):
    file = weights.load("multigrid")
    own = {name: value for name, value in file.meta.items() if name not in weights.REQUIRED_META}
    weights.save(
        tmp_path / "w", "multigrid", file.dims, file.tensors,
        training_domain=training_domain(train.Settings()), seed=1, command=describe(train.Settings()), hyper=own,
    )  # fmt: skip
    assert (tmp_path / "w").read_bytes() == weights.shipped("multigrid").read_bytes()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--steps", "0"], "steps is 0"),
        (["--batch", "-1"], "batch is -1"),
        (["--learning-rate", "-1"], "learning rate is -1"),
        (["--share-2d", "2"], "2D systems is 2"),
        (["--cells", "c.bin"], "--cells belongs to fine-tuning"),
        (["--out", "/proc/w.safetensors"], "/proc/w.safetensors cannot be written"),
    ],
)
def test_bad_options_are_a_sentence_at_once(words, said, capsys):
    assert command(*words) == 2
    assert said in capsys.readouterr().err


def test_an_interruption_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("petsc_dcdm.training.multigrid_run.train_multigrid", interrupted)
    assert command("--out", str(tmp_path / "w")) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
