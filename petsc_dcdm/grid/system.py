"""From an assembled matrix to the arrays a network is set up on: the grid, the boxes, the conductances of this rank's box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import partition
from petsc_dcdm.grid.discovery import Grid
from petsc_dcdm.grid.errors import MatrixError, raise_together
from petsc_dcdm.grid.extract import RowStencil, extract
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.rows import RowMap
from petsc_dcdm.models.plan import COARSE_LIMIT, plan_coarsening

SYMMETRY_TOLERANCE = 1e-8
"""Relative to the diagonal: how far a_ij and a_ji may be apart."""


@dataclass
class GridSystem:
    """The stencil of a matrix on this rank's box.

    w, s          float64 arrays (nz, ny, nx) of the box in the convention of the models: w[a] conductance of the low face along
                  axis a, s extra diagonal; 0 at inactive cells. Scaled so that the largest diagonal is 1.
    scale         the matrix is ``scale`` times that operator; negative for a negative definite matrix.
    dirichlet     local rows that have only their diagonal (or nothing), and ``dirichlet_diagonal`` their signed diagonal, 1 for empty rows
    any_dirichlet whether any rank has such rows
    singular      no row has an extra diagonal: constants on the active cells are a null space
    """

    grid: Grid
    layout: BoxLayout
    rows: RowMap
    w: list[np.ndarray]
    s: np.ndarray
    scale: float
    dirichlet: np.ndarray
    dirichlet_diagonal: np.ndarray
    any_dirichlet: bool
    singular: bool
    active_cells: int

    def destroy(self) -> None:
        """Collective."""
        self.rows.destroy()
        self.layout.close()


def _mean_conductances(stencil: RowStencil, comm: MPI.Comm) -> tuple[float, ...]:
    sums = np.array([[w.sum(), np.count_nonzero(w)] for w in stencil.w_low], dtype=float)
    total = comm.allreduce(sums)
    return tuple(float(a / n) if n else 0.0 for a, n in total)


def _asymmetry(w_low: np.ndarray, w_high: np.ndarray, axis: int, layout: BoxLayout) -> np.ndarray:
    """|a_ij - a_ji| over the high faces along ``axis`` (0 = x) of this rank's cells. Collective."""
    padded = np.zeros(tuple(n + 2 for n in w_low.shape))
    padded[1:-1, 1:-1, 1:-1] = w_low
    layout.exchange(padded)
    inner = [slice(1, -1)] * 3
    inner[2 - axis] = slice(2, None)
    return np.abs(padded[tuple(inner)] - w_high)


def build_system(A: PETSc.Mat, grid: Grid, comm: MPI.Comm, threshold: float) -> GridSystem:
    """Extracts, checks and distributes the stencil of ``A``. Collective; raises MatrixError on all ranks alike.

    comm       a private duplicate of the matrix's communicator, used for halos as long as the system lives
    threshold  semi-coarsening threshold of the network, see :func:`plan_coarsening`
    """
    stencil = extract(A, grid)
    scale = float(comm.allreduce(stencil.diagonal.max(initial=0.0), op=MPI.MAX))
    plan = plan_coarsening(grid.shape, _mean_conductances(stencil, comm), threshold, COARSE_LIMIT)
    layout = BoxLayout(comm, partition(grid.shape, comm.Get_size(), plan, grid.edges), plan)
    rows = RowMap(A, grid, layout.boxes, comm)
    work = A.createVecRight()
    error: MatrixError | None = None
    w = []
    for axis in range(3):
        low = rows.array_to_box(stencil.w_low[axis] / scale, work) if scale > 0 else np.zeros(layout.shape)
        high = rows.array_to_box(stencil.w_high[axis] / scale, work) if scale > 0 else np.zeros(layout.shape)
        difference = _asymmetry(low, high, axis, layout)
        if error is None and (difference > SYMMETRY_TOLERANCE * np.maximum(low, high)).any() and difference.max() > SYMMETRY_TOLERANCE:
            k, j, i = (int(n) for n in np.unravel_index(int(difference.argmax()), difference.shape))
            z, y, x = (o + n for o, n in zip(layout.offset, (k, j, i), strict=True))
            error = MatrixError(
                f"the matrix is not symmetric: cell ({x}, {y}, {z}) and its high neighbour along {'xyz'[axis]} have couplings that differ by "
                f"{difference.max() * scale:g}; petsc_dcdm needs a symmetric matrix (Dirichlet rows may couple one way)"
            )
        w.append(low)
    raise_together(comm, error)
    s = rows.array_to_box(stencil.s / scale if scale > 0 else stencil.s, work)
    work.destroy()
    dirichlet = np.flatnonzero(stencil.dirichlet)
    diagonal = stencil.sign * stencil.diagonal[dirichlet]
    active, extra, fixed = comm.allreduce(np.array([np.count_nonzero(~stencil.dirichlet), np.count_nonzero(stencil.s), dirichlet.size]))
    return GridSystem(
        grid=grid,
        layout=layout,
        rows=rows,
        w=w,
        s=s,
        scale=stencil.sign * (scale or 1.0),
        dirichlet=dirichlet,
        dirichlet_diagonal=np.where(diagonal == 0.0, 1.0, diagonal),
        any_dirichlet=bool(fixed),
        singular=bool(active) and not extra,
        active_cells=int(active),
    )
