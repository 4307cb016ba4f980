"""C sources, how they are built, kept and bound; what of PETSc petsc4py does not wrap; memory."""
