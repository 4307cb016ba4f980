"""Systems some of whose rows are coupled to no other, with stored zeros anywhere; solved and compared with scipy."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sparse_linear
from petsc4py import PETSc
from systems import conductances, solve

SHAPE = (12, 10)
"""Cells along y and x."""
CELLS = SHAPE[0] * SHAPE[1]
GRID = f"{SHAPE[1]},{SHAPE[0]}"


def laplacian(sign: float = 1.0, seed: int = 0) -> sp.csr_matrix:
    """Log-normal conductances, one wall that holds; times ``sign``."""
    k = np.exp(np.random.default_rng(seed).standard_normal((1, *SHAPE)))
    w, s = conductances((1, *SHAPE), coefficient=k, walls=0.0)
    s[0, :, 0] = 1.0
    parts = [sp.diags(s.ravel())]
    for axis, stride in ((0, 1), (1, SHAPE[1])):
        face = w[axis].ravel()
        low = sp.diags(face[stride:], -stride, shape=(CELLS, CELLS))
        parts += [sp.diags(face), sp.diags(np.append(face[stride:], np.zeros(stride))), -low, -low.T]
    return (sign * sum(parts[1:], parts[0])).tocsr()


def set_alone(A: sp.csr_matrix, rows: np.ndarray, diagonal: float, both_ways: bool = True) -> sp.csr_matrix:
    """``A`` with nothing but ``diagonal`` in these rows, as stored zeros elsewhere; with ``both_ways`` nor does any
    other row couple to them.
    """
    A = A.tocoo()
    alone = np.zeros(CELLS, bool)
    alone[rows] = True
    value = np.where(alone[A.row] | (alone[A.col] & both_ways), 0.0, A.data)
    value[alone[A.row] & (A.row == A.col)] = diagonal
    return sp.coo_matrix((value, (A.row, A.col)), A.shape).tocsr()


def with_stored_zeros(A: sp.csr_matrix, count: int, seed: int = 2) -> sp.csr_matrix:
    """``count`` more entries, of value 0, anywhere."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, CELLS, (2, count))
    row, column = (np.append(old, new) for old, new in ((A.tocoo().row, row), (A.tocoo().col, column)))
    return sp.coo_matrix((np.append(A.tocoo().data, np.zeros(count)), (row, column)), A.shape).tocsr()


def to_petsc(A: sp.csr_matrix, comm: PETSc.Comm = PETSc.COMM_WORLD) -> PETSc.Mat:
    """With all its stored zeros, an even share of the rows on each rank. Collective."""
    first, last = (CELLS * rank // comm.getSize() for rank in (comm.getRank(), comm.getRank() + 1))
    own = A[first:last]
    csr = own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data
    M = PETSc.Mat().createAIJ(((last - first, CELLS), (last - first, CELLS)), comm=comm, csr=csr)
    assert M.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] == A.nnz
    return M


def share(v: PETSc.Vec, values: np.ndarray) -> PETSc.Vec:
    """``v`` with this rank's part of ``values``."""
    v.setArray(values[slice(*v.getOwnershipRange())])
    return v


def solution(A: sp.csr_matrix, b: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Rows without couplings by their diagonals, or what ``guess`` has where that is 0; the others by LU."""
    diagonal = A.diagonal()
    alone = np.asarray(abs(A - sp.diags(diagonal)).sum(axis=1)).ravel() == 0
    x = np.where(alone, guess, 0.0)
    held = alone & (diagonal != 0)
    x[held] = b[held] / diagonal[held]
    coupled = np.flatnonzero(~alone)
    if coupled.size:
        x[coupled] = sparse_linear.spsolve(A[coupled][:, coupled].tocsc(), (b - A @ x)[coupled])
    return x


def check(A: sp.csr_matrix, b: np.ndarray, grid: str | None = GRID, guess: np.ndarray | None = None) -> PETSc.KSP:
    """Converges in few steps to what scipy says, in each row. Collective."""
    M = to_petsc(A)
    right, x = (M.createVecLeft() for _ in range(2))
    share(right, b)
    options = {"ksp_rtol": 1e-10} | ({"pc_dcdm_grid": grid} if grid else {})
    if guess is not None:
        share(x, guess)
    ksp, x = solve(M, right, None if guess is None else x, **options)
    exact = solution(A, b, np.zeros(CELLS) if guess is None else guess)
    own = exact[slice(*x.getOwnershipRange())]
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 8, ksp.getConvergedReason()
    alone = np.asarray(abs(A - sp.diags(A.diagonal())).sum(axis=1)).ravel() == 0
    alone = alone[slice(*x.getOwnershipRange())]
    size = np.abs(exact).max() if not alone.all() else 1.0
    np.testing.assert_allclose(x.getArray()[alone], own[alone], rtol=1e-14, atol=0.0)
    np.testing.assert_allclose(x.getArray()[~alone], own[~alone], rtol=0.0, atol=1e-8 * size)
    return ksp
