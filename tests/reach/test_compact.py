"""Compact and slightly violated stencils through petsc_dcdm.KSP: few iterations, and the answers of LU."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from compact_systems import identity_rows, to_petsc
from petsc4py import PETSc
from systems import poisson, relative_residual, right_hand_side, solve

from petsc_dcdm.native import build
from petsc_dcdm.solver import sweeps as sweeps_module
from petsc_dcdm.studies.compact import elements, eliminated, mehrstellen, sides


def variable(cells, seed=0, spread=0.5):
    return 10 ** (spread * np.random.default_rng(seed).standard_normal(cells))


def jump(cells):
    k = np.ones(cells)
    k[tuple(slice(n // 3, n // 2) for n in cells)] = 1e4
    return k


FLAT, SOLID = (40, 36), (12, 14, 16)
SYSTEMS = {
    # name: matrix, most iterations to 1e-6
    "Q1 in 2D": (lambda: eliminated(elements(FLAT), sides(FLAT)), 5),
    "Q1 in 3D": (lambda: eliminated(elements(SOLID), sides(SOLID)), 5),
    "Mehrstellen in 2D": (lambda: mehrstellen(32, 2), 5),
    "Mehrstellen in 3D": (lambda: mehrstellen(14, 3), 5),
    "stretched by 3": (lambda: eliminated(elements(FLAT, size=(3.0, 1.0)), sides(FLAT)), 7),
    "stretched by 10": (lambda: eliminated(elements(FLAT, size=(10.0, 1.0)), sides(FLAT)), 10),
    "stretched by 4 in 3D": (lambda: eliminated(elements(SOLID, size=(4.0, 1.0, 1.0)), sides(SOLID)), 8),
    "variable": (lambda: eliminated(elements(FLAT, variable(FLAT)), sides(FLAT)), 11),
    "variable in 3D": (lambda: eliminated(elements(SOLID, variable(SOLID)), sides(SOLID)), 7),
    "jump of 1e4": (lambda: eliminated(elements(SOLID, jump(SOLID)), sides(SOLID)), 7),
    "skewed": (lambda: eliminated(elements(FLAT, shear=0.2), sides(FLAT)), 8),
    "identity rows": (lambda: identity_rows(elements(FLAT), sides(FLAT)), 5),
    "identity rows that others couple to": (lambda: identity_rows(elements(SOLID), sides(SOLID), both=False), 5),
    "negative": (lambda: -eliminated(elements(SOLID), sides(SOLID)), 5),
    "implicit heat": (lambda: eliminated(elements(SOLID), sides(SOLID)) + mass(SOLID, 10.0), 6),
}


def mass(cells, factor):
    A = sp.identity(1)
    for n in cells:
        line = sp.diags([np.full(n - 2, 1 / 6), np.full(n - 1, 4 / 6), np.full(n - 2, 1 / 6)], [-1, 0, 1])
        A = sp.kron(A, line)
    return factor * A


@pytest.mark.parametrize("name", SYSTEMS)
def test_few_iterations_and_the_answer_of_lu(name):
    make, most = SYSTEMS[name]
    matrix = make().tocsr()
    A = to_petsc(matrix)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-6, **({"pc_dcdm_grid": "37,41"} if name == "identity rows" else {}))
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-6
    assert ksp.getIterationNumber() <= most
    ksp, x = solve(A, b, ksp_rtol=1e-11)
    exact = spl.spsolve(matrix.tocsc(), b.getArray())
    assert np.linalg.norm(x.getArray() - exact) <= 1e-7 * np.linalg.norm(exact)


@pytest.mark.parametrize("cells", [FLAT, SOLID])
@pytest.mark.parametrize("attached", [True, False])
def test_closed_sides(cells, attached):
    A = to_petsc(elements(cells, variable(cells, spread=0.2)))
    if attached:
        A.setNullSpace(PETSc.NullSpace().create(constant=True))
    b = right_hand_side(A)
    b.shift(-b.sum() / b.getSize())
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 9
    assert relative_residual(A, x, b) <= 1.01e-9
    assert abs(x.sum()) <= 1e-8 * x.norm() * np.sqrt(b.getSize())


def test_a_right_hand_side_that_closed_sides_cannot_have():
    A = to_petsc(elements(FLAT))
    b = A.createVecLeft()
    b.set(1.0)
    assert solve(A, b)[0].getConvergedReason() < 0


@pytest.mark.parametrize("sizes", [(21, 18), (9, 11, 13)])
def test_a_dmda_with_a_box_stencil(sizes):
    """Its matrix has room for all neighbours, zeros among them."""
    dm = PETSc.DMDA().create(sizes, stencil_type=PETSc.DMDA.StencilType.BOX, stencil_width=1, dof=1)
    cells = tuple(n - 1 for n in sizes[::-1])
    given = identity_rows(elements(cells), sides(cells)).tocoo()
    A = dm.createMat()
    for row, column, value in zip(given.row, given.col, given.data, strict=True):
        A.setValue(row, column, value)
    A.assemble()
    b = right_hand_side(A)
    ksp, x = solve(A, b, dm=dm, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 7
    np.testing.assert_allclose(x.getArray(), spl.spsolve(given.tocsc(), b.getArray()), atol=1e-6)


def test_under_other_krylov_methods_the_preconditioner_is_symmetric():
    A = to_petsc(eliminated(elements(SOLID, variable(SOLID)), sides(SOLID)))
    b = right_hand_side(A)
    x, y, Mx, My = (A.createVecRight() for _ in range(4))
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8)
    pc = ksp.getPC()
    pc.setType("python")
    pc.setPythonType("petsc_dcdm.PC")
    ksp.setUp()
    for v, seed in ((x, 2), (y, 3)):
        right_hand_side(A, seed).copy(v)
    pc.apply(x, Mx)
    pc.apply(y, My)
    assert abs(Mx.dot(y) - My.dot(x)) <= 1e-4 * abs(Mx.dot(x))
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 10
    assert relative_residual(A, x, b) <= 1.01e-8


class Bratu:
    """-laplace u = lambda exp(u) on the unit square, differences in 2D, as PETSc's ex5 has it."""

    def __init__(self, n, factor):
        T = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1])
        self.laplace = (sp.kron(T, sp.identity(n)) + sp.kron(sp.identity(n), T)).tocsr()
        self.factor = factor / (n + 1) ** 2

    def residual(self, snes, x, f):
        u = x.getArray(readonly=True)
        f.setArray(self.laplace @ u - self.factor * np.exp(u))

    def jacobian(self, snes, x, J, P):
        given = (self.laplace - sp.diags(self.factor * np.exp(x.getArray(readonly=True)))).tocsr()
        P.setValuesCSR(given.indptr.astype(PETSc.IntType), given.indices.astype(PETSc.IntType), given.data)
        P.assemble()


