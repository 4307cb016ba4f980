"""The systems of a comparison: families of worlds, scenes around a mesh, a vertex-centred box, matrix files.

Each is built from a :class:`petsc_dcdm.compare.job.SystemSpec`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.shape import Shape, size_text
from petsc_dcdm.poisson import dmda, families, io, mesh, rhs, scene
from petsc_dcdm.poisson.assemble import assemble, close_rings
from petsc_dcdm.poisson.flags import normal
from petsc_dcdm.poisson.pockets import seal_pockets

TURN = 7.0  # degrees that a mesh turns about the vertical axis from one solve of a moving scene to the next


@dataclass
class Problem:
    """An assembled system.

    Attributes
    ----------
    grid
        value of -pc_dcdm_grid if no DMDA tells it, else empty
    guess
        where every solver starts; None: at 0
    cell_centred
        whether a DMDA is to be coarsened cell-wise (Q0 interpolation) or vertex-wise (Q1).
    """

    A: PETSc.Mat
    b: PETSc.Vec
    dm: PETSc.DMDA | None
    grid: str
    cell_centred: bool
    unknowns: int
    guess: PETSc.Vec | None = None

    @property
    def levels(self) -> int:
        """Levels of geometric multigrid that halving the DMDA allows; 1 without a DMDA."""
        return count_levels([n for n in self.dm.getSizes() if n > 1], self.cell_centred) if self.dm else 1

    def destroy(self) -> None:
        """Collective."""
        for thing in (self.A, self.b, self.dm, self.guess):
            if thing is not None:
                thing.destroy()


def count_levels(sizes: list[int], cell_centred: bool) -> int:
    """How many grids there are when every axis is halved as often as it can be, down to 4 cells or more."""
    levels, steps = 1, [n if cell_centred else n - 1 for n in sizes]
    while steps and all(n % 2 == 0 for n in steps) and min(steps) >= 8:
        steps = [n // 2 for n in steps]
        levels += 1
    return levels


def build(spec: SystemSpec) -> Problem:
    """Assemble the system on PETSC_COMM_WORLD. Collective. ValueError if the description makes none."""
    if spec.kind == "matrix":
        return _from_file(spec)
    if spec.shape is None:
        raise ValueError(f"A system of kind {spec.kind!r} needs a size.")
    dm = dmda.create(spec.shape, periodic=spec.periodic)
    if spec.kind == "vertex":
        return _vertex(dm)
    system = assemble(_world(spec, spec.shape, dm), dm, spec.fluid_only)
    b = rhs.make(spec.rhs or "random", system, spec.seed)
    if spec.fluid_only:
        return Problem(system.A, b, None, size_text(spec.shape, ","), True, system.unknowns)
    dm.setInterpolationType(PETSc.DMDA.InterpolationType.Q0)
    return Problem(system.A, b, dm, "", True, system.unknowns)


def _world(spec: SystemSpec, shape: Shape, dm: PETSc.DMDA) -> scene.World:
    box = dmda.box_of(dm)
    if spec.kind == "family":
        world = families.make(spec.name, shape, spec.seed + spec.step, box)
    elif spec.kind == "mesh":
        turn = (0.0, 0.0, TURN * spec.step)
        world = scene.around_mesh(shape, box, mesh.place(mesh.load(spec.name), shape, rotation=turn))
    else:
        raise ValueError(f"There is no kind of system {spec.kind!r}: family, mesh, vertex or matrix.")
    seal_pockets(close_rings(world, dm), dm)
    return world


def _vertex(dm: PETSc.DMDA) -> Problem:
    """Operator and right-hand side of PETSc's tutorial ksp/ksp/tutorials/ex45.c (2D: its 5-point analogue).

    Interior rows couple to the Dirichlet rows but not the other way round. All solvers start from a guess that
    fulfils the Dirichlet rows, which saves the rivals some iterations; those that need a symmetric matrix (incomplete
    Cholesky, symmetric Gauss-Seidel) fail all the same.
    """
    shape, box = dmda.shape_of(dm), dmda.box_of(dm)
    thick = [axis for axis in range(3) if shape[axis] > 1]
    h = np.array([1.0 / (shape[axis] - 1) for axis in thick])
    weight = h.prod() / h**2
    index = [np.broadcast_to(i, box.shape) for i in box.indices()]
    inside = np.ones(box.shape, bool)
    for axis in thick:
        inside &= (index[axis] > 0) & (index[axis] < shape[axis] - 1)
    columns, values = [_ghosted_number(dm, index)], [np.full(box.shape, 2 * weight.sum())]
    for axis, w in zip(thick, weight, strict=True):
        for shift in (-1, 1):
            neighbour = [i + shift * inside if n == axis else i for n, i in enumerate(index)]
            columns.append(_ghosted_number(dm, neighbour))
            values.append(np.full(box.shape, -w))
    present = np.stack([np.ones(box.shape, bool), *[inside] * (len(columns) - 1)], axis=-1)
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=-1).ravel())]).astype(PETSc.IntType)
    A = dm.createMat()
    A.setValuesLocalIJV(
        indptr,
        np.stack(columns, axis=-1)[present].astype(PETSc.IntType),
        np.stack(values, axis=-1)[present],
        rowmap=columns[0].ravel().astype(PETSc.IntType),
    )
    A.assemble()
    guess, b = A.createVecs()
    with b as a:
        a[:] = np.where(inside, h.prod(), 2 * weight.sum()).ravel()
    with guess as a:
        a[:] = np.where(inside, 0.0, 1.0).ravel()
    return Problem(A, b, dm, "", False, A.getSize()[0], guess)


def _ghosted_number(dm: PETSc.DMDA, index: list[np.ndarray]) -> np.ndarray:
    """Number of vertices (k, j, i) in the DMDA's local vectors."""
    start, count = dm.getGhostCorners()
    x, y, z = (*start, 0, 0)[:3]
    nx, ny, _ = (*count, 1, 1)[:3]
    k, j, i = index
    return ((k - z) * ny + (j - y)) * nx + (i - x)


def _from_file(spec: SystemSpec) -> Problem:
    """A matrix written with ``-ksp_view_mat binary:``, its rows divided evenly."""
    A = io.load_matrix(spec.name)
    rows = A.getSize()[0]
    if spec.shape is not None and rows != math.prod(spec.shape) and not spec.cells:
        raise ValueError(
            f"{spec.name} has {rows} rows and the grid {spec.size} has {math.prod(spec.shape)} cells; "
            "name the file with the cell of each row, or the right grid."
        )
    if spec.cells:
        A.compose("dcdm_cells", io.load_cells(spec.cells, A))
    b = A.createVecLeft()
    if spec.rhs:
        b = io.load_vector(spec.rhs, b)
    else:
        first, last = b.getOwnershipRange()
        with b as a:
            a[:] = normal(spec.seed, 7, np.arange(first, last))
    return Problem(A, b, None, "" if spec.shape is None else size_text(spec.shape, ","), True, rows)


def structured(A: PETSc.Mat, dm: PETSc.DMDA) -> PETSc.Mat:
    """The matrix in hypre's structured format, which PFMG needs. Collective."""
    dm.setMatType("hyprestruct")
    H = dm.createMat()
    to_local = dm.getLGMap()
    indptr, columns, values = A.getValuesCSR()
    own = np.arange(*A.getOwnershipRange(), dtype=PETSc.IntType)
    H.setValuesLocalIJV(indptr, to_local.applyInverse(columns), values, rowmap=to_local.applyInverse(own))
    H.assemble()
    return H
