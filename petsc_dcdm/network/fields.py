"""The field network: from the matrix around a cell to the numbers its multigrid cycle uses there.

Functional and differentiable torch. Cell arrays are [nz, ny, nx], x fastest, dtype of the weights;
conductances are held on the faces, one more along their own axis. One set of weights serves every level, 2D
(nz = 1) and 3D.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from petsc_dcdm.grid.shape import Shape

Exchange = Callable[[torch.Tensor, bool], None]
Axes = tuple[int, ...]

#: A field departs from its base value by at most this part of it: always positive, never more than 1.9 times.
FIELD_RANGE = 0.9
#: Planes evaluated at a time outside training: bounds the memory of the hidden layer. Even, as blocks start
#: there.
SLAB = 32


def no_exchange(a: torch.Tensor, corners: bool) -> None:
    """Halo exchange of a grid that lies on one rank and has no periodic axes."""


@dataclass(frozen=True)
class Operator:
    """A 7-point operator on this rank's box. Along a ring on one rank the first and the last face are the same.

    ``faces[a]`` (a = 0, 1, 2 for x, y, z) is the conductance of every face across axis a, the box's high
    boundary included: one longer than the box along array axis ``2 - a``. `s`: extra diagonal. `d`: the
    whole diagonal. `active`: 1 where d > 0, else 0. `axes`: those along which the whole grid is longer than
    one cell.
    """

    faces: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    s: torch.Tensor
    d: torch.Tensor
    active: torch.Tensor
    axes: Axes

    @property
    def shape(self) -> Shape:
        return (self.s.shape[0], self.s.shape[1], self.s.shape[2])


def low(a: torch.Tensor, axis: int) -> torch.Tensor:
    """`a` without its last entry along array axis -1 - axis: of a face array, the cells' low faces."""
    return a.narrow(-1 - axis, 0, a.shape[-1 - axis] - 1)


def high(a: torch.Tensor, axis: int) -> torch.Tensor:
    """`a` without its first entry along array axis -1 - axis: of a face array, the cells' high faces."""
    return a.narrow(-1 - axis, 1, a.shape[-1 - axis] - 1)


def make_operator(faces: tuple[torch.Tensor, torch.Tensor, torch.Tensor], s: torch.Tensor, shape: Shape) -> Operator:
    """The operator with these face conductances and extra diagonal on a grid of global `shape`."""
    d = s
    for a in range(3):
        d = d + low(faces[a], a) + high(faces[a], a)
    axes = tuple(a for a in range(3) if shape[2 - a] > 1)
    return Operator(faces, s, d, (d > 0).to(s.dtype), axes)


def pad_cells(x: torch.Tensor, exchange: Exchange, corners: bool = False) -> torch.Tensor:
    """`x` [..., nz, ny, nx] with a halo of one cell, zero outside the grid. Collective."""
    padded = F.pad(x, (1, 1, 1, 1, 1, 1))
    exchange(padded, corners)
    return padded


