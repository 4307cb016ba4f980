"""The coarsest level: what solves it, and that solver where it is one of PETSc's.

The grid ends where the hierarchy's plan ends. What is left is solved exactly by a Cholesky factorisation when it is
small (on one rank within its `band`), and approximately when it is not: by fast diagonalisation (`separable`) where the
medium allows it, else on coarse cells of several parts (`parts`). With options under the prefix of the PC +
``pc_dcdm_coarse_``, or where there are no compiled kernels, it is an ordinary sparse matrix for PETSc: BoomerAMG by
default (GAMG where PETSc has no hypre), on as many ranks as that is worth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import raise_together
from petsc_dcdm.grid.faces import diagonal, neighbours, padded
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.petsc_library import unlock
from petsc_dcdm.solver.coarse import parts
from petsc_dcdm.solver.coarse.agglomeration import Agglomeration, Rows
from petsc_dcdm.solver.coarse.band import BandCoarseSolver, band_coarse_solver
from petsc_dcdm.solver.coarse.parts import PartsCoarseSolver
from petsc_dcdm.solver.coarse.separable import separable_solver
from petsc_dcdm.solver.coarse.shift import shift_of
from petsc_dcdm.solver.options import option_defaults

DIRECT_LIMIT = 6000
"""Unknowns up to which a factorisation is the default."""

SPARSE = 8
"""Cells over unknowns up to which it is worth to count these."""

BOOMERAMG = {"coarsen_type": "HMIS", "interp_type": "ext+i", "P_max": "4", "max_iter": "1"}
"""Fewer iterations than hypre's defaults in 2D (random solids 7 / 9 instead of 9 / 11), the same in 3D. One cycle each
time: there are several visits where the system is small beside the grid.
"""

BOOMERAMG_ALONE = {**BOOMERAMG, "agg_nl": "1"}
"""Where there is no level of the network above, in space. With aggressive coarsening of the finest level set-up takes
0.44 instead of 0.59 s and a step 37 instead of 69 ms (labyrinth of 64^3 cells on one rank), which is more than the
three or four iterations that it costs; small drops on a ring, 64^3: 0.39 + 0.28 s instead of 0.74 + 0.58. In the plane
both take as long, and this twice as many iterations."""

UNKNOWNS_PER_RANK = 3000
"""How many unknowns are worth a rank to work on a larger system. Two cycles on them take 0.4 ms, of the order of what
hundreds of ranks need for messages; two ranks of one host are 1.9 times as fast as one with 3000 unknowns each."""


class PetscCoarseSolver:
    """Callable on the local array of the right-hand side; collective on all ranks of ``comm``.

    A small system is held and solved by every rank: one gather per solve, no scatter back. A larger one goes to as many
    ranks as have work with it, evenly spread, and its solution comes back from them. Ranks that work on the box of
    another one have no part in it.
    """

    def __init__(
        self, comm: PETSc.Comm, operator: CoarseOperator, layout: Layout, prefix: str, has_box: bool = True
    ) -> None:
        """Collective: assembles the matrix and sets its solver up. Raises RuntimeError on all ranks if that fails.

        ``has_box``: False where this rank works on the box of another; then it need not be called for solutions.
        """
        mpi = comm.tompi4py()
        rows, self._active = _rows(mpi, operator, layout)
        self._mpi, self._pattern = mpi, rows[:2]
        self.unknowns = mpi.allreduce(rows[0].size - 1)
        self._everywhere = self.unknowns <= DIRECT_LIMIT
        self._alone = not layout.plan and layout.global_shape[0] > 1
        workers = max(1, self.unknowns // UNKNOWNS_PER_RANK)
        self._holders = mpi.Split(int(has_box), mpi.Get_rank())
        self._ranks = None
        if has_box:
            self._ranks = Agglomeration(self._holders, rows[0].size - 1, workers, self._everywhere)
        self._out = np.zeros(operator.shape, dtype=np.float32)
        self.ksp: PETSc.KSP | None = None
        self._prefix = prefix
        self._problem: Exception | None = None
        self._on_workers(rows, self._set_up)

    def _on_workers(self, rows: Rows, set_up: Callable[[Rows], None]) -> None:
        """``set_up`` with the rows of all ranks a worker works for. Raises RuntimeError on all ranks if it fails."""
        collected = None if self._ranks is None else self._ranks.rows(rows)
        if collected is not None:
            try:
                set_up(collected)
            except Exception as error:
                self._problem = RuntimeError(
                    f"the coarse solver (options prefix {self._prefix}) can not be set up: {error}"
                )
        raise_together(self._mpi, self._problem)

    def _set_up(self, rows: Rows) -> None:
        assert self._ranks is not None
        comm = self._ranks.comm
        n = (rows[0].size - 1, PETSc.DECIDE)
        self._matrix = PETSc.Mat().createAIJ((n, n), csr=rows, comm=comm)
        self._matrix.setOption(PETSc.Mat.Option.SPD, True)
        self._x, self._b = self._matrix.createVecs()
        self.ksp = PETSc.KSP().create(comm)
        self.ksp.setOptionsPrefix(self._prefix)
        self.ksp.setOperators(self._matrix)
        self.ksp.setType(PETSc.KSP.Type.PREONLY)
        defaults = self._choose_pc(self.ksp.getPC())
        with option_defaults(self._prefix, defaults):
            self.ksp.setFromOptions()
        if self.unknowns:
            self.ksp.setUp()

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Other values in the same places: ranks, orderings and symbolic factors stay. False where the places are
        others; then nothing has been done. Collective. Raises RuntimeError on all ranks if the set-up fails.
        """
        rows, active = _rows(self._mpi, operator, layout)
        known = np.array_equal(active, self._active) and all(map(np.array_equal, rows[:2], self._pattern))
        if not self._mpi.allreduce(known, op=MPI.LAND):
            return False
        self._on_workers(rows, self._update_values)
        return True

    def _update_values(self, rows: Rows) -> None:
        if self.unknowns and self.ksp is not None:
            self._matrix.setValuesCSR(*rows)
            self._matrix.assemble()
            self.ksp.setUp()

    def _choose_pc(self, pc: PETSc.PC) -> dict[str, str]:
        """The default solver, and its options that petsc4py has no call for."""
        if self._everywhere:
            pc.setType(PETSc.PC.Type.CHOLESKY)
            pc.setFactorOrdering("nd")
            pc.setFactorPivot(zeropivot=np.finfo(float).tiny)  # regions may be of any size: theirs are no zeros
            return {}
        if not PETSc.Sys.hasExternalPackage("hypre"):
            pc.setType(PETSc.PC.Type.GAMG)
            return {}
        pc.setType(PETSc.PC.Type.HYPRE)
        pc.setHYPREType("boomeramg")
        options = BOOMERAMG_ALONE if self._alone else BOOMERAMG
        return {f"pc_hypre_boomeramg_{name}": value for name, value in options.items()}

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """The solution for the float32 right-hand side ``r`` of this rank's coarse box; 0 at inactive cells, NaN if the
        solver fails. Collective.

        The array returned is overwritten by the next call.
        """
        if not self.unknowns or self._ranks is None:
            return self._out
        values = self._ranks.collect(r[self._active])
        if self.ksp is not None:
            values = self._solve(values)
        self._out[self._active] = self._ranks.hand_out(values)
        return self._out

    def _solve(self, values: np.ndarray) -> np.ndarray:
        assert self.ksp is not None
        self._b.setArray(values)
        try:
            self.ksp.solve(self._b, self._x)
        except Exception as error:
            # Other ranks wait for what is found; NaN ends the solve on all of them.
            unlock(self._b)
            if self._problem is None:
                self._problem = error
                print(f"petsc_dcdm.PC: the coarse solver ({self._prefix}) failed: {error}", file=sys.stderr)
            return np.full(values.size, np.nan)
        return self._x.getArray(readonly=True)

    @property
    def name(self) -> str:
        """What solves it, for people: PETSc's names of its types, on a rank that works on it (rank 0 always does)."""
        if self.ksp is None:
            return "PETSc"
        return f"PETSc's {self.ksp.getType()} + {self.ksp.getPC().getType()}"

    def view(self, viewer: PETSc.Viewer) -> None:
        """Which ranks solve, and how. Collective."""
        workers = 0 if self._ranks is None else self._ranks.workers
        where = "every rank, each all of it" if self._everywhere else f"{workers} ranks"
        viewer.printfASCII(f"    solver of the coarsest level, on {where}:\n")
        comm = None if self._ranks is None else self._ranks.comm
        own = viewer.getSubViewer(comm or PETSc.COMM_SELF)
        if self.ksp is not None:
            self.ksp.view(own)
        viewer.restoreSubViewer(own)

    def destroy(self) -> None:
        """Collective."""
        if self.ksp is not None:
            for petsc_object in (self.ksp, self._matrix, self._x, self._b):
                petsc_object.destroy()
        if self._ranks is not None:
            self._ranks.free()
        if not MPI.Is_finalized():
            self._holders.Free()


