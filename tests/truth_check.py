"""Solves a random case of :mod:`truth_cases` with the package and holds it to what it promises.

What is promised: whenever the reason is positive, the residual of the user's own system is within the tolerance;
nothing hangs, crashes, or ends in an exception that is no sentence; scales change nothing; what has no solution is
called so.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc
from truth_cases import Case, System, assemble, make
from truth_oracle import SLACK, Truth, rounding, truth

from petsc_dcdm.grid.errors import OptionError, UnsupportedSystem
from petsc_dcdm.network.weights import WeightsError

REASONS = {value: name for name, value in vars(PETSc.KSP.ConvergedReason).items() if isinstance(value, int)}
NORMS = {"": "UNPRECONDITIONED", "natural": "NATURAL", "preconditioned": "PRECONDITIONED", "none": "NONE"}


@dataclass
class Verdict:
    """Of one solve."""

    which: str
    ended: str
    """The converged reason, or the kind of exception."""
    iterations: int
    expected: bool
    """Whether it has to converge: symmetric, well posed, the tolerance within reach."""
    broken: list[str]
    said: str


class Place:
    """Rows of a case on the ranks: on a DMDA or in natural order, split unevenly."""

    def __init__(self, case: Case, comm: PETSc.Comm) -> None:
        self.case, self.comm, shape, ranks = case, comm, case.recipe.shape, comm.getSize()
        random, total = np.random.default_rng([case.seed, ranks]), case.recipe.k.size
        self.new, self.da = np.arange(total), None
        wide = [axis for axis, n in enumerate(shape) if n >= ranks]
        if case.dmda and wide:
            split = int(random.choice(wide))
            cuts = np.sort(random.choice(np.arange(1, shape[split]), ranks - 1, replace=False)) if ranks > 1 else []
            own = np.diff([0, *cuts, shape[split]])
            ranges = [tuple(own) if axis == split else (n,) for axis, n in enumerate(shape)]
            procs = [ranks if axis == split else 1 for axis in range(len(shape))]
            rings = [ring and n > 1 for ring, n in zip(case.recipe.periodic, shape, strict=True)]
            options = {"proc_sizes": procs, "ownership_ranges": ranges, "stencil_width": 1, "dof": 1, "comm": comm}
            options["boundary_type"] = [PETSc.DM.BoundaryType.PERIODIC if ring else 0 for ring in rings]
            self.da = PETSc.DMDA().create(list(shape), **options)
            self.new = self.da.getAO().app2petsc(np.arange(total, dtype=PETSc.IntType)).astype(np.int64)
            self.rows = int(np.prod([e - s for s, e in self.da.getRanges()]))
        else:
            cuts = np.sort(random.integers(0, total + 1, ranks - 1))
            self.rows = int(np.diff([0, *cuts, total])[comm.getRank()])

    def mat(self, A: sp.csr_matrix, into: PETSc.Mat | None = None, symmetric: bool = False) -> PETSc.Mat:
        old = np.argsort(self.new)
        moved = A[old][:, old].tocsr()
        moved.sort_indices()
        if into is None:
            into = self.da.createMat() if self.da else PETSc.Mat().create(self.comm)
            if not self.da:
                into.setSizes(((self.rows, A.shape[0]), (self.rows, A.shape[0])))
                into.setType("aij")
                into.setPreallocationNNZ(7)
        into.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
        first, last = into.getOwnershipRange()
        into.zeroEntries()
        mine = moved[first:last]
        into.setValuesCSR(mine.indptr.astype(PETSc.IntType), mine.indices.astype(PETSc.IntType), mine.data)
        into.assemble()
        if symmetric:
            into.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        return into

    def vec(self, natural: np.ndarray, A: PETSc.Mat) -> PETSc.Vec:
        v = A.createVecRight()
        first, last = v.getOwnershipRange()
        v.setArray(natural[np.argsort(self.new)][first:last])
        return v

    def natural(self, v: PETSc.Vec) -> np.ndarray:
        return np.concatenate(self.comm.tompi4py().allgather(v.getArray(readonly=True).copy()))[self.new]


class Solver:
    """A KSP as a user makes it."""

    count = 0

    def __init__(self, place: Place, case: Case) -> None:
        Solver.count += 1
        self.place, self.case = place, case
        self.ksp = PETSc.KSP().create(place.comm)
        prefix = f"truth{Solver.count}_"
        self.ksp.setOptionsPrefix(prefix)
        chosen: dict[str, Any] = {"ksp_type": "python", "ksp_python_type": "petsc_dcdm.KSP", **case.options}
        if case.norm:
            chosen["ksp_norm_type"] = case.norm
        shape = case.recipe.shape
        if place.da:
            self.ksp.setDM(place.da)
            self.ksp.setDMActive(*((PETSc.KSP.DMActive.ALL, False) if hasattr(PETSc.KSP, "DMActive") else (False,)))
        else:
            chosen["pc_dcdm_grid"] = ",".join(map(str, shape if len(shape) > 1 else (*shape, 1)))
        database = PETSc.Options()
        for name, value in chosen.items():
            database[prefix + name] = value
        self.ksp.setTolerances(rtol=case.rtol, atol=case.atol)
        self.named = [prefix + name for name in chosen]

    def solve(self, A: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, first: bool = True) -> tuple[BaseException | None, str]:
        """The exception, if any, and what was said on stderr (rank 0)."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                self.ksp.setOperators(A)
                if first:
                    self.ksp.setFromOptions()
                self.ksp.setInitialGuessNonzero(self.case.guess is not None)
                self.ksp.solve(b, x)
        except Exception as error:  # any: that it is a sentence is what is tested
            while isinstance(error, PETSc.Error) and error.__cause__:
                error = error.__cause__  # type: ignore[assignment]
            return error, said.getvalue()
        return None, said.getvalue()

    def destroy(self) -> None:
        self.ksp.destroy()
        for name in self.named:
            PETSc.Options().delValue(name)


