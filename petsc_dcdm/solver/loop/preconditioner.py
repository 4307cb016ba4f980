"""What petsc_dcdm.KSP asks of a preconditioner that has read the matrix, beyond applying it."""

from __future__ import annotations

from typing import Protocol

from petsc4py import PETSc

from petsc_dcdm.backends.base import Loop
from petsc_dcdm.solver.loop.constant_mode import Closed
from petsc_dcdm.solver.together import Together
from petsc_dcdm.stencil.fixed import FixedRows
from petsc_dcdm.stencil.forms.row_scaling import RowFactors
from petsc_dcdm.stencil.system import GridSystem


class GridPreconditioner(Protocol):
    """The Python context of such a preconditioner: petsc_dcdm.PC, or a class derived from it. All methods but `given`
    are collective.
    """

    owner: int | None
    """Handle of the Krylov solver that the preconditioner belongs to."""
    keep_operator: bool
    """Whether `direction_loop` will be asked for after set-up."""
    fallback: PETSc.PC | None
    """What serves the matrix where the network cannot; after `ready`."""

    @property
    def factors(self) -> RowFactors | None:
        """What the rows of the matrix are of those of a symmetric one, None if they are these; after `ready`."""

    def together(self) -> Together:
        """For a block that all ranks enter and must not leave one by one."""

    def ready(self, pc: PETSc.PC) -> None:
        """Set-up, unless it is done."""

    def direction_loop(self, A: PETSc.Mat, history: int) -> tuple[GridSystem, Loop] | str:
        """The system and the loop that take the steps of the method with ``A``, or a sentence why there are none."""

    def give_up(self, pc: PETSc.PC, why: str) -> bool:
        """Let another PC give the directions, where that is wanted and not done already; whether it is done now."""

    def given(self, b: PETSc.Vec) -> PETSc.Vec:
        """The user's right-hand side, of which PETSc has made ``b``."""

    def fixed_rows(self, A: PETSc.Mat) -> FixedRows:
        """The rows of ``A`` that are solved before the loop."""

    def closed(self, A: PETSc.Mat) -> Closed:
        """What constants are to ``A``."""

    def constants_are_null(self, A: PETSc.Mat) -> bool:
        """Whether ``A`` was set up and takes the constant vector to zero, to rounding."""

    def constant_part(self, b: PETSc.Vec) -> float:
        """Norm of the part of ``b`` along constants on the coupled rows."""
