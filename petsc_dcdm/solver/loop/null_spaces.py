"""Null spaces that users attach to a matrix: whether they are its, and a right-hand side without them."""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

from petsc_dcdm.native.identity import Identity, identity
from petsc_dcdm.solver.loop.constant_mode import largest_image
from petsc_dcdm.solver.loop.preconditioner import GridPreconditioner
from petsc_dcdm.stencil.fixed import no_fixed_rows

TOLERANCE = 1e-8
"""Up to where n is a null vector: the largest of D^-1 A n, D the diagonal, over the largest of n. It is the square root
of rounding, as in MatNullSpaceTest, but relative, and row by row.
"""


@dataclass(frozen=True)
class Attached:
    """The null space that a solve may use, if any, and why another is not used."""

    null_space: PETSc.NullSpace | None = None
    ignored: str = ""

    def without(self, b: PETSc.Vec, A: PETSc.Mat) -> PETSc.Vec | None:
        """b freed of it, a new vector; None where PETSc has done so, as it does where it knows A to be symmetric."""
        if self.null_space is None or A.getTransposeNullSpace() or all(A.isSymmetricKnown()):
            return None
        projected = b.copy()
        self.null_space.remove(projected)
        return projected


class KnownNullSpaces:
    """Judges a null space once for each matrix and its values."""

    def __init__(self) -> None:
        self._key: tuple[Identity, Identity] | None = None
        self._found = Attached()

    def of(self, A: PETSc.Mat, P: PETSc.Mat, context: GridPreconditioner | None) -> Attached:
        """``context`` is the preconditioner's, if that has read the matrix. Collective."""
        null_space = A.getNullSpace()
        if not null_space:
            return Attached()
        key = identity(A), identity(null_space)
        if key != self._key:
            constants = null_space.hasConstant() and not null_space.getVecs()
            known = constants and context is not None and context.constants_are_null(A)
            self._found = Attached(null_space) if known else _judge(A, P, null_space)
            self._key = key
        return self._found


def _judge(A: PETSc.Mat, P: PETSc.Mat, null_space: PETSc.NullSpace) -> Attached:
    n = A.createVecRight()
    diagonal = P.getDiagonal()
    members = list(null_space.getVecs())
    if null_space.hasConstant():
        members.append(None)
    worst = 0.0
    for member in members:
        if member is None:
            n.set(1.0)
        else:
            member.copy(n)
        size = float(n.norm(PETSc.NormType.NORM_INFINITY))
        worst = max(worst, largest_image(A, diagonal, n, no_fixed_rows()) / size if size else 0.0)
    for vec in (n, diagonal):
        vec.destroy()
    if worst <= TOLERANCE:
        return Attached(null_space)
    return Attached(
        None,
        "the null space that is attached to the matrix is none of it: the matrix times one of its vectors is up to "
        f"{worst:.1e} of the diagonal times that vector; the system is solved without it. Attach the vectors that the "
        "matrix takes to zero (solid and Dirichlet rows have no part in them), or none (MatSetNullSpace)",
    )
