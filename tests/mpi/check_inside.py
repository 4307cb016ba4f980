"""petsc_dcdm on part of the ranks, or as a block of a solver of PETSc's; and formats that are converted, on ranks."""

from __future__ import annotations

from petsc4py import PETSc
from systems import poisson, relative_residual, right_hand_side, solve

RANKS = (2, 4)
SHAPE = (8, 12, 16)
COMM = PETSc.COMM_WORLD


def outer(A, **options):
    database = PETSc.Options()
    for name, value in options.items():
        database[name] = value
    ksp = PETSc.KSP().create(A.getComm())
    ksp.setOperators(A)
    ksp.setTolerances(rtol=1e-8)
    ksp.setFromOptions()
    b = right_hand_side(A)
    x = b.duplicate()
    ksp.solve(b, x)
    for name in options:
        database.delValue(name)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-6
    iterations = ksp.getIterationNumber()
    ksp.destroy()
    return iterations


def ours(prefix, **more):
    return {prefix + "ksp_type": "python", prefix + "ksp_python_type": "petsc_dcdm.KSP", **more}


def test_halves_of_the_ranks_solve_different_systems():
    half = PETSc.Comm(COMM.tompi4py().Split(COMM.rank % 2))
    sizes = (SHAPE, (6, 10, 14))[COMM.rank % 2]
    A = poisson(sizes, comm=half)
    assert outer(A, **ours("")) <= 6


def test_one_rank_solves_alone():
    if COMM.rank == 0:
        outer(poisson(SHAPE, comm=PETSc.COMM_SELF), **ours(""))


def test_every_rank_solves_the_whole():
    outer(
        poisson(SHAPE, comm=COMM),
        ksp_type="fgmres",
        pc_type="redundant",
        pc_redundant_number=COMM.size,
        **ours("redundant_", redundant_pc_dcdm_grid="16,12,8", redundant_ksp_rtol=1e-4),
    )


def test_blocks_that_are_whole_planes():
    """Rows of a rank are planes of the grid, so its block is a grid of its own, found by its offsets."""
    outer(poisson(SHAPE, comm=COMM), ksp_type="fgmres", pc_type="bjacobi", **ours("sub_", sub_ksp_rtol=1e-4))


def test_formats_that_are_converted():
    A = poisson(SHAPE, comm=COMM)
    A.zeroRowsColumns([7, 900], 3.0)
    A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-10, pc_dcdm_grid="16,12,8")
    for kind in ("baij", "sbaij", "sell", "is", "dense"):
        B = A.convert(kind, PETSc.Mat())
        other, y = solve(B, b, ksp_rtol=1e-10, pc_dcdm_grid="16,12,8")
        assert other.getConvergedReason() > 0, kind
        assert abs(other.getIterationNumber() - ksp.getIterationNumber()) <= 1, kind
        y.axpy(-1.0, x)
        assert y.norm() < 1e-8 * x.norm(), kind
