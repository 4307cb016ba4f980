"""The field network in the order of the kernels: `petsc_dcdm.network.fields` says what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network.fields import Axes, base_fields, oriented_weights

TAPS = 32


def _room(n: int) -> int:
    """A power of 2 that `n` fits into and products of matrices are made of."""
    return max(16, 1 << max(0, n - 1).bit_length())


@dataclass(frozen=True)
class PackedNetwork:
    """The tensors for levels that are coarsened along certain axes; matrices filled up with zeros.

    Attributes
    ----------
    tensors
        conv (turns, 9, TAPS, channels), bias, hidden (channels, hidden), bias, last (hidden, fields), bias, and what
        the bounded outputs multiply
    sizes
        the constants CHANNELS, HIDDEN and FIELDS of the kernel
    turns
        how many places there are in a coarse cell
    """

    tensors: tuple[torch.Tensor, ...]
    sizes: dict[str, int]
    turns: int


def pack_network(
    weights: Mapping[str, np.ndarray], axes: Axes, global_shape: Shape, device: torch.device
) -> PackedNetwork:
    """The weights of a file of kind ``multigrid`` for a level of this global shape."""
    w = {name: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for name, a in weights.items()}
    channels, hidden, fields = w["conv.bias"].shape[0], w["hidden.bias"].shape[0], w["log_c"].shape[0]
    rooms = _room(channels), _room(hidden), _room(fields)
    kernels = _turned(w["conv.weight"].numpy().tobytes(), channels, rooms[0], axes)
    bias = w["conv.bias"] + sum((w["conv.flags"][a] for a in axes), torch.zeros(channels))
    base = torch.tensor(base_fields(fields - 4, axes, global_shape)) * torch.exp(w["log_c"])
    tensors = (
        kernels,
        _filled(bias, rooms[0]),
        _filled(w["hidden.weight"].T, rooms[0], rooms[1]),
        _filled(w["hidden.bias"], rooms[1]),
        _filled(w["out.weight"].T, rooms[1], rooms[2]),
        _filled(w["out.bias"], rooms[2]),
        _filled(base, rooms[2]),
    )
    sizes = dict(zip(("CHANNELS", "HIDDEN", "FIELDS"), rooms, strict=True))
    return PackedNetwork(tuple(t.contiguous().to(device) for t in tensors), sizes, len(kernels))


@lru_cache(maxsize=16)
def _turned(weight: bytes, channels: int, room: int, axes: Axes) -> torch.Tensor:
    """The 3x3x3 kernel as each place in a coarse cell sees it, (turns, 9, TAPS, room). Kept: they are the same in every
    set-up, and take longer to make than a level.
    """
    kernel = torch.frombuffer(bytearray(weight), dtype=torch.float32).view(channels, 8, 3, 3, 3)
    turns = []
    for odd in product(*[(0, 1) if axis in axes else (0,) for axis in (2, 1, 0)]):  # x fastest
        turned = oriented_weights(kernel, axes, tuple(2 - i for i in range(3) if odd[i]))
        rows = turned.permute(2, 3, 4, 1, 0).reshape(9, 24, channels)
        turns.append(torch.nn.functional.pad(rows, (0, room - channels, 0, TAPS - 24)))
    return torch.stack(turns)


def _filled(a: torch.Tensor, *sizes: int) -> torch.Tensor:
    """`a` with zeros after it."""
    out = torch.zeros(sizes)
    out[tuple(slice(n) for n in a.shape)] = a
    return out
