"""What set-up keeps from one matrix to the next: nothing is done where nothing changed, little where values did."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

import petsc_dcdm.solver.coarse.solver as coarse_module
import petsc_dcdm.solver.pc as pc_module
import petsc_dcdm.stencil.system as system_module

SHAPE = (24, 26, 30)


@pytest.fixture
def counts(monkeypatch):
    """How often the parts of set-up were made."""
    made = {}

    def count(module, name):
        original = getattr(module, name)

        def counted(*arguments, **options):
            made[name] = made.get(name, 0) + 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for name in ("find_grid", "build_system"):
        count(pc_module, name)
    count(coarse_module, "coarse_solver")
    count(system_module, "RowMap")
    return made


def full_pattern(w, s, cells=None):
    """The operator in a matrix that has room for all neighbours, and a way to give it the values of another."""
    everywhere, _ = conductances(SHAPE)
    A = matrix(everywhere, np.ones(SHAPE), cells=cells)
    A.setOption(PETSc.Mat.Option.KEEP_NONZERO_PATTERN, True)
    take(A, w, s, cells)
    return A


def take(A, w, s, cells=None):
    """Values change, the pattern does not: what is closed becomes an explicit zero."""
    B = matrix(w, s, cells=cells)
    A.zeroEntries()
    A.axpy(1.0, B, structure=PETSc.Mat.Structure.SUBSET)
    B.destroy()


def plates():
    """Closed but for two holes each, five cells apart: coarsening along x would merge what they keep apart."""
    w, s = conductances(SHAPE)
    for at in range(5, SHAPE[2], 5):
        closed = np.ones(SHAPE[:2], bool)
        closed[3:5, at % 20 : at % 20 + 2] = False
        w[0][:, :, at][closed] = 0.0
    return w, s


GEOMETRIES = {
    "other solids": conductances(SHAPE, random_solids(SHAPE, 5)),
    "coefficients": conductances(SHAPE, coefficient=np.exp(np.random.default_rng(0).standard_normal(SHAPE))),
    "another strong axis": conductances(SHAPE, ratio=(20.0, 1.0, 1.0)),
    "walls": plates(),
}

SAME_PLAN = ("other solids", "coefficients")


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_other_values_in_the_same_pattern(counts, name, in_order):
    cells = None if in_order else np.random.default_rng(0).permutation(int(np.prod(SHAPE)))
    options = {"pc_dcdm_grid": "30,26,24", "ksp_rtol": 1e-9}
    A = full_pattern(*conductances(SHAPE, random_solids(SHAPE)), cells)

    def compose(M):
        if cells is not None:
            M.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType)))

    compose(A)
    b = right_hand_side(A)
    ksp, x = solve(A, b, **options)
    plan = ksp.getPC().getPythonContext().layout.plan
    ksp.solve(b, x)
    assert counts == {"find_grid": 1, "build_system": 1, "RowMap": 1, "coarse_solver": 1}
    take(A, *GEOMETRIES[name], cells)
    ksp.setOperators(A)
    ksp.solve(b, x)
    coarse = 1 if name in SAME_PLAN else 2
    assert counts == {"find_grid": 1, "build_system": 2, "RowMap": 1, "coarse_solver": coarse}
    assert relative_residual(A, x, b) < 1e-9
    fresh = A.copy()
    compose(fresh)
    other, y = solve(fresh, b, **options)
    np.testing.assert_allclose(ksp.getConvergenceHistory()[-3:], other.getConvergenceHistory()[-3:], rtol=1e-5)
    assert ksp.getIterationNumber() == other.getIterationNumber()
    assert (x - y).norm() < 1e-12 * y.norm()
    new_plan = ksp.getPC().getPythonContext().layout.plan
    assert new_plan == other.getPC().getPythonContext().layout.plan
    assert (new_plan == plan) == (name in SAME_PLAN)


def test_another_pattern_or_matrix_is_read_anew(counts):
    A = matrix(*conductances(SHAPE))
    b = right_hand_side(A)
    ksp, x = solve(A, b)
    A.zeroRows(np.arange(300, dtype=PETSc.IntType), diag=6.0)
    ksp.solve(b, x)
    assert counts == {"find_grid": 2, "build_system": 2, "RowMap": 2, "coarse_solver": 2}
    ksp.setOperators(A.copy())
    ksp.solve(b, x)
    assert counts == {"find_grid": 3, "build_system": 3, "RowMap": 3, "coarse_solver": 3}


def test_a_refusal_between_leaves_nothing_behind(counts):
    w, s = conductances(SHAPE)
    A = full_pattern(w, s)
    b = right_hand_side(A)
    ksp, x = solve(A, b)
    A.setValue(7, 7, np.nan)
    A.assemble()
    with pytest.raises((ValueError, PETSc.Error)):
        ksp.solve(b, x)
    take(A, w, s)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1.1e-5
