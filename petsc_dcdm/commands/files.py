"""Systems that a program has written to files, as the commands read them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.grid.shape import shape_option, size_text

if TYPE_CHECKING:
    from petsc4py import PETSc


def system_of_files(args: argparse.Namespace) -> tuple[PETSc.Mat, PETSc.Vec]:
    """The matrix and right-hand side that ``args`` (matrix, grid, cells, rhs, seed) name. Collective; ValueError and
    OSError with a sentence.
    """
    from petsc4py import PETSc

    from petsc_dcdm.poisson import io
    from petsc_dcdm.poisson.flags import normal

    A = io.load_matrix(args.matrix)
    if A.getSize()[0] != A.getSize()[1]:
        raise ValueError(f"{args.matrix} is not square: {A.getSize()[0]} rows, {A.getSize()[1]} columns.")
    if args.cells:
        cells = io.load_cells(args.cells, A)
        A.compose("dcdm_cells", cells)
    if args.grid:
        PETSc.Options()["pc_dcdm_grid"] = size_text(shape_option("grid", args.grid), ",")
    if args.rhs and args.rhs != "random":
        return A, io.load_vector(args.rhs, A.createVecLeft())
    b = A.createVecLeft()
    with b as values:
        values[:] = normal(args.seed, 0, np.arange(*b.getOwnershipRange()))
    return A, b
