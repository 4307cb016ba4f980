"""The net under a network whose directions do not suit a matrix: a PC of PETSc's gives them from there on.

No plan and no weights are right for all matrices. The loop sees what each step takes from the error, and where that is
too little the steps go on from the same x along the directions of an algebraic multigrid method.
"""

from __future__ import annotations

from collections import deque

from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.petsc_library import inform
from petsc_dcdm.network.weights import ModelFile, network_of
from petsc_dcdm.solver.coarse.solver import BOOMERAMG_ALONE
from petsc_dcdm.solver.loop.steps import Outcome
from petsc_dcdm.solver.otherwise import other_pc
from petsc_dcdm.stencil.forms.conversion import as_aij
from petsc_dcdm.stencil.system import GridSystem

SLOW = 0.5
"""A-norm of the error after a step over that before, from which on a network is too slow. Most families of
`petsc_dcdm.poisson` have below 0.1, noise of deviation 3 has 0.44 at worst."""

STEPS = 8
"""So many in a row, beside the first one, which takes what is rough from any error. After two to five slow ones there
is often none: layers on a ring, 161 x 20 x 24 cells, leave 0.81, 2.96 and 1.34 each and then 0.15, and take 13
iterations."""


class Rate:
    """What the steps of a solve leave of the error, from what exact line searches gain: (r . d)^2 / d . A d of each one
    is what the square of its A-norm lost (Hestenes, Stiefel 1952), and shrinks as the error does.
    """

    def __init__(self) -> None:
        self._gains: deque[float] = deque(maxlen=STEPS + 1)
        self._first = True

    def add(self, step: Outcome) -> None:
        """``step``: of the loop, numbers that all ranks have alike."""
        if not self._first and step.energy != 0.0:  # 0 where r is 0, which nobody looks at without a norm
            self._gains.append(abs(step.slope * (step.slope / step.energy)))
        self._first = False

    @property
    def left(self) -> float:
        """Share of the error that each of the last steps has left; 0 as long as that is not known."""
        if len(self._gains) <= STEPS or not self._gains[0] > 0.0:
            return 0.0
        return float((self._gains[-1] / self._gains[0]) ** (0.5 / STEPS))

    @property
    def slow(self) -> bool:
        """Whether they were too little to go on."""
        return self.left > SLOW


class Net:
    """Of one preconditioner: what takes the network's place, and of which matrix that is known beforehand."""

    def __init__(self) -> None:
        self.pc: PETSc.PC | None = None
        self.why = ""
        """What the steps were like that it was set up after; "" if it never was."""
        self._pattern: tuple[int | None, ...] | None = None

    @staticmethod
    def serves(kind: str, file: ModelFile) -> bool:
        """Whether it is wanted: not under networks without levels, which are slow, and chosen all the same."""
        return kind != "none" and network_of(file).levels

    def knows(self, pattern: tuple[int | None, ...], comm: MPI.Intracomm) -> bool:
        """Whether the network was too slow for a matrix of this ``pattern``. Collective."""
        if self._pattern is None:
            return False
        return bool(over_all(comm, pattern == self._pattern and None not in pattern, op=MPI.LAND))

    def set_up(self, pc: PETSc.PC, kind: str, system: GridSystem) -> None:
        """Make a PC of type ``kind``, or for "auto" BoomerAMG or GAMG, for the second operator of ``pc``; options
        prefix: that of ``pc`` and ``pc_dcdm_net_``. Collective.
        """
        _, P = pc.getOperators()
        matrix = _of_others(as_aij(P), P, system)
        defaults = {}
        if kind == "auto":
            kind = PETSc.PC.Type.HYPRE if PETSc.Sys.hasExternalPackage("hypre") else PETSc.PC.Type.GAMG
        if kind == PETSc.PC.Type.HYPRE:
            defaults = {f"pc_hypre_boomeramg_{name}": value for name, value in BOOMERAMG_ALONE.items()}
        self.pc = other_pc(pc, kind, "pc_dcdm_net_", matrix, defaults)
        if matrix is not P:
            matrix.destroy()  # the PC holds it

    def catch(
        self, pc: PETSc.PC, kind: str, system: GridSystem, pattern: tuple[int | None, ...] | None, why: str
    ) -> None:
        """`set_up`, now and by the preconditioner for matrices of this ``pattern`` from the first step on."""
        self.set_up(pc, kind, system)
        assert self.pc is not None
        self._pattern, self.why = pattern, why
        kind = self.pc.getType()
        inform(pc, lambda: f"{kind} gives the directions in place of the network, and will for this pattern: {why}")

    def forget(self) -> None:
        """For weights or options that have changed."""
        self._pattern, self.why = None, ""

    @property
    def text(self) -> str:
        """A line for -ksp_view."""
        return f"    the network is not in use, for {self.why}; directions are those of\n"

    def view(self, viewer: PETSc.Viewer) -> None:
        """What gives the directions. Collective."""
        if self.pc is not None:
            self.pc.view(viewer)

    def destroy(self) -> None:
        """The PC; what is remembered stays. Collective."""
        if self.pc is not None:
            self.pc.destroy()
            self.pc = None


def _of_others(matrix: PETSc.Mat, P: PETSc.Mat, system: GridSystem) -> PETSc.Mat:
    """``matrix`` as a multigrid method wants it: of rows that were scaled one by one the symmetric one, and fixed rows,
    whose diagonals may be of any size and sign, apart. ``P`` stays as it is; another one is let go of where a new one
    is returned. Collective.
    """
    if system.factors is None and not system.fixed.anywhere:
        return matrix
    if matrix is P:
        matrix = P.copy()
    if system.factors is not None:
        inverse = matrix.createVecLeft()
        inverse.setArray(1.0 / system.factors.values)
        matrix.diagonalScale(inverse)
        inverse.destroy()
    if system.fixed.anywhere:
        rows = (system.fixed.rows + matrix.getOwnershipRange()[0]).astype(PETSc.IntType)
        matrix.zeroRowsColumns(rows, system.scale)
    return matrix


def describe(step: int, rate: Rate) -> str:
    """Why the net is needed after ``step``."""
    return f"at step {step} its directions left {rate.left:.2g} of the error each"