def face_pair(padded: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells on the low and on the high side of every face across `axis`, from a padded cell array."""
    for other in range(3):
        if other != axis:
            padded = padded.narrow(-1 - other, 1, padded.shape[-1 - other] - 2)
    return low(padded, axis), high(padded, axis)


def features(op: Operator, exchange: Exchange) -> torch.Tensor:
    """What the network sees of every cell, [8, nz + 2, ny + 2, nx + 2].

    Conductance over diagonal of the low and high face along x, y, z, then s over diagonal, then active.
    All dimensionless, zero at inactive cells and outside the grid. Collective.
    """
    scale = torch.where(op.d > 0, 1 / op.d.clamp_min(torch.finfo(op.d.dtype).tiny), torch.zeros_like(op.d))
    channels = []
    for a in range(3):
        channels += [low(op.faces[a], a) * scale, high(op.faces[a], a) * scale]
    return pad_cells(torch.stack([*channels, op.s * scale, op.active]), exchange, corners=True)


def oriented_weights(weight: torch.Tensor, axes: Axes, odd: Axes) -> torch.Tensor:
    """The 3x3x3 kernel [H, 8, 3, 3, 3] as a cell sees it whose index is odd along the axes `odd`.

    The kernel is stored in terms of (face towards the sibling in the same coarse cell, face away from it),
    the feature array in terms of (low, high). The sibling lies on the high side of even cells. Axes that
    are not coarsened keep (low, high).
    """
    order = list(range(8))
    for a in axes:
        if a not in odd:
            order[2 * a], order[2 * a + 1] = 2 * a + 1, 2 * a
    flips = [-1 - a for a in odd]
    kernel = weight[:, order]
    return torch.flip(kernel, flips) if flips else kernel


def oriented_conv(padded: torch.Tensor, weight: torch.Tensor, axes: Axes) -> torch.Tensor:
    """Convolve padded features [8, nz + 2, ...] with a 3x3x3 kernel that turns with each cell's place.

    Reflecting the grid about a block reflects the result, so nothing has to be learned twice.
    Returns [H, nz, ny, nx].
    """
    shape = [n - 2 for n in padded.shape[1:]]
    if 0 in shape:  # a rank without a box
        return padded.new_zeros((weight.shape[0], *shape))
    stride = [2 if 2 - i in axes else 1 for i in range(3)]
    grown = [n % 2 if s == 2 else 0 for n, s in zip(shape, stride, strict=True)]
    padded = F.pad(padded, (0, grown[2], 0, grown[1], 0, grown[0]))
    blocks = [(n + g) // s for n, g, s in zip(shape, grown, stride, strict=True)]
    parts = []
    for parity in itertools.product(*[range(s) for s in stride]):
        odd = tuple(2 - i for i in range(3) if parity[i])
        # the cells of one parity lie `stride` apart: a strided convolution that starts at the first of them
        z, y, x = (slice(q, q + s * (n - 1) + 3) for q, s, n in zip(parity, stride, blocks, strict=True))
        parts.append(F.conv3d(padded[None, :, z, y, x], oriented_weights(weight, axes, odd), stride=stride)[0])
    hidden = weight.shape[0]
    y = torch.stack(parts, dim=1).reshape(hidden, *stride, *blocks)
    y = y.permute(0, 4, 1, 5, 2, 6, 3).reshape(hidden, *[n + g for n, g in zip(shape, grown, strict=True)])
    return y[:, : shape[0], : shape[1], : shape[2]]


def base_fields(steps: int, axes: Axes, shape: Shape) -> list[float]:
    """What the bounded outputs multiply: 1 for omega, and scaled aggregation for sigma and gamma.

    A coarsened axis doubles the distance between neighbours, hence gamma 1/2 there. `shape` is the global
    shape.
    """
    everywhere = all(a in axes for a in range(3) if shape[2 - a] > 1)
    gamma = [0.5 if a in axes else 1.0 for a in range(3)]
    return [1.0] * steps + [0.5 if everywhere else 0.75] + gamma


def evaluate(weights: dict[str, torch.Tensor], feats: torch.Tensor, axes: Axes, shape: Shape) -> torch.Tensor:
    """Fields [p + 4, nz, ny, nx] (omega_1..p, sigma, gamma_x, gamma_y, gamma_z) from padded features.

    `axes` are coarsened next, `shape` is the level's global shape. Positive everywhere; not yet masked.
    """
    if feats.requires_grad or torch.is_grad_enabled() or feats.shape[1] - 2 <= SLAB:
        return _evaluate(weights, feats, axes, shape)
    slabs = [
        _evaluate(weights, feats[:, z : min(z + SLAB, feats.shape[1] - 2) + 2], axes, shape)
        for z in range(0, feats.shape[1] - 2, SLAB)
    ]
    return torch.cat(slabs, dim=1)


def _evaluate(weights: dict[str, torch.Tensor], feats: torch.Tensor, axes: Axes, shape: Shape) -> torch.Tensor:
    count = weights["log_c"].shape[0]
    bias = weights["conv.bias"] + sum((weights["conv.flags"][a] for a in axes), torch.zeros_like(weights["conv.bias"]))
    h = torch.relu(oriented_conv(feats, weights["conv.weight"], axes) + bias[:, None, None, None])
    box = h.shape[1:]
    h = torch.relu(torch.addmm(weights["hidden.bias"][:, None], weights["hidden.weight"], h.reshape(h.shape[0], -1)))
    o = torch.addmm(weights["out.bias"][:, None], weights["out.weight"], h)
    base = torch.tensor(base_fields(count - 4, axes, shape), dtype=feats.dtype, device=feats.device)
    c = base * torch.exp(weights["log_c"])
    return (c[:, None] * (1 + FIELD_RANGE * o / (1 + o.abs()))).reshape(count, *box)
