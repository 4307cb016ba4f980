"""Sequences of launches that are prepared once and run again and again: on CUDA as graphs, elsewhere one by one.

A sequence knows of every launch how many bytes it has to move, so that what a step costs can be counted where there is
no GPU at all. On torch's device "meta", where arrays have no memory, nothing runs: there one counts for any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

_LAUNCHED: set[tuple[Any, ...]] = set()
"""What has been launched before a graph was made; see `Launch.compiled_as`."""


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments. ``moved``: bytes that it reads or writes, each once."""

    name: str
    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    moved: int

    def run(self) -> None:
        self.kernel[self.grid](*self.arguments, **self.constants)

    @property
    def compiled_as(self) -> tuple[Any, ...]:
        """The same for launches that one compiled kernel serves, on one device."""
        types = (a.dtype if isinstance(a, torch.Tensor) else type(a) for a in self.arguments)
        return self.kernel, *types, *self.constants.items()


@dataclass(frozen=True)
class Copy:
    """One array to another, perhaps in pinned memory of the host."""

    target: torch.Tensor
    source: torch.Tensor
    name: str = "copy"

    @property
    def moved(self) -> int:
        return 2 * self.source.numel() * self.source.element_size()

    def run(self) -> None:
        self.target.copy_(self.source, non_blocking=True)


@dataclass(frozen=True)
class OnHost:
    """Something that the host does between launches: it waits for those before. ``moved``: bytes to and from it."""

    name: str
    act: Callable[[], None]
    moved: int


@dataclass
class LaunchSequence:
    """Launches and what the host does between them, in order."""

    device: torch.device
    entries: list[Launch | Copy | OnHost] = field(default_factory=list)
    _captured: list[Any] = field(default_factory=list)

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        arguments: Sequence[Any],
        moved: Sequence[torch.Tensor],
        **constants: Any,
    ) -> None:
        """Add a kernel; ``moved`` has every array once for each time it is read or written."""
        nbytes = sum(a.numel() * a.element_size() for a in moved)
        name = getattr(kernel, "__name__", None) or kernel.fn.__name__
        self.entries.append(Launch(name, kernel, grid, tuple(arguments), constants, nbytes))

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Add a copy."""
        self.entries.append(Copy(target, source))

    def on_host(self, name: str, act: Callable[[], None], moved: int = 0) -> None:
        """Add something that the host does."""
        self.entries.append(OnHost(name, act, moved))

    @property
    def bytes(self) -> int:
        """Moved by all launches together."""
        return sum(entry.moved for entry in self.entries if not isinstance(entry, OnHost))

    @property
    def launches(self) -> int:
        return sum(not isinstance(entry, OnHost) for entry in self.entries)

    def run(self) -> None:
        """All of it; on CUDA returns before the launches have ended, elsewhere when all is done."""
        if self.device.type == "meta":
            return
        with on(self.device):
            for part in self._captured or self.entries:
                if isinstance(part, Launch | Copy):
                    part.run()
                elif isinstance(part, OnHost):
                    if self.device.type == "cuda":
                        torch.cuda.current_stream(self.device).synchronize()
                    part.act()
                else:
                    part.replay()

    def capture(self) -> None:
        """On CUDA: make a graph of every run of launches. Kernels that this process has not launched yet on the device
        are run first, so that they are there: with the numbers that the arrays have.
        """
        if self.device.type != "cuda" or self._captured:
            return
        with on(self.device):
            for launch in [entry for entry in self.entries if isinstance(entry, Launch)]:
                if (key := (self.device, *launch.compiled_as)) not in _LAUNCHED:
                    launch.run()
                    _LAUNCHED.add(key)
        parts: list[Any] = []
        waiting: list[Launch | Copy] = []
        for entry in [*self.entries, None]:
            if isinstance(entry, Launch | Copy):
                waiting.append(entry)
                continue
            if waiting:
                parts.append(self._graph_of(waiting))
                waiting = []
            if entry is not None:
                parts.append(entry)
        self._captured = parts

    def _graph_of(self, launches: Sequence[Launch | Copy]) -> Any:
        """(torch.cuda.graph would collect garbage and empty caches first, which takes longer than all of set-up.)"""
        graph = torch.cuda.CUDAGraph()
        with on(self.device):
            torch.cuda.synchronize()
            with torch.cuda.stream(torch.cuda.Stream(self.device)):
                graph.capture_begin(capture_error_mode="thread_local")
                for launch in launches:
                    launch.run()
                graph.capture_end()
        return graph


def on(device: torch.device) -> Any:
    """A block on a device: Triton launches on the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
