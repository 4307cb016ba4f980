"""Flow past a mesh of your own

A closed surface (`-mesh FILE`; OBJ, STL, PLY) becomes solid cells of a channel, and a uniform stream is made free of
divergence around it. As much as flows in must pass through every section of the channel.
"""

import sys
from pathlib import Path

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
from petsc4py import PETSc
from picture import right, save

from petsc_dcdm.poisson import dmda, flow, mesh, rhs
from petsc_dcdm.poisson.assemble import assemble
from petsc_dcdm.poisson.scene import around_mesh

options = PETSc.Options()
n = options.getInt("n", 64)
fox = Path(__file__).parents[2] / "meshes" / "fox.obj"
shape = (n, n, 3 * n // 2)  # nz, ny, nx
surface = mesh.place(mesh.load(options.getString("mesh", str(fox))), shape)

dm = dmda.create(shape)
system = assemble(around_mesh(shape, dmda.box_of(dm), surface), dm)
b = rhs.make("flow", system)
p = b.duplicate()
ksp = PETSc.KSP().create()
system.attach(ksp)
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setTolerances(rtol=1e-8)
ksp.setFromOptions()
ksp.solve(b, p)

pressure = system.field(p)
velocity = flow.projected_velocity(system, pressure)
sections = PETSc.COMM_WORLD.tompi4py().allreduce(velocity[..., 0].sum(axis=(0, 1)))  # whole on one rank
error = np.abs(sections / sections[0] - 1).max()
middle = n // 2
save(pressure[:, middle], "Pressure in the middle plane", ~system.active[:, middle])
right(error, 1e-5, f"{ksp.getIterationNumber()} iterations, every section lets the inflow through to {error:.1e}")
