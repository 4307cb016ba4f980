"""What PETSc calls: the Krylov solver, the preconditioner, and what belongs to them."""
