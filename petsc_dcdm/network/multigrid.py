"""The `multigrid` network: a V-cycle whose numbers are generated from the matrix, in torch.

Linear in the residual and symmetric. Used for training (differentiable), on CUDA, and where no C compiler
is found. The C kernels mirror it, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from petsc_dcdm.grid.layout import CoarseOperator, Layout, LevelInfo, SerialLayout, coarse_box
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.network import fields
from petsc_dcdm.network.fields import Axes, Exchange, Operator, face_pair, high, low, pad_cells
from petsc_dcdm.network.hierarchy import CoarseSolve, unset_coarse_solve
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.network.weights import ModelFile


@dataclass(frozen=True)
class Smoother:
    """A level with a coarser one: `omega` [p, nz, ny, nx] is already divided by d, 0 at inactive cells."""

    op: Operator
    axes: Axes
    omega: torch.Tensor


class _Apply(torch.autograd.Function):
    """A x with a backward pass of the same cost: A is symmetric, so that the gradient in x is A g.

    Recording the dozen tensor operations of A x instead doubles the time of a training step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        s: torch.Tensor,
        faces_x: torch.Tensor,
        faces_y: torch.Tensor,
        faces_z: torch.Tensor,
        axes: Axes,
        exchange: Exchange,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, s, faces_x, faces_y, faces_z)
        ctx.axes, ctx.exchange = axes, exchange
        return _multiply((faces_x, faces_y, faces_z), s, axes, x, exchange)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        g = gradients[0]
        x, s, *faces = ctx.saved_tensors
        into_x = _multiply((faces[0], faces[1], faces[2]), s, ctx.axes, g, ctx.exchange)
        into_faces: list[torch.Tensor | None] = [None, None, None]
        if any(ctx.needs_input_grad[2:5]):
            # No exchange: at the two ends of a ring one face is seen from one side each.
            padded_x, padded_g = pad_cells(x, ctx.exchange), pad_cells(g, fields.no_exchange)
            for a in ctx.axes:
                (x0, x1), (g0, g1) = face_pair(padded_x, a), face_pair(padded_g, a)
                into_faces[a] = ((x1 - x0) * (g1 - g0)).sum_to_size(faces[a].shape)
        into_s = (x * g).sum_to_size(s.shape) if ctx.needs_input_grad[1] else None
        return into_x, into_s, *into_faces, None, None


def _multiply(
    faces: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    s: torch.Tensor,
    axes: Axes,
    x: torch.Tensor,
    exchange: Exchange,
) -> torch.Tensor:
    padded = pad_cells(x, exchange)
    y = s * x
    for a in axes:
        below, above = face_pair(padded, a)
        flux = faces[a] * (above - below)
        y += low(flux, a)
        y -= high(flux, a)
    return y


def apply_operator(op: Operator, x: torch.Tensor, exchange: Exchange) -> torch.Tensor:
    """A x for x [..., nz, ny, nx]. Differentiable on one rank. Collective.

    Written with differences across faces rather than d x - sum w x: no cancellation where x is smooth.
    """
    return _Apply.apply(x, op.s, *op.faces, op.axes, exchange)