def natural_norm(solver: Solver, A: PETSc.Mat, r: np.ndarray) -> float:
    """sqrt(|r . B r|) with B the preconditioner."""
    v = solver.place.vec(r, A)
    z = v.duplicate()
    solver.ksp.getPC().apply(v, z)
    return float(np.sqrt(abs(v.dot(z))))


def judge(which: str, solver: Solver, A: PETSc.Mat, system: System, b: np.ndarray, start: np.ndarray, x: np.ndarray,
          error: BaseException | None, said: str, attached: list[np.ndarray]) -> Verdict:  # fmt: skip
    """One solve against the truth. Collective; all ranks come to the same."""
    case, ksp, T = solver.case, solver.ksp, truth(system, b, attached)
    reason, its = ksp.getConvergedReason(), ksp.getIterationNumber()
    expected = _must_converge(case, system, T, start)
    verdict = Verdict(which, REASONS.get(reason, str(reason)), its, bool(expected), [], said)
    broken = verdict.broken
    errors = solver.place.comm.tompi4py().allgather(repr(error) if error else "")
    if any(errors):
        verdict.ended = f"refused ({type(error).__name__})"
        _judge_refusal(verdict, errors, error, system, start, x)
        return verdict
    if reason == 0:
        broken.append("no reason")
    once = which == "first"  # what is said of a matrix or an option need not be said again
    if once and attached and T.null_space is False and "null space" not in said:
        broken.append("d/a: the attached null space is none, and nothing is said")
    if once and case.norm == "preconditioned" and "precondition" not in said:
        broken.append("b: the preconditioned norm is not taken, and nothing is said")
    limit = case.norm == "none" and reason == PETSc.KSP.ConvergedReason.CONVERGED_ITS
    if reason > 0 and not limit and T.null_space is not None:
        _judge_claim(verdict, solver, A, system, T, start, x)
    clearly = T.inconsistent > 1e-9 and T.inconsistent > 10 * case.rtol and case.norm == "" and case.atol == 1e-50
    if clearly and T.null_space is not None and (reason > 0 or "no solution" not in said):
        broken.append(f"d: {verdict.ended}, and it is not said that there is no solution")
    early = reason == PETSc.KSP.ConvergedReason.DIVERGED_DTOL and its == 0
    if early and expected:
        broken.append("c: DIVERGED_DTOL at step 0")
    return verdict


