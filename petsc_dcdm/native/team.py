"""What the kernels' threads do between two pieces of work, in words; see native/src/team/team.c."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from petsc_dcdm.native.build import KernelsUnavailable, library

LONG = 1e9
"""Nanoseconds that nobody will wait to see the end of."""


def wake(threads: int) -> None:
    """So many threads are awake for kernels that are called in the next moment. Nothing where there are no kernels."""
    with suppress(KernelsUnavailable):
        library().dcdm_team_wake(threads)


def waiting_text() -> str:
    """How the threads of this process wait, and whether others have taken their cores; "" where there is one thread, or
    where the compiler's own library has them. Raises KernelsUnavailable.
    """
    c = library()
    c.dcdm_team_spin.restype = c.dcdm_team_busy.restype = ctypes.c_int64
    spin, times = c.dcdm_team_spin(), c.dcdm_team_busy()
    if spin < 0:
        return ""
    how = "that never rest" if spin > LONG else f"awake for {spin / 1e6:g} ms after their work" if spin else "that rest"
    taken = f", less while others have the cores (found {times} time{'s' * (times > 1)})" if times else ""
    return f" {how}{taken}"
