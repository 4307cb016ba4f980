"""The coarsest level of a hierarchy, solved: a factorisation, coarse cells of several parts, or a solver of PETSc's."""
