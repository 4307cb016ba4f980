"""Between arrays of the host or of a device and those of a level: through pinned memory, and no more than asked for."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.gpu.launches import on

CHUNK = 1 << 21
"""Elements that are on their way while the next ones are put into pinned memory."""


def as_tensor(a: Any, write: bool = False) -> torch.Tensor:
    """A tensor on the memory of a numpy array, which may be one that others must not write to, or of a
    `petsc_dcdm.backends.base.DeviceArray`.
    """
    if not isinstance(a, np.ndarray):
        return a.writing() if write else a.reading()
    if not a.flags.writeable:
        memory = (ctypes.c_char * a.nbytes).from_address(a.ctypes.data) if a.nbytes else bytearray()
        a = np.frombuffer(memoryview(memory), a.dtype).reshape(a.shape)
    return torch.from_numpy(a)


class Staging:
    """Two pieces of pinned memory, through which arrays in ordinary memory come to a device and back."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: list[torch.Tensor] = []
        self._used: list[Any] = []

    def to_device(self, source: Any, target: torch.Tensor) -> None:
        """``target[...] = source``, in stream order; the source has been read when this returns."""
        given = as_tensor(source)
        if given.device.type != "cpu" or self._device.type != "cuda":
            target.copy_(given)
            return
        with on(self._device):
            self._upload(given, target)

    def _upload(self, given: torch.Tensor, target: torch.Tensor) -> None:
        flat = given.reshape(-1)
        room = target.view(-1) if target.is_contiguous() else torch.empty_like(flat, device=self._device)
        for number, begin in enumerate(range(0, flat.numel(), CHUNK)):
            part = flat[begin : begin + CHUNK]
            pinned = self._free(number, part)
            pinned.copy_(part)
            room[begin : begin + CHUNK].copy_(pinned, non_blocking=True)
            self._used[number % 2].record()
        if not target.is_contiguous():
            target.copy_(room.view(target.shape))

    def to_host(self, source: torch.Tensor, target: Any) -> None:
        """``target[...] = source``, which is there when this returns."""
        wanted = as_tensor(target, write=True)
        if wanted.device.type != "cpu" or self._device.type == "cpu":
            wanted.copy_(source)
            if wanted.device.type == "cuda":  # others use other streams
                torch.cuda.current_stream(wanted.device).synchronize()
            return
        with on(self._device):
            self._download(source, wanted)

    def _download(self, source: torch.Tensor, wanted: torch.Tensor) -> None:
        flat, to = source.reshape(-1), wanted.view(-1)
        waiting: list[tuple[int, int, torch.Tensor]] = []
        for number, begin in enumerate(range(0, flat.numel(), CHUNK)):
            part = flat[begin : begin + CHUNK]
            pinned = self._free(number, part)
            pinned.copy_(part, non_blocking=True)
            self._used[number % 2].record()
            if waiting:
                self._take(*waiting.pop(), to)
            waiting.append((number, begin, pinned))
        if waiting:
            self._take(*waiting.pop(), to)

    def _free(self, number: int, like: torch.Tensor) -> torch.Tensor:
        """Pinned memory whose last use is over."""
        if not self._pinned:
            self._pinned = [torch.empty(CHUNK, dtype=torch.float64, pin_memory=True) for _ in range(2)]
            self._used = [torch.cuda.Event() for _ in range(2)]
        self._used[number % 2].synchronize()
        return self._pinned[number % 2].view(like.dtype)[: like.numel()]

    def _take(self, number: int, begin: int, pinned: torch.Tensor, to: torch.Tensor) -> None:
        self._used[number % 2].synchronize()
        to[begin : begin + pinned.numel()].copy_(pinned)
