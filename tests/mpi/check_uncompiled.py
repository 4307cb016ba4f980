"""Without compiled code, on several ranks: the network in plain torch, and rows that numpy reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

from petsc_dcdm.native import binding, build
from petsc_dcdm.network.multigrid import TorchHierarchy
from petsc_dcdm.stencil.entries import numpy_rows, rows

SHAPE = (9, 14, 21)
COMM = PETSc.COMM_WORLD


def system():
    A = matrix(*conductances(SHAPE, random_solids(SHAPE, fraction=0.1)), comm=COMM)
    return A, right_hand_side(A)


def network(ksp):
    return ksp.getPC().getPythonContext()._backend.hierarchy


def compare(ksp, x):
    """The same solution and, within one, iterations as with compiled code; bfloat16 coefficients are not the same."""
    A, b = system()
    compiled, y = solve(A, b, ksp_rtol=1e-10)
    assert not isinstance(network(compiled), TorchHierarchy)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-10
    assert abs(ksp.getIterationNumber() - compiled.getIterationNumber()) <= 1
    y.axpy(-1.0, x)
    assert y.norm() <= 1e-9 * x.norm(), y.norm() / x.norm()


def test_the_network_in_plain_torch():
    A, b = system()
    ksp, x = solve(A, b, ksp_rtol=1e-10, pc_dcdm_compile="off")
    assert isinstance(network(ksp), TorchHierarchy)
    compare(ksp, x)


@contextmanager
def no_compiler(ranks) -> Iterator[None]:
    """These ranks have none, and nothing that was compiled before."""
    before = os.environ.get("CC")
    if COMM.getRank() in ranks:
        os.environ["CC"] = "no-such-compiler"
    build._load.cache_clear()
    binding.kernels.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("CC", None)
        if before is not None:
            os.environ["CC"] = before
        build._load.cache_clear()
        binding.kernels.cache_clear()


def solve_without_compiler(ranks):
    A, b = system()
    with no_compiler(ranks):
        assert numpy_rows.row_reader(COMM.tompi4py()) is numpy_rows.NumpyRows
        ksp, x = solve(A, b, ksp_rtol=1e-10)
    assert isinstance(network(ksp), TorchHierarchy)
    return ksp, x


def test_no_compiler_anywhere():
    ksp, x = solve_without_compiler(range(COMM.getSize()))
    assert numpy_rows.row_reader(COMM.tompi4py()) is rows.CsrRows
    compare(ksp, x)


def test_no_compiler_on_one_rank():
    ksp, x = solve_without_compiler([COMM.getSize() - 1])
    compare(ksp, x)
