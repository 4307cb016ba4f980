"""Spans as PETSc's events: what ``-log_view`` tells of a set-up and a solve."""

from __future__ import annotations

from types import TracebackType

from petsc4py import PETSc

EVENTS = {
    "extraction": "DCDMExtract",
    "field network": "DCDMFields",
    "cycle": "DCDMCycle",
    "halo": "DCDMHalo",
    "coarse solve": "DCDMCoarse",
    "orthogonalisation": "DCDMOrthog",
}
"""Spans and the names of their events."""

_known: dict[str, PETSc.LogEvent] = {}


class _Span:
    """One event from begin to end."""

    def __init__(self, event: PETSc.LogEvent, flops: float) -> None:
        self._event, self._flops = event, flops

    def __enter__(self) -> None:
        self._event.begin()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._flops:
            PETSc.Log.logFlops(self._flops)
        self._event.end()


def petsc_span(name: str, flops: float) -> _Span:
    """A recorder for `petsc_dcdm.grid.spans`. Not collective."""
    if name not in _known:
        _known[name] = PETSc.Log.Event(EVENTS[name])
    return _Span(_known[name], flops)


def logging() -> bool:
    """Whether the program has switched PETSc's log on (``-log_view`` and its kin)."""
    return bool(PETSc.Log.isActive())
