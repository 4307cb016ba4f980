"""Named spans of time, for whoever records them: numerical code says what it does, and needs to know of no profiler.

The solver records them as PETSc's events (``-log_view``). Without a recorder a span costs a look at a variable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Recorder = Callable[[str, float], AbstractContextManager[object]]

_NOTHING: AbstractContextManager[object] = nullcontext()
_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """From now on spans go to ``recorder(name, flops)``, or to nobody."""
    global _recorder
    _recorder = recorder


def span(name: str, flops: float = 0.0) -> AbstractContextManager[object]:
    """For a block that does what the name says with so many floating-point operations on this rank."""
    return _NOTHING if _recorder is None else _recorder(name, flops)


def recording() -> bool:
    """Whether spans go to somebody, so that what they are put round is to be called from Python, one by one."""
    return _recorder is not None
