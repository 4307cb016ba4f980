"""What tests do with matrices of compact stencils that scipy has assembled (petsc_dcdm/studies/compact.py)."""

from __future__ import annotations

import numpy as np
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


def folded(A, cells, rings, walls=True):
    """The matrix of all nodes with the last node of each ring (z, y, x) taken for the first; without the nodes on the
    other sides if there are `walls`. Returns it and the shape (z, y, x) of its grid.
    """
    nodes = [n + 1 for n in cells]
    number = np.arange(np.prod(nodes)).reshape(nodes)
    for axis, ring in enumerate(rings):
        ends = np.moveaxis(number, axis, 0)
        if ring:
            ends[-1] = ends[0]
    end = [slice(0, -1) if ring else slice(1, -1) if walls else slice(None) for ring in rings]
    kept = number[tuple(end)]
    fold = sp.csr_matrix((np.ones(number.size), (number.ravel(), np.arange(number.size))), A.shape)
    whole = (fold @ A @ fold.T).tocsr()
    return whole[kept.ravel()][:, kept.ravel()].tocsr(), (1, *kept.shape)[-3:]
