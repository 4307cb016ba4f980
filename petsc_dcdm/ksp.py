"""The Deep Conjugate Direction Method as a PETSc Krylov solver.

Kaneda, Akar, Chen, Kala, Hyde, Teran: A Deep Conjugate Direction Method for Iteratively Solving Linear Systems, ICML
2023
(arXiv 2205.10763). The preconditioner's output is made A-orthogonal to the last m directions and an exact line search
steps along it; nothing is asked of the preconditioner, not even linearity. With the same PC it is PETSc's
``-ksp_type fcg -ksp_fcg_mmax m -ksp_fcg_truncation_type standard``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.at_exit import forget, watch
from petsc_dcdm.constant_mode import ConstantMode
from petsc_dcdm.convergence import EPS, PC_FAILED, Convergence, Reason
from petsc_dcdm.explained import Explained, raise_misplaced, say
from petsc_dcdm.grid.fixed import find_fixed_rows
from petsc_dcdm.grid.regions import find_regions
from petsc_dcdm.models.memory import aligned_zeros
from petsc_dcdm.null_spaces import KnownNullSpaces
from petsc_dcdm.options import KSP_OPTIONS, OptionError, print_help, read
from petsc_dcdm.otherwise import Otherwise
from petsc_dcdm.petsc_library import petsc_library
from petsc_dcdm.steps import GridSteps, Steps, System, VectorSteps

_UNSET_PC = (None, PETSc.PC.Type.NONE, PETSc.PC.Type.ILU, PETSc.PC.Type.ICC, PETSc.PC.Type.BJACOBI)
"""PC types that count as not chosen: none, and PETSc's defaults, which KSPSetFromOptions has set before ours is
called.
"""


def _like(b: PETSc.Vec) -> PETSc.Vec:
    """A work vector like ``b``; on the host in memory that is cheap to touch for the first time, which takes as long as
    a step in PETSc's own. What it holds is not defined. Collective.
    """
    if b.getType() not in (PETSc.Vec.Type.SEQ, PETSc.Vec.Type.MPI):
        return b.duplicate()
    memory = aligned_zeros(b.getLocalSize(), np.float64)
    return PETSc.Vec().createWithArray(memory, size=b.getSizes(), bsize=b.getBlockSize(), comm=b.getComm())


class KSP:
    """Python type ``petsc_dcdm.KSP``; see :mod:`petsc_dcdm.options` for its options. All methods are collective."""

    def __init__(self) -> None:
        self.history = 2
        self.true_residual_every = 50
        self.operator = "auto"
        self._work: list[PETSc.Vec] = []
        self._problem: Exception | None = None
        """What was wrong with the options: there is no solve with them."""
        self._said: set[str] = set()
        self._null_spaces = KnownNullSpaces()
        self._measured = ""
        self._otherwise = Otherwise()

    def create(self, ksp: PETSc.KSP) -> None:
        """True residuals: the unpreconditioned norm, unless another was chosen that can be served."""
        if not isinstance(ksp, PETSc.KSP):
            raise_misplaced(ksp, "petsc_dcdm.KSP", "a preconditioner", "-pc_python_type petsc_dcdm.PC")
        watch(ksp)
        library, norms = petsc_library(), PETSc.KSP.NormType
        if library is not None:  # petsc4py declares what it takes for support
            for side in (PETSc.PC.Side.LEFT, PETSc.PC.Side.RIGHT):
                for norm in (norms.NONE, norms.NATURAL):
                    library.KSPSetSupportedNorm(ctypes.c_void_p(ksp.handle), int(norm), int(side), 1)
            left = int(PETSc.PC.Side.LEFT)
            library.KSPSetSupportedNorm(ctypes.c_void_p(ksp.handle), int(norms.UNPRECONDITIONED), left, 4)
        chosen = PETSc.Options().hasName((ksp.getOptionsPrefix() or "") + "ksp_norm_type")
        if not chosen and ksp.getNormType() not in (norms.NONE, norms.NATURAL):
            ksp.setNormType(norms.UNPRECONDITIONED)

    def destroy(self, ksp: PETSc.KSP) -> None:
        forget(ksp)
        context = self._offering(ksp)
        if context is not None:
            context.owner = None
        self.reset(ksp)

    def reset(self, ksp: PETSc.KSP) -> None:
        self._free_vectors()
        self._otherwise.reset()

    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        prefix = ksp.getOptionsPrefix()
        print_help(KSP_OPTIONS, prefix, "Deep conjugate direction method (petsc_dcdm.KSP)", ksp.getComm())
        self._problem = None
        with self._or_failed(ksp):
            values = read(KSP_OPTIONS, prefix)
        self.history = values["ksp_dcdm_history"]
        self.true_residual_every = values["ksp_dcdm_true_residual_every"]
        self.operator = values["ksp_dcdm_operator"]
        self._install_pc(ksp, prefix)

    @contextmanager
    def _or_failed(self, ksp: PETSc.KSP) -> Iterator[None]:
        """Programs that ignore error codes look at the converged reason: after an error in the block it is negative, as
        it is after each later solve.
        """
        try:
            with Explained(ksp.getComm(), "KSP"):
                yield
        except Exception as problem:
            self._problem = problem
            ksp.setConvergedReason(PC_FAILED)
            raise

    def _install_pc(self, ksp: PETSc.KSP, prefix: str | None) -> None:
        """Choosing only the KSP brings its preconditioner. That is so for a user whose options choose it, whatever the
        program has set; where the program does, a type of none counts as unset (clients do that), others as meant.
        """
        options, prefix = PETSc.Options(), prefix or ""
        pc = ksp.getPC()
        kind = pc.getType()
        if options.hasName(prefix + "pc_type") or kind == PETSc.PC.Type.PYTHON:
            return
        if kind not in _UNSET_PC:
            if options.getString(prefix + "ksp_python_type", "") != "petsc_dcdm.KSP":
                return
            kept = f"give -{prefix}pc_type {kind} to keep it"
            self._say_once(ksp, f"petsc_dcdm.PC takes the place of the program's {kind} preconditioner; {kept}")
        pc.setType(PETSc.PC.Type.PYTHON)
        pc.setPythonType("petsc_dcdm.PC")
        pc.setFromOptions()

    def setUp(self, ksp: PETSc.KSP) -> None:
        if self._problem is not None:
            with self._or_failed(ksp):
                raise self._problem
        self._install_pc(ksp, ksp.getOptionsPrefix())
        if ksp.getNormType() == PETSc.KSP.NormType.PRECONDITIONED:
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            self._say_once(
                ksp,
                "the preconditioned norm would be that of a network's output; the unpreconditioned norm, of the true "
                "residual, is tested instead",
            )
        if ksp.getPCSide() != PETSc.PC.Side.LEFT:  # to PETSc that means that x is what the vector holds
            ksp.setPCSide(PETSc.PC.Side.LEFT)
        self._refuse_scaling(ksp)
        context = self._offering(ksp)
        if context is not None:
            context.owner = ksp.handle
            if self.operator != "mat":
                context.keep_operator = True

    def _refuse_scaling(self, ksp: PETSc.KSP) -> None:
        """PETSc would scale the matrix by its diagonal, in place, before the preconditioner sees it."""
        library, scaled = petsc_library(), ctypes.c_int(0)
        if library is None:
            return
        library.KSPGetDiagonalScale(ctypes.c_void_p(ksp.handle), ctypes.byref(scaled))
        if scaled.value:
            library.KSPSetDiagonalScale(ctypes.c_void_p(ksp.handle), 0)
            self._say_once(
                ksp,
                "the matrix is not scaled by its diagonal (-ksp_diagonal_scale): the network is made for conductances, "
                "and brings its own scale",
            )

    def _say_once(self, ksp: PETSc.KSP, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(ksp.getComm(), "KSP", text)

    @staticmethod
    def _offering(ksp: PETSc.KSP) -> Any:
        """The context of a preconditioner that can take the steps on its grid, or None."""
        pc = ksp.getPC()
        context = pc.getPythonContext() if pc.getType() == PETSc.PC.Type.PYTHON else None
        return context if hasattr(context, "direction_loop") else None

    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        if viewer.getType() == PETSc.Viewer.Type.ASCII:
            viewer.printfASCII(
                f"    deep conjugate direction method (Kaneda et al., ICML 2023): history {self.history}, "
                f"true residual every {self.true_residual_every or 'never but before convergence'}, "
                f"operator {self.operator}\n{self._measured}"
            )

    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The method's loop. Collective. ``x`` holds the initial guess if the KSP says it is non-zero."""
        self._solve(ksp, b, x, transposed=False)

    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The same with A', on PETSc's vectors: A is symmetric but for Dirichlet rows that others couple to one way."""
        self._solve(ksp, b, x, transposed=True)

    def _solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        context = self._offering(ksp)
        with context.together() if context is not None else nullcontext():
            if context is not None and context.fallback is not None:
                self._otherwise.solve(ksp, context.fallback, b, x, transposed)
                return
            A, P = ksp.getOperators()
            known = self._null_spaces.of(A, P, context)
            if known.ignored:
                self._say_once(ksp, known.ignored)
                b = context.given(b) if context is not None else b
            projected = known.without(b, A)
            fixed = context.fixed_rows(A) if context is not None else find_fixed_rows(A)
            mult = A.multTranspose if transposed else A.mult
            near = known.null_space is None and context is not None and context.nearly_closed(A)
            constants = ConstantMode(mult, b, fixed) if near else None
            system = System(mult, projected or b, x, fixed, known.null_space, constants)
            try:
                self._loop(ksp, system, transposed)
            finally:
                for made in (projected, constants):
                    if made is not None:
                        made.destroy()

    def _loop(self, ksp: PETSc.KSP, system: System, transposed: bool) -> None:
        """From the fixed rows to the last step."""
        A, _ = ksp.getOperators()
        guessed = ksp.getInitialGuessNonzero()
        fixed = system.fixed.begin(system.b, system.x)
        steps = self._make_steps(ksp, system, transposed)
        matrix_free = "aij" not in A.getType() and "baij" not in A.getType()
        ended = Convergence(ksp, steps, system, matrix_free, partial(self._closed_regions, ksp, system.b))
        reference = self._reference(ksp, system) if guessed else None
        steps.start(guessed or fixed or system.constants is not None)
        try:
            with ended.tolerances(steps.norm(), reference):
                self._measured = self._what_was_measured(system, ended)
                if not self._has_no_solution(ksp, system, ended):
                    self._iterate(ksp, steps, ended)
        finally:
            steps.store()

    def _reference(self, ksp: PETSc.KSP, system: System) -> float:
        """The norm of the right-hand side without what the fixed rows add to it; in the norm that is tested."""
        left = system.fixed.left_of(system.b, system.mult)
        square = float(left.norm()) ** 2
        if ksp.getNormType() == PETSc.KSP.NormType.NATURAL:
            z = left.duplicate()
            ksp.getPC().apply(left, z)
            square = abs(float(left.dot(z)))
            z.destroy()
        left.destroy()
        return float(np.sqrt(square))

    @staticmethod
    def _what_was_measured(system: System, ended: Convergence) -> str:
        if not system.fixed.anywhere:
            return ""
        return (
            "    rows that only their own diagonal decides were solved before the loop: norms are of the others, "
            f"tolerances relative to {ended.reference:.3g}\n"
        )

    def _has_no_solution(self, ksp: PETSc.KSP, system: System, ended: Convergence) -> bool:
        """Whether it is clear before the first step that no x can converge; then it is said, and over."""
        A, P = ksp.getOperators()
        context = self._offering(ksp)
        norm = ended.reference
        empty = np.flatnonzero(system.fixed.diagonal == 0.0)
        rows = system.fixed.rows[empty]
        rows = rows[system.b.getArray(readonly=True)[rows] != 0.0]
        why = None
        if system.fixed.anywhere:
            first = A.getOwnershipRange()[0]
            found = [first + int(rows[0])] if rows.size else []
            row = next(iter(sum(A.getComm().tompi4py().allgather(found), [])), None)
            if row is not None:
                why = f"row {row} of the matrix is all zero and its right-hand side is not: there is no solution"
        wanted = context is not None and A == P and system.null_space is None
        if why is None and wanted and ksp.getNormType() != PETSc.KSP.NormType.NONE:
            part = context.constant_part(system.b)
            rtol, atol, _, _ = ksp.getTolerances()
            if part > max(rtol * norm, atol, 64 * EPS * norm):
                why = (
                    "constants are a null space of the matrix and a part of the right-hand side "
                    f"({ended.relative(part)}): there is no solution; attach the null space (MatSetNullSpace) for the "
                    "solution of the rest"
                )
        if why is None:
            return False
        ksp.setIterationNumber(0)
        ksp.setResidualNorm(norm)
        return ended.stop(Reason.DIVERGED_BREAKDOWN, why)

    @staticmethod
    def _closed_regions(ksp: PETSc.KSP, b: PETSc.Vec, tolerance: float) -> str:
        """Why no x leaves a residual below ``tolerance``: b in regions that nothing holds; "" elsewhere."""
        A, P = ksp.getOperators()
        if A != P or "aij" not in A.getType() or "baij" in A.getType():
            return ""
        regions = find_regions(A)
        parts = regions.parts(b)
        wrong = np.flatnonzero(parts > tolerance)
        if not wrong.size:
            return ""
        worst = wrong[np.argmax(parts[wrong])]
        return (
            f"in {wrong.size} of {parts.size} regions without a fixed value (rooms, pockets) the right-hand side does "
            f"not add up to 0; in that of row {regions.first[worst]}, of {regions.rows[worst]} rows, its constant part "
            f"is {parts[worst]:.1e}, the tolerance {tolerance:.1e}: there is no solution; make it add up, or attach a "
            "null space with one vector for each region (MatSetNullSpace)"
        )

    def _iterate(self, ksp: PETSc.KSP, steps: Steps, ended: Convergence) -> None:
        max_it = ksp.getTolerances()[3]
        its = since_true = 0
        done = ended.check(its, exact=True)
        while not done and its < max_it:
            found = steps.step()
            if not np.isfinite(found.energy * found.slope):
                done = ended.stop(Reason.DIVERGED_NANORINF, "the preconditioner or the matrix gave NaN or Inf")
            elif found.energy == 0.0 or found.slope == 0.0:
                done = ended.stop(Reason.DIVERGED_BREAKDOWN, "no direction: d . A d or r . d is 0")
            else:
                its += 1
                since_true += 1
                exact = bool(self.true_residual_every) and since_true >= self.true_residual_every
                if exact:
                    steps.true_residual()
                    since_true = 0
                done = ended.check(its, exact)
        if not done:
            ended.finish()

    def _make_steps(self, ksp: PETSc.KSP, system: System, transposed: bool) -> Steps:
        """On the grid where the preconditioner offers it for this very matrix, else on PETSc's vectors."""
        A, _ = ksp.getOperators()
        natural = ksp.getNormType() == PETSc.KSP.NormType.NATURAL
        why = "-ksp_dcdm_operator mat"
        if transposed:
            why = "a transposed system is solved with the matrix"
        elif system.constants is not None:
            why = "constants nearly are a null space, which single precision does not resolve"
        elif natural:
            why = "the natural norm wants the preconditioned residual by itself"
        elif self.operator != "mat":
            context = self._offering(ksp)
            offer = (
                "the preconditioner is not petsc_dcdm.PC"
                if context is None
                else context.direction_loop(A, self.history)
            )
            if not isinstance(offer, str):
                grid, loop = offer
                return GridSteps(A, grid, loop, system, self._vectors(system.b, 1)[0])
            why = offer
        if self.operator == "stencil":
            with self._or_failed(ksp):
                raise OptionError(f"-ksp_dcdm_operator stencil: {why}; use auto or mat")
        work = self._vectors(system.b, 3 + 2 * self.history)
        return VectorSteps(system, ksp.getPC(), work, self.history, natural)

    def _vectors(self, b: PETSc.Vec, wanted: int) -> list[PETSc.Vec]:
        """Work vectors like ``b``, kept from solve to solve."""
        fits = self._work and self._work[0].getSizes() == b.getSizes() and self._work[0].getType() == b.getType()
        if not fits:
            self._free_vectors()
        while len(self._work) < wanted:
            self._work.append(_like(b))
        return self._work[:wanted]

    def _free_vectors(self) -> None:
        for vec in self._work:
            vec.destroy()
        self._work = []
