"""Where the rows of a matrix lie on a structured grid.

First hit wins (docs/guide/systems.md): the DMDA on the PC or the matrix, if its cells are the rows; an index set
composed on the matrix as ``dcdm_cells``, or the file of ``-pc_dcdm_cells``; ``-pc_dcdm_grid`` with one row per cell;
the matrix's own off-diagonal offsets when its rows are in lexicographic order; its graph. Where the couplings turn out
to be others than the grid's, `other_grids` has what else the rows may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import Cuts
from petsc_dcdm.grid.errors import BrokenMatrix, GridError, MatrixError, raise_together
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape, size_text
from petsc_dcdm.stencil.entries.numpy_rows import read, row_reader
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.forms.offsets import COMPACT_OFFSETS, compact_strides
from petsc_dcdm.stencil.lattice.cells import load_cells, size_of
from petsc_dcdm.stencil.lattice.search import box_of, embed
from petsc_dcdm.stencil.local_csr import local_csr

CELLS, GRAPH = "index set dcdm_cells", "graph of the matrix"
"""Sources of a grid."""


@dataclass(frozen=True)
class Grid:
    """A global grid and this rank's rows on it.

    Attributes
    ----------
    shape
        (nz, ny, nx), x fastest; nz = 1 in 2D.
    cells
        int64, global lexicographic cell number of each local row; None if local row i is cell ``first + i``.
    first
        the first local row.
    rows
        how many of them there are.
    source
        how the grid was found, for the view.
    edges
        of the boxes of the DMDA the rows belong to, in the order of the matrix's ranks; None elsewhere.
    box
        offset and shape of the part of the grid that this rank's rows are, x fastest; None if they are no box.
    periodic
        the axes (z, y, x) whose first and last cells are neighbours, as far as that is known; others may turn out to
        be when the matrix is read.
    """

    shape: Shape
    cells: np.ndarray | None
    first: int
    rows: int
    source: str
    edges: Cuts | None = None
    box: tuple[Shape, Shape] | None = None
    periodic: Periodic = NOT_PERIODIC

    @property
    def dimension(self) -> int:
        """2 or 3: the number of axes the stencil can have; a 3D grid that is one cell thick in z is 2D."""
        return 3 if self.shape[0] > 1 else 2


class OtherDmda(GridError):
    """The rows of the matrix are not the cells of the DMDA: it may be one of active cells, or of another grid."""


def _whole_planes(shape: Shape, first: int, rows: int) -> tuple[Shape, Shape] | None:
    """The box of consecutive rows, one per cell: whole planes of the grid (whole lines in 2D), or none."""
    nz, ny, nx = shape
    plane = ny * nx if nz > 1 else nx
    if first % plane or rows % plane:
        return None
    begin, count = first // plane, rows // plane
    if count == 0:
        return (0, 0, 0), (0, 0, 0)
    return ((begin, 0, 0), (count, ny, nx)) if nz > 1 else ((0, begin, 0), (1, count, nx))


def _is_dmda(dm: Any) -> bool:
    return bool(dm) and dm.getType() == PETSc.DM.Type.DA


@lru_cache(1)
def _cells_of(box: tuple[Shape, Shape], shape: Shape) -> np.ndarray:
    """int64: the cells of a box of the grid, increasing; not to be written to. Kept: as a rule the next grid's, too."""
    z, y, x = np.ix_(*(np.arange(first, first + n) for first, n in zip(*box, strict=True)))
    cells: np.ndarray = ((z * shape[1] + y) * shape[2] + x).ravel()
    cells.flags.writeable = False
    return cells


