"""Values of arguments that several commands take."""

from __future__ import annotations

import argparse


def triple(text: str) -> tuple[float, float, float]:
    """``X,Y,Z``; ArgumentTypeError otherwise."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers X,Y,Z") from None
    return x, y, z
