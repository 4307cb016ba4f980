"""The local Fourier analysis of the cycle against the same cycle as dense matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from petsc_dcdm.studies.fourier import UniformMedium, main


def joined(n: int) -> np.ndarray:
    """The second difference on n cells whose ends are joined with a change of sign."""
    a = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    a[0, -1] = a[-1, 0] = 1.0
    return a


@pytest.mark.parametrize(("omega", "gamma"), [([2 / 3] * 2, 0.5), ([0.6, 1.5], 0.55), ([0.5, 0.8, 1.5, 2.1], 0.5)])
def test_condition_is_that_of_dense_matrices(omega, gamma):
    count = 2
    n = 4 * count
    a = np.kron(joined(n), np.eye(n)) + np.kron(np.eye(n), joined(n))
    sums = np.kron(*[np.repeat(np.eye(n // 2), 2, axis=1)] * 2)
    coarse = 2 * gamma * (np.kron(joined(n // 2), np.eye(n // 2)) + np.kron(np.eye(n // 2), joined(n // 2)))
    identity = np.eye(n * n)
    smooth = identity
    for weight in omega:
        smooth = smooth @ (identity - weight / 4 * a)
    error = smooth @ (identity - sums.T @ np.linalg.solve(coarse, sums @ a)) @ smooth
    values = 1 - np.linalg.eigvals(error).real
    condition = float(UniformMedium(2, count).condition(torch.tensor(omega, dtype=torch.float64), torch.tensor(gamma)))
    assert condition == pytest.approx(values.max() / values.min(), rel=1e-8)


def test_a_cycle_that_diverges_has_no_condition():
    assert math.isinf(float(UniformMedium(2, 4).condition(torch.tensor([3.0]).double(), torch.tensor(0.5))))


def test_search_beats_chebyshev_but_not_by_much(capsys):
    medium = UniformMedium(2, 3)
    found, chebyshev = medium.gain(*medium.best(2)), medium.chebyshev_gain(2)
    assert chebyshev**1.6 < found < chebyshev
    assert main(["--dim", "2", "--steps", "1"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
