"""What tests do with matrices of compact stencils that scipy has assembled (petsc_dcdm/studies/compact.py)."""

from __future__ import annotations

import scipy.sparse as sp
from petsc4py import PETSc


def identity_rows(A, fixed, both=True):
    """Fixed rows become identity rows; their columns go as well if `both`."""
    keep = sp.diags((~fixed).astype(float))
    return (keep @ A @ (keep if both else sp.identity(A.shape[0])) + sp.diags(fixed.astype(float))).tocsr()


def to_petsc(A, comm=PETSc.COMM_WORLD, rows=None):
    """This rank's rows of a scipy matrix that all ranks have; `rows` of them, or PETSc's even split."""
    A = sp.csr_matrix(A)
    A.sort_indices()
    n = A.shape[0]
    rows = n // comm.getSize() + (comm.getRank() < n % comm.getSize()) if rows is None else rows
    last = comm.tompi4py().scan(rows)
    own = A[last - rows : last]
    csr = own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data
    return PETSc.Mat().createAIJ(((rows, n), (rows, n)), csr=csr, comm=comm)
