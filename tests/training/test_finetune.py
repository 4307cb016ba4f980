"""Fine-tuning on matrices of one's own: it helps or says that it did not, and pieces are parts of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from systems import conductances, matrix, random_solids

from petsc_dcdm.cli import main
from petsc_dcdm.network import weights
from petsc_dcdm.network.initial import HYPER, initial_tensors
from petsc_dcdm.poisson import io
from petsc_dcdm.training.domains import finish
from petsc_dcdm.training.finetune import piece, pieces

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


def test_a_piece_is_part_of_the_operator():
    shape = (12, 14, 10)
    w, s = conductances(shape)
    rng = np.random.default_rng(3)
    whole = finish(tuple(face * rng.uniform(0.5, 2.0, shape) for face in w), s)
    part = piece(whole, (2, 3, 1), (8, 8, 9))
    box = np.s_[2:10, 3:11, 1:10]
    d = whole.diagonal()[box]
    np.testing.assert_allclose(part.diagonal(), d / d.max(), rtol=1e-5)
    assert piece(whole, (0, 0, 0), shape).closed == whole.closed


def test_systems_without_a_second_level_are_a_sentence():
    """They are solved exactly at once: nothing in the loss depends on the network."""
    w, s = conductances((1, 24, 24))
    with pytest.raises(ValueError, match="no level for the network"):
        pieces([finish(w, s)])(np.random.default_rng(0))
