"""The initial guess of Krylov methods of PETSc's around petsc_dcdm.PC: the fixed rows are solved in it."""

from __future__ import annotations

from petsc4py import PETSc

from petsc_dcdm.stencil.fixed import FixedRows


class ForeignGuess:
    """What is changed in a solver from PCPreSolve to PCPostSolve. All methods are collective."""

    def __init__(self) -> None:
        self._zero_before = False
        self._tolerances: tuple[float, float, float, int] | None = None

    def begin(self, ksp: PETSc.KSP, A: PETSc.Mat, fixed: FixedRows, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """x = b / diagonal in the fixed rows.

        PETSc's test would take tolerances relative to all of b, now that there is a guess; where true residuals are
        tested they are made relative to what is left of it.
        """
        guessed = ksp.getInitialGuessNonzero()
        if not fixed.anywhere:
            return
        if not guessed:
            x.set(0.0)
        if not fixed.begin(b, x, guessed) and not guessed:
            return
        if not guessed:
            ksp.setInitialGuessNonzero(True)
            self._zero_before = True
        if ksp.getNormType() != PETSc.KSP.NormType.UNPRECONDITIONED:
            return
        left = fixed.left_of(b, A.mult)
        norm, whole = float(left.norm()), float(b.norm())
        left.destroy()
        if norm and whole:
            rtol, atol, divtol, max_it = self._tolerances = ksp.getTolerances()
            ksp.setTolerances(0.0, max(rtol * min(norm, whole), atol), divtol * max(1.0, norm / whole), max_it)

    def end(self, ksp: PETSc.KSP) -> None:
        if self._zero_before:
            ksp.setInitialGuessNonzero(False)
        if self._tolerances is not None:
            ksp.setTolerances(*self._tolerances)
        self._zero_before, self._tolerances = False, None
