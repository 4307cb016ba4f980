"""What the driver of a comparison and its measuring processes tell each other: plain values, no PETSc, no MPI.

The driver must not start MPI itself: a process that has cannot run mpirun.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from petsc_dcdm.compare.baselines import Solver
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape, size_text


@dataclass(frozen=True)
class SystemSpec:
    """What to solve. ``kind`` is one of

    family: ``name`` as petsc_dcdm.poisson.families.find takes it, ``shape`` (nz, ny, nx) and ``seed``
    mesh:   flow past the surface in the file ``name``, ``shape``
    vertex: PETSc's tutorial 45: Laplacian on ``shape`` vertices, the outer ones Dirichlet rows
    matrix: PETSc binary file ``name``; ``shape`` if it is known

    rhs: flow, random or smooth for families and meshes; for a matrix a PETSc binary file, random if empty.
    cells: PETSc binary index set, the cell of each row of a matrix file that numbers only some cells.
    periodic: axes (z, y, x) of a family or mesh whose sides meet.
    step: how far a moving scene has moved (families: the seed; meshes: the angle).
    """

    kind: str
    name: str = ""
    shape: Shape | None = None
    seed: int = 0
    fluid_only: bool = False
    rhs: str = ""
    cells: str = ""
    periodic: Periodic = NOT_PERIODIC
    step: int = 0

    @property
    def size(self) -> str:
        """The grid as nx x ny (x nz)."""
        return "" if self.shape is None else size_text(self.shape, "x")

    @property
    def label(self) -> str:
        """A name for titles, without the size."""
        name = Path(self.name).stem if self.kind in ("mesh", "matrix") else self.name or self.kind
        if any(self.periodic):
            rings = [axis for axis, ring in zip("xyz", self.periodic[::-1], strict=True) if ring]
            name += f" periodic along {', '.join(rings)}"
        return f"{name}, fluid cells only" if self.fluid_only else name

    def moved(self, step: int) -> SystemSpec:
        """The same scene, later."""
        return replace(self, step=step)


@dataclass(frozen=True)
class Job:
    """What one process does.

    solves: how many, on moving geometry or on the same matrix with new right-hand sides.
    """

    system: SystemSpec
    solver: Solver
    rtol: float = 1e-6
    max_it: int = 2000
    solves: int = 1
    moving: bool = False

    def to_json(self) -> str:
        """As text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        """The job in the text."""
        fields = json.loads(text)
        system = fields.pop("system")
        if system["shape"] is not None:
            system["shape"] = tuple(system["shape"])
        system["periodic"] = tuple(system["periodic"])
        return Job(system=SystemSpec(**system), solver=Solver(**fields.pop("solver")), **fields)


@dataclass
class Measured:
    """What one process saw. Lists have one entry per solve; memory is the sum over the ranks.

    Attributes
    ----------
    apply_s
        one application of the preconditioner.
    history
        (seconds since the solve began, residual / |b|) at every iteration of the last solve.
    skipped
        why the solver does not apply; everything else is then empty.
    """

    options: str = ""
    unknowns: int = 0
    import_s: float = 0.0
    setup_s: list[float] = field(default_factory=list)
    solve_s: list[float] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    true_relative_residual: float = float("nan")
    matmult_s: float = float("nan")
    apply_s: float = float("nan")
    import_rss_mb: float = 0.0
    system_rss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    history: list[tuple[float, float]] = field(default_factory=list)
    skipped: str = ""
