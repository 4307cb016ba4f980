"""Systems on grids of which some axes are periodic, for the tests here and in tests/mpi: scipy, then PETSc."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from petsc4py import PETSc
from scipy import sparse

from petsc_dcdm.grid.shape import Periodic, Shape


def conductances(
    shape: Shape,
    periodic: Periodic,
    walls: float = 2.0,
    ratio: Sequence[float] = (1.0, 1.0, 1.0),
    coefficient: np.ndarray | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """(w, s) of a box of cells: low faces along x, y, z, that of cell 0 leads to the last cell of a ring.

    coefficient: of each cell, 0 in solid ones. walls: what the sides of the other axes add to s, over the conductance;
    0: closed.
    """
    k = np.ones(shape) if coefficient is None else coefficient
    w, s = [], np.zeros(shape)
    for axis in range(3):
        i = 2 - axis
        below = np.roll(k, 1, i)
        face = ratio[axis] * 2 * k * below / np.where(k + below > 0, k + below, 1.0)
        ends = np.moveaxis(face, i, 0)
        if not periodic[i] or shape[i] == 1:
            ends[0] = 0.0
        if not periodic[i] and shape[i] > 1:
            sides, of = np.moveaxis(s, i, 0), np.moveaxis(k, i, 0)
            sides[0] += walls * ratio[axis] * of[0]
            sides[-1] += walls * ratio[axis] * of[-1]
        w.append(face)
    return w, s


def assembled(w: Sequence[np.ndarray], s: np.ndarray) -> sparse.csr_matrix:
    """Rows in lexicographic order; cells without anything get 1 on the diagonal. Of a ring of two cells both faces are
    in one entry.
    """
    n, number = s.size, np.arange(s.size).reshape(s.shape)
    m = sparse.csr_matrix((n, n))
    d = s.copy()
    for axis, face in enumerate(w):
        below = np.roll(number, 1, 2 - axis)
        on = face > 0
        half = sparse.coo_matrix((-face[on], (number[on], below[on])), shape=(n, n)).tocsr()
        m = m + half + half.T
        d += face + np.roll(face, -1, 2 - axis)
    m = (m + sparse.diags(np.where(d > 0, d, 1.0).ravel())).tocsr()
    m.sort_indices()
    return m


def to_petsc(m: sparse.csr_matrix, comm: PETSc.Comm = PETSc.COMM_SELF, order: np.ndarray | None = None) -> PETSc.Mat:
    """This rank's rows of it, in another order of the rows if one is given (the old number of each new one)."""
    m = m if order is None else m[order][:, order].tocsr()
    m.sort_indices()
    A = PETSc.Mat().create(comm)
    A.setSizes((m.shape, m.shape)[0])
    A.setType("aij")
    A.setUp()
    first, last = A.getOwnershipRange()
    part = m[first:last]
    A.setPreallocationCSR((part.indptr.astype(PETSc.IntType), part.indices.astype(PETSc.IntType), part.data))
    A.assemble()
    return A


def sizes(shape: Shape) -> str:
    """As ``-pc_dcdm_grid`` takes it."""
    return ",".join(map(str, shape[::-1]))


def rings_of(shape: Shape, periodic: Periodic, least: int = 2) -> Periodic:
    """Those of the axes that are rings: of more than one cell, or of three and more where the matrix alone tells."""
    z, y, x = (ring and n >= least for ring, n in zip(periodic, shape, strict=True))
    return z, y, x


def ocean(shape: Shape, seed: int, islands: int = 6) -> tuple[sparse.csr_matrix, np.ndarray]:
    """A globe's wet cells in lexicographic order, with rings along x and land at both ends of y: the matrix and the
    cell of each row. Islands (seamounts in 3D) lie anywhere, the seam included.
    """
    nz, ny, nx = shape
    random, (z, y, x) = np.random.default_rng(seed), np.indices(shape)
    wet = np.ones(shape, bool)
    for _ in range(islands):
        at, middle = random.integers(nx), random.integers(ny // 4, 3 * ny // 4 + 1)
        size = random.integers(3, nx // 4), random.integers(2, max(3, ny // 4))
        away = np.minimum((x - at) % nx, (at - x) % nx)
        wet &= ~((away / size[0]) ** 2 + ((y - middle) / size[1]) ** 2 < 1) | (z >= random.integers(1, nz + 1))
    wet[:, 0] = wet[:, -1] = False
    k = np.where(wet, 10 ** random.uniform(0, 0.5, shape), 0)
    w, _ = conductances(shape, (False, False, True), 0.0, coefficient=k)
    coupled = sum(face + np.roll(face, -1, 2 - axis) for axis, face in enumerate(w)) > 0
    cells = np.flatnonzero(coupled)
    m = assembled(w, np.where(coupled, 1e-3, 0.0))[cells][:, cells].tocsr()
    m.sort_indices()
    return m, cells
