"""Null spaces that users attach to a matrix: whether they are its, and a right-hand side without them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from petsc4py import PETSc

from petsc_dcdm.native.identity import Identity, identity
from petsc_dcdm.solver.loop.constant_mode import largest_image
from petsc_dcdm.solver.loop.preconditioner import GridPreconditioner
from petsc_dcdm.stencil.fixed import no_fixed_rows
from petsc_dcdm.stencil.forms.conversion import has_entries
from petsc_dcdm.stencil.forms.row_scaling import RowFactors

TOLERANCE = 1e-8
"""Up to where n is a null vector: the largest of D^-1 A n, D the diagonal, over the largest of n. It is the square root
of rounding, as in MatNullSpaceTest, but relative, and row by row.
"""


@dataclass(frozen=True)
class Attached:
    """The null space that a solve may use, if any, and why another is not used; ``left``: that of A', if it is not the
    same.
    """

    null_space: PETSc.NullSpace | None = None
    ignored: str = ""
    left: PETSc.NullSpace | None = None

    def of(self, transposed: bool) -> PETSc.NullSpace | None:
        """That of A or of A'."""
        return self.left if transposed and self.left is not None else self.null_space

    def without(self, b: PETSc.Vec, A: PETSc.Mat, transposed: bool) -> PETSc.Vec | None:
        """b freed of what A x, or A' x, has no part of, a new vector; None where PETSc has done so, as it does where it
        knows A to be symmetric.
        """
        range_of = self.of(not transposed)
        if range_of is None or A.getTransposeNullSpace() or all(A.isSymmetricKnown()):
            return None
        projected = b.copy()
        range_of.remove(projected)
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
            if self._found.null_space is not None and context is not None and context.factors is not None:
                self._found = replace(self._found, left=_of_transposed(A, null_space, context.factors))
            self._key = key
        return self._found


def _members(A: PETSc.Mat, null_space: PETSc.NullSpace) -> list[PETSc.Vec]:
    """Copies of its vectors."""
    members = [vec.copy() for vec in null_space.getVecs()]
    if null_space.hasConstant():
        members.append(A.createVecRight())
        members[-1].set(1.0)
    return members


def _of_transposed(A: PETSc.Mat, null_space: PETSc.NullSpace, factors: RowFactors) -> PETSc.NullSpace:
    """D^-1 n for every n in the null space of A = D S. Collective."""
    found: list[PETSc.Vec] = []
    for n in _members(A, null_space):
        factors.divide(n)
        for other in found:
            n.axpy(-float(n.dot(other)), other)
        n.normalize()
        found.append(n)
    return PETSc.NullSpace().create(constant=False, vectors=found, comm=A.getComm())


def _judge(A: PETSc.Mat, P: PETSc.Mat, null_space: PETSc.NullSpace) -> Attached:
    if not has_entries(P):  # there may be no diagonal to measure with
        return Attached(null_space)
    diagonal = P.getDiagonal()
    members = _members(A, null_space)
    worst = 0.0
    for n in members:
        size = float(n.norm(PETSc.NormType.NORM_INFINITY))
        worst = max(worst, largest_image(A, diagonal, n, no_fixed_rows()) / size if size else 0.0)
    for vec in (*members, diagonal):
        vec.destroy()
    if worst <= TOLERANCE:
        return Attached(null_space)
    return Attached(
        None,
        "the null space that is attached to the matrix is none of it: the matrix times one of its vectors is up to "
        f"{worst:.1e} of the diagonal times that vector; the system is solved without it. Attach the vectors that the "
        "matrix takes to zero (solid and Dirichlet rows have no part in them), or none (MatSetNullSpace)",
    )
