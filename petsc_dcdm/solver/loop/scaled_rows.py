"""Matrices whose rows were scaled one by one: in which inner product they are symmetric, what stands for an inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from petsc4py import PETSc

from petsc_dcdm.stencil.forms.row_scaling import RowFactors


@dataclass(frozen=True)
class Weights:
    """W of the inner product u . W v in which a matrix is symmetric: D^-1 for A = D S, D for the transposed one."""

    factors: RowFactors
    transposed: bool

    def apply(self, v: PETSc.Vec) -> None:
        """v = W v."""
        if self.transposed:
            self.factors.multiply(v)
        else:
            self.factors.divide(v)


def apply_scaled(
    factors: RowFactors | None,
    apply: Callable[[PETSc.Vec, PETSc.Vec], None],
    r: PETSc.Vec,
    z: PETSc.Vec,
    transposed: bool,
) -> None:
    """z = f(D^-1 r) for A = D S, D^-1 f(r) for A' = S D, where ``apply`` is z = f(r), about the inverse of S. Without
    ``factors`` D is 1. Collective.
    """
    if factors is None:
        apply(r, z)
    elif transposed:
        apply(r, z)
        factors.divide(z)
    else:
        given = r.copy()
        factors.divide(given)
        apply(given, z)
        given.destroy()
