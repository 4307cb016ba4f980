"""Where the unknowns of a PETSc matrix lie on a grid, and how the grid is split over ranks."""