CoarseSolver = PetscCoarseSolver | PartsCoarseSolver | BandCoarseSolver
"""All are used alike."""


class Coarsest(NamedTuple):
    """A coarsest system, and who solves it."""

    comm: PETSc.Comm
    operator: CoarseOperator
    layout: Layout
    prefix: str  #: of options
    threads: int  #: of this rank
    unknowns: int  #: of all ranks, as those know that have a box
    team: Workers = ONE_RANK  #: who works on the box; the ranks that do not lead have none


def renewed(before: CoarseSolver | None, wanted: Coarsest) -> CoarseSolver:
    """The solver that there was, with other values, where the operator is of its pattern; else a new one in its place.
    As :func:`coarse_solver`.
    """
    if before is not None:
        if before.update(wanted.operator, wanted.layout):
            return before
        before.destroy()
    return coarse_solver(wanted)


def coarse_solver(wanted: Coarsest) -> CoarseSolver:
    """The solver for a coarsest system. Collective; raises RuntimeError on all ranks."""
    comm, operator, layout, prefix, threads, unknowns, team = wanted
    mpi, cells = comm.tompi4py(), prod(operator.global_shape)
    wish = any(PETSc.Options(prefix).hasName(name) for name in ("pc_type", "ksp_type"))
    ours = not (any(layout.periodic) or wish)  # which know of no neighbour round a ring
    if ours and cells <= SPARSE * DIRECT_LIMIT and over_all(mpi, float(team.leads)) == 1:
        band = band_coarse_solver(operator, DIRECT_LIMIT, prefix, mpi, threads, team)
        if band is not None:
            return band
    if ours and cells > DIRECT_LIMIT and parts.serves(comm, operator):
        product = separable_solver(comm, operator, layout, threads, team)
        if product is not None:
            return product
        if mpi.allreduce(unknowns, op=MPI.MAX) > DIRECT_LIMIT:
            return PartsCoarseSolver(comm, operator, layout, threads, team)
    return PetscCoarseSolver(comm, operator, layout, prefix, team.leads)


