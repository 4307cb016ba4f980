"""Commands of petsc-dcdm that belong to no other folder."""
