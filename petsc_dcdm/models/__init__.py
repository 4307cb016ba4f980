"""The networks, their weights files and their compiled kernels: no PETSc, no MPI."""
