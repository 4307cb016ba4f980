"""What ``-ksp_view`` says about petsc_dcdm.PC."""

from __future__ import annotations

from petsc_dcdm.backends.base import Backend
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.solver.sweeps import SWEEPS
from petsc_dcdm.stencil.discovery import size_text
from petsc_dcdm.stencil.system import GridSystem


def view_text(file: ModelFile, system: GridSystem, backend: Backend) -> str:
    """The network, the grid, where it runs and a line for every level, indented as PETSc does. Not collective."""
    grid, layout = system.grid, system.layout
    rings = ", ".join("xyz"[2 - i] for i in (2, 1, 0) if grid.periodic[i])
    size = size_text(grid.shape) + (f" (periodic along {rings})" if rings else "")
    lines = [
        f"network {file.kind}, weights {file.source} (hash {file.meta.get('hash', '')[:12]})",
        f"grid {size} from {grid.source}, {system.active_cells} active cells; boxes {size_text(layout.boxes.procs)}",
        f"{backend.description}; applied in single precision",
    ]
    if system.why_alone:
        lines.append(f"each rank has a box of its own: {system.why_alone}")
    if system.near is not None:
        sweeps = f"between {SWEEPS} sweeps of the matrix and {SWEEPS} more" if system.near.differs else "no sweeps"
        lines.append(f"the matrix is not of 5- or 7-point form: set up on the nearest operator that is, {sweeps}")
        lines.append(f"its mixed derivatives are {system.near.mixed:.2g} of the others")
    if system.factors is not None:
        lines.append(
            f"rows were scaled one by one, by factors 1 : {system.factors.spread:.3g}: the network has the symmetric "
            "matrix behind them, norms are those of the matrix as it is"
        )
    for number, level in enumerate(backend.hierarchy.levels):
        axes = "".join("xyz"[a] for a in level.coarsened) or "-"
        lines.append(
            f"level {number}: {size_text(level.global_shape)}, {level.unknowns} unknowns, coarsened along {axes}"
            + (f", visited {layout.visits} times" if number == 1 < layout.visits else "")
        )
    return "".join(f"    {line}\n" for line in lines)


def text_without_network(refusal: str, waits: bool) -> str:
    """The same where there is none: a fallback serves the matrix after a ``refusal``, or set-up is still to come, since
    it ``waits`` for the values of a matrix that was all zero.
    """
    if refusal:
        return f"    the network cannot serve this matrix: {refusal}\n    fallback:\n"
    return "    not set up yet: the matrix was all zero, the solve will do it\n" if waits else "    not set up yet\n"


def found_text(system: GridSystem, backend: Backend, kept: bool) -> str:
    """A line for -info about a set-up; ``kept``: the grid, from the last one."""
    grid = system.grid
    how = "kept from the last set-up" if kept else f"from {grid.source}"
    return f"grid {size_text(grid.shape)} {how}, {system.active_cells} active; {backend.description}"
