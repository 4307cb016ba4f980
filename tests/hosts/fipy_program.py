"""A FiPy program (https://pages.nist.gov/fipy): three implicit time steps, the solver chosen by PETSc's options.

usage: fipy_program.py dirichlet|periodic|periodic-left-right|three-d|convection

Prints a line a step: iterations, how far the answer is from a dense solve of FiPy's own matrix (on one rank), its sum.
"""

from __future__ import annotations

import sys

import numpy as np
from fipy import (
    CellVariable,
    ConvectionTerm,
    DiffusionTerm,
    Grid2D,
    Grid3D,
    LinearCGSolver,
    PeriodicGrid2D,
    PeriodicGrid2DLeftRight,
    TransientTerm,
)
from fipy.tools import parallelComm

KIND = sys.argv[1]
NX, NY, NZ = 20, 16, 6
ANISOTROPY = [[[1.0, 0.0], [0.0, 100.0]]]

grid = {"periodic": PeriodicGrid2D, "periodic-left-right": PeriodicGrid2DLeftRight}.get(KIND, Grid2D)
mesh = Grid3D(nx=NX, ny=NY, nz=NZ) if KIND == "three-d" else grid(nx=NX, ny=NY, dx=1.0 / NX, dy=1.0 / NY)
x, y = mesh.cellCenters[0], mesh.cellCenters[1]
u = CellVariable(mesh=mesh, hasOld=True)
u.setValue(np.sin(5 * x) * np.cos(3 * y) + 0.3 * x)
if KIND in ("dirichlet", "three-d"):
    u.constrain(1.0, mesh.facesLeft)
    u.constrain(0.0, mesh.facesRight)
equation = TransientTerm() == DiffusionTerm(coeff=3.0 if KIND == "three-d" else ANISOTROPY)
if KIND == "convection":
    equation = TransientTerm() + ConvectionTerm(coeff=(30.0, 10.0)) == DiffusionTerm(coeff=1.0)
solver = LinearCGSolver(tolerance=1e-10, iterations=500)
for _ in range(3):
    u.updateOld()
    equation.cacheMatrix()
    equation.cacheRHSvector()
    equation.sweep(u, dt=0.01, solver=solver)
    found = u.globalValue
    worst = 0.0
    if parallelComm.Nproc == 1:
        exact = np.linalg.solve(equation.matrix.numpyArray, np.array(equation.RHSvector))
        worst = np.abs(found - exact).max() / np.abs(exact).max()
    if parallelComm.procID == 0:
        its, status = solver.convergence.iterations, solver.convergence.status_name
        print(f"{KIND}: {status} its {its} error {worst:.2e} sum {float(np.sum(found)):.12e}", flush=True)
