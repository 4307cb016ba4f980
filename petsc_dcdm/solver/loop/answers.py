"""What petsc_dcdm.PC tells the Krylov solver of the matrix that it was set up on."""

from __future__ import annotations

from dataclasses import replace

from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.base import Loop, Operator
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.identity import Identity, identity
from petsc_dcdm.solver.loop.constant_mode import Closed, constant_part, how_closed
from petsc_dcdm.solver.loop.net import Net
from petsc_dcdm.stencil.fixed import FixedRows, find_fixed_rows
from petsc_dcdm.stencil.forms.conversion import has_entries, is_aij
from petsc_dcdm.stencil.forms.row_scaling import RowFactors
from petsc_dcdm.stencil.system import GridSystem


class Answers:
    """Base of the preconditioner, see :class:`petsc_dcdm.solver.loop.preconditioner.GridPreconditioner`; set-up fills
    it in. All methods are collective.
    """

    def __init__(self) -> None:
        self._comm: MPI.Intracomm | None = None
        self._system: GridSystem | None = None
        self._key: Identity | None = None
        self._operator: Operator | None = None
        self._loop: tuple[int, Loop] | None = None
        self._fixed: tuple[Identity, FixedRows] | None = None
        self._given: PETSc.Vec | None = None
        self._net = Net()

    def _knows(self, P: PETSc.Mat) -> bool:
        """Whether this very matrix, with these values, is the one that was set up. Collective."""
        same = self._key is not None and identity(P) == self._key
        return same if self._comm is None else bool(over_all(self._comm, same, op=MPI.LAND))

    @property
    def system(self) -> GridSystem:
        """What was found in the matrix; after set-up without the fallback."""
        assert self._system is not None
        return self._system

    @property
    def layout(self) -> BoxLayout:
        """The boxes of the ranks, which count what they exchange; after set-up without the fallback."""
        return self.system.layout

    def direction_loop(self, A: PETSc.Mat, history: int) -> tuple[GridSystem, Loop] | str:
        """The system and the loop that take the steps of the method with ``A``, or why there are none."""
        if self._system is not None and self._system.near is not None:
            return "the matrix is not that of the grid, which is the nearest with a 5- or 7-point stencil"
        if self._net.pc is not None:
            return "the network's directions were too slow, and another preconditioner gives them (-pc_dcdm_net)"
        if self._operator is None or self._system is None:
            return "the preconditioner does not run compiled on a grid of more than one level"
        if not self._knows(A):
            return "the preconditioner was set up on another matrix or on other values"
        if history > self._operator.max_history:
            return f"the compiled loop keeps at most {self._operator.max_history} directions"
        if self._loop is None or self._loop[0] != history:
            self._loop = history, self._operator.loop(history)
        return self._system, self._loop[1]

    def constant_part(self, b: PETSc.Vec) -> float:
        """Norm of the part of ``b`` along constants on the coupled rows of the matrix that was set up. Collective."""
        assert self._comm is not None and self._system is not None
        return constant_part(b, self._system.fixed, self._system.active_cells, self._comm, self.factors)

    def constants_are_null(self, A: PETSc.Mat) -> bool:
        """Whether ``A`` was set up and takes the constant vector to zero, to rounding. Collective."""
        return self._knows(A) and self._system is not None and self._system.singular and not self._system.fixed.anywhere

    def closed(self, A: PETSc.Mat) -> Closed:
        """What constants are to ``A``; for a matrix without entries that which was set up stands for it. Collective."""
        system, kept = self._system, has_entries(A)
        if system is not None and (not kept or self._knows(A)):
            near = Closed.NEARLY if system.nearly_closed and kept else Closed.NO
            return Closed.ENTIRELY if system.singular else near
        return how_closed(A, self.fixed_rows(A)) if is_aij(A) else Closed.NO

    @property
    def factors(self) -> RowFactors | None:
        """How many times its rows are those of a symmetric matrix, where they are not such rows; after set-up."""
        return None if self._system is None else self._system.factors

    def fixed_rows(self, A: PETSc.Mat) -> FixedRows:
        """The rows of ``A`` that are solved before the loop; for a matrix without entries those of the matrix that was
        set up stand for them. Collective.
        """
        if self._system is not None and (not is_aij(A) or self._knows(A)):
            fixed = self._system.fixed
            return fixed if self._knows(A) else replace(fixed, certain=False)
        if self._fixed is None or self._fixed[0] != identity(A):
            self._fixed = identity(A), find_fixed_rows(A)
        return self._fixed[1]

    def given(self, b: PETSc.Vec) -> PETSc.Vec:
        """The user's right-hand side, of which PETSc has made ``b`` by taking the null space out."""
        return b if self._given is None else self._given
