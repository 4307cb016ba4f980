"""The coarsest system on the device: small ones as a dense inverse, one product inside the graph of a step."""

from __future__ import annotations

import math

import numpy as np
import torch

from petsc_dcdm.grid.layout import CoarseOperator

DENSE_LIMIT = 6000
"""Unknowns up to which the inverse is kept: 144 MB, read once a visit, a twentieth of what a cycle moves where the
coarsest level is that large."""


def shift(global_shape: tuple[int, int, int]) -> float:
    """By what part the diagonal is raised, as in the PETSc solver of the coarsest level: a thousandth of a lower bound
    of the smallest eigenvalue of an open box of this size. Regions without any Dirichlet coupling stay definite.
    """
    return 1e-3 * (math.pi / (2 * max(global_shape))) ** 2 / 6


class DenseInverse:
    """The inverse of a coarsest operator that lies on one rank.

    Attributes
    ----------
    cell
        int32: places of the active cells in the arrays of the level
    matrix
        float32 (n, pitch), one row for each of them
    """

    def __init__(self, operator: CoarseOperator, periodic: tuple[bool, bool, bool], device: torch.device) -> None:
        if device.type == "meta":
            n = operator.s.size
            self.cell, a = (torch.zeros(shape, device=device) for shape in ((n,), (n, n)))
        else:
            a = self._matrix(operator, periodic, device)
            n = a.shape[0]
            a = torch.cholesky_inverse(torch.linalg.cholesky(a)) if n else a
        self.cell = self.cell.to(torch.int32)
        self.pitch = -(-max(n, 1) // 32) * 32
        self.matrix = torch.zeros((max(n, 1), self.pitch), dtype=torch.float32, device=device)
        self.matrix[:n, :n] = a

    def _matrix(
        self, operator: CoarseOperator, periodic: tuple[bool, bool, bool], device: torch.device
    ) -> torch.Tensor:
        """Of the active cells, which are found on the way; float64."""
        w = [torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in operator.w]
        s = torch.from_numpy(np.ascontiguousarray(operator.s)).to(device)
        cells = torch.arange(s.numel(), device=device).view(s.shape)
        d, pairs = s.clone(), []
        for axis, face in enumerate(w):
            dim = 2 - axis
            if not periodic[dim] or s.shape[dim] == 1:  # the low faces of the first cells are no faces
                face = face.clone()
                face.narrow(dim, 0, min(1, s.shape[dim])).zero_()
            d += face + torch.roll(face, -1, dim)
            pairs.append((cells.flatten(), torch.roll(cells, 1, dim).flatten(), face.flatten()))
        active = (d > 0).flatten()
        self.cell = active.nonzero().flatten()
        n = self.cell.numel()
        number = torch.cumsum(active, 0) - 1
        a = torch.zeros((n, n), dtype=torch.float64, device=device)
        for here, there, value in pairs:
            some = value != 0
            i, j = number[here[some]], number[there[some]]
            for rows, columns in ((i, j), (j, i)):
                a.index_put_((rows, columns), -value[some], accumulate=True)
        a.diagonal().add_(d.flatten()[active] * (1.0 + shift(operator.global_shape)))
        return a
