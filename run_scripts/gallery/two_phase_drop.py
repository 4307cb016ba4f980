"""A drop in a gas a thousand times lighter

Surface tension on an oval drop: the pressure of a step of projection, with coefficients 1 : 1000 across the surface. A
gradient G on the faces gives the matrix G' (1/rho) G; SciPy's LU gives the answer that it is compared with.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as direct
from petsc4py import PETSc
from picture import right, save

n = PETSc.Options().getInt("n", 96)
x, y = np.meshgrid((np.arange(n) + 0.5) / n - 0.5, (np.arange(n) + 0.5) / n - 0.5)
radius = 0.25 * (1 + 0.2 * np.cos(2 * np.arctan2(y, x)))
level = np.hypot(x, y) - radius  # negative in the drop
drop = np.clip(0.5 - level * n / 2, 0, 1)  # share of liquid, smoothed over two cells
slope = np.gradient(level, 1 / n)
size = np.hypot(*slope)
curvature = sum(np.gradient(s / size, 1 / n, axis=a) for a, s in enumerate(slope))

D = sp.diags([-np.ones(n), np.ones(n)], [0, -1], shape=(n + 1, n))  # differences; outside is pressure zero
G = sp.csr_matrix(sp.vstack([sp.kron(sp.identity(n), D), sp.kron(D, sp.identity(n))])) * n
mean = abs(G) / n
mean = sp.diags(1 / np.asarray(mean.sum(axis=1)).ravel()) @ mean
density = mean @ (1.0 + 999.0 * drop.ravel())
force = (mean @ curvature.ravel()) * (G @ drop.ravel()) / density
matrix = sp.csr_matrix(G.T @ sp.diags(1 / density) @ G)
right_side = G.T @ force

A = PETSc.Mat().createAIJ(matrix.shape, csr=(matrix.indptr, matrix.indices, matrix.data))
p, b = A.createVecs()
b.setArray(right_side)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setTolerances(rtol=1e-10)
ksp.setFromOptions()
ksp.solve(b, p)

exact = direct.spsolve(sp.csc_matrix(matrix), right_side)
error = np.abs(p.array_r - exact).max() / np.abs(exact).max()
save(p.array_r.reshape(n, n), "Pressure in and around a drop")
right(error, 1e-6, f"{ksp.getIterationNumber()} iterations, {error:.1e} from LU")
