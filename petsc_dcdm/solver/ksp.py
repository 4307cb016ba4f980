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
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.errors import OptionError
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.native.petsc_library import cite, petsc_library
from petsc_dcdm.native.traps import with_traps_masked
from petsc_dcdm.solver.at_exit import forget, watch
from petsc_dcdm.solver.explained import Explained, SayOnce, raise_misplaced
from petsc_dcdm.solver.loop.convergence import PC_FAILED
from petsc_dcdm.solver.loop.null_spaces import KnownNullSpaces
from petsc_dcdm.solver.loop.one_solve import OneSolve, Settings
from petsc_dcdm.solver.loop.preconditioner import GridPreconditioner
from petsc_dcdm.solver.loop.scaled_rows import Weights
from petsc_dcdm.solver.loop.steps import System
from petsc_dcdm.solver.options import KSP_OPTIONS, checked, misspelt, print_help, read
from petsc_dcdm.solver.otherwise import Otherwise
from petsc_dcdm.solver.petsc_build import require_real_double
from petsc_dcdm.stencil.fixed import find_fixed_rows

_UNSET_PC = (None, PETSc.PC.Type.NONE, PETSc.PC.Type.ILU, PETSc.PC.Type.ICC, PETSc.PC.Type.BJACOBI)
"""PC types that count as not chosen: none, and PETSc's defaults, which KSPSetFromOptions has set before ours is
called.
"""


PAPER = """@inproceedings{kaneda2023dcdm,
  title = {A Deep Conjugate Direction Method for Iteratively Solving Linear Systems},
  author = {Kaneda, Ayano and Akar, Osman and Chen, Jingyu and Kala, Victoria Alicia Trevino and Hyde, David and
            Teran, Joseph},
  booktitle = {Proceedings of the 40th International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {202},
  year = {2023}
}
"""


def _like(b: PETSc.Vec) -> PETSc.Vec:
    """A work vector like ``b``; on the host in memory that is cheap to touch for the first time, which takes as long as
    a step in PETSc's own. What it holds is not defined. Collective.
    """
    if b.getType() not in (PETSc.Vec.Type.SEQ, PETSc.Vec.Type.MPI):
        return b.duplicate()
    memory = aligned_zeros(b.getLocalSize(), np.float64, small_do=True)
    return PETSc.Vec().createWithArray(memory, size=b.getSizes(), bsize=b.getBlockSize(), comm=b.getComm())


