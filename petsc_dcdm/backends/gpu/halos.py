"""Halos of the levels between ranks, as parts of a launch sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.backends.gpu.levels import Level
from petsc_dcdm.grid.layout import Layout, Reach


class Halos:
    """What arrays of the levels hold of other boxes, filled from there. Collective."""

    def __init__(self, layout: Layout, levels: Sequence[Level], steps: int, device: torch.device) -> None:
        self._layout, self._levels, self._steps = layout, levels, steps

    def add(self, sequence: LaunchSequence, number: int, a: torch.Tensor, width: int, corners: bool) -> None:
        """Add the exchange of an array, `width` cells of it."""
        level = self._levels[number]
        exchange = self._layout.exchange_of(Reach(number, level.low, (width, width, width)), corners=corners)

        def fill() -> None:
            exchange.start(level.view(a))
            exchange.finish()

        sequence.on_host("fill halos", fill)

    def fill(self, number: int, arrays: Sequence[torch.Tensor]) -> None:
        """All that arrays of a level hold of other boxes, once."""
        level = self._levels[number]
        width = self._steps + 2 - self._steps % 2
        exchange = self._layout.exchange_of(*[Reach(number, level.low, (width, width, width))] * len(arrays))
        exchange.start(*(level.view(a) for a in arrays))
        exchange.finish()
        exchange.close()