def sum_blocks(x: torch.Tensor, axes: Axes) -> torch.Tensor:
    """Sum over the children of every coarse cell along the last three dimensions."""
    for a in axes:
        dim = x.dim() - 1 - a
        n = x.shape[dim]
        if n % 2:
            x = F.pad(x, [0, 0] * a + [0, 1])
        x = x.unflatten(dim, ((n + 1) // 2, 2)).sum(dim + 1)
    return x


def spread_blocks(e: torch.Tensor, axes: Axes, shape: Sequence[int]) -> torch.Tensor:
    """Give every child the value of its coarse cell; the children's box has `shape` (nz, ny, nx)."""
    for a in axes:
        e = e.repeat_interleave(2, dim=-1 - a).narrow(-1 - a, 0, shape[2 - a])
    return e


def coarsen(
    op: Operator,
    axes: Axes,
    sigma: torch.Tensor,
    gamma: torch.Tensor,
    exchange: Exchange,
    shape: Shape,
    periodic: Periodic = NOT_PERIODIC,
) -> Operator:
    """The operator of the next level: 7-point again, whatever the fields are. Collective.

    A coarse conductance is the sum over the fine faces it consists of, each scaled by the mean of gamma on
    its two sides; faces inside a coarse cell vanish, and with them those of a ring that has become one cell.
    `sigma` [nz, ny, nx] scales s, `gamma` is [3, nz, ny, nx]; `shape` is the coarse level's global one.
    """
    faces = []
    for a in axes:
        if periodic[2 - a] and op.shape[2 - a] % 2:
            # The last cell of an odd ring, a coarse cell alone, is as short as before: twice the conductance of others.
            shorter = torch.ones_like(gamma)
            shorter[a].select(2 - a, -1).fill_(2.0)
            gamma = gamma * shorter
    padded = pad_cells(gamma, exchange)
    for a in range(3):
        below, above = face_pair(padded[a], a)
        w = op.faces[a] * (0.5 * (below + above))
        if a in axes:
            n = op.shape[2 - a]
            # n odd: a thin last cell
            w = w.index_select(2 - a, torch.tensor([*range(0, n, 2), n], device=w.device))
            if shape[2 - a] == 1:
                w = torch.zeros_like(w)
        faces.append(sum_blocks(w, tuple(b for b in axes if b != a)))
    return fields.make_operator((faces[0], faces[1], faces[2]), sum_blocks(sigma * op.s, axes), shape)


def build(
    weights: dict[str, torch.Tensor],
    op: Operator,
    layout: Layout,
    exchange: Exchange,
) -> tuple[list[Smoother], Operator, list[LevelInfo]]:
    """The smoothed levels, the coarsest operator, and what the levels are. Differentiable. Collective."""
    steps = steps_of(weights)
    shape, offset = layout.shape, layout.offset
    global_shape = layout.global_shape
    smoothers: list[Smoother] = []
    infos: list[LevelInfo] = []
    for axes in (*layout.plan, ()):
        unknowns = int(layout.sum(np.array([float(op.active.detach().sum(dtype=torch.float64))]))[0])
        infos.append(LevelInfo(global_shape, offset, shape, axes, unknowns))
        if not axes:
            break
        f = fields.evaluate(weights, fields.features(op, exchange), axes, global_shape)
        inverse = torch.where(op.d > 0, 1 / op.d.clamp_min(torch.finfo(op.d.dtype).tiny), torch.zeros_like(op.d))
        smoothers.append(Smoother(op, axes, f[:steps] * inverse))
        shape, offset = coarse_box(shape, offset, axes)
        global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
        op = coarsen(op, axes, f[steps], f[steps + 1 :], exchange, global_shape, layout.periodic)
    return smoothers, op, infos


def cycle(
    smoothers: Sequence[Smoother],
    coarse_solve: Callable[[torch.Tensor], torch.Tensor],
    r: torch.Tensor,
    exchange: Exchange,
    visits: int = 1,
) -> torch.Tensor:
    """One symmetric V-cycle for r [..., nz, ny, nx], with as many `visits` of the second level. Collective."""
    if not smoothers:
        return coarse_solve(r)
    level = smoothers[0]
    omega, steps = level.omega, level.omega.shape[0]
    x = omega[0] * r
    for i in range(1, steps):
        x = x + omega[i] * (r - apply_operator(level.op, x, exchange))
    residual = level.op.active * (r - apply_operator(level.op, x, exchange))
    coarse_r, rest = sum_blocks(residual, level.axes), smoothers[1:]
    e = cycle(rest, coarse_solve, coarse_r, exchange)
    for _ in range(visits - 1 if rest else 0):
        e = e + cycle(rest, coarse_solve, coarse_r - apply_operator(rest[0].op, e, exchange), exchange)
    x = x + level.op.active * spread_blocks(e, level.axes, level.op.shape)
    for i in reversed(range(steps)):
        x = x + omega[i] * (r - apply_operator(level.op, x, exchange))
    return x


def operator_from_arrays(
    w: Sequence[np.ndarray | torch.Tensor],
    s: np.ndarray | torch.Tensor,
    shape: Shape,
    exchange: Exchange = fields.no_exchange,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Operator:
    """The operator of low-face conductances ``w[0..2]`` and extra diagonal `s`. Collective.

    Each is (nz, ny, nx) of this rank's box; `shape` is that of the whole grid.
    """
    faces = []
    for a in range(3):
        wa = torch.as_tensor(w[a]).to(device=device, dtype=dtype)
        padded = pad_cells(wa, exchange)
        faces.append(face_pair(padded, a)[1])
    return fields.make_operator(
        (faces[0], faces[1], faces[2]), torch.as_tensor(s).to(device=device, dtype=dtype), shape
    )


class TorchHierarchy:
    """The network made ready for one matrix, in eager torch; see `petsc_dcdm.network.hierarchy.Hierarchy`.

    Parameters
    ----------
    file
        weights of kind ``multigrid``.
    w, s
        low-face conductances along x, y, z and extra diagonal, each (nz, ny, nx) of this rank's box,
        scaled to a largest diagonal of 1.
    layout
        this rank's box.
    device
        torch device, ``"cpu"`` or ``"cuda"``.

    Collective. Raises `WeightsError` when the weights are of another kind.
    """

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray],
        s: np.ndarray,
        layout: Layout,
        device: str = "cpu",
    ) -> None:
        file.require_kind("multigrid")
        self._device = torch.device(device)
        self._exchange: Exchange = (
            fields.no_exchange
            if isinstance(layout, SerialLayout) and not any(layout.periodic)
            else lambda a, corners: layout.exchange(a, corners)
        )
        weights = {name: torch.from_numpy(a).to(self._device) for name, a in file.tensors.items()}
        with torch.no_grad():
            op = operator_from_arrays(w, s, layout.global_shape, self._exchange, device=self._device)
            self._smoothers, coarse, self.levels = build(weights, op, layout, self._exchange)
        last = self.levels[-1]
        cells = [low(coarse.faces[a], a).cpu().numpy().astype(np.float64) for a in range(3)]
        self.coarse = CoarseOperator(
            (cells[0], cells[1], cells[2]),
            coarse.s.cpu().numpy().astype(np.float64),
            last.offset,
            last.shape,
            last.global_shape,
        )
        self.coarse_solve: CoarseSolve = unset_coarse_solve
        self._active = op.active.cpu().numpy() > 0
        self._visits = layout.visits

    def _solve_coarse(self, r: torch.Tensor) -> torch.Tensor:
        e = np.ascontiguousarray(self.coarse_solve(r.cpu().numpy()))
        return torch.from_numpy(e).to(self._device, r.dtype)

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * cycle(scale_in * r)``, zero at inactive cells. Collective.

        `r` and `out` are float64 arrays (nz, ny, nx) of this rank's box.
        """
        with torch.no_grad():
            x = torch.from_numpy(np.multiply(r, scale_in).astype(np.float32)).to(self._device)
            y = cycle(self._smoothers, self._solve_coarse, x, self._exchange, self._visits)
            np.copyto(out, y.cpu().numpy())
            out[~self._active] = 0.0
            out *= scale_out