@with_traps_masked
class KSP:
    """Python type ``petsc_dcdm.KSP``. Options: :mod:`petsc_dcdm.solver.options`. All methods are collective."""

    def __init__(self) -> None:
        self.settings = Settings()
        self._set: dict[str, Any] = {}
        self._work: list[PETSc.Vec] = []
        self._problem: OptionError | None = None
        """What is wrong with the options: there is no solve with them."""
        self._say_once = SayOnce("KSP")
        self._null_spaces = KnownNullSpaces()
        self._measured = ""
        self._otherwise = Otherwise()

    def create(self, ksp: PETSc.KSP) -> None:
        """True residuals: the unpreconditioned norm, unless another was chosen that can be served."""
        if not isinstance(ksp, PETSc.KSP):
            raise_misplaced(ksp, "petsc_dcdm.KSP", "a preconditioner", "-pc_python_type petsc_dcdm.PC")
        watch(ksp)
        require_real_double(ksp.getComm(), "KSP")
        cite(PAPER)
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
        if not isinstance(ksp, PETSc.KSP):  # created in vain
            return
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
            try:
                self.settings = read(KSP_OPTIONS, prefix, Settings, self._set)
            except OptionError as problem:
                self._problem = problem
                raise
        for sentence in misspelt(KSP_OPTIONS, prefix):
            self._say_once(ksp, sentence)
        self._install_pc(ksp, prefix)

    def set(self, **settings: Any) -> None:
        """Defaults of this solver, by the options' names without ``ksp_dcdm_``, as
        ``ksp.getPythonContext().set(history=1)``; options on the command line go before. Raises OptionError. The same
        on all ranks.
        """
        self._set.update(checked(KSP_OPTIONS, settings))
        self.settings = replace(self.settings, **self._set)

    @contextmanager
    def _or_failed(self, ksp: PETSc.KSP) -> Iterator[None]:
        """Programs that ignore error codes look at the converged reason: after an error in the block it is negative."""
        try:
            with Explained(ksp.getComm(), "KSP"):
                yield
        except Exception:
            ksp.setConvergedReason(PC_FAILED)
            raise

    @staticmethod
    def _undo_presolve(ksp: PETSc.KSP, b: PETSc.Vec) -> None:
        """What KSPSolve would do after the solve, and does not after an error in it: for programs that go on."""
        library = petsc_library()
        if library is not None:
            if hasattr(library, "VecLockReadPop"):  # vectors have no locks in every build
                library.VecLockReadPop(ctypes.c_void_p(b.handle))
            library.PCPostSolve(ctypes.c_void_p(ksp.getPC().handle), ctypes.c_void_p(ksp.handle))

    def _install_pc(self, ksp: PETSc.KSP, prefix: str | None) -> None:
        """Choosing only the KSP brings its preconditioner. That is so for a user whose options choose it, whatever the
        program has set; where the program does, a type of none counts as unset (clients do that), others as meant.
        """
        options, prefix = PETSc.Options(), prefix or ""
        pc = ksp.getPC()
        kind = pc.getType()
        if options.hasName(prefix + "pc_type") or self._offering(ksp) is not None:
            return
        if kind not in _UNSET_PC:
            if options.getString(prefix + "ksp_python_type", "") != "petsc_dcdm.KSP":
                self._say_once(
                    ksp,
                    f"the preconditioner is the program's, of type {kind}, and not petsc_dcdm.PC, the network: "
                    f"-{prefix}pc_type python -{prefix}pc_python_type petsc_dcdm.PC brings that",
                )
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
        self._adopt_pc(ksp)
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

    def _adopt_pc(self, ksp: PETSc.KSP) -> None:
        """Tells the preconditioner, before its set-up, whom it serves."""
        context = self._offering(ksp)
        if context is not None:
            context.owner = ksp.handle
            if self.settings.operator != "mat":
                context.keep_operator = True

    def _refuse_scaling(self, ksp: PETSc.KSP) -> None:
        """PETSc would scale the matrix by its diagonal, in place, before the preconditioner sees it."""
        library, scaled = petsc_library(), ctypes.c_int(0)
        if library is None or not hasattr(library, "KSPGetDiagonalScale"):  # gone from PETSc by 3.26
            return
        library.KSPGetDiagonalScale(ctypes.c_void_p(ksp.handle), ctypes.byref(scaled))
        if scaled.value:
            library.KSPSetDiagonalScale(ctypes.c_void_p(ksp.handle), 0)
            self._say_once(
                ksp,
                "the matrix is not scaled by its diagonal (-ksp_diagonal_scale): the network is made for conductances, "
                "and brings its own scale",
            )

    @staticmethod
    def _offering(ksp: PETSc.KSP) -> GridPreconditioner | None:
        """The context of a preconditioner that can take the steps on its grid, or None."""
        pc = ksp.getPC()
        context = pc.getPythonContext() if pc.getType() == PETSc.PC.Type.PYTHON else None
        return context if hasattr(context, "direction_loop") else None

    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        if viewer.getType() == PETSc.Viewer.Type.ASCII:
            viewer.printfASCII(
                f"    deep conjugate direction method (Kaneda et al., ICML 2023): history {self.settings.history}, "
                f"true residual every {self.settings.true_residual_every or 'never but before convergence'}, "
                f"operator {self.settings.operator}\n{self._measured}"
            )
            kind = ksp.getPC().getType()
            if kind is not None and self._offering(ksp) is None:
                viewer.printfASCII(f"    the preconditioner is {kind}, not petsc_dcdm.PC, the network\n")

    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The method's loop. Collective. ``x`` holds the initial guess if the KSP says it is non-zero."""
        self._solve(ksp, b, x, transposed=False)

    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The same with A', on PETSc's vectors: A is symmetric but for Dirichlet rows that others couple to one way."""
        self._solve(ksp, b, x, transposed=True)

    def _solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        try:
            with self._or_failed(ksp):
                self._solve_or_raise(ksp, b, x, transposed)
        except Exception:
            self._undo_presolve(ksp, b)
            raise

    def _solve_or_raise(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        if self._offering(ksp) is None:  # the program has put another in its place since set-up
            self._install_pc(ksp, ksp.getOptionsPrefix())
            self._adopt_pc(ksp)
        context = self._offering(ksp)
        with context.together() if context is not None else nullcontext():
            if context is not None:
                # KSPSolve asks for it only after KSPSetOperators; values may have changed without that.
                ksp.getPC().setUp()
                context.ready(ksp.getPC())
            if context is not None and context.fallback is not None:
                self._otherwise.solve(ksp, context.fallback, b, x, transposed)
                return
            A, P = ksp.getOperators()
            known = self._null_spaces.of(A, P, context)
            if known.ignored:
                self._say_once(ksp, known.ignored)
                b = context.given(b) if context is not None else b
            projected = known.without(b, A, transposed)
            fixed = context.fixed_rows(A) if context is not None else find_fixed_rows(A)
            mult = A.multTranspose if transposed else A.mult
            factors = context.factors if context is not None else None
            weights = None if factors is None else Weights(factors, transposed)
            system = System(mult, projected or b, x, fixed, known.of(transposed), weights=weights)
            solve = OneSolve(self.settings, ksp, context, system, transposed, partial(self._vectors, b))
            try:
                solve.run()
            finally:
                self._measured = solve.measured
                if projected is not None:
                    projected.destroy()

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
