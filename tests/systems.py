"""Small systems for the tests, assembled row by row from a stencil, on any communicator and in any row order."""

from __future__ import annotations

import re
from contextlib import contextmanager

import numpy as np
import pytest
from petsc4py import PETSc

HAS_HYPRE = PETSc.Sys.hasExternalPackage("hypre")
"""In the plane BoomerAMG is the coarse solver, and what takes its place needs more steps on stretched grids."""

needs_hypre = pytest.mark.skipif(not HAS_HYPRE, reason="this PETSc has no hypre")


def conductances(shape, active=None, coefficient=None, ratio=(1.0, 1.0, 1.0), walls=2.0):
    """(w, s): low-face conductances along x, y, z and extra diagonal of a cell-centred grid (nz, ny, nx).

    active       bool array, False in solids (all faces of a solid are closed)
    coefficient  cell array, harmonic mean on faces
    walls        conductance factor of the outer walls, 2 for Dirichlet on the wall, 0 for closed
    """
    active = np.ones(shape, bool) if active is None else active
    k = np.ones(shape) if coefficient is None else coefficient
    w, s = [], np.zeros(shape)
    for axis in range(3):
        a = 2 - axis
        face = np.zeros(shape)
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[a], high[a] = slice(0, -1), slice(1, None)
        low, high = tuple(low), tuple(high)
        mean = 2 * k[low] * k[high] / (k[low] + k[high])
        face[high] = ratio[axis] * mean * (active[low] & active[high])
        w.append(face)
        if shape[a] > 1:
            for end in (0, -1):
                wall = [slice(None)] * 3
                wall[a] = end
                wall = tuple(wall)
                s[wall] += walls * ratio[axis] * k[wall] * active[wall]
    return w, s


def matrix(w, s, *, cells=None, sign=1.0, identity=1.0, comm=PETSc.COMM_WORLD, rows=None):
    """AIJ matrix of the operator; cells without coupling and s become rows with only ``identity`` on the diagonal.

    cells  the order of the rows: cell number of each global row; None: one row per cell, lexicographic
    rows   rows of this rank; None: PETSc's even split
    """
    shape = s.shape
    total = s.size
    cells = np.arange(total) if cells is None else np.asarray(cells)
    row_of = np.full(total, -1)
    row_of[cells] = np.arange(cells.size)
    n = cells.size
    if rows is None:
        rows = n // comm.getSize() + (comm.getRank() < n % comm.getSize())
    A = PETSc.Mat().createAIJ(((rows, n), (rows, n)), nnz=7, comm=comm)
    first, last = A.getOwnershipRange()
    strides = (1, shape[2], shape[1] * shape[2])
    flat = [f.ravel() for f in w]
    index = np.arange(total)
    position = (index % shape[2], index // shape[2] % shape[1], index // strides[2])
    for row in range(first, last):
        cell = cells[row]
        diagonal = s.flat[cell]
        for axis in range(3):
            for step in (0, 1):
                at = cell + step * strides[axis]
                if step and position[axis][cell] + 1 >= shape[2 - axis]:
                    continue
                weight = flat[axis][at]
                if weight:
                    diagonal += weight
                    A.setValue(row, row_of[cell - strides[axis] if not step else at], -sign * weight)
        A.setValue(row, row, sign * (diagonal or identity))
    A.assemble()
    return A


def poisson(shape, comm=PETSc.COMM_WORLD, **options):
    """The Dirichlet box with one row per cell."""
    return matrix(*conductances(shape), comm=comm, **options)


def triangles(count, comm=PETSc.COMM_WORLD):
    """Three rows each that are all coupled, at distances of ``count``: nothing that has a place on a grid."""
    A = PETSc.Mat().createAIJ([3 * count, 3 * count], nnz=3, comm=comm)
    for row in range(*A.getOwnershipRange()):
        for column in ((row + count * k) % (3 * count) for k in range(3)):
            A.setValue(row, column, 3.0 if column == row else -1.0)
    A.assemble()
    return A


def random_solids(shape, seed=0, fraction=0.2):
    return np.random.default_rng(seed).random(shape) > fraction


def right_hand_side(A, seed=1):
    """Random, the same on any number of ranks."""
    b = A.createVecLeft()
    first, last = A.getOwnershipRange()
    b.setArray(np.random.default_rng(seed).standard_normal(A.getSize()[0])[first:last])
    return b


def solve(A, b, x=None, dm=None, **options):
    """Solve with ``petsc_dcdm.KSP`` and the given options (dots for nothing: ``ksp_rtol=1e-8``); returns (ksp, x)."""
    database = PETSc.Options()
    for name, value in options.items():
        database[name] = value
    ksp = PETSc.KSP().create(A.getComm())
    ksp.setOperators(A)
    if dm is not None:
        ksp.setDM(dm)
        # two arguments from PETSc 3.23 on
        ksp.setDMActive(*((PETSc.KSP.DMActive.ALL, False) if hasattr(PETSc.KSP, "DMActive") else (False,)))
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setConvergenceHistory()
    if x is None:
        x = A.createVecRight()
    else:
        ksp.setInitialGuessNonzero(True)
    ksp.setFromOptions()
    try:
        ksp.solve(b, x)
    finally:
        for name in options:
            database.delValue(name)
    return ksp, x


@contextmanager
def refused(sentence):
    """The block raises an error that says ``sentence`` (a pattern); PETSc 3.26 has it as the cause of its own ones."""
    with pytest.raises(Exception) as caught:
        yield
    error: BaseException = caught.value
    while isinstance(error, PETSc.Error) and error.__cause__:
        error = error.__cause__
    said = str(error)
    assert re.search(sentence, said), said


def relative_residual(A, x, b):
    r = b.duplicate()
    A.mult(x, r)
    r.aypx(-1.0, b)
    return r.norm() / b.norm()