def _from_dmda(dm: PETSc.DMDA, A: PETSc.Mat) -> Grid:
    """The DMDA's grid; its rows are in PETSc ordering, each rank's box in x-fastest order."""
    if dm.getDof() != 1:
        raise GridError(
            f"the DMDA has {dm.getDof()} unknowns per cell (dof); petsc_dcdm solves scalar systems, with one: "
            "use it on the pressure block, or choose another -pc_type"
        )
    sizes = (*dm.getSizes(), 1, 1)[:3]
    shape = (sizes[2], sizes[1], sizes[0])
    rows = A.getSize()[0]
    if prod(shape) != rows:
        raise OtherDmda(
            f"the DMDA is {size_text(shape)} = {prod(shape)} cells but the matrix has {rows} rows; attach the "
            f"DMDA it was made with"
        )
    (x0, y0, z0), (mx, my, mz) = (
        (*part, *fill)[:3] for part, fill in zip(dm.getCorners(), ((0, 0), (1, 1)), strict=True)
    )
    first, last = A.getOwnershipRange()
    if mx * my * mz != last - first:
        raise OtherDmda(
            f"this rank owns {mx * my * mz} cells of the DMDA but {last - first} rows of the matrix; create the "
            f"matrix with DMCreateMatrix"
        )
    kinds = (*dm.getBoundaryType(), None, None)[:3]
    z, y, x = (kind == PETSc.DM.BoundaryType.PERIODIC for kind in kinds[::-1])
    ranges = (*dm.getOwnershipRanges(), [1], [1])[:3]
    along_z, along_y, along_x = (tuple(accumulate(map(int, lengths), initial=0)) for lengths in ranges[::-1])
    periodic, cells, box = (z, y, x), None, ((z0, y0, x0), (mz, my, mx))
    if _whole_planes(shape, first, last - first) != box:
        cells = _cells_of(box, shape)
    alike = MPI.Comm.Compare(dm.comm.tompi4py(), A.comm.tompi4py()) in (MPI.IDENT, MPI.CONGRUENT)
    edges = (along_z, along_y, along_x) if alike else None
    return Grid(shape, cells, first, last - first, "DMDA", edges, box, periodic)


def _count_cells(cells: np.ndarray, A: PETSc.Mat) -> GridError | None:
    first, last = A.getOwnershipRange()
    if cells.size == last - first:
        return None
    return GridError(
        f"'dcdm_cells' numbers {cells.size} cells on this rank but the matrix has {last - first} rows here: one cell "
        "per local row"
    )


def _from_cells(cells: np.ndarray, shape: Shape, A: PETSc.Mat) -> Grid:
    first = A.getOwnershipRange()[0]
    rises = bool((cells[1:] > cells[:-1]).all())
    ends = cells[[0, -1]] if rises and cells.size else cells
    if ((ends < 0) | (ends >= prod(shape))).any():
        bad = int(np.flatnonzero((cells < 0) | (cells >= prod(shape)))[0])
        raise GridError(
            f"'dcdm_cells' gives row {first + bad} the cell {int(cells[bad])}, outside the {size_text(shape)} grid; "
            "check it and -pc_dcdm_grid"
        )
    if not rises and np.unique(cells).size != cells.size:
        raise GridError("'dcdm_cells' gives two rows the same cell: petsc_dcdm needs one unknown per cell")
    return Grid(shape, cells, first, cells.size, CELLS)


def _require_scalar(A: PETSc.Mat) -> None:
    """Raises MatrixError for what is seen without looking at the entries, the same on all ranks."""
    rows, columns = A.getSize()
    if rows != columns:
        raise BrokenMatrix(f"the matrix is {rows} x {columns}; petsc_dcdm solves square systems")
    if A.getBlockSize() > 1:
        raise MatrixError(
            f"the matrix has block size {A.getBlockSize()}; petsc_dcdm solves scalar systems, with one unknown per cell"
        )


