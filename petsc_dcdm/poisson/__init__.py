"""Pressure systems from surface meshes: voxels, cell flags, distributed assembly, right-hand sides."""
