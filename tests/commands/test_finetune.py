"""Fine-tuning on matrices of one's own: it helps, and says by how much, or says that it did not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from systems import conductances, matrix, random_solids, solve

from petsc_dcdm.cli import main
from petsc_dcdm.network import weights
from petsc_dcdm.network.initial import HYPER, initial_tensors
from petsc_dcdm.poisson import io

SHAPE = (1, 80, 96)


@pytest.fixture
def files(tmp_path):
    """A matrix with its grid left to be found out, and untrained weights to start from."""
    w, s = conductances(SHAPE, random_solids(SHAPE, fraction=0.02))
    io.save(tmp_path / "A.bin", matrix(w, s))
    weights.save(
        tmp_path / "start.safetensors", "multigrid", (2, 3), initial_tensors(2, 4, 1),
        training_domain="none", seed=1, command="test", hyper={**HYPER, "steps": 2, "hidden": 4},
    )  # fmt: skip
    return tmp_path


def train(folder, *more):
    return main(
        ["train", "multigrid", "--matrix", str(folder / "A.bin"), "--grid", "96,80", "--out", str(folder / "new.st")]
        + ["--start", str(folder / "start.safetensors"), "--batch", "1", *more]
    )


def test_untrained_weights_get_better(files, capsys):
    assert train(files, "--steps", "15", "--learning-rate", "1e-2") == 0
    assert "held-out" in capsys.readouterr().out
    new = weights.load(files / "new.st")
    assert "A.bin" in new.meta["training_domain"] and int(new.meta["steps"]) == 2
    assert "--grid 96,80 --start" in new.meta["command"] and "--steps 15" in new.meta["command"]


def test_what_got_worse_is_not_saved(files, capsys):
    assert train(files, "--steps", "3", "--learning-rate", "30") == 1
    assert "not saved" in capsys.readouterr().err
    assert not (files / "new.st").exists()


def test_bad_input_is_a_sentence(files, capsys):
    assert train(files, "--cells", "a", "b") == 2
    assert "1 matrices need as many --cells" in capsys.readouterr().err
    assert train(files, "--smoothing", "3") == 2
    assert "--smoothing is that of the weights to start from" in capsys.readouterr().err
    assert train(files, "--grid", "40,x") == 2
    assert "--grid '40,x' is no grid" in capsys.readouterr().err
    assert train(files, "--out", "/proc/new.st") == 2
    assert "/proc/new.st cannot be written" in capsys.readouterr().err


def test_a_medium_of_high_contrast(files, capsys):
    """A log-normal matrix: trained on the levels that a solve has, and the report says what that gained."""
    k = np.exp(np.random.default_rng(4).standard_normal(SHAPE))
    w, s = conductances(SHAPE, coefficient=k)
    io.save(files / "A.bin", matrix(w, s))
    assert train(files, "--steps", "10", "--learning-rate", "1e-2") == 0
    said = capsys.readouterr().out
    mean, most, rate, solve = (
        [float(number) for number in pair] for pair in re.findall(r"(?:mean|most|factor): ([\d.]+) > ([\d.]+)", said)
    )
    assert mean[1] <= mean[0] <= most[0] and rate[1] < rate[0] and min(solve) > 0
    assert re.search(r"after \d+ s of training", said)
    for model, iterations in ((files / "start.safetensors", mean[0]), (files / "new.st", mean[1])):
        assert held_out_mean(files / "A.bin", model) == iterations


def held_out_mean(file, model):
    """Iterations with the model, the mean over two vectors of noise and their answers, in a solver of its own."""
    A, counts = io.load_matrix(str(file)), []
    for n in range(2):
        b = A.createVecLeft()
        b.setArray(np.random.default_rng(1000 + n).standard_normal(b.getSize()))
        for _ in range(2):
            ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_model=str(model), pc_dcdm_grid="96,80", pc_dcdm_net="none")
            counts.append(ksp.getIterationNumber())
            b = x
    return np.mean(counts)


def test_what_a_solve_leaves_at_once_is_a_sentence(files, capsys):
    """Noise of deviation 3 in 3D: parts of cells from the finest level on, in which the network has no part."""
    shape = (16, 16, 16)
    w, s = conductances(shape, coefficient=np.exp(3.0 * np.random.default_rng(4).standard_normal(shape)))
    io.save(files / "A.bin", matrix(w, s))
    assert main(["train", "multigrid", "--matrix", str(files / "A.bin"), "--out", str(files / "new.st")]) == 2
    assert "a solve leaves the grid at once" in capsys.readouterr().err
    assert not (files / "new.st").exists()