def _must_converge(case: Case, system: System, T: Truth, start: np.ndarray) -> bool:
    """SPD but for constants that b is free of, and the tolerance is within what double precision holds."""
    if not system.supported or system.near or T.null_space is None or T.inconsistent > 1e-13 or case.norm == "none":
        return False
    if not np.linalg.norm(T.b):
        return case.guess is None
    best = T.solution if T.solution is not None else np.zeros(T.b.size)
    floor = float(np.linalg.norm(rounding(system.A, best, T.b)[T.coupled]))
    if T.solution is None:
        floor = max(floor, 1e-12 * T.rest)
    wanted = max(case.rtol * min(T.rest, float(np.linalg.norm(T.b))), case.atol)
    first = np.where(T.coupled, start, best)
    far = float(np.linalg.norm((T.b - system.A @ first)[T.coupled]))
    return wanted >= 4 * floor and far <= 1e4 * max(T.rest, float(np.linalg.norm(T.b)) if T.solution is None else 0.0)


def _judge_refusal(verdict: Verdict, errors: list[str], error: BaseException | None, system: System,
                   start: np.ndarray, x: np.ndarray) -> None:  # fmt: skip
    broken = verdict.broken
    if len(set(errors)) > 1:
        broken.append(f"j: not the same on all ranks: {errors}")
    if not isinstance(error, (UnsupportedSystem, WeightsError, OptionError)):
        broken.append(f"j: {errors}")
    elif system.supported:
        broken.append(f"j: refused what is promised: {errors[0]}")
    if not np.array_equal(x, start):
        broken.append("h: refused, and x is not as it was")


def _judge_claim(verdict: Verdict, solver: Solver, A: PETSc.Mat, system: System, T: Truth, start: np.ndarray,
                 x: np.ndarray) -> None:  # fmt: skip
    """Of a positive reason: the residual, and the error where decoupled or held rows would hide it."""
    case, broken = solver.case, verdict.broken
    r, floor = T.b - system.A @ x, float(np.linalg.norm(rounding(system.A, x, T.b)))
    if case.norm == "natural":
        size = natural_norm(solver, A, r)
        of_b = natural_norm(solver, A, T.b if T.b.any() else system.A @ start)  # see below
        noise = rounding(system.A, x, T.b)
        flips = np.random.default_rng(0).choice([-1.0, 1.0], noise.size)
        allowed = 3 * max(case.rtol * of_b, case.atol) + 3 * max(
            natural_norm(solver, A, v) for v in (noise, noise * flips)
        )
    else:
        size, of_b = float(np.linalg.norm(r)), float(np.linalg.norm(T.b))
        if of_b == 0.0:  # as KSPConvergedDefault: there is nothing else to measure against
            of_b = float(np.linalg.norm(system.A @ start))
        allowed = SLACK * max(case.rtol * of_b, case.atol) + floor
    if not size <= allowed:  # also NaN
        broken.append(f"{'b' if case.norm == 'natural' else 'a'}: residual {size:.2e}, allowed {allowed:.2e}")
    hiding = (system.alone | system.held).any() and bool(np.linalg.norm(T.b))
    if T.solution is None or case.norm == "natural" or not hiding:
        return
    error, bound = float(np.linalg.norm(x - T.solution)), T.error_bound(system.A, x, case.rtol, case.atol)
    if not error <= bound:
        theirs = _gmres_error(system, T, case)
        if not error <= 100 * theirs:
            broken.append(f"c: error {error:.2e}, bound {bound:.2e}, gmres + gamg {theirs:.2e}, rtol {case.rtol:.0e}")


def _gmres_error(system: System, T: Truth, case: Case) -> float:
    """The error of PETSc's gmres + gamg with its default norm at the same tolerance."""
    A = system.A.tocsr()
    indices = A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType)
    M = PETSc.Mat().createAIJ(A.shape, csr=(*indices, A.data), comm=PETSc.COMM_SELF)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix("theirs_")
    ksp.setOperators(M)
    ksp.setType("gmres")
    ksp.getPC().setType("gamg")
    ksp.setTolerances(rtol=case.rtol, max_it=500)
    b, x = M.createVecs()
    b.setArray(T.b)
    try:
        ksp.solve(b, x)
        return float(np.linalg.norm(x.getArray() - T.solution))
    except PETSc.Error:
        return 0.0
    finally:
        ksp.destroy()


