"""What training minimises: the residual after a few steps of the DCDM loop, unrolled through a cycle. torch only.

The paper's own loss is one step of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from petsc_dcdm.network.fields import Exchange, Operator, low, no_exchange
from petsc_dcdm.network.multigrid import apply_operator
from petsc_dcdm.training.dcdm import Recurrence, dot


def unrolled_loss(
    op: Operator,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    steps: int,
    exchange: Exchange = no_exchange,
) -> torch.Tensor:
    """Mean over the batch of log(|r_steps| / |b|) / steps: the logarithm of the mean convergence factor."""
    r, loop = b / dot(b, b).sqrt(), Recurrence(lambda d: apply_operator(op, d, exchange))
    for _ in range(steps):
        _, r = loop.step(r, precondition(r))
    return 0.5 * torch.log(dot(r, r).clamp_min(torch.finfo(b.dtype).tiny)).mean() / steps


def dense(op: Operator) -> torch.Tensor:
    """The operator as a float64 matrix [n, n] over its active cells in natural order. Differentiable."""
    index = torch.full(op.shape, -1, dtype=torch.long)
    cells = op.active > 0
    count = int(cells.sum())
    index[cells] = torch.arange(count)
    matrix = torch.diag(op.d[cells].double())
    for a in range(3):
        w, i = low(op.faces[a], a), index.roll(1, 2 - a)
        face = (w > 0) & (i >= 0) & (index >= 0)
        value, pair = -w[face].double(), (i[face], index[face])
        matrix = matrix.index_put(pair, value, accumulate=True).index_put(pair[::-1], value, accumulate=True)
    return matrix


def exact_solver(op: Operator, closed: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Differentiable exact solve of a small operator for r [B, nz, ny, nx], by dense Cholesky in float64.

    `closed`: constants are the null space; the right-hand side and the solution are freed of them.
    """
    cells = op.active > 0
    matrix = dense(op)
    count = matrix.shape[0]
    if closed:  # shifts the eigenvalue of the constant vector, and that alone
        matrix = matrix + matrix.diagonal().mean().detach() / count
    factor = torch.linalg.cholesky(matrix)

    def solve(r: torch.Tensor) -> torch.Tensor:
        rhs = r[:, cells].double()
        if closed:
            rhs = rhs - rhs.mean(dim=1, keepdim=True)
        x = torch.cholesky_solve(rhs.T, factor).T
        out = torch.zeros_like(r)
        return out.masked_scatter(cells.expand_as(r), x.to(r.dtype))

    return solve
