"""The DCDM loop in torch, for training and validation, and the loss of the paper on the box operator.

Source: Kaneda et al., ICML 2023 (arXiv 2205.10763), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from petsc_dcdm.training.ritz import box_operator

HISTORY = 2
"""Directions that a new one is made A-orthogonal to, as in `petsc_dcdm.KSP`."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of fields (..., nz, ny, nx), as (..., 1, 1, 1)."""
    return (a * b).sum(dim=(-3, -2, -1), keepdim=True)


class Recurrence:
    """Steps of the method with its last directions; fields (..., nz, ny, nx), differentiable.

    Parameters
    ----------
    operator
        A, which must be symmetric and positive definite on what it is given.
    history
        how many of the last directions a new one is made A-orthogonal to.
    """

    def __init__(self, operator: Callable[[Tensor], Tensor], history: int = HISTORY) -> None:
        self._operator, self._history = operator, history
        self._last: list[tuple[Tensor, Tensor, Tensor]] = []  # d, A d, d . A d

    def step(self, r: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """From the residual `r` along the network's direction `d`: what x changes by, and the next residual."""
        for p, ap, pap in self._last:
            d = d - dot(d, ap) / pap * p
        ad = self._operator(d)
        dad = dot(d, ad).clamp_min(torch.finfo(d.dtype).tiny)
        if self._history:
            self._last = [*self._last, (d, ad, dad)][-self._history :]
        alpha = dot(r, d) / dad
        return alpha * d, r - alpha * ad


def paper_loss(r: Tensor, f: Tensor) -> Tensor:
    """Loss of each sample, (batch,): |r - alpha A f|^2 / |r|^2 with the exact line search alpha = r.f / (f.A f).

    `r` and `f` are (batch, 1, n, n, n); A is the box operator. The squared residual is that of the paper for
    |r| = 1.
    """
    a = box_operator(f)
    dims = (1, 2, 3, 4)
    alpha = (r * f).sum(dims) / (f * a).sum(dims)
    rest = (r - alpha[:, None, None, None, None] * a).square().sum(dims)
    return rest / r.square().sum(dims)


def energy_loss(r: Tensor, f: Tensor, start: Tensor) -> Tensor:
    """(batch,): what that step leaves of the squared A-norm of the error, which is `start` = r . A^-1 r before it."""
    dims = (1, 2, 3, 4)
    taken = (r * f).sum(dims).square() / (f * box_operator(f)).sum(dims)
    return (1.0 - taken / start).clamp_min(1e-6)  # rounding of float32


def unit_rms(r: Tensor) -> Tensor:
    """`r` scaled so that each sample has a root mean square of 1: what the network is fed."""
    return r / r.square().mean((1, 2, 3, 4), keepdim=True).sqrt()


def dcdm_history(
    operator: Callable[[Tensor], Tensor],
    direction: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float,
    most: int,
    history: int = HISTORY,
) -> list[float]:
    """Relative residuals |r_k| / |b| of the DCDM loop from x = 0, float64 (n, n, n).

    It ends at `tolerance` or after `most` steps.
    """
    r, norms, loop = b, [1.0], Recurrence(operator, history)
    while norms[-1] > tolerance and len(norms) <= most:
        _, r = loop.step(r, direction(r))
        norms.append(float(r.norm() / b.norm()))
    return norms


class Chain:
    """Residuals on their way through DCDM with m = 2, and their last two directions: (batch, 1, n, n, n).

    Not a `Recurrence`: samples begin again one by one, and everything is normalised and kept between steps of training.
    """

    r: Tensor
    p: Tensor
    ap: Tensor
    older_p: Tensor
    older_ap: Tensor
    _NAMES = ("r", "p", "ap", "older_p", "older_ap")

    def state(self) -> dict[str, Tensor]:
        """The tensors by name; empty before the first step."""
        return {name: getattr(self, name) for name in self._NAMES if hasattr(self, name)}

    def restart(self, samples: list[int], r: Tensor) -> None:
        """Put new residuals in place of those of `samples`, which then have no directions."""
        for name in self._NAMES:
            getattr(self, name)[samples] = r if name == "r" else 0.0

    def advance(self, r: Tensor, f: Tensor) -> None:
        """One DCDM step from `r` along `f`; the residuals that come out are normalised."""
        if not hasattr(self, "p"):
            self.p, self.ap, self.older_p, self.older_ap = (torch.zeros_like(r) for _ in range(4))
        d = f
        for p, ap in ((self.p, self.ap), (self.older_p, self.older_ap)):
            d = d - dot(f, ap) / dot(p, ap).clamp_min(1e-30) * p
        ad = box_operator(d)
        dad = dot(d, ad).clamp_min(1e-30)
        r = r - dot(r, d) / dad * ad
        size = dad.sqrt()
        self.older_p, self.older_ap, self.p, self.ap = self.p, self.ap, d / size, ad / size
        self.r = r / dot(r, r).clamp_min(1e-30).sqrt()


def smooth_rhs(n: int, seed: int) -> Tensor:
    """A smooth right-hand side on n^3 cells, float64: eight Gaussian blobs of random sign and place."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    b = torch.zeros((n, n, n), dtype=torch.float64)
    for _ in range(8):
        place = torch.rand(3, generator=generator, dtype=torch.float64)
        width = 0.08 + 0.12 * float(torch.rand(1, generator=generator))
        one = [torch.exp(-(((x - p) / width) ** 2)) for p in place]
        sign = 1.0 if torch.rand(1, generator=generator) < 0.5 else -1.0
        b += sign * one[0][:, None, None] * one[1][:, None] * one[2]
    return b


def random_rhs(n: int, seed: int) -> Tensor:
    """A right-hand side of independent normal numbers on n^3 cells, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)
