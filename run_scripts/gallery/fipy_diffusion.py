"""FiPy

A program of FiPy's (https://pages.nist.gov/fipy) that is not changed at all: PETSc's options choose the solver. Steady
diffusion between two fixed sides is a straight line.
"""

import os
import sys

os.environ["FIPY_SOLVERS"] = "petsc"
os.environ["PETSC_OPTIONS"] = "-ksp_type python -ksp_python_type petsc_dcdm.KSP"

import numpy as np

try:
    from fipy import CellVariable, DiffusionTerm, Grid2D, LinearCGSolver
except ImportError:
    print("skipped: FiPy is not installed (pip install --no-deps fipy steppyngstounes)")
    sys.exit(0)
from petsc4py import PETSc
from picture import right, save

PETSc.Options().insertString(" ".join(sys.argv[1:]))
n = PETSc.Options().getInt("n", 64)
mesh = Grid2D(nx=n, ny=n, dx=1.0 / n, dy=1.0 / n)
u = CellVariable(mesh=mesh)
u.constrain(1.0, mesh.facesLeft)
u.constrain(0.0, mesh.facesRight)
solver = LinearCGSolver(tolerance=1e-10, iterations=100)
DiffusionTerm(coeff=1.0).solve(u, solver=solver)

error = np.abs(u.value - (1.0 - mesh.x.value)).max()
save(np.asarray(u.value).reshape(n, n), "Diffusion between two sides")
right(error, 1e-7, f"{solver.convergence.iterations} iterations, {error:.1e} from the straight line")
