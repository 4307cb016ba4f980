"""Halos of the levels between ranks, as parts of a launch sequence.

What goes to all ranks is packed by one kernel, goes to pinned memory in one copy (or stays on the device, where MPI
reads from there), and is scattered by one kernel on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from petsc_dcdm.backends.gpu.kernels.halos import pack, unpack
from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.backends.gpu.levels import Level
from petsc_dcdm.grid.layout import Layout, Reach

BLOCK = 1024


class Halos:
    """What arrays of the levels hold of other boxes, filled from there. Collective."""

    def __init__(self, layout: Any, levels: Sequence[Level], steps: int, device: torch.device) -> None:
        """``layout``: a `petsc_dcdm.grid.halo.BoxLayout`."""
        self._layout, self._levels, self._steps, self._device = layout, levels, steps, device
        self._fills: dict[tuple[Any, ...], Fill] = {}

    def of(self, number: int, use: str, width: int, corners: bool = True) -> Fill:
        """For float32 arrays of a level, `width` cells of them. Of one `use` there is one on its way at a time."""
        key = (number, use, width, corners)
        if key not in self._fills:
            level = self._levels[number]
            exchange = self._layout.exchange_of(Reach(number, level.low, (width, width, width)), corners=corners)
            self._fills[key] = Fill(self._layout, exchange.shares, level, self._device)
        return self._fills[key]

    def once(self, number: int, arrays: Sequence[torch.Tensor]) -> None:
        """All that arrays of a level hold of other boxes, in set-up."""
        fill_once(self._layout, number, self._levels[number], self._steps, arrays)


def fill_once(layout: Layout, number: int, level: Level, steps: int, arrays: Sequence[torch.Tensor]) -> None:
    """All that arrays of a level hold of other boxes. Collective."""
    width = reach(steps)
    exchange = layout.exchange_of(*[Reach(number, level.low, (width, width, width))] * len(arrays))
    exchange.start(*(level.view(a) for a in arrays))
    exchange.finish()
    exchange.close()


def reach(steps: int) -> int:
    """Cells of other boxes that a level covers: a leg that goes on from a result spoils one more than its steps, and
    there are whole coarse cells.
    """
    return steps + 2 - steps % 2


class Fill:
    """One exchange, again and again: messages, requests and places, made once."""

    def __init__(self, layout: Any, shares: dict[int, Any], level: Level, device: torch.device) -> None:
        self._level, self._device = level, device
        places = torch.arange(level.cells, dtype=torch.int32).view(level.shape)
        cells: list[list[torch.Tensor]] = [[], []]
        spans: list[tuple[int, slice, slice]] = []
        sizes = [0, 0]
        for rank in sorted(shares):
            before = list(sizes)
            for side, parts in enumerate((shares[rank].send, shares[rank].receive)):
                for _, region in parts:
                    cells[side].append(places[region].flatten())
                    sizes[side] += cells[side][-1].numel()
            spans.append((rank, slice(before[0], sizes[0]), slice(before[1], sizes[1])))
        self.cells = sizes
        self._cell = [torch.cat([places.new_empty(0), *some]).to(device) for some in cells]
        self._message = [torch.zeros(max(1, n), device=device) for n in sizes]
        self._staged = device.type == "cuda" and not layout.gpu_aware
        self._host = [m.cpu().pin_memory() for m in self._message] if self._staged else self._message
        told = [m.numpy() if m.device.type == "cpu" else m for m in self._host]
        comm, me = layout.comm, layout.comm.Get_rank()
        self._own = [(send, get) for rank, send, get in spans if rank == me]
        others = [(rank, told[0][send], told[1][get]) for rank, send, get in spans if rank != me]
        self._receives = [comm.Recv_init(get, source=rank) for rank, _, get in others]
        self._sends = [comm.Send_init(send, dest=rank) for rank, send, _ in others]

    def add_start(self, sequence: LaunchSequence, a: torch.Tensor) -> None:
        """Add the sending."""
        n = self.cells[0]
        if n:
            message, cell = self._message[0], self._cell[0]
            arguments = (message, a, cell, n)
            sequence.launch(pack, (-(-n // BLOCK),), arguments, [message, a[:n], cell], BLOCK=BLOCK)
            if self._staged:
                sequence.copy(self._host[0], message)
        sequence.on_host("send halos", self._start, 4 * n)

    def add_finish(self, sequence: LaunchSequence, a: torch.Tensor) -> None:
        """Add the receiving."""
        n = self.cells[1]
        sequence.on_host("receive halos", self._finish, 4 * n)
        if n:
            message, cell = self._message[1], self._cell[1]
            if self._staged:
                sequence.copy(message, self._host[1])
            arguments = (a, message, cell, n)
            sequence.launch(unpack, (-(-n // BLOCK),), arguments, [message, a[:n], cell], BLOCK=BLOCK)

    def _start(self) -> None:
        for request in (*self._receives, *self._sends):
            request.Start()

    def _finish(self) -> None:
        for send, get in self._own:
            self._host[1][get] = self._host[0][send]
        for request in (*self._receives, *self._sends):
            request.Wait()
