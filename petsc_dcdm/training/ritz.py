"""Training residuals of the paper: random combinations of Ritz vectors of the box operator.

The operator is the 7-point Laplacian of a box of n^3 cells whose value is zero one cell outside: diagonal 6
everywhere, -1 for each neighbour. Lanczos with full re-orthogonalisation from a random vector gives m Ritz
pairs; a residual is a combination whose coefficients have a standard deviation of 9 for the first m/2 + theta
Ritz vectors (lowest values first) and 1 for the others, normalised. The paper takes m = 10,000 and theta =
500; theta scales with m here.

The Ritz vectors Y = V Q are never formed: V (m basis vectors) is kept and Q applied to the coefficients,
which costs m^2 instead of m * n^3 numbers. The box is unchanged by mirroring and by exchanging axes, so a
residual that is mirrored and transposed is one of another start vector: `RitzSampler` uses all 48 of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

#: theta / m of the paper.
THETA_FRACTION = 0.05
_PERMUTATIONS = list(permutations((1, 2, 3)))


def box_operator(x: Tensor) -> Tensor:
    """A x for the box with Dirichlet walls; the last three dimensions are the grid."""
    p = F.pad(x, (1, 1, 1, 1, 1, 1))
    c = slice(1, -1)
    y = 6.0 * x
    y -= p[..., 2:, c, c] + p[..., :-2, c, c]
    y -= p[..., c, 2:, c] + p[..., c, :-2, c]
    y -= p[..., c, c, 2:] + p[..., c, c, :-2]
    return y


def mode_eigenvalues(n: int) -> Tensor:
    """Eigenvalue of each mode of the box operator, (n, n, n), float64, by its wave numbers less one."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    one = 2.0 - 2.0 * torch.cos(torch.pi * k / (n + 1))
    return one[:, None, None] + one[:, None] + one


def box_eigenvalues(n: int) -> Tensor:
    """The n^3 exact eigenvalues of the box operator, ascending, float64."""
    return mode_eigenvalues(n).flatten().sort().values


@dataclass
class Lanczos:
    """m steps of Lanczos: T is tridiagonal with `alpha` (m) and `beta` (m - 1), the rows of `basis` are V."""

    alpha: Tensor
    beta: Tensor
    basis: Tensor

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values (m, ascending, float64) and Q (m, m): the Ritz vectors in terms of the basis."""
        t = torch.diag(self.alpha) + torch.diag(self.beta, 1) + torch.diag(self.beta, -1)
        values, q = torch.linalg.eigh(t)
        return values, q

    def vectors(self, first: int, last: int) -> Tensor:
        """Ritz vectors `first` to `last` (exclusive) as rows, in the precision of the basis."""
        return self.ritz()[1][:, first:last].T.to(self.basis.dtype) @ self.basis


def lanczos(apply: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Lanczos:
    """Lanczos with full re-orthogonalisation.

    Parameters
    ----------
    apply
        the symmetric operator, on tensors of the shape of `start`.
    start
        start vector of any shape; its dtype and device are those of the basis.
    steps
        m. Fewer are made when an invariant subspace is found, e.g. because m exceeds the number of
        distinct eigenvalues.

    Source: Golub and Van Loan, Matrix Computations, section 10.3. One pass against all earlier vectors
        follows the three-term recurrence, which is the second pass that orthogonality to rounding needs.
    """
    n = start.numel()
    steps = min(steps, n)
    basis = torch.empty((steps, n), dtype=start.dtype, device=start.device)
    alpha = torch.zeros(steps, dtype=torch.float64)
    beta = torch.zeros(steps, dtype=torch.float64)
    tiny = 100.0 * torch.finfo(start.dtype).eps
    basis[0] = start.flatten() / start.norm()
    for j in range(steps):
        v = basis[j]
        u = apply(v.view(start.shape)).flatten()
        alpha[j] = float(u @ v)
        size = float(u.norm())
        u = u - alpha[j].item() * v
        if j:
            u -= beta[j - 1].item() * basis[j - 1]
        u -= basis[: j + 1].T @ (basis[: j + 1] @ u)
        beta[j] = float(u.norm())
        if j + 1 == steps:
            break
        if beta[j] < tiny * size:
            steps = j + 1
            break
        basis[j + 1] = u / beta[j].item()
    return Lanczos(alpha[:steps].clone(), beta[: steps - 1].clone(), basis[:steps])


def box_lanczos(n: int, steps: int, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Lanczos:
    """Lanczos on the box of n^3 cells from A times a normal vector, as the authors start it."""
    generator = torch.Generator().manual_seed(seed)
    start = box_operator(torch.randn((n, n, n), generator=generator, dtype=torch.float64))
    return lanczos(box_operator, start.to(device, dtype), steps)


class RitzSampler:
    """Makes batches of normalised training residuals.

    Parameters
    ----------
    run
        the Lanczos basis of the box.
    n
        cells along an axis.
    low
        standard deviation of the coefficients of the first m/2 + theta Ritz vectors: 9 in the paper, 1
        for none of its bias towards low frequencies.
    """

    def __init__(self, run: Lanczos, n: int, low: float = 9.0) -> None:
        values, q = run.ritz()
        m = len(values)
        deviation = torch.ones(m, dtype=torch.float64)
        deviation[: m // 2 + round(THETA_FRACTION * m)] = low
        self._mix = (q * deviation).to(torch.float32)
        self._basis = run.basis
        self._n = n

    def batch(self, size: int, seed: int) -> Tensor:
        """Residuals (size, 1, n, n, n) of norm 1, float32; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        c = self._mix @ torch.randn((self._mix.shape[1], size), generator=generator)
        flat = c.T.to(self._basis.device, self._basis.dtype) @ self._basis
        r = flat.float().view(size, self._n, self._n, self._n)
        axes = _PERMUTATIONS[int(torch.randint(len(_PERMUTATIONS), (1,), generator=generator))]
        mirrored = torch.randint(2, (3,), generator=generator)
        r = r.permute(0, *axes).flip([a + 1 for a in range(3) if mirrored[a]]).contiguous()
        return (r / r.flatten(1).norm(dim=1)[:, None, None, None])[:, None]
