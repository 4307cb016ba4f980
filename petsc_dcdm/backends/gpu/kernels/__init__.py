"""The Triton kernels: few, for grids of any shape in 2D and 3D, any coarsened axes, with or without rings."""
