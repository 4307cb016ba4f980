"""A periodic channel

Pressure in a channel whose ends meet, between two walls: a DMDA with a periodic axis and a matrix with a null space.
The pressure is cos(2 pi x) cos(pi y), which the discrete one meets at second order.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
from petsc4py import PETSc
from picture import right, save

n = PETSc.Options().getInt("n", 64)
ring, wall = PETSc.DM.BoundaryType.PERIODIC, PETSc.DM.BoundaryType.NONE
dm = PETSc.DMDA().create([2 * n, n], boundary_type=(ring, wall), stencil_width=1)
A = dm.createMat()
(xs, xe), (ys, ye) = dm.getRanges()
row, col = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
for j in range(ys, ye):
    for i in range(xs, xe):
        row.index = (i, j)
        beside = [(i - 1, j), (i + 1, j)] + [(i, k) for k in (j - 1, j + 1) if 0 <= k < n]
        A.setValueStencil(row, row, float(len(beside)))
        for col.index in beside:
            A.setValueStencil(row, col, -1.0)
A.assemble()
A.setNullSpace(PETSc.NullSpace().create(constant=True))

p, b = dm.createGlobalVec(), dm.createGlobalVec()
x, y = (np.arange(xs, xe) + 0.5) / (2 * n), (np.arange(ys, ye) + 0.5) / n
exact = np.outer(np.cos(np.pi * y), np.cos(2 * np.pi * x))
b.setArray(exact * np.pi**2 * (1.0 + 1.0) / n**2)  # lengths in channel heights: the channel is two of them long

ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setTolerances(rtol=1e-8)
ksp.setFromOptions()
ksp.solve(b, p)

found = p.array_r.reshape(exact.shape)
error = PETSc.COMM_WORLD.tompi4py().allreduce(np.abs(found - exact).max(), op=max)
save(found, "Pressure in a periodic channel")
right(error, 5.0 / n**2, f"{ksp.getIterationNumber()} iterations, {error:.1e} from the exact pressure")
