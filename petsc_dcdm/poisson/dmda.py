"""The DMDA that divides a grid among the ranks, and what assembly needs from it: own box, halo, output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.poisson.flags import Box


def create(
    shape: Shape,
    comm: PETSc.Comm | None = None,
    ranges: Sequence[Sequence[int]] | None = None,
    periodic: Periodic = NOT_PERIODIC,
) -> PETSc.DMDA:
    """A DMDA of one unknown per cell with a star stencil of width 1; two-dimensional where nz = 1.
    Collective.

    ranges: cells per rank along x, y(, z) when PETSc's even division is not wanted.
    periodic: axes (z, y, x); not one of a single cell.
    """
    kinds = PETSc.DM.BoundaryType
    along = [kinds.PERIODIC if ring and n > 1 else kinds.NONE for ring, n in zip(periodic, shape, strict=True)][::-1]
    dim = 2 if shape[0] == 1 else 3
    sizes = shape[::-1][:dim]
    owned = None if ranges is None else [list(r) for r in ranges][:dim]
    return PETSc.DMDA().create(
        dim=dim,
        dof=1,
        sizes=sizes,
        proc_sizes=None if owned is None else [len(r) for r in owned],
        ownership_ranges=owned,
        boundary_type=tuple(along[:dim]),
        stencil_type=PETSc.DMDA.StencilType.STAR,
        stencil_width=1,
        comm=PETSc.COMM_WORLD if comm is None else comm,
    )


def shape_of(dm: PETSc.DMDA) -> Shape:
    """Global (nz, ny, nx)."""
    nx, ny, nz = (*dm.getSizes(), 1, 1)[:3]
    return int(nz), int(ny), int(nx)


def periodic_of(dm: PETSc.DMDA) -> Periodic:
    """Its periodic axes (z, y, x)."""
    x, y, z = (kind == PETSc.DM.BoundaryType.PERIODIC for kind in (*dm.getBoundaryType(), None, None)[:3])
    return z, y, x


def box_of(dm: PETSc.DMDA) -> Box:
    """The cells this rank owns."""
    start, count = dm.getCorners()
    x, y, z = (*start, 0, 0)[:3]
    nx, ny, nz = (*count, 1, 1)[:3]
    return Box((int(z), int(y), int(x)), (int(nz), int(ny), int(nx)))


def attach(ksp: PETSc.KSP, dm: PETSc.DMDA) -> None:
    """Let a KSP and its PC know the DMDA, which is not to make their matrix or vectors."""
    ksp.setDM(dm)
    if hasattr(PETSc.KSP, "DMActive"):  # newer PETSc: one flag for each thing a DM may make
        ksp.setDMActive(PETSc.KSP.DMActive.ALL, False)
    else:
        ksp.setDMActive(False)


def ghosted(dm: PETSc.DMDA) -> tuple[slice, slice, slice]:
    """Where the cells that the DMDA's local vectors hold lie in a padded array of the own box."""
    start, count = dm.getGhostCorners()
    (z, y, x), _ = box_of(dm)
    gx, gy, gz = (*start, 0, 0)[:3]
    nx, ny, nz = (*count, 1, 1)[:3]
    return tuple(slice(g - o + 1, g - o + 1 + n) for g, o, n in ((gz, z, nz), (gy, y, ny), (gx, x, nx)))  # type: ignore[return-value]


def exchange(dm: PETSc.DMDA, padded: np.ndarray) -> None:
    """Fill the face halo of a padded float64 array from the neighbouring ranks, in place, and along periodic axes from
    the other end. Collective.

    Cells outside the grid keep their values; edges and corners of the halo are not filled.
    """
    inside = ghosted(dm)
    ours, local = dm.getGlobalVec(), dm.getLocalVec()
    with ours as a:
        a[:] = interior(padded).ravel()
    dm.globalToLocal(ours, local)
    with local as a:
        # Star stencils leave the corners of local vectors undefined: take the six faces only.
        values = a.reshape([s.stop - s.start for s in inside])
        target = padded[inside]
        for axis, s in enumerate(inside):
            own = [slice(1 - t.start, 1 - t.start + n - 2) for t, n in zip(inside, padded.shape, strict=True)]
            for outer, wanted in ((0, s.start == 0), (-1, s.stop == padded.shape[axis])):
                if wanted:
                    face: list[slice | int] = list(own)
                    face[axis] = outer
                    target[tuple(face)] = values[tuple(face)]
    dm.restoreLocalVec(local)
    dm.restoreGlobalVec(ours)


def exchanged(dm: PETSc.DMDA, padded: np.ndarray) -> np.ndarray:
    """A copy, in its own type, whose face halo is filled as `exchange` does. Collective."""
    values = padded.astype(float)
    exchange(dm, values)
    return values.astype(padded.dtype)


def gather(dm: PETSc.DMDA, values: np.ndarray) -> np.ndarray | None:
    """The whole field (nz, ny, nx) on rank 0, None elsewhere: for output only. Collective."""
    ours, natural = dm.createGlobalVec(), dm.createNaturalVec()
    with ours as a:
        a[:] = values.ravel()
    dm.globalToNatural(ours, natural)
    scatter, everything = PETSc.Scatter.toZero(natural)
    scatter.scatter(natural, everything)
    field = everything.getArray().reshape(shape_of(dm)).copy() if dm.comm.rank == 0 else None
    for thing in (scatter, everything, natural, ours):
        thing.destroy()
    return field
