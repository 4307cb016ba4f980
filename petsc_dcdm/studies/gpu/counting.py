"""The launches of set-ups and steps on any grid, without a GPU and without memory: to be counted."""

from __future__ import annotations

import numpy as np
import torch

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.backends.gpu.hierarchy import GpuHierarchy
from petsc_dcdm.backends.gpu.loop import GpuLoop, GpuOperator
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network import weights
from petsc_dcdm.stencil.packed import PackedStencil
from petsc_dcdm.stencil.plan import VISITS, coarse_limit, plan_coarsening


def plan_of(shape: Shape, mean: tuple[float, float, float] = (1.0, 1.0, 1.0), threshold: float = 2.5) -> Plan:
    """The axes that are coarsened from level to level where no wall stands against it."""
    return plan_coarsening(shape, mean, threshold, coarse_limit(shape))


def counted(shape: Shape, packed: bool, history: int) -> tuple[GpuHierarchy, GpuLoop]:
    """The hierarchy and the loop of a grid of which every cell is active, on torch's device "meta"."""
    layout = SerialLayout(shape, plan_of(shape), VISITS)
    wide = tuple(n + 2 for n in shape)
    if packed:
        byte = np.broadcast_to(np.zeros(1, np.uint8), wide)
        stencil = PackedStencil(byte, byte, (1.0, 1.0, 1.0), np.zeros(256))
        problem = Problem(stencil, None, layout, 1.0, True, 0)
    else:
        numbers = np.broadcast_to(np.zeros(1), wide)
        problem = Problem([numbers] * 3, numbers, layout, 1.0, True, 0)
    network = GpuHierarchy(weights.load("multigrid"), problem.w, problem.s, layout, torch.device("meta"))
    return network, GpuOperator(network, problem).loop(history)
