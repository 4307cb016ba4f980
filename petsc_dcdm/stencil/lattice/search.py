"""The grid that the graph of a matrix shows: a cell for each row, so that coupled rows have cells that share a face.

The rows may be in any order and belong to some of the cells only. The graph is gathered on rank 0, where compiled code
finds the cells (native/src/lattice/embed.c); any that pass its checks serve the solver.
"""

from __future__ import annotations

import ctypes

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import GridError, raise_together
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.stencil.entries.numpy_rows import read, row_reader
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.lattice.binding import WORDS, Outcome, Search
from petsc_dcdm.stencil.lattice.rings import Embedding, search_without_rings
from petsc_dcdm.stencil.local_csr import local_csr

MOST_ROWS = 2**31 - 1
"""Rows that the search can number."""

EFFORT, LEAST_EFFORT = 4, 100_000
"""Placements that may be taken back for each row, and at least, before the search gives up."""

LOOK = 4096
"""Rows that are looked at together."""

NO_GRID = "no grid could be found:"
REMEDY = (
    "if the rows are cells of a grid, tell the cell of each with -pc_dcdm_cells FILE or an index set 'dcdm_cells', or "
    "the grid with a DMDA or -pc_dcdm_grid nx,ny[,nz]"
)
WIDEST = 26
"""Others that a row of a compact 27-point stencil is coupled to: where there are more, no grid helps."""


def search(graph: np.ndarray, one_way: bool, threads: int = 1, entries: int | None = None) -> Embedding:
    """Cells for the rows of a graph as `CsrRows.couplings` tells them, int32 [rows, 8]; it is used up.

    ``one_way``: some couplings are told by one of their two rows only. ``entries``: of the graph that tell it, all
    rows by default. Raises GridError. Not collective.
    """
    found = refusal = None
    given = told_by(graph, graph.shape[0] if entries is None else entries, one_way)
    try:
        found = _search(given, threads)
    except Stuck as problem:
        refusal = problem
    if found is None or (found.shape[0] > 1 and not _bulky(graph[: given.entries, 4])):  # a ring is like a flat hose
        expand(given, threads)
        found = search_without_rings(graph, lambda left: _search(told_by(left, len(left)), threads)) or found
    if found is None:
        assert refusal is not None
        raise refusal
    return found


def _bulky(fifth: np.ndarray) -> bool:
    """Whether any row has a fifth neighbour, as the first of a bulk soon have."""
    return any(bool((fifth[at : at + LOOK] >= 0).any()) for at in range(0, fifth.size, LOOK))


class Stuck(GridError):
    """The couplings are not those of a lattice, or they are too many ways to look for one."""


def told_by(graph: np.ndarray, entries: int, one_way: bool = False) -> Search:
    """What is given to compiled code, which keeps the address of the array."""
    return Search(rows=graph.shape[0], row=graph.ctypes.data, entries=entries, one_way=int(one_way))


def expand(given: Search, threads: int = 1) -> None:
    """Tells a graph row by row. Raises GridError."""
    if not library().dcdm_lattice_expand(ctypes.byref(given), threads):
        raise GridError(f"{NO_GRID} {_reason(Outcome.NO_MEMORY, given.rows, -1, -1)}; {REMEDY}")


def _search(given: Search, threads: int = 1) -> Embedding:
    rows = given.rows
    cells = aligned_zeros(rows, np.int64)
    given.cell = cells.ctypes.data
    library().dcdm_lattice_search(ctypes.byref(given), ctypes.c_int64(EFFORT * rows + LEAST_EFFORT), threads)
    outcome = Outcome(given.code)
    if outcome is not Outcome.FOUND:
        kind = Stuck if outcome in (Outcome.STUCK, Outcome.TOO_LARGE) else GridError
        raise kind(f"{NO_GRID} {_reason(outcome, rows, given.bad[0], given.bad[1])}; {REMEDY}")
    shape = (given.shape[2], given.shape[1], given.shape[0])
    return Embedding(shape, cells, given.components, given.guesses, given.undone)


def _reason(outcome: Outcome, rows: int, row: int, other: int) -> str:
    if outcome is Outcome.CROWDED:
        return f"row {row} of the {rows} rows is coupled to more than six others, so this is no 5- or 7-point stencil"
    if outcome is Outcome.NO_MEMORY:
        return f"there is not enough memory to look for one in the couplings of the {rows} rows"
    if outcome is Outcome.TOO_LARGE:
        return f"that which the couplings of the {rows} rows show has far more cells than there are rows"
    clash = f"row {row} has no place beside those it is coupled to" if other < 0 else f"rows {row} and {other} clash"
    return f"the {rows} rows could not be given cells such that those that are coupled share a face: {clash}"


