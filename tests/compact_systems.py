"""Matrices of bilinear and trilinear elements and other compact stencils, assembled by scipy."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc


def elements(cells, coefficient=1.0, size=(1.0, 1.0, 1.0), shear=0.0):
    """Stiffness matrix of Q1 elements on all nodes, x fastest: Gauss points, element by element.

    cells        (z, y, x) or (y, x)
    coefficient  of every cell, an array of that shape or a number
    size         of a cell along x, y, z
    shear        x moves by so much of the height with y: parallelograms
    """
    dim, n = len(cells), cells[::-1]
    corners = [corner[::-1] for corner in itertools.product((0, 1), repeat=dim)]
    jacobian = np.diag(np.array(size[:dim], float) / 2)
    jacobian[0, 1] = shear * size[1] / 2
    inverse = np.linalg.inv(jacobian)
    own = np.zeros((2**dim, 2**dim))
    for point in itertools.product((-(3**-0.5), 3**-0.5), repeat=dim):
        slopes = np.empty((2**dim, dim))
        for c, corner in enumerate(corners):
            shape = [(1 + (2 * side - 1) * at) / 2 for side, at in zip(corner, point, strict=True)]
            for d in range(dim):
                slopes[c, d] = (2 * corner[d] - 1) / 2 * np.prod(shape[:d] + shape[d + 1 :])
        slopes = slopes @ inverse
        own += slopes @ slopes.T * np.linalg.det(jacobian)
    node = np.arange(np.prod([m + 1 for m in n])).reshape([m + 1 for m in cells])
    places = [tuple(slice(side, side + m) for side, m in zip(corner[::-1], cells, strict=True)) for corner in corners]
    number = np.array([node[place].ravel() for place in places])
    rows = np.repeat(number[:, None, :], 2**dim, axis=1)
    values = own[:, :, None] * np.broadcast_to(coefficient, cells).ravel()
    A = sp.coo_matrix((values.ravel(), (rows.ravel(), rows.transpose(1, 0, 2).ravel())), (node.size, node.size))
    return A.tocsr()


def sides(cells):
    """bool, of every node: on a side of the grid."""
    inner = np.zeros([n + 1 for n in cells], bool)
    inner[(slice(1, -1),) * len(cells)] = True
    return ~inner.ravel()


def eliminated(A, fixed):
    """Without the fixed rows and columns."""
    free = np.flatnonzero(~fixed)
    return A[free][:, free].tocsr()


def identity_rows(A, fixed, both=True):
    """Fixed rows become identity rows; their columns go as well if `both`."""
    keep = sp.diags((~fixed).astype(float))
    return (keep @ A @ (keep if both else sp.identity(A.shape[0])) + sp.diags(fixed.astype(float))).tocsr()


def mehrstellen(n, dim):
    """The compact operators of fourth order, 9 points in 2D and 19 in 3D, all sides fixed."""
    one, both = sp.identity(n), sp.diags([np.ones(n - 1)] * 2, [-1, 1])
    if dim == 2:
        faces = sp.kron(one, both) + sp.kron(both, one)
        return (20 * sp.identity(n**2) - 4 * faces - sp.kron(both, both)).tocsr() / 6
    line = (sp.kron(one, sp.kron(one, both)), sp.kron(one, sp.kron(both, one)), sp.kron(both, sp.kron(one, one)))
    edges = sp.kron(one, sp.kron(both, both)) + sp.kron(both, sp.kron(one, both)) + sp.kron(both, sp.kron(both, one))
    return (24 * sp.identity(n**3) - 2 * sum(line) - edges).tocsr() / 6


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
