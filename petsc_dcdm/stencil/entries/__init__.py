"""The entries of an AIJ matrix read row by row: compiled, or by numpy where there are no kernels."""