def embed(A: PETSc.Mat, comm: MPI.Intracomm, threads: int = 1) -> tuple[Shape, np.ndarray]:
    """The shape (nz, ny, nx) of a grid and the cell of each local row of ``A``, int64. Collective.

    Raises GridError on all ranks alike.
    """
    rows = A.getSize()[0]
    kind = row_reader(comm)
    error = None
    if kind is not CsrRows:
        error = GridError(f"{NO_GRID} to look for one in the couplings of the matrix takes a C compiler; {REMEDY}")
    elif rows > MOST_ROWS:
        error = GridError(f"{NO_GRID} the {rows} rows are too many to look for one in their couplings; {REMEDY}")
    raise_together(comm, error)
    first, last = A.getOwnershipRange()
    graph = aligned_zeros(WORDS * (last - first), np.int32).reshape(last - first, WORDS)
    with local_csr(A) as local:
        reader = read(kind, local, (1, 1, rows), first, threads=threads)
        assert isinstance(reader, CsrRows)
        entries, crowded, one_way = reader.couplings(graph)
    if crowded >= 0:
        columns, values = A.getRow(first + crowded)
        others = int(np.count_nonzero(values[columns != first + crowded]))
        remedy = f"; {REMEDY}" if others <= WIDEST else f", nor, with {others}, a compact one"
        error = GridError(f"{NO_GRID} {_reason(Outcome.CROWDED, rows, first + crowded, -1)}{remedy}")
    raise_together(comm, error)
    counts = comm.allgather((last - first, entries, one_way))
    one_way = sum(part for _, _, part in counts) % 2**64
    if comm.Get_size() > 1:
        graph, entries = _gather(graph, first, [part[:2] for part in counts], comm)
    found = None
    if comm.Get_rank() == 0:
        try:
            found = search(graph, bool(one_way), threads, entries)
        except GridError as problem:
            error = problem
    raise_together(comm, error)
    shape = comm.bcast(found.shape if found is not None else None)
    if comm.Get_size() == 1 and found is not None:
        return shape, found.cells
    cells = np.empty(last - first, np.int64)
    sizes = np.array([count for count, _, _ in counts])
    sent = [found.cells, (sizes, np.cumsum(sizes) - sizes), MPI.INT64_T] if found is not None else None
    comm.Scatterv(sent, [cells, MPI.INT64_T])
    return shape, cells


def box_of(cells: np.ndarray, shape: Shape) -> tuple[Shape, Shape] | None:
    """Offset and shape (z, y, x) of the box that cells, int64, are one by one with x fastest; None if they are none."""
    if not cells.size:
        return (0, 0, 0), (0, 0, 0)
    _, ny, nx = shape
    low, high = ((int(c) // (nx * ny), int(c) // nx % ny, int(c) % nx) for c in cells[[0, -1]])
    size = (high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1)
    if min(size) < 1 or size[0] * size[1] * size[2] != cells.size:
        return None
    z, y, x = np.ix_(*(np.arange(begin, begin + n) for begin, n in zip(low, size, strict=True)))
    return (low, size) if (((z * ny + y) * nx + x).ravel() == cells).all() else None


def _gather(
    graph: np.ndarray, first: int, counts: list[tuple[int, int]], comm: MPI.Intracomm
) -> tuple[np.ndarray, int]:
    """The entries of all ranks on rank 0, and how many they are; nothing on the others. ``first``: row of this rank;
    counts: rows and entries of each. Collective.
    """
    rows, entries = counts[comm.Get_rank()]
    sizes = np.array([count for _, count in counts])
    total, all_entries = sum(count for count, _ in counts), int(sizes.sum())
    if rows == entries:  # perhaps others have strands
        graph[:, WORDS - 2 :].view(np.int64)[:, 0] = np.arange(first, first + rows)
    on_root = comm.Get_rank() == 0
    whole = aligned_zeros(WORDS * total if on_root else 0, np.int32).reshape(-1, WORDS)
    row = MPI.INT32_T.Create_contiguous(WORDS).Commit()
    comm.Gatherv([graph, entries, row], [whole, (sizes, np.cumsum(sizes) - sizes), row] if on_root else None)
    row.Free()
    if all_entries == total:
        whole[:, WORDS - 2 :] = -1
    return whole, all_entries
