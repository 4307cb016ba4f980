"""Formats that PETSc keeps matrices in: the same answer as with AIJ, or a sentence that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, poisson, refused, relative_residual, right_hand_side, solve

SHAPE = (6, 9, 12)


def with_identity_rows(A, coupled):
    """A copy where every 50th row is the unknown itself; ``coupled``: other rows keep their entries in its column."""
    A = A.copy()
    A.setOption(PETSc.Mat.Option.KEEP_NONZERO_PATTERN, True)
    rows = np.arange(0, A.getSize()[0], 50, dtype=np.int32)
    (A.zeroRows if coupled else A.zeroRowsColumns)(rows, 3.0)
    return A


def nested(A):
    return PETSc.Mat().createNest([[A]])


CASES = [(kind, coupled) for kind in ("baij", "sbaij", "sell", "is", "nest", "dense") for coupled in (False, True)]
CASES.remove(("sbaij", True))  # a symmetric format cannot hold rows that couple one way


@pytest.mark.parametrize("kind, coupled", CASES)
def test_a_format_that_can_be_converted(kind, coupled):
    A = with_identity_rows(poisson(SHAPE), coupled)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-10, pc_dcdm_grid="12,9,6")
    A.setOption(PETSc.Mat.Option.SYMMETRIC, not coupled)
    B = nested(A) if kind == "nest" else A.convert(kind, PETSc.Mat())
    other, y = solve(B, b, ksp_rtol=1e-10, pc_dcdm_grid="12,9,6")
    assert other.getConvergedReason() > 0
    assert abs(other.getIterationNumber() - ksp.getIterationNumber()) <= 1
    assert (x - y).norm() < 1e-8 * x.norm()


def test_new_values_in_another_format():
    """The copy that set-up has read is not taken for the matrix."""
    A = poisson(SHAPE).convert("sell", PETSc.Mat())
    b = right_hand_side(A)
    ksp, _ = solve(A, b, ksp_rtol=1e-10, pc_dcdm_grid="12,9,6")
    A.scale(2.0)
    x = b.duplicate()
    ksp.solve(b, x)
    r = b.duplicate()
    A.mult(x, r)
    assert ksp.getConvergedReason() > 0 and (r - b).norm() <= 1e-9 * b.norm()


def test_several_unknowns_to_a_cell():
    A = poisson(SHAPE)
    blocks = PETSc.Mat().createBAIJ(A.getSize(), 2, csr=None)
    blocks.setUp()
    for row in range(0, A.getSize()[0], 2):
        blocks.setValuesBlocked([row // 2], [row // 2], np.array([[2.0, -1.0], [-1.0, 2.0]]))
    blocks.assemble()
    with refused("block size 2; .*fieldsplit"):
        solve(blocks, right_hand_side(blocks))


def test_blocks_of_a_nest():
    A = poisson(SHAPE)
    nest = PETSc.Mat().createNest([[A, None], [None, A]])
    nest.assemble()
    with refused("2 x 2 system of blocks.*fieldsplit\\)$"):
        solve(nest, right_hand_side(nest))


def test_no_entries_at_all():
    class Laplace:
        def mult(self, mat, x, y):
            x.copy(y)

    shell = PETSc.Mat().createPython((8, 8), Laplace())
    shell.setUp()
    with refused("of type python.*second of KSPSetOperators, or -mat_type aij$"):
        solve(shell, right_hand_side(shell))


@pytest.mark.parametrize("attached", [False, True])
def test_a_product_without_a_diagonal_and_another_preconditioner(attached):
    """As SNES has it with differences (-snes_mf): whether a residual is rounding is told without a diagonal."""
    A = matrix(*conductances((1, 6, 7), walls=0.0 if attached else 2.0))

    class Product:
        def mult(self, mat, x, y):
            A.mult(x, y)

    shell = PETSc.Mat().createPython(A.getSize(), Product())
    shell.setUp()
    b = right_hand_side(A)
    if attached:
        A.mult(right_hand_side(A, 2), b)
        shell.setNullSpace(PETSc.NullSpace().create(constant=True, comm=A.getComm()))
    ksp, x = solve(shell, b, pc_type="none", ksp_rtol=1e-15, ksp_max_it=200)
    left = b.duplicate()
    A.mult(x, left)
    left.aypx(-1.0, b)
    assert ksp.getConvergedReason() != 0 and left.norm() <= 1e-10 * b.norm()
    ksp.destroy()


@pytest.mark.parametrize("noise, served", [(1e-7, True), (1e-5, False)])
def test_a_product_with_noise_is_believed_where_that_is_of_single_precision(noise, served, capfd):
    """The recurrence falls below the tolerance all the same, and the true residual stays where the noise is."""
    A = poisson((1, 40, 40))
    random = np.random.default_rng(0)

    class Product:
        def mult(self, mat, x, y):
            A.mult(x, y)
            y.setArray(y.getArray() * (1 + noise * random.standard_normal(y.getLocalSize())))

    shell = PETSc.Mat().createPython(A.getSize(), Product())
    shell.setUp()
    b = right_hand_side(A)
    ksp, x = PETSc.KSP().create(), b.duplicate()
    ksp.setOperators(shell, A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-10, max_it=100)
    ksp.solve(b, x)
    assert 0.5 * noise < relative_residual(A, x, b) < 2 * noise
    assert (ksp.getConvergedReason() > 0) is served
    assert ("while its recurrence falls to" in capfd.readouterr().err) is not served
    ksp.destroy()
