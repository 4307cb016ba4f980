"""Lanczos and the training residuals against what is known exactly of the box operator."""

from __future__ import annotations

import math

import pytest
import torch

from petsc_dcdm.training.ritz import RitzSampler, box_eigenvalues, box_lanczos, box_operator, lanczos


def sine(n: int, k: tuple[int, int, int]) -> torch.Tensor:
    """The exact eigenvector of wave numbers k, normalised."""
    x = torch.arange(1, n + 1, dtype=torch.float64) * math.pi / (n + 1)
    z, y, x = (torch.sin(x * number) for number in k)
    v = z[:, None, None] * y[:, None] * x
    return v / v.norm()


def test_operator_has_the_sines_as_eigenvectors():
    n = 7
    for k in ((1, 1, 1), (2, 1, 5), (7, 7, 7)):
        v = sine(n, k)
        value = sum(2 - 2 * math.cos(math.pi * i / (n + 1)) for i in k)
        assert torch.allclose(box_operator(v), value * v, atol=1e-13)


def test_operator_keeps_samples_of_a_batch_apart():
    x = torch.randn(3, 1, 4, 5, 6, dtype=torch.float64)
    assert torch.equal(box_operator(x)[1, 0], box_operator(x[1, 0]))


def test_basis_is_orthonormal_and_reproduces_the_operator():
    run = box_lanczos(10, 150, seed=0, dtype=torch.float64)
    v = run.basis
    assert (v @ v.T - torch.eye(len(v), dtype=torch.float64)).abs().max() < 1e-12
    av = box_operator(v.view(-1, 10, 10, 10)).flatten(1)
    t = torch.diag(run.alpha) + torch.diag(run.beta, 1) + torch.diag(run.beta, -1)
    assert (v @ av.T - t).abs().max() < 1e-10


def test_extreme_ritz_pairs_are_exact_eigenpairs():
    n = 16
    run = box_lanczos(n, 160, seed=1, dtype=torch.float64)
    values, _ = run.ritz()
    exact = box_eigenvalues(n)
    assert values[0] == pytest.approx(float(exact[0]), rel=1e-10)
    assert values[-1] == pytest.approx(float(exact[-1]), rel=1e-10)
    assert abs(float(run.vectors(0, 1)[0] @ sine(n, (1, 1, 1)).flatten())) == pytest.approx(1.0, abs=1e-8)
    assert abs(float(run.vectors(159, 160)[0] @ sine(n, (n, n, n)).flatten())) == pytest.approx(1.0, abs=1e-8)


def test_second_ritz_vector_lies_in_the_span_of_its_three_sines():
    n = 12
    v = box_lanczos(n, 60, seed=2, dtype=torch.float64).vectors(1, 2)[0]
    inside = sum(float(v @ sine(n, k).flatten()) ** 2 for k in ((1, 1, 2), (1, 2, 1), (2, 1, 1)))
    assert inside == pytest.approx(1.0, abs=1e-8)


def test_full_lanczos_finds_every_eigenvalue_of_a_small_operator():
    d = torch.linspace(1.0, 3.0, 30, dtype=torch.float64)
    run = lanczos(lambda x: d * x, torch.ones(30, dtype=torch.float64), 40)
    assert torch.allclose(run.ritz()[0], d, atol=1e-10)


def test_stops_at_an_invariant_subspace():
    d = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 5.0], dtype=torch.float64)
    run = lanczos(lambda x: d * x, torch.ones(6, dtype=torch.float64), 6)
    assert torch.allclose(run.ritz()[0], torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def run16():
    return box_lanczos(16, 200, seed=0)


def test_residuals_are_normalised_and_reproducible(run16):
    sampler = RitzSampler(run16, 16)
    r = sampler.batch(3, 5)
    assert r.shape == (3, 1, 16, 16, 16) and r.dtype == torch.float32
    assert torch.allclose(r.flatten(1).norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.equal(r, sampler.batch(3, 5))
    assert not torch.equal(r, sampler.batch(3, 6))


@pytest.mark.parametrize("low", [9.0, 1.0])
def test_energy_is_split_over_the_spectrum_as_in_the_paper(run16, low):
    m, cut = 200, 110
    energy = torch.zeros(m)
    sampler = RitzSampler(run16, 16, low)
    q = run16.ritz()[1].float()
    for seed in range(40):
        # a mirrored and transposed sample is made of other Ritz vectors: compare those that are left as they
        # are
        generator = torch.Generator().manual_seed(seed)
        c = torch.randn((m, 4), generator=generator)
        deviation = torch.ones(m)
        deviation[:cut] = low
        want = (run16.basis.T @ (q @ (deviation[:, None] * c))).T.reshape(4, 16, 16, 16)
        want = want / want.flatten(1).norm(dim=1)[:, None, None, None]
        got = sampler.batch(4, seed)[:, 0]
        assert torch.allclose(got.abs().sum((1, 2, 3)), want.abs().sum((1, 2, 3)), rtol=1e-4)
        energy += (deviation[:, None] * c).square().sum(1)
    expected = low**2 * cut / (low**2 * cut + (m - cut))
    assert float(energy[:cut].sum() / energy.sum()) == pytest.approx(expected, abs=0.03)
