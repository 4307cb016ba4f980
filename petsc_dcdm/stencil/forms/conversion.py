"""Matrices that PETSc keeps in another format than AIJ, converted once per set-up."""

from __future__ import annotations

from petsc4py import PETSc

from petsc_dcdm.grid.errors import MatrixError, NoRows

READ_AS_AIJ = ("sbaij", "baij", "sell", "is", "nest", "dense")
"""What is converted: the ends of the names of types, which begin with seq or mpi or with nothing."""


def is_aij(A: PETSc.Mat) -> bool:
    """Whether rows can be read as they are: AIJ in any of its kinds, but no block format."""
    return "aij" in A.getType() and "baij" not in A.getType()


def has_entries(A: PETSc.Mat) -> bool:
    """Whether products with the matrix are taken with entries that are kept, to their rounding."""
    return "aij" in A.getType() or _convertible(A.getType())


def _convertible(kind: str) -> bool:
    return kind.removeprefix("seq").removeprefix("mpi") in READ_AS_AIJ


def as_aij(A: PETSc.Mat) -> PETSc.Mat:
    """``A`` itself, or a copy in AIJ format with its DM, its index set ``dcdm_cells`` and its null space. Collective.

    The copy is the caller's to destroy. Raises MatrixError on all ranks alike where there are no entries to convert, or
    several unknowns to a cell.
    """
    kind = A.getType()
    if is_aij(A):
        return A
    if A.getBlockSize() > 1:
        raise MatrixError(
            f"the matrix has block size {A.getBlockSize()}; petsc_dcdm solves scalar systems, with one unknown per "
            "cell: use it on one field's block (-pc_type fieldsplit)"
        )
    nested = kind == PETSc.Mat.Type.NEST and A.getNestSize() != (1, 1)
    if nested or not _convertible(kind):
        what = f"a {A.getNestSize()[0]} x {A.getNestSize()[1]} system of blocks" if nested else f"of type {kind}"
        remedy = (
            "use petsc_dcdm on the block of the pressure (-pc_type fieldsplit)"
            if nested
            else "give an assembled matrix to set up on as the second of KSPSetOperators, or -mat_type aij"
        )
        raise NoRows(f"the matrix is {what}, which has no rows of one unknown per cell to read: {remedy}")
    copy = A.convert(PETSc.Mat.Type.AIJ, PETSc.Mat())
    cells, dm, null_space = A.query("dcdm_cells"), A.getDM(), A.getNullSpace()
    if cells:
        copy.compose("dcdm_cells", cells)
    if dm:
        copy.setDM(dm)
    if null_space:
        copy.setNullSpace(null_space)
    return copy
