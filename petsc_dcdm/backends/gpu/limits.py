"""What the Triton kernels do not serve; told without loading Triton or torch."""

from __future__ import annotations

import importlib.util
from math import prod

from petsc_dcdm.grid.layout import Layout

MAX_CELLS = 2**31 - 2**24
"""Of a box with what it has of others: kernels number the cells in 32 bits."""


def why_not(layout: Layout) -> str | None:
    """A sentence on why the kernels cannot serve this rank's box; None if they can. Not collective."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (it comes with torch for CUDA and ROCm; pip install triton)"
    if prod(n + 16 for n in layout.shape) > MAX_CELLS:
        return f"the Triton kernels serve boxes of up to {MAX_CELLS} cells: use more GPUs"
    return None