def _rows(mpi: MPI.Intracomm, operator: CoarseOperator, layout: Layout) -> tuple[Rows, np.ndarray]:
    """This rank's rows of the coarse matrix in CSR, global columns, and their cells (bool): the active ones, which are
    numbered rank by rank. Collective.

    The diagonal is raised by `shift_of` the operator.
    """
    faces = [padded(face, layout) for face in operator.w]
    entries = diagonal(faces, operator.s)
    active = entries > 0
    count = int(np.count_nonzero(active))
    first = mpi.exscan(count) or 0
    number = np.full(active.shape, -1.0)
    number[active] = first + np.arange(count)
    numbers = padded(number + 1.0, layout) - 1.0
    shift = shift_of(operator)
    columns, values = [number[active]], [entries[active] * (1.0 + shift)]
    for axis in range(3):
        low, high = operator.w[axis], neighbours(faces[axis], axis)[1]
        if layout.periodic[2 - axis] and operator.global_shape[2 - axis] == 2:
            low, high = low + high, np.zeros_like(high)  # both neighbours are the same cell
        for w, neighbour in zip((low, high), neighbours(numbers, axis), strict=True):
            columns.append(neighbour[active])
            values.append(-w[active])
    column, value = np.stack(columns, axis=1), np.stack(values, axis=1)
    present = (column >= 0) & (value != 0)
    indptr = np.concatenate(([0], np.cumsum(present.sum(axis=1))))
    return (indptr.astype(PETSc.IntType), column[present].astype(PETSc.IntType), value[present]), active
