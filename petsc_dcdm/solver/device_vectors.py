"""PETSc's vectors in the memory of a GPU: where they live, and what of them a loop on that GPU reads and writes."""

from __future__ import annotations

from typing import Any
from weakref import ref

from petsc4py import PETSc

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.stencil.vec_map import RowMap


def on_gpu(vec: PETSc.Vec) -> bool:
    """Whether the vector is of a type that lives on a GPU. Not collective."""
    return any(kind in vec.getType() for kind in ("cuda", "hip"))


def device_wanted(wish: str, P: PETSc.Mat) -> str:
    """``-pc_dcdm_device``, where ``auto`` follows the vectors of the matrix: where PETSc knows GPUs and they are on the
    host the program wants that; a PETSc that knows none does not stand in the way of a GPU. Not collective.
    """
    if wish != "auto" or any(kind in (P.getVecType() or "") for kind in ("cuda", "hip")):
        return wish
    knows = any(PETSc.Sys.hasExternalPackage(name) for name in ("cuda", "hip"))
    return "cpu" if knows else wish


class VecBox:
    """The values of a vector whose rows are this rank's box, where they live. See
    `petsc_dcdm.backends.base.DeviceArray`.

    The vector is its owner's: loops keep this longer, and must not keep the vector until PETSc is finalised.
    """

    def __init__(self, vec: PETSc.Vec, shape: Shape) -> None:
        self._vec, self._shape, self._handle = ref(vec), shape, int(vec.handle)

    def reading(self) -> Any:
        """A tensor (nz, ny, nx) to be read; it is given back when the last reference to it goes."""
        return self._tensor("r")

    def writing(self) -> Any:
        """The same, to be written to from end to end."""
        return self._tensor("w")

    @property
    def address(self) -> int:
        """What tells it from other vectors."""
        return self._handle

    def _tensor(self, mode: str) -> Any:
        import torch

        vec = self._vec()
        assert vec is not None, "the vector of a solve that is over"
        return torch.from_dlpack(vec.toDLPack(mode)).view(self._shape)


def apply_on_gpu(hierarchy: Any, rows: RowMap, r: PETSc.Vec, z: PETSc.Vec, scale_in: float, scale_out: float) -> bool:
    """``z = scale_out * f(scale_in * r)`` where both are on the GPU that the hierarchy works on, and their rows are the
    cells of its box; otherwise nothing is done and False returned. Collective.
    """
    if rows.copies or not on_gpu(r) or not getattr(hierarchy, "on_device", False):
        return False
    hierarchy.apply(VecBox(r, rows.shape), VecBox(z, rows.shape), scale_in, scale_out)
    return True
