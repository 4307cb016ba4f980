"""Networks of the user's own: registered ones are read, checked, solved with and trained like those of the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from petsc4py import PETSc
from systems import poisson, relative_residual, right_hand_side, solve

from petsc_dcdm.commands.train import add_train_parser
from petsc_dcdm.grid.layout import Layout, LevelInfo
from petsc_dcdm.network import weights
from petsc_dcdm.network.hierarchy import CoarseSolve, Hierarchy
from petsc_dcdm.network.registry import NETWORKS, Network, register
from petsc_dcdm.network.weights import ModelFile, WeightsError

SHAPE = (10, 12, 14)


class Damped:
    """A toy that learned one number: the residual times it, where anything is active."""

    coarse = None  # it leaves nothing to another solver
    coarse_solve: CoarseSolve

    def __init__(self, file: ModelFile, w: Sequence[np.ndarray], s: np.ndarray, layout: Layout, device: str) -> None:
        self._factor = float(file.tensors["factor"][0])
        self._active = (s > 0) | (w[0] > 0) | (w[1] > 0) | (w[2] > 0)
        count = int(layout.sum(np.array([float(self._active.sum())]))[0])
        self.levels = [LevelInfo(layout.global_shape, layout.offset, layout.shape, (), count)]

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        np.multiply(r, self._active * (self._factor * scale_in * scale_out), out=out)


def check(file: ModelFile) -> None:
    if file.tensors.get("factor", np.zeros(0)).shape != (1,):
        raise WeightsError(f"{file.source}: a network of kind 'damped' has one tensor 'factor' of one number")


@pytest.fixture
def damped() -> Iterator[None]:
    register("damped", Network(hierarchy=Damped, check=check, train="damped_training"))
    yield
    del NETWORKS["damped"]


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    weights.save(path, "damped", (2, 3), tensors, training_domain="none", seed=0, command="none")
    return path


@pytest.mark.parametrize("options", [{}, {"ksp_dcdm_operator": "mat"}, {"pc_dcdm_compile": "off"}])
def test_a_network_of_the_users_own_solves(damped: None, tmp_path: Path, options: dict[str, str]) -> None:
    file = write(tmp_path / "damped.safetensors", {"factor": np.array([0.5], np.float32)})
    A = poisson(SHAPE)
    b = right_hand_side(A)
    ksp, x = solve(A, b, pc_dcdm_model=str(file), pc_dcdm_grid="14,12,10", ksp_rtol=1e-6, **options)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.CONVERGED_RTOL
    assert relative_residual(A, x, b) <= 1e-6
    hierarchy: Hierarchy = ksp.getPC().getPythonContext().hierarchy
    assert isinstance(hierarchy, Damped) and hierarchy.levels[0].unknowns == np.prod(SHAPE)


def test_its_files_are_checked_by_it(damped: None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="one tensor 'factor'"):
        write(tmp_path / "damped.safetensors", {"other": np.zeros(1, np.float32)})


def test_an_unknown_kind_names_those_that_there_are(damped: None) -> None:
    with pytest.raises(WeightsError, match="knows multigrid, cnn, damped"):
        weights.network_of(ModelFile("other", (3,), {}))


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="kind 'cnn' already"):
        register("cnn", Network(hierarchy=Damped))
    assert NETWORKS["cnn"].hierarchy is not Damped


def test_its_training_is_a_command(damped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    module = SimpleNamespace(
        add_arguments=lambda parser: parser.add_argument("--steps", type=int),
        run=lambda options: trained.append(options.steps) or 0,
    )
    monkeypatch.setitem(sys.modules, "damped_training", module)
    parser = argparse.ArgumentParser()
    add_train_parser(parser.add_subparsers())
    options = parser.parse_args(["train", "damped", "--steps", "7"])
    assert options.run(options) == 0 and trained == [7]


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_every_shipped_network_has_what_the_registry_says(kind: str) -> None:
    network = NETWORKS[kind]
    file = weights.load(kind)
    assert file.kind == kind and weights.network_of(file) is network and network.train
    assert not network.levels or file.number("threshold") >= 1
