"""Systems for a machine without PETSc: worlds of the families, and a tank of any size that is made where it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.grid.faces import diagonal, interior
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network import weights
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.poisson import families
from petsc_dcdm.poisson.flags import whole
from petsc_dcdm.stencil.packed import HAS_S, PackedStencil
from petsc_dcdm.stencil.plan import VISITS
from petsc_dcdm.studies.gpu.counting import plan_of

FAMILIES = ("box", "open_wall", "channel", "tank", "dam_break", "porous", "smooth", "neumann")


def shipped_weights() -> ModelFile:
    """Of the multigrid network; read by hand, since safetensors may be missing."""
    data = weights.shipped("multigrid").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    meta, tensors = header.pop("__metadata__"), {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", name
        tensors[name] = np.frombuffer(data[start + begin : start + end], np.float32).reshape(entry["shape"])
    assert weights.tensor_hash(tensors) == meta["hash"], "the weights file is damaged"
    return ModelFile(meta["kind"], (2, 3), tensors, meta, "multigrid")


def family(name: str, shape: Shape, seed: int = 1) -> tuple[Problem, np.ndarray]:
    """The problem of a family, scaled to a largest diagonal of 1, and where it is active."""
    world = families.make(name, shape, seed, whole(shape))
    scale = float(world.diagonal().max())
    w, s = [a / scale for a in world.w], np.pad(world.s / scale, 1)
    active = diagonal(w, interior(s)) > 0
    for a in w:
        interior(a)[~active] = 0.0
    interior(s)[~active] = 0.0
    mean = [float(a[a > 0].mean()) if (a > 0).any() else 0.0 for a in w]
    layout = SerialLayout(shape, plan_of(shape, (mean[0], mean[1], mean[2])), VISITS)
    stencil = pack(w, s)
    closed = 0 if s.any() else int(active.sum())
    if stencil is not None:
        return Problem(stencil, None, layout, scale, True, closed), active
    return Problem(w, s, layout, scale, True, closed), active


def pack(w: Sequence[np.ndarray], s: np.ndarray) -> PackedStencil | None:
    """Padded arrays in packed form, where they have one."""
    c = [float(a.max()) for a in w]
    values = np.unique(s[s != 0])
    if values.size > 255 or any(not np.isin(a, (0.0, top)).all() for a, top in zip(w, c, strict=True)):
        return None
    cells = np.where(s != 0, HAS_S, 0).astype(np.uint8)
    for axis, face in enumerate(w):
        on = face != 0
        cells |= np.where(on, 1 << 2 * axis, 0).astype(np.uint8)
        cells |= np.where(np.roll(on, -1, 2 - axis), 2 << 2 * axis, 0).astype(np.uint8)
    inside = np.pad(np.ones([n - 2 for n in s.shape], np.uint8), 1)
    index = np.where(s != 0, np.searchsorted(values, s) + 1, 0).astype(np.uint8) * inside
    s_value = np.zeros(256)
    s_value[1 : values.size + 1] = values
    return PackedStencil(cells * inside, index, (c[0], c[1], c[2]), s_value)


def tank(n: int, device: torch.device) -> tuple[Problem, torch.Tensor]:
    """n^3 cells with a free surface and blocks of solid in it, a twentieth of the cells; where it is active is on the
    device.
    """
    shape = (n, n, n)
    block = max(2, n // 16)
    rough = torch.rand([-(-n // block)] * 3, generator=torch.Generator().manual_seed(0)) < 0.05
    fluid = ~rough.to(device).repeat_interleave(block, 0).repeat_interleave(block, 1).repeat_interleave(block, 2)
    fluid = fluid[:n, :n, :n].contiguous()
    cells = torch.zeros(shape, dtype=torch.uint8, device=device)
    for axis in range(3):
        dim = 2 - axis
        both = fluid.narrow(dim, 0, n - 1) & fluid.narrow(dim, 1, n - 1)
        cells.narrow(dim, 1, n - 1).bitwise_or_(both.to(torch.uint8) << 2 * axis)
        cells.narrow(dim, 0, n - 1).bitwise_or_(both.to(torch.uint8) << (2 * axis + 1))
    cells[-1].bitwise_or_(fluid[-1].to(torch.uint8) * HAS_S)
    index = torch.zeros_like(cells)
    index[-1] = fluid[-1].to(torch.uint8)
    values = np.zeros(256)
    values[1] = 2.0 / 7.0
    wide = [torch.nn.functional.pad(a, (1,) * 6).cpu().numpy() for a in (cells, index)]
    c = 1.0 / 7.0
    stencil = PackedStencil(wide[0], wide[1], (c, c, c), values)
    layout = SerialLayout(shape, plan_of(shape), VISITS)
    return Problem(stencil, None, layout, 1.0, True, 0), cells != 0


def right_hand_side(active: torch.Tensor, smooth: bool, closed: bool) -> torch.Tensor:
    """float64: random numbers, or a wave; 0 at inactive cells, without a constant part where that has no solution."""
    if smooth:
        at = [torch.linspace(0, 3.0, n, dtype=torch.float64, device=active.device) for n in active.shape]
        b = torch.cos(at[0])[:, None, None] * torch.cos(2 * at[1])[None, :, None] * torch.cos(at[2])[None, None, :]
    else:
        b = torch.randn(active.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(active.device)
    b = b * active
    return (b - b.sum() / active.sum() * active) if closed else b
