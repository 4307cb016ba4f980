"""petsc4py in ten lines

A matrix of SciPy's, whose rows nothing is said about, and PETSc's KSP with one more option. The membrane -u" = 1 on the
unit square is 0.07367 high in its middle: a known series, to which the discrete answer comes at second order.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import scipy.sparse as sp
from petsc4py import PETSc
from picture import right, save

n = PETSc.Options().getInt("n", 127) | 1
T = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))
csr = sp.csr_matrix(sp.kronsum(T, T))

A = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))
x, b = A.createVecs()
b.set(1.0 / (n + 1) ** 2)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setTolerances(rtol=1e-8)
ksp.setFromOptions()
ksp.solve(b, x)

u = x.getArray(readonly=True).reshape(n, n)
error = abs(u[n // 2, n // 2] - 0.0736713532)
save(u, "Membrane under its own weight")
right(error, 0.1 / (n + 1) ** 2, f"{ksp.getIterationNumber()} iterations, {error:.1e} from the series in the middle")
