"""Exchanges between boxes, side by side in threads: what arrives, and what goes through the memory of a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from thread_ranks import in_threads

from petsc_dcdm.backends import devices
from petsc_dcdm.grid import halo
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Reach
from petsc_dcdm.grid.shape import Shape

SHAPE: Shape = (12, 9, 20)
EDGES = ([0, 8, 12], [0, 9], [0, 4, 8, 16, 20])
NUMBERS = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1


def extended(layout: BoxLayout, width: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
    """An array of the box and `width` cells around it, 0 there; what it should be; where the box is in it."""
    own = tuple(slice(width, width + n) for n in layout.shape)
    a = np.zeros([n + 2 * width for n in layout.shape], np.float32)
    at = tuple(slice(o, o + n + 2 * width) for o, n in zip(layout.offset, layout.shape, strict=True))
    want = np.pad(NUMBERS, width)[at]
    a[own] = want[own]
    return a, want, own


@pytest.mark.parametrize("width", [1, 3, 6])
def test_wide_halos_come_from_all_boxes_they_reach(width: int) -> None:
    """Boxes of 4 cells and halos of 6: the ones beyond the neighbours too, edges and corners, in one message each."""

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        reach = Reach(0, (width,) * 3, (width,) * 3)
        exchange = layout.exchange_of(reach, reach)
        assert layout.exchange_of(reach, reach) is exchange
        for again in range(2):
            a, want, own = extended(layout, width)
            b = (2 + again) * a
            exchange.start(a, b)
            exchange.finish()
            assert np.array_equal(a, want) and np.array_equal(b, (2 + again) * want)
            exchange.close()
        assert layout.messages == 2 * len(exchange._shares)
        layout.close()

    in_threads(EDGES, SHAPE, (), work)


@pytest.mark.parametrize("corners", [False, True])
def test_narrow_halos(corners: bool) -> None:
    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        a, want, own = extended(layout, 1)
        layout.exchange(a, corners)
        if not corners:
            outside = sum((np.arange(n) % (n - 1) == 0).reshape(np.roll([n, 1, 1], i)) for i, n in enumerate(a.shape))
            want = np.where(outside > 1, 0, want)
        assert np.array_equal(a, want)

    in_threads(EDGES, SHAPE, (), work)


class Tensor:
    """As much of a tensor on a GPU as an exchange needs, in host memory."""

    def __init__(self, a: np.ndarray, device: str = "cuda") -> None:
        self.a, self.device = a, SimpleNamespace(type=device)
        self.shape, self.dtype, self.nbytes = a.shape, a.dtype, a.nbytes

    def __getitem__(self, at: Any) -> Tensor:
        return Tensor(self.a[at], self.device.type)

    def __setitem__(self, at: Any, value: Tensor) -> None:
        self.a[at] = value.a

    def detach(self) -> Tensor:
        return self

    def new_empty(self, size: int, device: Any) -> Tensor:
        return Tensor(np.empty(size, self.dtype), getattr(device, "type", device))

    def reshape(self, shape: Shape) -> Tensor:
        return Tensor(self.a.reshape(shape), self.device.type)

    def copy_(self, other: Tensor) -> None:
        self.a[...] = other.a

    def copy(self) -> Tensor:
        return Tensor(self.a.copy(), self.device.type)

    def numpy(self) -> np.ndarray:
        assert self.device.type == "cpu"
        return self.a


@pytest.mark.parametrize("aware", [False, True])
def test_tensors_on_a_gpu(aware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """MPI gets their memory if it can take it, after the copies to it are done; else only faces go through the host."""
    synchronized = []
    monkeypatch.setattr(halo, "_synchronize", lambda device: synchronized.append(device.type))

    def work(layout: BoxLayout, mine: tuple[slice, ...]) -> None:
        layout.gpu_aware = aware
        a, want, own = extended(layout, 1)
        layout.exchange(Tensor(a), corners=True)
        assert np.array_equal(a, want)
        (exchange,) = layout._exchanges.values()
        given = [request.buffer for message in exchange._messages for request in message.requests]  # type: ignore[attr-defined]
        assert given and all(isinstance(buffer, Tensor if aware else np.ndarray) for buffer in given)

    in_threads(EDGES, SHAPE, (), work)
    assert synchronized == ["cuda"] * 8 * aware


def test_whether_mpi_takes_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MV2_USE_CUDA", "MPICH_GPU_SUPPORT_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not devices.mpi_reads_gpus()  # the MPI here, which is asked if it can be
    for answer in (0, 1):
        library = SimpleNamespace(MPIX_Query_cuda_support=lambda answer=answer: answer)
        monkeypatch.setattr(devices, "_mpi_library", lambda library=library: library)
        assert devices.mpi_reads_gpus() is bool(answer)
    monkeypatch.setattr(devices, "_mpi_library", SimpleNamespace)
    assert not devices.mpi_reads_gpus()
    monkeypatch.setenv("MPICH_GPU_SUPPORT_ENABLED", "1")
    assert devices.mpi_reads_gpus()
