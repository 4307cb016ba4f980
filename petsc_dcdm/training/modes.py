"""Training residuals of the paper at any resolution: from the exact modes of the box, without a Lanczos basis.

A Ritz vector at an interior Ritz value is a random mixture of the eigenvectors in a narrow band around it, so a
random combination of Ritz vectors is one of eigenvectors, whose variance is that of the coefficients times the
number of Ritz values in a band over the number of eigenvalues there. Eigenvectors of the box are products of sines:
white noise, times the root of that variance, through a sine transform along each axis. Nothing is stored but a
number for each mode, and every mode of the grid takes part, where a basis that fits into memory holds few of 64^3.

How Ritz values are distributed: Kuijlaars, "Which eigenvalues are found by the Lanczos method?", SIAM J. Matrix
Anal. Appl. 22 (2000). Where eigenvalues are dense they have the arcsine density of the interval; where that would be
more than there are, as at both ends, each is found once. (A multiple eigenvalue has one Ritz value in exact
arithmetic; rounding brings in the others soon after the first has converged.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from petsc_dcdm.training.ritz import THETA_FRACTION, mode_eigenvalues


def sine_transform(n: int) -> Tensor:
    """The orthogonal, symmetric matrix (n, n), float64, whose rows are the eigenvectors along an axis."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return (2.0 / (n + 1)) ** 0.5 * torch.sin(torch.pi / (n + 1) * k[:, None] * k)


def ritz_share(n: int, m: int) -> tuple[Tensor, float]:
    """What m Ritz vectors hold of each mode, and the m/2 + theta lowest of them.

    Returns:
        share: (n, n, n), float64: the expected sum over the Ritz vectors of their squared component along a mode.
        cut: the value below which the first m/2 + theta Ritz values lie.
    """
    values = mode_eigenvalues(n)
    angle = torch.acos((1.0 - values / 6.0).clamp(-1.0, 1.0))  # the arcsine density is flat in this angle
    bins = 4 * n
    index = (angle * (bins / torch.pi)).long().clamp_max(bins - 1)
    modes = torch.bincount(index.flatten(), minlength=bins).double()
    low, high = 0.0, 1e3 * m
    for _ in range(100):  # where the density is cut off at the ends, the middle gets what is left
        each = 0.5 * (low + high)
        low, high = (each, high) if float(modes.clamp_max(each).sum()) < m else (low, each)
    found = modes.clamp_max(0.5 * (low + high))
    below = found.cumsum(0)
    cut = int((below < (0.5 + THETA_FRACTION) * below[-1]).sum()) + 1
    share = torch.where(modes > 0, found / modes.clamp_min(1.0), 0.0)[index]
    return share, float(6.0 - 6.0 * torch.cos(torch.tensor(torch.pi * cut / bins, dtype=torch.float64)))


def error_energy(r: Tensor) -> Tensor:
    """r . A^-1 r of each sample of (batch, 1, n, n, n): the squared A-norm of the error that leaves r. (batch,)"""
    n = r.shape[-1]
    c = _transformed(r[:, 0], sine_transform(n).to(r))
    return (c.square() / mode_eigenvalues(n).to(r)).sum((1, 2, 3))


def _transformed(a: Tensor, sines: Tensor) -> Tensor:
    """The sine transform of (batch, n, n, n) along each axis; it is its own inverse."""
    for _ in range(3):  # each turn transforms the last axis and makes it the first
        a = (a @ sines).permute(0, 3, 1, 2)
    return a


class ModeSampler:
    """Makes batches of normalised training residuals, as `ritz.RitzSampler` does.

    Parameters
    ----------
    n
        cells along an axis.
    m
        number of Ritz vectors that the residuals are to be made of, 10,000 in the paper. With as many as there
        are modes or more, the spectrum is flat on each side of the cut.
    low
        standard deviation of the coefficients of the first m/2 + theta Ritz vectors, 1 for the others.
    """

    def __init__(self, n: int, m: int, low: float = 9.0) -> None:
        share, cut = ritz_share(n, m)
        deviation = torch.where(mode_eigenvalues(n) < cut, low, 1.0)
        self._weight = (deviation * share.sqrt()).float()
        self._sines = sine_transform(n).float()

    def batch(self, size: int, seed: int) -> Tensor:
        """Residuals (size, 1, n, n, n) of norm 1, float32; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        r = self._weight * torch.randn((size, *self._weight.shape), generator=generator)
        r = _transformed(r, self._sines)
        return (r / r.flatten(1).norm(dim=1)[:, None, None, None])[:, None].contiguous()
