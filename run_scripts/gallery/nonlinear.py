"""SNES: Bratu's equation

Newton's method for -u" = 5 exp(u), whose Jacobian is another matrix in every step; its row sums are a little negative,
which is served. The same Newton steps with LU are the answer it is compared with.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc
from picture import right, save

n, strength = PETSc.Options().getInt("n", 64), 5.0
h = 1.0 / (n + 1)
T = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))
csr = sp.csr_matrix(sp.kronsum(T, T))
L = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))


def residual(snes, u, f):
    L.mult(u, f)
    f.array -= h * h * strength * np.exp(u.array_r)


def jacobian(snes, u, J, P):
    L.copy(P)
    source = u.duplicate()
    source.array = -h * h * strength * np.exp(u.array_r)
    P.setDiagonal(source, addv=PETSc.InsertMode.ADD)
    P.assemble()


def solve(prefix, options):
    snes, u, f, P = PETSc.SNES().create(), L.createVecRight(), L.createVecRight(), L.duplicate()
    snes.setOptionsPrefix(prefix)
    PETSc.Options(prefix).insertString(options)
    snes.setFunction(residual, f)
    snes.setJacobian(jacobian, P)
    snes.setTolerances(rtol=1e-10)
    snes.setFromOptions()
    snes.solve(None, u)
    return snes, u.array_r.reshape(n, n)


snes, u = solve("", "-ksp_type python -ksp_python_type petsc_dcdm.KSP -ksp_rtol 1e-8")
_, lu = solve("lu_", "-lu_ksp_type preonly -lu_pc_type lu")
error = np.abs(u - lu).max() / lu.max()
save(u, "Bratu's equation")
steps = f"{snes.getIterationNumber()} Newton steps, {snes.getLinearSolveIterations()} iterations in them"
right(error, 1e-7, f"{steps}, {error:.1e} from LU")
