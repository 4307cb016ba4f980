"""Deflated conjugate gradients on PETSc matrices: a baseline of the paper.

Source: Saad, Yeung, Erhel, Guyomarc'h, "A deflated version of the conjugate gradient algorithm", SIAM J. Sci.
Comput. 21 (2000), algorithm 3.6, with Jacobi as the preconditioner. The deflation space is spanned by the
lowest Ritz vectors of a Lanczos run on the matrix itself. All functions are collective.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from petsc4py import PETSc

Report = Callable[[int, float], bool]


def low_ritz_vectors(A: PETSc.Mat, count: int, steps: int, seed: int = 0) -> list[PETSc.Vec]:
    """The `count` lowest Ritz vectors of `steps` Lanczos steps with full re-orthogonalisation, normalised."""
    v = A.createVecRight()
    random = PETSc.Random().create(A.comm)
    random.setSeed(seed)
    v.setRandom(random)
    random.destroy()
    u = v.duplicate()
    A.mult(v, u)
    u.normalize()
    basis, alpha, beta = [u.copy()], [], []
    for _ in range(steps):
        A.mult(basis[-1], u)
        alpha.append(u.dot(basis[-1]))
        for _ in range(2):
            for q in basis:
                u.dotBegin(q)
            u.maxpy([-u.dotEnd(q) for q in basis], basis)
        norm = u.norm()
        if len(alpha) == steps or norm < 1e-12 * alpha[0]:
            break
        beta.append(norm)
        basis.append(u.copy())
        basis[-1].scale(1.0 / norm)
    t = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)
    _, q = np.linalg.eigh(t)
    vectors = []
    for column in q[:, :count].T:
        y = basis[0].duplicate()
        y.set(0.0)
        y.maxpy(list(column), basis)
        vectors.append(y)
    for old in (*basis, u, v):
        old.destroy()
    return vectors


class DeflatedCG:
    """Set up once for a matrix: its deflation space, A times it, the small Gram matrix and the diagonal.

    Args:
        vectors: size of the deflation space (16 in the paper).
        steps: Lanczos steps that its Ritz vectors come from.
    """

    def __init__(self, A: PETSc.Mat, vectors: int = 16, steps: int = 100) -> None:
        self.A = A
        self.space = low_ritz_vectors(A, vectors, steps)
        self.image = [A * w for w in self.space]
        gram = np.array([_dots(w, self.image) for w in self.space])
        self.gram = 0.5 * (gram + gram.T)
        self.inverse_diagonal = A.getDiagonal()
        self.inverse_diagonal.reciprocal()

    def solve(self, b: PETSc.Vec, x: PETSc.Vec, report: Report, most: int = 2000) -> int:
        """Solve A x = b from x = 0; returns the number of steps.

        `report(step, |r|)` is called at every step, 0 included, and returns True to stop.
        """
        r, z, ap = b.copy(), b.duplicate(), b.duplicate()
        x.set(0.0)
        # the start makes r orthogonal to the space
        c = np.linalg.solve(self.gram, _dots(r, self.space))
        first = r.norm()
        x.maxpy(list(c), self.space)
        r.maxpy(list(-c), self.image)
        p = b.duplicate()
        rz = 0.0
        steps = 0
        if report(0, first):
            return 0
        while steps < most:
            z.pointwiseMult(self.inverse_diagonal, r)
            mu = np.linalg.solve(self.gram, _dots(z, self.image))
            new = r.dot(z)
            if steps:
                p.aypx(new / rz, z)
            else:
                z.copy(p)
            p.maxpy(list(-mu), self.space)
            rz = new
            self.A.mult(p, ap)
            alpha = rz / p.dot(ap)
            x.axpy(alpha, p)
            r.axpy(-alpha, ap)
            steps += 1
            if report(steps, r.norm()):
                break
        for v in (r, z, ap, p):
            v.destroy()
        return steps

    def destroy(self) -> None:
        """Free the vectors."""
        for v in (*self.space, *self.image, self.inverse_diagonal):
            v.destroy()


def _dots(v: PETSc.Vec, others: list[PETSc.Vec]) -> list[float]:
    """v . w for all w in one reduction."""
    for w in others:
        v.dotBegin(w)
    return [v.dotEnd(w) for w in others]
