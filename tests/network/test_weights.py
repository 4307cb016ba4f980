"""Weights files: what is written comes back, what is wrong is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import petsc_dcdm
from petsc_dcdm.network import weights
from petsc_dcdm.network.initial import HYPER, chebyshev_weights, initial_tensors


def write(path, **changes):
    arguments = {
        "kind": "multigrid",
        "dims": (2, 3),
        "tensors": initial_tensors(4, 16, 0),
        "training_domain": "boxes",
        "seed": 7,
        "command": "petsc-dcdm train multigrid --seed 7",
        "hyper": HYPER,
    }
    arguments.update(changes)
    weights.save(path, **arguments)
    return path


def test_round_trip(tmp_path):
    tensors = initial_tensors(4, 16, 3)
    file = weights.load(write(tmp_path / "a.safetensors", tensors=tensors))
    assert (file.kind, file.dims) == ("multigrid", (2, 3))
    assert file.meta["seed"] == "7" and file.meta["package_version"] == petsc_dcdm.__version__
    assert file.number("steps") == 4 and file.number("threshold") == HYPER["threshold"]
    assert sorted(file.tensors) == sorted(tensors)
    for name, a in tensors.items():
        np.testing.assert_array_equal(file.tensors[name], a)


@pytest.mark.parametrize("dims, given", [((2, 3), 2), ((3,), 3)])
def test_dimension_served(tmp_path, dims, given):
    weights.load(write(tmp_path / "a.safetensors", dims=dims)).require_dimension(given)


def test_other_dimension_is_refused(tmp_path):
    with pytest.raises(weights.WeightsError, match="serve 3D grids but the grid is 2D"):
        weights.load(write(tmp_path / "a.safetensors", dims=(3,))).require_dimension(2)


def test_shipped_multigrid_serves_both():
    file = weights.load("multigrid")
    file.require_dimension(2)
    file.require_dimension(3)
    assert file.meta["command"].startswith("petsc-dcdm train multigrid")
    assert petsc_dcdm.load_model("multigrid").meta == file.meta


def test_missing_file():
    with pytest.raises(weights.WeightsError, match=r"nowhere\.safetensors: no such weights file"):
        weights.load("nowhere.safetensors")


def test_not_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x80\x04pickle, or anything else")
    with pytest.raises(weights.WeightsError, match="not a readable safetensors file"):
        weights.load(path)


def test_truncated(tmp_path):
    path = write(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(weights.WeightsError, match="not a readable safetensors file"):
        weights.load(path)


def test_flipped_bit(tmp_path):
    path = write(tmp_path / "a.safetensors")
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(weights.WeightsError, match="it is damaged"):
        weights.load(path)


def test_another_digit_of_a_hyper_parameter(tmp_path):
    """Also of one that no check of the network would find odd."""
    path = write(tmp_path / "a.safetensors")
    data = path.read_bytes()
    digit = f'"threshold":"{HYPER["threshold"]}'.encode()
    assert data.count(digit) == 1
    path.write_bytes(data.replace(digit, digit[:-1] + b"7"))
    with pytest.raises(weights.WeightsError, match="the metadata hash to .*; it is damaged"):
        weights.load(path)


def test_file_of_another_program(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, str(path))
    with pytest.raises(weights.WeightsError, match="metadata lacks kind"):
        weights.load(path)


def test_unknown_kind(tmp_path):
    with pytest.raises(weights.WeightsError, match="unknown kind of network 'gnn'"):
        write(tmp_path / "a.safetensors", kind="gnn")


def test_wrong_shape_and_missing_tensor(tmp_path):
    tensors = initial_tensors(5, 16, 0)
    with pytest.raises(weights.WeightsError, match=r"'out.weight' is float32 of shape \(9, 16\), expected"):
        write(tmp_path / "a.safetensors", tensors=tensors)
    del tensors["conv.weight"]
    with pytest.raises(weights.WeightsError, match="'conv.weight' is missing"):
        write(tmp_path / "a.safetensors", tensors=tensors)


def test_not_finite(tmp_path):
    tensors = initial_tensors(4, 16, 0)
    tensors["log_c"][0] = np.nan
    with pytest.raises(weights.WeightsError, match="NaN or infinity"):
        write(tmp_path / "a.safetensors", tensors=tensors)


def test_hyper_parameter_missing(tmp_path):
    with pytest.raises(weights.WeightsError, match="no hyper-parameter 'steps'"):
        write(tmp_path / "a.safetensors", hyper={})


def test_chebyshev_weights_equioscillate():
    """The damping polynomial is as small as possible on the interval: equal extremes at its ends."""
    low, high = 0.35, 1.95
    om = chebyshev_weights(2, (low, high))
    at = np.array([low, (low + high) / 2, high])
    values = np.prod(1 - om[:, None] * at, axis=0)
    np.testing.assert_allclose(values, [values[0], -values[0], values[0]])


def test_reading_needs_no_torch():
    load = "from petsc_dcdm.network import weights; weights.load('multigrid')"
    code = f"import sys; {load}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
