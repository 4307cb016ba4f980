"""Ranks that are threads of one process, each with a box of the grid: for tests of what ranks exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from queue import Queue
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.boxes import BoxPartition
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Plan
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

TIMEOUT = 120  # seconds


class Threads:
    """As many ranks as threads: what `BoxLayout` asks of a communicator."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT)
        self.mail = {pair: Mail() for pair in product(range(size), repeat=2)}
        self.reduced: dict[int, np.ndarray] = {}

    def rank(self, number: int) -> ThreadRank:
        return ThreadRank(self, number)


@dataclass
class Mail:
    """From one rank to another: the n-th send that is started meets the n-th receive, whoever waits first."""

    letters: dict[int, Queue[np.ndarray]] = field(default_factory=dict)
    started: list[int] = field(default_factory=lambda: [0, 0])  # sends, receives


@dataclass
class PersistentMessage:
    mail: Mail
    receives: int
    buffer: np.ndarray
    letter: Queue[np.ndarray] = field(init=False)

    def Start(self) -> None:
        number = self.mail.started[self.receives]
        self.mail.started[self.receives] += 1
        self.letter = self.mail.letters.setdefault(number, Queue())
        if not self.receives:
            self.letter.put(self.buffer.copy())

    def Wait(self) -> None:
        if self.receives:
            self.buffer[...] = self.letter.get(timeout=TIMEOUT)

    def Free(self) -> None:
        pass


@dataclass
class ThreadRank:
    threads: Threads
    number: int

    def Get_rank(self) -> int:
        return self.number

    def Get_size(self) -> int:
        return self.threads.size

    def Recv_init(self, buffer: np.ndarray, source: int) -> PersistentMessage:
        return PersistentMessage(self.threads.mail[source, self.number], 1, buffer)

    def Send_init(self, buffer: np.ndarray, dest: int) -> PersistentMessage:
        return PersistentMessage(self.threads.mail[self.number, dest], 0, buffer)

    def Get_attr(self, key: int) -> None:
        """Nothing is attached: these ranks share no memory that sums go through."""

    def Allreduce(self, values: np.ndarray, out: np.ndarray, op: Any) -> None:
        self.threads.reduced[self.number] = values
        self.threads.barrier.wait()
        everyones = [self.threads.reduced[rank] for rank in range(self.threads.size)]
        out[...] = sum(everyones) if op == MPI.SUM else np.maximum.reduce(everyones)
        self.threads.barrier.wait()


def in_threads(
    edges: Any,
    shape: Shape,
    plan: Plan,
    work: Callable[[BoxLayout, tuple[slice, ...]], None],
    idle: int = 0,
    periodic: Periodic = NOT_PERIODIC,
) -> None:
    """Run ``work(layout, place in the grid)`` for all boxes side by side and for `idle` ranks without; raises the first
    error.
    """
    boxes = BoxPartition(shape, edges, periodic=periodic)
    threads, errors = Threads(int(np.prod(boxes.procs)) + idle), []

    def run(rank: int) -> None:
        try:
            layout = BoxLayout(threads.rank(rank), boxes, plan)  # type: ignore[arg-type]
            work(layout, tuple(slice(o, o + n) for o, n in zip(layout.offset, layout.shape, strict=True)))
        except BaseException as error:
            errors.append(error)
            threads.barrier.abort()

    running = [threading.Thread(target=run, args=(rank,)) for rank in range(threads.size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
