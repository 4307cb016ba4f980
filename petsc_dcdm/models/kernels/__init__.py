"""Compiled kernels for the CPU: C sources, and `build`, which compiles and loads them on first use."""
