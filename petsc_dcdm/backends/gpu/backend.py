"""The Triton kernels as one of the backends."""

from __future__ import annotations

import torch

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.backends.gpu.coarse import DENSE_LIMIT
from petsc_dcdm.backends.gpu.hierarchy import GpuHierarchy
from petsc_dcdm.backends.gpu.levels import Blocks
from petsc_dcdm.backends.gpu.loop import GpuOperator
from petsc_dcdm.network.weights import ModelFile


class GpuBackend:
    """See `petsc_dcdm.backends.base.Backend`. Raises as `GpuHierarchy` does, for ``file`` of kind ``multigrid``.

    ``device``: of torch, ``"cuda:0"``; ``"cpu"`` under Triton's interpreter, or on a rank without a box.
    """

    def __init__(
        self,
        file: ModelFile,
        problem: Problem,
        device: str,
        dense_limit: int = DENSE_LIMIT,
        blocks: Blocks | None = None,
    ) -> None:
        place = torch.device(device)
        self.hierarchy = GpuHierarchy(file, problem.w, problem.s, problem.layout, place, dense_limit, blocks)
        name = torch.cuda.get_device_name(place) if place.type == "cuda" else "the CPU, interpreted"
        graph = "a step is one CUDA graph" if self.hierarchy.inverse is not None else "steps wait for the host"
        self.description = f"Triton kernels on {name}; {graph}; {self.hierarchy.solver_of_the_coarsest}"

    def operator(self, problem: Problem) -> GpuOperator | None:
        """None on a grid of one level, which is the coarse solver's alone. Collective."""
        return GpuOperator(self.hierarchy, problem) if problem.layout.plan else None
