"""Scaling that changes no digit."""

from __future__ import annotations

from math import frexp, ldexp


def power_of_two(size: float) -> float:
    """What makes ``size`` at least 1/2 and less than 1; the largest there is where ``size`` is a denormal number."""
    return ldexp(1.0, min(-frexp(size)[1], 1023))
