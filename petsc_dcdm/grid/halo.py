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
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.grid.spans import span

Region = tuple[slice, slice, slice]
_Span = tuple[int, tuple[int, int], tuple[int, int]]


_Part = tuple[int, Region]
"""Which array, and what of its last three dimensions."""


@dataclass
class _Shares:
    """What one rank gives another of each array and what it gets, in the order in which both have it in mind."""

    send: list[_Part]
    receive: list[_Part]


@dataclass
class _Message:
    """To and from one rank, for good: the parts of the arrays, where they are in the buffers, and requests: none for
    what a rank has for itself, which waits in one buffer.
    """

    shares: _Shares
    send: list[Any]
    receive: list[Any]
    requests: tuple[MPI.Prequest, ...]
    nbytes: int


class BoxExchange:
    """See `petsc_dcdm.grid.layout.Exchange`. Persistent requests, one set for each shape and kind of arrays."""

    def __init__(self, layout: BoxLayout, shares: dict[int, _Shares]) -> None:
        self._layout, self._shares = layout, shares
        self._known: dict[tuple[Any, ...], list[_Message]] = {}
        self._messages: list[_Message] = []
        self._arrays: tuple[Any, ...] = ()

    @property
    def shares(self) -> dict[int, _Shares]:
        """By rank, for those who carry messages themselves."""
        return self._shares

    def start(self, *arrays: Any) -> None:
        assert not self._arrays, "started twice"
        self._arrays = tuple(_plain(a) for a in arrays)
        key = tuple((a.shape, a.dtype) for a in self._arrays)
        if key not in self._known:
            self._known[key] = [self._message(rank, self._shares[rank]) for rank in sorted(self._shares)]
        self._messages = self._known[key]
        sent = [message for message in self._messages if message.requests]
        for message in sent:
            message.requests[0].Start()
        for message in self._messages:
            for (number, region), buffer in zip(message.shares.send, message.send, strict=True):
                _copy(self._arrays[number][(..., *region)], buffer)
        if self._layout.gpu_aware and not isinstance(self._arrays[0], np.ndarray):
            _synchronize(self._arrays[0].device)
        for message in sent:
            message.requests[1].Start()
        self._layout.messages += len(sent)
        self._layout.bytes += sum(message.nbytes for message in sent)

    def finish(self) -> None:
        with span("halo"):
            self._finish()

    def _finish(self) -> None:
        for message in self._messages:
            if message.requests:
                message.requests[0].Wait()
            for (number, region), buffer in zip(message.shares.receive, message.receive, strict=True):
                _copy(buffer, self._arrays[number][(..., *region)])
        for message in self._messages:
            if message.requests:
                message.requests[1].Wait()
        self._arrays = ()

    def close(self) -> None:
        for message in (message for messages in self._known.values() for message in messages):
            for request in message.requests:
                request.Free()
        self._known.clear()

    def _message(self, rank: int, shares: _Shares) -> _Message:
        first = self._arrays[0]
        own = rank == self._layout.comm.Get_rank()
        buffers, views = [], []
        for parts in (shares.send,) if own else (shares.send, shares.receive):
            shapes = [self._arrays[number][(..., *region)].shape for number, region in parts]
            sizes = [prod(shape) for shape in shapes]
            buffer = _buffer(first, sum(sizes), self._layout.gpu_aware or own)
            starts = np.cumsum([0, *sizes])
            views.append([buffer[a:b].reshape(s) for a, b, s in zip(starts, starts[1:], shapes, strict=False)])
            buffers.append(buffer if self._layout.gpu_aware or isinstance(buffer, np.ndarray) else buffer.numpy())
        if own:
            return _Message(shares, views[0], views[0], (), 0)
        comm = self._layout.comm
        requests = comm.Recv_init(buffers[1], source=rank), comm.Send_init(buffers[0], dest=rank)
        return _Message(shares, views[0], views[1], requests, sum(view.nbytes for view in views[0]))


@dataclass(frozen=True)
class _Way:
    """To the box that is so many steps (z, y, x) away, on this rank: what of one array it gets and gives."""

    rank: int
    steps: tuple[int, ...]
    send: Region
    receive: Region


