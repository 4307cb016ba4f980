"""What is right for a linear system, from its matrix alone: NumPy and SciPy, direct solves, no solver under test.

The rows fall into three kinds: decoupled ones (only a diagonal), held ones (a penalty on the diagonal), and the others,
which are what there is to solve: what is left of b for them is ``rest``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from truth_cases import System

EPS = float(np.finfo(float).eps)
ROUNDING = 50 * EPS
SLACK = 1.01
"""What a claimed residual may be above the tolerance."""


def rounding(A: sp.csr_matrix, x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By row, what b - A x may be although it is 0."""
    return ROUNDING * (abs(A) @ abs(x) + abs(b))


def free_of(vectors: list[np.ndarray], b: np.ndarray) -> np.ndarray:
    for vector in vectors:
        b = b - vector * (vector @ b)
    return b


def is_null_space(A: sp.csr_matrix, vectors: list[np.ndarray]) -> bool | None:
    """|A n| <= 1e-8 |D| max |n| in every row, however small its diagonal; None where it is too close to call: a claim
    then has no one right-hand side to be judged by.
    """
    D = np.maximum(abs(A.diagonal()), 1e-300)
    ratio = max(float((abs(A @ v) / D).max() / max(abs(v).max(), 1e-300)) for v in vectors)
    return None if 5e-9 < ratio < 2e-8 else ratio <= 1e-8


@dataclass
class Truth:
    """Of a system with a right-hand side."""

    b: np.ndarray
    """The user's, freed of an attached null space if that is one."""
    null_space: bool | None
    """Whether what is attached is one."""
    solution: np.ndarray | None
    """None where the matrix is singular or rounding blurs whether it is."""
    rest: float
    """Norm of what is left of b when decoupled and held rows have their values."""
    softest: float
    """The least eigenvalue of the rows that are left, about; 0 if singular."""
    inconsistent: float
    """The largest part of b, against ``rest``, that no x can make: along constants on closed rooms."""
    coupled: np.ndarray
    """The rows that are left."""

    def error_bound(self, A: sp.csr_matrix, x: np.ndarray, rtol: float, atol: float) -> float:
        """What the error may be where the residual of the rows that are left is within the tolerance."""
        assert self.solution is not None
        left = max(rtol * self.rest, atol) + 5 * float(np.linalg.norm(rounding(A, x, self.b)[self.coupled]))
        size = float(np.linalg.norm(self.solution))
        return 3 * left / self.softest + (10 * rtol + 1e3 * EPS) * size


def truth(system: System, b: np.ndarray, attached: list[np.ndarray]) -> Truth:
    A = system.A
    null_space = is_null_space(A, attached) if attached else False
    if null_space:
        b = free_of(attached, b)
    coupled = ~system.alone & ~system.held
    inner = A[coupled][:, coupled].tocsc()
    given = np.zeros(b.size)
    given[~coupled] = b[~coupled] / A.diagonal()[~coupled]
    left = (b - A @ given)[coupled]
    rest = float(np.linalg.norm(left))
    parts = [abs(float(b[room].sum())) / np.sqrt(room.size) for room in system.rooms]
    solution, softest = None, 0.0
    if not system.rooms and not (system.near or null_space):
        solution, softest = _direct(A, b, coupled, inner)
    worst = max(parts, default=0.0) / rest if rest else 0.0
    return Truth(b, null_space, solution, rest, softest, worst, coupled)


def _direct(A: sp.csr_matrix, b: np.ndarray, coupled: np.ndarray, inner: sp.csc_matrix) -> tuple[np.ndarray, float]:
    """x, refined once, and the least eigenvalue of ``inner`` by inverse iteration."""
    D = abs(A.diagonal())
    scaled = (sp.diags(1.0 / D) @ A).tocsc()
    factors = spla.splu(scaled)
    x = factors.solve(b / D)
    x += factors.solve((b - A @ x) / D)
    if not coupled.any():
        return x, float(D.min())
    own = abs(inner.diagonal()).max()
    factors = spla.splu((inner / own).tocsc())
    v, grown = np.ones(inner.shape[0]) + 0.1 * np.random.default_rng(0).standard_normal(inner.shape[0]), 1.0
    for _ in range(12):
        v = factors.solve(v / np.linalg.norm(v))
        grown = float(np.linalg.norm(v))
    return x, own / grown
