"""What ``-ksp_view`` says about petsc_dcdm.PC."""

from __future__ import annotations

from petsc_dcdm.backends.base import Backend
from petsc_dcdm.network.weights import ModelFile
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
    for number, level in enumerate(backend.hierarchy.levels):
        axes = "".join("xyz"[a] for a in level.coarsened) or "-"
        lines.append(
            f"level {number}: {size_text(level.global_shape)}, {level.unknowns} unknowns, coarsened along {axes}"
            + (f", visited {layout.visits} times" if number == 1 < layout.visits else "")
        )
    return "".join(f"    {line}\n" for line in lines)
