"""petsc_dcdm inside PETSc's composite solvers: blocks, coarse solvers, sub-communicators, many right-hand sides."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from petsc4py import PETSc
from systems import poisson, relative_residual, right_hand_side

from petsc_dcdm.native.petsc_library import petsc_library

SHAPE = (8, 12, 16)
OURS = {"ksp_type": "python", "ksp_python_type": "petsc_dcdm.KSP", "ksp_rtol": 1e-8}


def options(**values):
    database = PETSc.Options()
    for name, value in values.items():
        database[name] = value


def inner(prefix, **more):
    options(**{prefix + name: value for name, value in {**OURS, **more}.items()})


def outer(A, P=None, comm=None, **more):
    options(**{"ksp_rtol": 1e-8, **more})
    ksp = PETSc.KSP().create(comm or A.getComm())
    ksp.setOperators(A, P or A)
    ksp.setFromOptions()
    return ksp


def solved(ksp, A, b):
    x = b.duplicate()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert relative_residual(A, x, b) <= 1e-6
    return x


def saddle():
    """Velocities with a mass matrix of numbers, pressure with a Laplacian: two fields of a block system."""
    L = poisson(SHAPE)
    n = L.getSize()[0]
    M = PETSc.Mat().createAIJ((n, n), nnz=1)
    for row in range(n):
        M.setValue(row, row, 1.0 + row % 3)
    M.assemble()
    C = PETSc.Mat().createAIJ((n, n), nnz=1)
    for row in range(n):
        C.setValue(row, row, 0.1)
    C.assemble()
    A = PETSc.Mat().createNest([[M, C], [None, L]])
    A.assemble()
    return A, n


def test_the_pressure_block_of_a_fieldsplit():
    A, n = saddle()
    ksp = outer(A, ksp_type="fgmres", pc_type="fieldsplit", pc_fieldsplit_type="multiplicative")
    fields = A.getNestISs()[0]
    ksp.getPC().setFieldSplitIS(("u", fields[0]), ("p", fields[1]))
    options(fieldsplit_u_ksp_type="preonly", fieldsplit_u_pc_type="jacobi")
    inner("fieldsplit_p_", pc_dcdm_grid="16,12,8")
    ksp.setFromOptions()
    b = A.createVecLeft()
    b.setArray(np.random.default_rng(0).standard_normal(2 * n))
    solved(ksp, A, b)
    (_, pressure) = ksp.getPC().getFieldSplitSubKSP()
    assert pressure.getPythonType() == "petsc_dcdm.KSP" and pressure.getIterationNumber() <= 6


def test_the_coarse_solver_of_pcmg():
    fine = PETSc.DMDA().create([33, 17, 9], stencil_width=1)
    ksp = PETSc.KSP().create()
    A = fine.createMat()
    w = poisson((9, 17, 33))
    A = w.copy()
    ksp.setDM(fine)
    ksp.setDMActive(*((PETSc.KSP.DMActive.ALL, False) if hasattr(PETSc.KSP, "DMActive") else (False,)))
    ksp.setOperators(A)
    options(ksp_type="fgmres", ksp_rtol=1e-8, pc_type="mg", pc_mg_levels=2, pc_mg_galerkin="pmat")
    inner("mg_coarse_", pc_dcdm_fallback="gamg")
    ksp.setFromOptions()
    b = right_hand_side(A)
    solved(ksp, A, b)
    assert ksp.getPC().getMGCoarseSolve().getPythonType() == "petsc_dcdm.KSP"


@pytest.mark.parametrize("outside", ["redundant", "bjacobi", "asm"])
def test_blocks_and_copies(outside):
    A = poisson(SHAPE)
    prefix = {"redundant": "redundant_", "bjacobi": "sub_", "asm": "sub_"}[outside]
    inner(prefix, pc_dcdm_grid="16,12,8")
    ksp = outer(A, ksp_type="fgmres", pc_type=outside)
    solved(ksp, A, right_hand_side(A))


def test_different_matrices_to_solve_and_to_set_up_on():
    A, P = poisson(SHAPE), poisson(SHAPE)
    A.shift(0.05)
    ksp = outer(A, P, ksp_type="python", ksp_python_type="petsc_dcdm.KSP", pc_dcdm_grid="16,12,8")
    solved(ksp, A, right_hand_side(A))


def test_several_right_hand_sides():
    A = poisson(SHAPE)
    n = A.getSize()[0]
    ksp = outer(A, ksp_type="python", ksp_python_type="petsc_dcdm.KSP", pc_dcdm_grid="16,12,8")
    B, X = (PETSc.Mat().createDense((n, 3)) for _ in range(2))
    for M in (B, X):
        M.setUp()
    B.setValues(range(n), range(3), np.random.default_rng(1).standard_normal((n, 3)))
    B.assemble()
    X.assemble()
    if hasattr(ksp, "matSolve"):
        ksp.matSolve(B, X)
    else:  # petsc4py of 3.18 does not wrap it
        library = petsc_library()
        assert not library.KSPMatSolve(*(ctypes.c_void_p(thing.handle) for thing in (ksp, B, X)))
    for column in range(3):
        b, x = B.getColumnVector(column), X.getColumnVector(column)
        assert relative_residual(A, x, b) <= 1e-8


def test_on_a_communicator_of_one():
    A = poisson(SHAPE, comm=PETSc.COMM_SELF)
    ksp = outer(A, ksp_type="python", ksp_python_type="petsc_dcdm.KSP", pc_dcdm_grid="16,12,8")
    solved(ksp, A, right_hand_side(A))
