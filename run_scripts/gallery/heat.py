"""TS: the heat equation

Crank and Nicolson's method for u' = div grad u with long steps; TS makes the matrix of a step itself, and the solver
finds the grid in its couplings. A product of sines decays with exp(-2 pi^2 t).
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc
from picture import right, save

n = PETSc.Options().getInt("n", 96)
h, end, steps = 1.0 / (n + 1), 0.05, 20
T = sp.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n, n)) / h**2
csr = sp.csr_matrix(sp.kronsum(T, T))
A = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))
iterations = []

options = PETSc.Options()
options["ksp_type"], options["ksp_python_type"] = "python", "petsc_dcdm.KSP"
ts = PETSc.TS().create()
ts.setProblemType(PETSc.TS.ProblemType.LINEAR)
ts.setType(PETSc.TS.Type.CN)
ts.setRHSFunction(lambda ts, t, u, f: A.mult(u, f), A.createVecRight())
ts.setRHSJacobian(lambda ts, t, u, J, P: A.copy(P), A.duplicate())
ts.setMonitor(lambda ts, step, t, u: iterations.append(ts.getSNES().getLinearSolveIterations()))
ts.setTimeStep(end / steps)
ts.setMaxTime(end)
ts.setMaxSteps(steps)
ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP)
ts.getSNES().getKSP().setTolerances(rtol=1e-8)
ts.setFromOptions()

points = np.sin(np.pi * h * np.arange(1, n + 1))
start = np.outer(points, points)
u = A.createVecRight()
u.setArray(start)
ts.solve(u)

error = np.abs(u.array_r.reshape(n, n) / start - np.exp(-2 * np.pi**2 * end)).max()
save(u.array_r.reshape(n, n), "Heat after a while")
right(error, 2e-3, f"{steps} steps of {np.mean(iterations[1:]):.1f} iterations, {error:.1e} from the exact decay")
