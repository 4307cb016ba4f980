"""Incompressible flow on a staggered grid, split over ranks: what the pressure solver is for, short enough to copy."""