def _from_offsets(A: PETSc.Mat, comm: MPI.Intracomm) -> Grid | None:
    """The grid that a lexicographic matrix shows in its offsets column - row: {1, nx} or {1, nx, nx ny}, and of the
    lines that are closed to rings nx - 1, nx (ny - 1) or nx ny (nz - 1); or those of a compact 9- or 27-point stencil.
    """
    first, last = A.getOwnershipRange()
    rows = A.getSize()[0]
    kind = row_reader(comm)
    with local_csr(A, kind is CsrRows) as local:
        found = read(kind, local, (1, 1, rows), first).offsets(COMPACT_OFFSETS)
    parts = comm.allgather(None if found is None else found.tolist())
    offsets = sorted({offset for part in parts for offset in part or ()})
    if None in parts:
        return None
    shape = _shape_of(offsets, rows)
    if shape is None:
        compact = compact_strides(offsets, rows)
        if compact is None:
            return None
        nx, plane = compact
        shape = (rows // plane, plane // nx, nx)
    box = _whole_planes(shape, first, last - first)
    return Grid(shape, None, first, last - first, "offsets of the matrix", box=box)


def _shape_of(offsets: list[int], rows: int) -> Shape | None:
    """The one shape (tried for all up to 9^3) of that many cells whose lines and rings have these offsets."""
    if not offsets:
        return 1, 1, rows  # without any coupling every grid is right
    lengths = [*offsets, rows]
    for nx, plane in ((nx, plane) for plane in reversed(lengths) for nx in lengths if nx > 1):
        if plane % nx or rows % plane or (plane == nx and plane < rows):
            continue
        along = [(nx, 1), (plane // nx, nx), (rows // plane, plane)]
        lines = {step for n, step in along if n > 1}
        if lines <= set(offsets) <= lines | {(n - 1) * step for n, step in along if n > 2}:
            return rows // plane, plane // nx, nx
    return None


def _from_graph(A: PETSc.Mat, comm: MPI.Intracomm, threads: int) -> Grid:
    """The grid that the couplings show, whatever the order of the rows and however many cells have none."""
    shape, cells = embed(A, comm, threads)
    box = box_of(cells, shape)
    in_order = box is not None and box == _whole_planes(shape, A.getOwnershipRange()[0], cells.size)
    if comm.allreduce(in_order, op=MPI.LAND):
        return Grid(shape, None, A.getOwnershipRange()[0], cells.size, GRAPH, box=box)
    return Grid(shape, cells, A.getOwnershipRange()[0], cells.size, GRAPH, box=box)


def other_grids(A: PETSc.Mat, grid: Grid, threads: int) -> Iterator[Grid]:
    """What the rows may be where the couplings of ``A`` are not those of ``grid``: the cells of a DMDA in natural
    order, and what the graph shows. Nothing where the user has told each cell. Collective.
    """
    if grid.source == CELLS:
        return
    if grid.source == "DMDA" and A.getSize()[0] == prod(grid.shape):
        first, rows = grid.first, grid.rows
        yield replace(
            grid, cells=None, source="DMDA, natural order", edges=None, box=_whole_planes(grid.shape, first, rows)
        )
    with suppress(GridError):
        yield _from_graph(A, A.getComm().tompi4py(), threads)


def find_grid(
    pc: PETSc.PC,
    A: PETSc.Mat,
    shape: Shape | None,
    periodic: Periodic | None = None,
    cells: str | None = None,
    threads: int = 1,
) -> Grid:
    """The grid of the square matrix ``A``. Collective.

    Parameters
    ----------
    pc
        its DM is asked first, then that of ``A``.
    shape
        (nz, ny, nx) from ``-pc_dcdm_grid`` or None.
    periodic
        axes (z, y, x) from ``-pc_dcdm_periodic`` or None.
    cells
        the file of ``-pc_dcdm_cells`` or None.

    Raises GridError, on all ranks alike, when there is none or it does not fit, MatrixError when ``A`` is of a kind
    that cannot be read.
    """
    comm = A.getComm().tompi4py()
    _require_scalar(A)
    grid, misfit = None, None
    dm = next((d for d in (pc.getDM(), A.getDM()) if _is_dmda(d)), None)
    if dm is not None:
        try:
            grid = _on_all_ranks(comm, partial(_from_dmda, dm, A))
        except OtherDmda as problem:  # SNES solves for the rows that no bound holds, with the DMDA of all
            misfit = problem
    if grid is None:
        grid = _on_all_ranks(comm, partial(_told, A, shape, cells))
    try:
        if grid is None and shape is None:
            grid = _from_offsets(A, comm)
        if grid is None:
            grid = _from_graph(A, comm, threads)
    except GridError as problem:
        raise misfit or problem from None
    z, y, x = (any(known) for known in zip(grid.periodic, periodic or NOT_PERIODIC, strict=True))
    return grid if grid.periodic == (z, y, x) else replace(grid, periodic=(z, y, x))


def _on_all_ranks(comm: MPI.Intracomm, find: Callable[[], Grid | None]) -> Grid | None:
    """What ``find`` finds; a GridError of one rank is raised on all of them. Collective."""
    grid, error = None, None
    try:
        grid = find()
    except GridError as problem:
        error = problem
    raise_together(comm, error)
    return grid


def _told(A: PETSc.Mat, shape: Shape | None, cells: str | None) -> Grid | None:
    """The grid that an index set or options tell. Collective; a GridError may be that of one rank."""
    comm = A.getComm().tompi4py()
    cells_is = A.query("dcdm_cells")
    if cells_is or cells:
        cells_is = cells_is or load_cells(cells or "", A)
        numbers = np.array(cells_is.getIndices(), dtype=np.int64)
        raise_together(comm, _count_cells(numbers, A))
        return _from_cells(numbers, shape or size_of(numbers, A), A)
    if shape is None:
        return None
    rows = A.getSize()[0]
    if prod(shape) < rows:
        raise GridError(f"-pc_dcdm_grid is {size_text(shape)} = {prod(shape)} cells but the matrix has {rows} rows")
    first, last = A.getOwnershipRange()
    box = _whole_planes(shape, first, last - first)
    return Grid(shape, None, first, last - first, "-pc_dcdm_grid", box=box) if prod(shape) == rows else None