class BoxLayout:
    """This rank's box of a `BoxPartition` (see :class:`petsc_dcdm.grid.layout.Layout`).

    An exchange sends one message to each rank whose box has a part in it, edges and corners included, through
    persistent requests: there are no rounds that wait for each other, so that all of it can go on behind other work.
    What a rank gets from its own box, along a periodic axis, is copied.
    ``messages`` and ``bytes`` count what this rank has sent in halo exchanges, ``reductions`` its global reductions.
    ``one_team``: all ranks share memory and work on one box.
    ``gpu_aware``: MPI may be given buffers on a GPU; else what is sent of CUDA tensors goes through host memory.
    """

    def __init__(self, comm: MPI.Intracomm, boxes: BoxPartition, plan: Plan) -> None:
        """Not collective. ``comm`` must carry no other messages; call :meth:`close` at the end."""
        self.comm = comm
        self.alone = comm.Get_size() == 1
        self.boxes = boxes
        self.plan = plan
        self.visits = 1
        self.gpu_aware = False
        self.one_team = False
        self.global_shape: Shape = boxes.shape
        self.periodic: Periodic = boxes.periodic
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
        return values.copy() if self.alone else over_all(self.comm, values, operation)

    def exchange(self, a: Any, corners: bool = False) -> None:
        """Fill the one-cell halo of a padded array (numpy or torch, last three dimensions padded). Collective."""
        if 0 in self.shape or (self.shape == self.global_shape and not any(self.periodic)):
            return
        inner = tuple(n - 2 for n in a.shape[-3:])
        key = (inner, corners)
        if key not in self._exchanges:
            spans = [[(0, (0, n), (0, n)), (-1, (-1, 0), (0, 1)), (1, (n, n + 1), (n - 1, n))] for n in inner]
            for along, count, n in zip(spans, self.boxes.procs, inner, strict=True):
                if count == n == 1:  # one cell is no neighbour of itself
                    del along[1:]
            self._exchanges[key] = BoxExchange(self, _sorted({0: self._ways(spans, (1, 1, 1), corners)}))
        self._exchanges[key].start(a)
        self._exchanges[key].finish()

    def around(self, level: int, width: int) -> tuple[Shape, Shape]:
        """How many cells (z, y, x) there are below and above this rank's box at a level, at most ``width``."""
        position = None if self.shape == self.global_shape else self.boxes.position(self.comm.Get_rank())
        if position is None:
            return (0, 0, 0), (0, 0, 0)
        low, high = [], []
        for e, p, ring in zip(self._edges(level), position, self._rings(), strict=True):
            low.append(width if ring else min(width, e[p]))
            high.append(width if ring else min(width, e[-1] - e[p + 1]))
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def exchange_of(self, *reaches: Reach, corners: bool = True) -> BoxExchange:
        """See :class:`petsc_dcdm.grid.layout.Layout`. Made once for the same reaches and plan."""
        key = (self.plan, reaches, corners)
        if key in self._exchanges:
            return self._exchanges[key]
        ways: dict[int, list[_Way]] = {}
        position = self.boxes.position(self.comm.Get_rank())
        for number, reach in enumerate(reaches):
            if position is None:
                break
            along = zip(self._edges(reach.level), position, reach.width, self._rings(), strict=True)
            ways[number] = self._ways([_spans(*axis) for axis in along], reach.margin, corners)
        self._exchanges[key] = BoxExchange(self, _sorted(ways))
        return self._exchanges[key]

    def _edges(self, level: int) -> list[list[int]]:
        """The cuts (z, y, x) of the grid at a level."""
        units = [2 ** sum(2 - i in axes for axes in self.plan[:level]) for i in range(3)]
        return [[-(-e // unit) for e in edges] for edges, unit in zip(self.boxes.edges, units, strict=True)]

    def _rings(self) -> list[bool]:
        """Along which axes (z, y, x) wide exchanges go round: those that are periodic and cut."""
        return [ring and count > 1 for ring, count in zip(self.periodic, self.boxes.procs, strict=True)]

    def _ways(self, spans: Sequence[list[_Span]], margin: Sequence[int], corners: bool) -> list[_Way]:
        """To all boxes that the spans of the axes lead to."""
        found: list[_Way] = []
        position = self.boxes.position(self.comm.Get_rank())
        assert position is not None
        for way in product(*spans):
            steps = tuple(step for step, _, _ in way)
            if not any(steps) or (not corners and sum(map(bool, steps)) > 1):
                continue
            there = [p + step for p, step in zip(position, steps, strict=True)]
            around = [p % n if ring else p for p, n, ring in zip(there, self.boxes.procs, self.periodic, strict=True)]
            if not all(0 <= p < n for p, n in zip(around, self.boxes.procs, strict=True)):
                continue
            send = _region(margin, [give for _, _, give in way])
            receive = _region(margin, [get for _, get, _ in way])
            found.append(_Way(self._rank_at(around), steps, send, receive))
        return found

    def _rank_at(self, position: Sequence[int]) -> int:
        number = int(np.ravel_multi_index(tuple(position), self.boxes.procs))
        return number if self.boxes.holders is None else self.boxes.holders[number]

    def close(self) -> None:
        """Frees the requests; the communicator stays its owner's."""
        for exchange in self._exchanges.values():
            exchange.close()
        self._exchanges.clear()


def _spans(edges: Sequence[int], position: int, width: int, ring: bool) -> list[_Span]:
    """Along one axis, for each box within ``width`` cells: how many boxes away it is, which of its cells we get, which
    of ours it gets; cells are counted from the begin of our box. A ring is gone round as often as that takes, and meets
    our own box as well.
    """
    begin, end = edges[position], edges[position + 1]
    found: list[_Span] = [(0, (0, end - begin), (0, end - begin))]
    rounds = 1 + width // edges[-1] if ring else 0
    for turn, other in product(range(-rounds, rounds + 1), range(len(edges) - 1)):
        away = other - position + turn * (len(edges) - 1)
        low, high = edges[other] + turn * edges[-1], edges[other + 1] + turn * edges[-1]
        if away < 0 and high > begin - width:
            get, give = (max(low, begin - width), high), (begin, min(end, high + width))
        elif away > 0 and low < end + width:
            get, give = (low, min(high, end + width)), (max(begin, low - width), end)
        else:
            continue
        found.append((away, (get[0] - begin, get[1] - begin), (give[0] - begin, give[1] - begin)))
    return found


def _sorted(ways: dict[int, list[_Way]]) -> dict[int, _Shares]:
    """The shares of each rank, from the ways of each array: what we send by a way the other one receives by the way
    back, so that both have the same order.
    """
    found: dict[int, _Shares] = {}
    for number, its_ways in ways.items():
        for way in sorted(its_ways, key=lambda way: way.steps):
            found.setdefault(way.rank, _Shares([], [])).send.append((number, way.send))
        for way in sorted(its_ways, key=lambda way: [-step for step in way.steps]):
            found[way.rank].receive.append((number, way.receive))
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
