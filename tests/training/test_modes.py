"""Exact modes in place of Ritz vectors: the transform, the shares, and the spectrum against a Lanczos run."""

from __future__ import annotations

import pytest
import torch

from petsc_dcdm.training.dcdm import energy_loss
from petsc_dcdm.training.modes import ModeSampler, error_energy, ritz_share, sine_transform
from petsc_dcdm.training.ritz import RitzSampler, box_eigenvalues, box_lanczos, box_operator, mode_eigenvalues


def spectrum(r: torch.Tensor) -> torch.Tensor:
    """Squared components of (batch, 1, n, n, n) along the modes, mean over the batch."""
    sines = sine_transform(r.shape[-1])
    for axis in (2, 3, 4):
        r = (r.double().transpose(axis, -1) @ sines).transpose(axis, -1)
    return r[:, 0].square().mean(0)


def test_modes_are_the_eigenvectors():
    n = 6
    sines, values = sine_transform(n), mode_eigenvalues(n)
    assert torch.allclose(sines @ sines, torch.eye(n, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(values.flatten().sort().values, box_eigenvalues(n))
    for k in ((0, 0, 0), (2, 0, 5)):
        v = sines[k[0]][:, None, None] * sines[k[1]][:, None] * sines[k[2]]
        assert torch.allclose(box_operator(v), values[k] * v, atol=1e-13)


@pytest.mark.parametrize("m", [50, 1000, 3000])
def test_as_many_vectors_as_asked_and_no_mode_more_than_once(m):
    share, cut = ritz_share(16, m)
    assert float(share.sum()) == pytest.approx(m)
    assert 0.0 < float(share.min()) and float(share.max()) <= 1.0 + 1e-12
    assert 6.0 < cut < 8.0


def test_more_vectors_than_modes_are_white_noise():
    share, _ = ritz_share(8, 10**6)
    assert torch.allclose(share, torch.ones_like(share))


def test_residuals_are_normalised_and_reproducible():
    sampler = ModeSampler(12, 300)
    r = sampler.batch(3, 5)
    assert r.shape == (3, 1, 12, 12, 12) and r.dtype == torch.float32 and r.is_contiguous()
    assert torch.allclose(r.flatten(1).norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.equal(r, sampler.batch(3, 5)) and not torch.equal(r, sampler.batch(3, 6))


@pytest.mark.parametrize("low", [9.0, 3.0, 1.0])
@pytest.mark.parametrize(("n", "m"), [(16, 200), (24, 300)])
def test_the_spectrum_is_that_of_lanczos(n, m, low):
    """Energy over the eigenvalues in twelve parts, the lowest mode too, against combinations of Ritz vectors."""
    index = mode_eigenvalues(n).floor().long().clamp_max(11).flatten()
    found = []
    for sampler in (RitzSampler(box_lanczos(n, m, seed=0), n, low), ModeSampler(n, m, low)):
        energy = sum(spectrum(sampler.batch(8, seed)) for seed in range(20)) / 20
        found.append((torch.bincount(index, energy.flatten(), minlength=12), float(energy[0, 0, 0])))
    (lanczos, lanczos_first), (modes, modes_first) = found
    assert float((lanczos - modes).abs().sum()) < 0.12
    assert torch.allclose(lanczos, modes, rtol=0.35, atol=0.003)
    assert modes_first == pytest.approx(lanczos_first, rel=0.6)


def test_energy_is_that_of_the_error():
    n = 5
    error, f = torch.randn(2, 3, 1, n, n, n, dtype=torch.float64).unbind(0)
    r = box_operator(error)
    start = (error * r).sum((1, 2, 3, 4))
    assert torch.allclose(error_energy(r), start)
    alpha = ((r * f).sum((1, 2, 3, 4)) / (f * box_operator(f)).sum((1, 2, 3, 4))).view(-1, 1, 1, 1, 1)
    left = error - alpha * f
    want = (left * box_operator(left)).sum((1, 2, 3, 4)) / start
    assert torch.allclose(energy_loss(r, f, start), want)
