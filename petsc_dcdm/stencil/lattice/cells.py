"""Cell numbers that the user gives for the rows: from a file, and the size of the grid that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import GridError, raise_together
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.stencil.entries.numpy_rows import read, row_reader
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.lattice.binding import WORDS
from petsc_dcdm.stencil.lattice.search import expand, told_by
from petsc_dcdm.stencil.local_csr import local_csr

OWN_SIZE = "add -pc_dcdm_grid nx,ny[,nz]"


def _load(path: Path, rows: int) -> np.ndarray:
    """int64 [rows]; raises GridError."""
    if not path.is_file():
        raise GridError(f"-pc_dcdm_cells: there is no file {path}")
    try:
        if path.suffix == ".npy":
            cells = np.load(path)
        else:
            viewer = PETSc.Viewer().createBinary(str(path), "r", comm=PETSc.COMM_SELF)
            index_set = PETSc.IS().create(PETSc.COMM_SELF)
            try:
                cells = index_set.load(viewer).getIndices()
            finally:
                viewer.destroy()
                index_set.destroy()
    except (PETSc.Error, ValueError, OSError):
        raise GridError(
            f"-pc_dcdm_cells: {path} is neither a PETSc binary file of an index set nor, as .npy, an array of numpy"
        ) from None
    if cells.ndim != 1 or cells.dtype.kind not in "iu" or cells.size != rows:
        raise GridError(
            f"-pc_dcdm_cells: {path} holds {cells.dtype} numbers of shape {cells.shape}; there must be one integer for "
            f"each of the {rows} rows of the matrix"
        )
    return np.asarray(cells, np.int64)


def load_cells(path: str, A: PETSc.Mat) -> PETSc.IS:
    """The cell of each local row of ``A`` from a file that has those of all rows in their order: a PETSc binary file of
    an index set, or .npy. Collective; rank 0 reads. Raises GridError on all ranks alike.
    """
    comm = A.getComm().tompi4py()
    first, last = A.getOwnershipRange()
    sizes = np.array(comm.allgather(last - first))
    error, everywhere = None, None
    if comm.Get_rank() == 0:
        try:
            everywhere = _load(Path(path), A.getSize()[0])
            most = int(np.iinfo(PETSc.IntType).max)
            if everywhere.max(initial=0) > most:
                error = GridError(f"-pc_dcdm_cells: {path} has cell numbers beyond {most}, PETSc's largest index here")
        except GridError as problem:
            error = problem
    raise_together(comm, error)
    cells = np.empty(last - first, np.int64)
    sent = None if everywhere is None else [everywhere, (sizes, np.cumsum(sizes) - sizes), MPI.INT64_T]
    comm.Scatterv(sent, [cells, MPI.INT64_T])
    return PETSc.IS().createGeneral(cells.astype(PETSc.IntType), comm=A.getComm())


def size_of(cells: np.ndarray, A: PETSc.Mat) -> Shape:
    """The shape (nz, ny, nx) of the grid that ``cells``, int64, of each local row, are of: coupled cells are 1, nx or
    nx ny apart. Collective; raises GridError on all ranks alike.
    """
    comm = A.getComm().tompi4py()
    rows, kind = A.getSize()[0], row_reader(comm)
    if kind is not CsrRows:
        raise GridError(f"to find the size of the grid from 'dcdm_cells' takes a C compiler: {OWN_SIZE}")
    first, last = A.getOwnershipRange()
    graph = aligned_zeros(WORDS * (last - first), np.int32).reshape(last - first, WORDS)
    with local_csr(A) as local:
        reader = read(kind, local, (1, 1, rows), first)
        assert isinstance(reader, CsrRows)
        entries, _, _ = reader.couplings(graph)
    expand(told_by(graph, entries))
    sizes = np.array(comm.allgather(last - first))
    everywhere = np.empty(rows, np.int64)
    comm.Allgatherv([cells, MPI.INT64_T], [everywhere, (sizes, np.cumsum(sizes) - sizes), MPI.INT64_T])
    beside = graph[:, :6]
    apart = np.abs(np.where(beside < 0, 1, everywhere[beside] - cells[:, None])).ravel()
    steps: list[int] = []
    while len(steps) < 4:  # three lengths, and one that should not be there
        apart = apart[apart > max(steps, default=1)]
        least = comm.allreduce(int(apart.min(initial=np.iinfo(np.int64).max)), op=MPI.MIN)
        if least == np.iinfo(np.int64).max:
            break
        steps.append(least)
    total = int(everywhere.max(initial=0)) + 1
    nx, plane = (*steps, total, total)[:2]
    if len(steps) > 2 or (len(steps) == 2 and plane % nx):
        raise GridError(
            "the cell numbers in 'dcdm_cells' do not tell the size of the grid: coupled cells are "
            f"{', '.join(map(str, [1, *steps]))} apart, where a grid has 1, nx and nx ny: {OWN_SIZE}"
        )
    if len(steps) < 2:
        return 1, -(-total // nx), nx
    return -(-total // plane), plane // nx, nx
