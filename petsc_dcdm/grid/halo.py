"""Halo exchange and reductions of a grid split over ranks: the Layout that the networks are given under mpirun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.boxes import BoxPartition
from petsc_dcdm.grid.layout import Plan, Reach
from petsc_dcdm.grid.shape import Shape

Region = tuple[slice, slice, slice]
_Span = tuple[int, tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class _Share:
    """What one rank gives another of one array and what it gets: parts of the last three dimensions."""

    send: Region
    receive: Region


@dataclass
class _Message:
    """To and from one rank, for good: buffers, the parts of them that belong to the arrays, and requests."""

    shares: list[_Share]
    send: list[Any]
    receive: list[Any]
    requests: tuple[MPI.Prequest, MPI.Prequest]
    nbytes: int


class BoxExchange:
    """See `petsc_dcdm.grid.layout.Exchange`. Persistent requests, one set for each shape and kind of arrays."""

    def __init__(self, layout: BoxLayout, shares: dict[int, list[_Share]]) -> None:
        self._layout, self._shares = layout, shares
        self._known: dict[tuple[Any, ...], list[_Message]] = {}
        self._messages: list[_Message] = []
        self._arrays: tuple[Any, ...] = ()

    def start(self, *arrays: Any) -> None:
        assert not self._arrays, "started twice"
        self._arrays = tuple(_plain(a) for a in arrays)
        key = tuple((a.shape, a.dtype) for a in self._arrays)
        if key not in self._known:
            self._known[key] = [self._message(rank, self._shares[rank]) for rank in sorted(self._shares)]
        self._messages = self._known[key]
        for message in self._messages:
            message.requests[0].Start()
        for message in self._messages:
            for a, share, buffer in zip(self._arrays, message.shares, message.send, strict=True):
                _copy(a[(..., *share.send)], buffer)
        if self._layout.gpu_aware and not isinstance(self._arrays[0], np.ndarray):
            _synchronize(self._arrays[0].device)
        for message in self._messages:
            message.requests[1].Start()
        self._layout.messages += len(self._messages)
        self._layout.bytes += sum(message.nbytes for message in self._messages)

    def finish(self) -> None:
        for message in self._messages:
            message.requests[0].Wait()
            for a, share, buffer in zip(self._arrays, message.shares, message.receive, strict=True):
                _copy(buffer, a[(..., *share.receive)])
        for message in self._messages:
            message.requests[1].Wait()
        self._arrays = ()

    def close(self) -> None:
        for message in (message for messages in self._known.values() for message in messages):
            for request in message.requests:
                request.Free()
        self._known.clear()

    def _message(self, rank: int, shares: list[_Share]) -> _Message:
        first = self._arrays[0]
        buffers, views = [], []
        for side in ("send", "receive"):
            shapes = [a[(..., *getattr(share, side))].shape for a, share in zip(self._arrays, shares, strict=True)]
            sizes = [prod(shape) for shape in shapes]
            buffer = _buffer(first, sum(sizes), self._layout.gpu_aware)
            starts = np.cumsum([0, *sizes])
            views.append([buffer[a:b].reshape(s) for a, b, s in zip(starts, starts[1:], shapes, strict=False)])
            buffers.append(buffer if self._layout.gpu_aware or isinstance(buffer, np.ndarray) else buffer.numpy())
        comm = self._layout.comm
        requests = comm.Recv_init(buffers[1], source=rank), comm.Send_init(buffers[0], dest=rank)
        return _Message(shares, views[0], views[1], requests, sum(view.nbytes for view in views[0]))


class BoxLayout:
    """This rank's box of a `BoxPartition` (see :class:`petsc_dcdm.grid.layout.Layout`).

    An exchange sends one message to each rank whose box has a part in it, edges and corners included, through
    persistent requests: there are no rounds that wait for each other, so that all of it can go on behind other work.
    ``messages`` and ``bytes`` count what this rank has sent in halo exchanges, ``reductions`` its global reductions.
    ``gpu_aware``: MPI may be given buffers on a GPU; else what is sent of CUDA tensors goes through host memory.
    """

    def __init__(self, comm: MPI.Intracomm, boxes: BoxPartition, plan: Plan) -> None:
        """Not collective. ``comm`` must carry no other messages; call :meth:`close` at the end."""
        self.comm = comm
        self.boxes = boxes
        self.plan = plan
        self.visits = 1
        self.gpu_aware = False
        self.global_shape: Shape = boxes.shape
        self.offset, self.shape = boxes.box(comm.Get_rank())
        self._exchanges: dict[tuple[Any, ...], BoxExchange] = {}
        self.messages = self.bytes = self.reductions = 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Element-wise sum over all ranks. Collective."""
        return self._reduce(values, MPI.SUM)

    def max(self, values: np.ndarray) -> np.ndarray:
        """Element-wise maximum over all ranks. Collective."""
        return self._reduce(values, MPI.MAX)

    def _reduce(self, values: np.ndarray, operation: MPI.Op) -> np.ndarray:
        self.reductions += 1
        out = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), out, op=operation)
        return out

    def exchange(self, a: Any, corners: bool = False) -> None:
        """Fill the one-cell halo of a padded array (numpy or torch, last three dimensions padded). Collective."""
        if 0 in self.shape:
            return
        inner = tuple(n - 2 for n in a.shape[-3:])
        key = (inner, corners)
        if key not in self._exchanges:
            spans = [[(0, (0, n), (0, n)), (-1, (-1, 0), (0, 1)), (1, (n, n + 1), (n - 1, n))] for n in inner]
            self._exchanges[key] = BoxExchange(self, self._shares(spans, (1, 1, 1), corners))
        self._exchanges[key].start(a)
        self._exchanges[key].finish()

    def around(self, level: int, width: int) -> tuple[Shape, Shape]:
        """How many cells (z, y, x) there are below and above this rank's box at a level, at most ``width``."""
        position = self.boxes.position(self.comm.Get_rank())
        if position is None:
            return (0, 0, 0), (0, 0, 0)
        edges = self._edges(level)
        z0, y0, x0 = (min(width, e[p]) for e, p in zip(edges, position, strict=True))
        z1, y1, x1 = (min(width, e[-1] - e[p + 1]) for e, p in zip(edges, position, strict=True))
        return (z0, y0, x0), (z1, y1, x1)

    def exchange_of(self, *reaches: Reach, corners: bool = True) -> BoxExchange:
        """See :class:`petsc_dcdm.grid.layout.Layout`. Made once for the same reaches and plan."""
        key = (self.plan, reaches, corners)
        if key in self._exchanges:
            return self._exchanges[key]
        shares: dict[int, list[_Share]] = {}
        nothing = _Share(*[(slice(0), slice(0), slice(0))] * 2)
        position = self.boxes.position(self.comm.Get_rank())
        for number, reach in enumerate(reaches):
            if position is None:
                break
            spans = [_spans(e, p, w) for e, p, w in zip(self._edges(reach.level), position, reach.width, strict=True)]
            for rank, (share,) in self._shares(spans, reach.margin, corners).items():
                shares.setdefault(rank, [nothing] * len(reaches))[number] = share
        self._exchanges[key] = BoxExchange(self, shares)
        return self._exchanges[key]

    def _edges(self, level: int) -> list[list[int]]:
        """The cuts (z, y, x) of the grid at a level."""
        units = [2 ** sum(2 - i in axes for axes in self.plan[:level]) for i in range(3)]
        return [[-(-e // unit) for e in edges] for edges, unit in zip(self.boxes.edges, units, strict=True)]

    def _shares(self, spans: Sequence[list[_Span]], margin: Sequence[int], corners: bool) -> dict[int, list[_Share]]:
        """By rank, from the spans of every axis."""
        found: dict[int, list[_Share]] = {}
        position = self.boxes.position(self.comm.Get_rank())
        assert position is not None
        for way in product(*spans):
            steps = [step for step, _, _ in way]
            there = [p + step for p, step in zip(position, steps, strict=True)]
            inside = all(0 <= p < n for p, n in zip(there, self.boxes.procs, strict=True))
            if not any(steps) or not inside or (not corners and sum(map(bool, steps)) > 1):
                continue
            receive = _region(margin, [get for _, get, _ in way])
            send = _region(margin, [give for _, _, give in way])
            found[self._rank_at(there)] = [_Share(send, receive)]
        return found

    def _rank_at(self, position: Sequence[int]) -> int:
        number = int(np.ravel_multi_index(tuple(position), self.boxes.procs))
        return number if self.boxes.holders is None else self.boxes.holders[number]

    def close(self) -> None:
        """Frees the requests; the communicator stays its owner's."""
        for exchange in self._exchanges.values():
            exchange.close()
        self._exchanges.clear()


def _spans(edges: Sequence[int], position: int, width: int) -> list[_Span]:
    """Along one axis, for each box within ``width`` cells: how many boxes away it is, which of its cells we get, which
    of ours it gets; cells are counted from the begin of our box.
    """
    begin, end = edges[position], edges[position + 1]
    found: list[_Span] = [(0, (0, end - begin), (0, end - begin))]
    for other in range(len(edges) - 1):
        low, high = edges[other], edges[other + 1]
        if other < position and high > begin - width:
            get, give = (max(low, begin - width), high), (begin, min(end, high + width))
        elif other > position and low < end + width:
            get, give = (low, min(high, end + width)), (max(begin, low - width), end)
        else:
            continue
        found.append((other - position, (get[0] - begin, get[1] - begin), (give[0] - begin, give[1] - begin)))
    return found


def _region(margin: Sequence[int], cells: Sequence[tuple[int, int]]) -> Region:
    z, y, x = (slice(m + begin, m + end) for m, (begin, end) in zip(margin, cells, strict=True))
    return (z, y, x)


def _plain(a: Any) -> Any:
    """A numpy array, also of the memory of a torch tensor on the CPU; else a tensor."""
    if isinstance(a, np.ndarray):
        return a
    return a.detach() if a.device.type != "cpu" else a.detach().numpy()


def _buffer(like: Any, size: int, gpu_aware: bool) -> Any:
    """For a message; of a tensor it is a tensor, on its device or in host memory."""
    if isinstance(like, np.ndarray):
        return np.empty(size, like.dtype)
    return like.new_empty(size, device=like.device if gpu_aware else "cpu")


def _copy(source: Any, target: Any) -> None:
    if isinstance(target, np.ndarray):
        np.copyto(target, source)
    else:
        target.copy_(source)


def _synchronize(device: Any) -> None:
    """MPI knows nothing of CUDA's streams: what it is to send must be there."""
    import torch

    torch.cuda.synchronize(device)
