"""Deflated conjugate gradients on PETSc matrices: a baseline of the paper.

Source: Saad, Yeung, Erhel, Guyomarc'h, "A deflated version of the conjugate gradient algorithm", SIAM J. Sci.
Comput. 21 (2000), algorithm 3.6, with Jacobi as the preconditioner. Here the deflation space is spanned by
the lowest eigenvectors of the box that encloses the domain: exact on the training operator, free of cost, and
a good guess elsewhere, so the baseline is as strong as 16 vectors make it. Collective.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson import dmda

Report = Callable[[int, float], bool]
VECTORS = 16


def low_sines(shape: Shape, count: int) -> list[np.ndarray]:
    """The `count` lowest eigenvectors of a box whose value is zero one cell outside: float64 of `shape`."""
    one = [np.pi * np.arange(1, n + 1) / (n + 1) for n in shape]
    all_numbers = product(*(range(1, min(count, n) + 1) for n in shape))
    numbers = sorted(all_numbers, key=lambda k: _eigenvalue(k, shape))[:count]
    return [np.einsum("i,j,k->ijk", *(np.sin(m * x) for m, x in zip(k, one, strict=True))) for k in numbers]


def _eigenvalue(k: tuple[int, ...], shape: Shape) -> float:
    return sum(2.0 - 2.0 * np.cos(np.pi * m / (n + 1)) for m, n in zip(k, shape, strict=True))


class DeflatedCG:
    """Set up once for a matrix: A times its deflation space, the small Gram matrix and the diagonal.

    Parameters
    ----------
    space
        vectors that span the deflation space, 16 in the paper. They belong to this object from now on.
    """

    def __init__(self, A: PETSc.Mat, space: list[PETSc.Vec]) -> None:
        self.A = A
        self.space = space
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


class KSP:
    """`DeflatedCG` with the lowest sines as a KSP of type python. It starts from x = 0, on a KSP that knows the DMDA of
    which each cell has a row.
    """

    def __init__(self) -> None:
        self._cg: DeflatedCG | None = None

    def setUp(self, ksp: PETSc.KSP) -> None:
        self.destroy(ksp)
        A, dm = ksp.getOperators()[0], ksp.getDM()
        own = tuple(slice(o, o + n) for o, n in zip(*dmda.box_of(dm), strict=True))
        coupled = np.diff(A.getValuesCSR()[0]) > 1
        space = []
        for sine in low_sines(dmda.shape_of(dm), VECTORS):
            space.append(A.createVecRight())
            space[-1].setArray(np.where(coupled, sine[own].ravel(), 0.0))
        self._cg = DeflatedCG(A, space)

    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Collective; the KSP's own convergence test decides."""
        assert self._cg is not None

        def report(step: int, norm: float) -> bool:
            ksp.setIterationNumber(step)
            ksp.setResidualNorm(norm)
            ksp.logConvergenceHistory(norm)
            ksp.setConvergedReason(ksp.callConvergenceTest(step, norm))
            ksp.monitor(step, norm)
            return bool(ksp.getConvergedReason())

        self._cg.solve(b, x, report, ksp.getTolerances()[3])
        if not ksp.getConvergedReason():
            ksp.setConvergedReason(PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT)

    def destroy(self, ksp: PETSc.KSP) -> None:
        if self._cg is not None:
            self._cg.destroy()
        self._cg = None


def _dots(v: PETSc.Vec, others: list[PETSc.Vec]) -> list[float]:
    """v . w for all w in one reduction."""
    for w in others:
        v.dotBegin(w)
    return [v.dotEnd(w) for w in others]