@pytest.mark.parametrize("factor", [1.0, 6.0, 6.7])
def test_bratu(factor):
    """Row sums of its Jacobian are negative; up to its turning point at 6.808 it is positive definite."""
    problem = Bratu(40, factor)
    J = to_petsc(problem.laplace)
    x, f = J.createVecs()
    snes = PETSc.SNES().create()
    snes.setFunction(problem.residual, f)
    snes.setJacobian(problem.jacobian, J, J)
    snes.setTolerances(rtol=1e-10)
    ksp = snes.getKSP()
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-6)
    snes.setFromOptions()
    snes.solve(None, x)
    assert snes.getConvergedReason() > 0
    assert snes.getLinearSolveIterations() <= 9 * snes.getIterationNumber()
    problem.residual(snes, x, f)
    assert f.norm() <= 1e-9


@pytest.mark.parametrize("share, size", [(0.01, 0.1), (0.05, 0.5)])
def test_small_positive_couplings(share, size):
    upper = sp.triu(mehrstellen(24, 2), 1).tocoo()
    upper.data = np.where(np.random.default_rng(1).random(upper.nnz) < share, -size * upper.data, upper.data)
    matrix = (upper + upper.T + sp.diags(mehrstellen(24, 2).diagonal())).tocsr()
    A = to_petsc(matrix)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 10
    np.testing.assert_allclose(x.getArray(), spl.spsolve(matrix.tocsc(), b.getArray()), atol=1e-6)


def test_new_values_of_the_same_pattern():
    A = to_petsc(eliminated(elements(SOLID), sides(SOLID)))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    other = eliminated(elements(SOLID, variable(SOLID)), sides(SOLID))
    A.setValuesCSR(other.indptr.astype(PETSc.IntType), other.indices.astype(PETSc.IntType), other.data)
    A.assemble()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-8
    # and back to a matrix that is of the form, and again to one that is not
    for B in (poisson((11, 13, 15)), A):
        ksp.setOperators(B)
        b = right_hand_side(B)
        x = B.createVecRight()
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and relative_residual(B, x, b) <= 1.01e-8


def test_without_a_compiler_the_sweeps_are_the_same(monkeypatch):
    A = to_petsc(eliminated(elements(SOLID, variable(SOLID)), sides(SOLID)))
    r, answers = right_hand_side(A), []

    def missing():
        raise build.KernelsUnavailable("none")

    for patched in (False, True):
        if patched:
            monkeypatch.setattr(sweeps_module, "library", missing)
        z = A.createVecRight()
        pc = PETSc.PC().create()
        pc.setOperators(A)
        pc.setType("python")
        pc.setPythonType("petsc_dcdm.PC")
        pc.setUp()
        pc.apply(r, z)
        answers.append(z.getArray())
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5 * np.abs(answers[0]).max())


def test_the_view_says_so(capfd):
    A = to_petsc(mehrstellen(12, 2))
    ksp, _ = solve(A, right_hand_side(A))
    ksp.view()
    assert "set up on the nearest operator that is, between 2 sweeps of the matrix" in capfd.readouterr().out