def run(seed: int, comm: PETSc.Comm = PETSc.COMM_WORLD) -> tuple[Case, list[Verdict]]:
    """All solves of a case. Collective."""
    case = make(seed)
    place = Place(case, comm)
    system = case.system
    start = _start(case)
    A = place.mat(system.A, symmetric=case.symmetric_known)
    if case.null_space:
        A.setNullSpace(PETSc.NullSpace().create(vectors=[place.vec(v, A) for v in case.null_space], comm=comm))
    solver = Solver(place, case)
    b, x = place.vec(case.b, A), place.vec(start, A)
    error, said = solver.solve(A, b, x)
    verdicts = [judge("first", solver, A, system, case.b, start, place.natural(x), error, said, case.null_space)]
    if error is not None:
        again = place.vec(start, A)
        solver.solve(A, b, again, first=False)
        if not solver.ksp.getConvergedReason() < 0:
            verdicts[0].broken.append(f"h: a second solve after a refusal has reason {solver.ksp.getConvergedReason()}")
    elif case.second is not None:
        verdicts.append(_second(case, place, solver, A, start))
    elif case.rescaled is not None:
        verdicts.append(_rescaled(case, place, verdicts[0], start))
    solver.destroy()
    return case, verdicts


def _start(case: Case) -> np.ndarray:
    if case.guess_kind != "solution":
        return np.zeros(case.b.size) if case.guess is None else case.guess
    solution = truth(case.system, case.b, case.null_space).solution
    return np.zeros(case.b.size) if solution is None else solution


def _second(case: Case, place: Place, solver: Solver, A: PETSc.Mat, start: np.ndarray) -> Verdict:
    assert case.second is not None
    random = np.random.default_rng([case.seed, 2])
    system = assemble(case.second, random.standard_normal(case.b.size))
    size = abs(system.A.diagonal()[~system.alone & ~system.held]).mean() if (~system.alone).any() else 1.0
    f = np.where(system.alone | system.held, 0.0, size * random.standard_normal(case.b.size))
    for room in system.rooms:
        f[room] -= f[room].mean()
    right = f + system.source
    M = place.mat(system.A, None if case.new_object else A)
    attached = [] if case.new_object else case.null_space
    solver.ksp.getPC().setReusePreconditioner(case.reuse)
    b, x = place.vec(right, M), place.vec(start, M)
    error, said = solver.solve(M, b, x, first=False)
    which, found = "reused" if case.reuse else "second", place.natural(x)
    verdict = judge(which, solver, M, system, right, start, found, error, said, attached)
    if case.reuse:
        verdict.expected = verdict.expected and bool((case.recipe.solid == case.second.solid).all())
    return verdict


def _rescaled(case: Case, place: Place, before: Verdict, start: np.ndarray) -> Verdict:
    assert case.rescaled is not None
    of_A, of_b = case.rescaled
    A = place.mat(case.system.A * of_A, symmetric=case.symmetric_known)
    if case.null_space:
        A.setNullSpace(PETSc.NullSpace().create(vectors=[place.vec(v, A) for v in case.null_space], comm=place.comm))
    solver = Solver(place, case)
    x = place.vec(start * (of_b / of_A), A)
    error, said = solver.solve(A, place.vec(case.b * of_b, A), x)
    reason = solver.ksp.getConvergedReason()
    ended = f"refused ({type(error).__name__})" if error is not None else REASONS.get(reason, str(reason))
    verdict = Verdict("rescaled", ended, solver.ksp.getIterationNumber(), False, [], said)
    same = (verdict.ended, verdict.iterations) == (before.ended, before.iterations)
    if not same and case.norm != "natural":
        verdict.broken.append(
            f"f: {verdict.ended} after {verdict.iterations}, {before.ended} after {before.iterations} unscaled"
        )
    solver.destroy()
    return verdict
