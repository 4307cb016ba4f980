"""The network, made ready for a matrix, applied to a vector of PETSc's."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.network.hierarchy import Hierarchy
from petsc_dcdm.stencil.system import GridSystem


def apply_network(system: GridSystem, hierarchy: Hierarchy, r: PETSc.Vec, z: PETSc.Vec, transposed: bool) -> None:
    """z = A^-1 r approximately, or A'^-1 r; r where that is 0 or not finite. Collective.

    The network stands for the inverse of a symmetric matrix S. Of A = D S: z = f(D^-1 r), and of A' = S D: D^-1 f(r).
    """
    factors, given = system.factors, r
    if factors is not None and not transposed:
        given = r.copy()
        factors.divide(given)
    norm = given.norm()  # known to PETSc already where the Krylov method tests it
    if norm == 0.0 or not np.isfinite(norm):
        r.copy(z)
        return
    box = system.rows.to_box(given)
    if system.rows.copies:
        out = np.empty(box.shape)
        hierarchy.apply(box, out, 1.0 / norm, norm / system.scale)
        system.rows.from_box(out, z)
    else:
        with z as values:
            hierarchy.apply(box, values.reshape(box.shape), 1.0 / norm, norm / system.scale)
    if given is not r:
        given.destroy()
    if factors is not None and transposed:
        factors.divide(z)
    system.fixed.precondition(r, z)
