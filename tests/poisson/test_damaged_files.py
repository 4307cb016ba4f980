"""Files that something has happened to: a sentence, or what is read is whole; and no false claim of what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from damage import damaged
from petsc4py import PETSc
from systems import poisson

from petsc_dcdm.grid.errors import UnsupportedSystem
from petsc_dcdm.network import weights
from petsc_dcdm.poisson import io

RTOL = 1e-8


@pytest.mark.parametrize("name", ["multigrid", "cnn"])
def test_weights(name: str, tmp_path: Path) -> None:
    """Whatever is read has the tensors and the hyper-parameters that were written; the hashes tell."""
    whole = weights.load(name)
    content, path, refused = weights.shipped(name).read_bytes(), tmp_path / "w", 0
    for seed in range(100):
        path.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            found = weights.load(path)
        except weights.WeightsError as error:
            assert str(error).startswith(f"{path}: "), error
            refused += 1
            continue
        assert found.kind == name and found.dims == whole.dims and found.meta == whole.meta
        assert found.tensors.keys() == whole.tensors.keys()
        assert all(np.array_equal(found.tensors[key], whole.tensors[key]) for key in whole.tensors)
    assert refused > 90


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_matrices(tmp_path: Path) -> None:
    """Refused as a file, refused as a system, not converged, or solved: b - A x is computed in numpy."""
    A, path = poisson((1, 6, 7)), tmp_path / "A"
    A.zeroRows([3], 2.0)
    io.save(path, A)
    content, ended = path.read_bytes(), {"file": 0, "system": 0, "diverged": 0, "converged": 0}
    for seed in range(250):
        path.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            found = io.load_matrix(path)
        except io.FileError as error:
            assert str(error).startswith(str(path)), error
            ended["file"] += 1
            continue
        if found.getSize() == A.getSize():
            ended[solved(found, seed)] += 1
        found.destroy()
    assert ended["file"] > 100 and ended["system"] > 20 and ended["converged"] > 10, ended


def solved(A: PETSc.Mat, seed: int) -> str:
    """How a solve with it ended."""
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOptionsPrefix("damaged_")
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=RTOL, max_it=50)
    x, b = A.createVecs()
    b.setArray(np.random.default_rng(seed).standard_normal(A.getSize()[0]))
    database = PETSc.Options("damaged_")
    database["pc_dcdm_grid"] = "7,6"
    try:
        ksp.setFromOptions()
        ksp.solve(b, x)
    except (UnsupportedSystem, PETSc.Error) as error:
        cause = error.__cause__ or error
        assert isinstance(cause, UnsupportedSystem), repr(cause)
        return "system"
    finally:
        database.delValue("pc_dcdm_grid")
        reason = ksp.getConvergedReason()
        ksp.destroy()
    if reason <= 0:
        return "diverged"
    dense = np.zeros(A.getSize())
    for row in range(A.getSize()[0]):
        columns, values = A.getRow(row)
        dense[row, columns] = values
    left = b.getArray() - dense @ x.getArray()
    noise = 1e-14 * (np.abs(dense) @ np.abs(x.getArray()))
    assert np.linalg.norm(left) <= 1.01 * RTOL * b.norm() + np.linalg.norm(noise), seed
    return "converged"
