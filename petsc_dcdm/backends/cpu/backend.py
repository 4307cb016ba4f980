"""The compiled kernels as one of the backends."""

from __future__ import annotations

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.operator import BoxOperator
from petsc_dcdm.native.build import about
from petsc_dcdm.native.team import waiting_text
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil


class CpuBackend:
    """See `petsc_dcdm.backends.base.Backend`. Raises as `CpuHierarchy` does, for ``file`` of kind ``multigrid``.

    ``threads``: OpenMP threads of this rank. Collective.
    """

    def __init__(self, file: ModelFile, problem: Problem, threads: int) -> None:
        team, threads = problem.team, problem.team.threads or threads
        packed = isinstance(problem.w, PackedStencil)
        w, s = (problem.w, None) if packed else problem.arrays()
        self.hierarchy = CpuHierarchy(file, w, s, problem.layout, threads, team=team)
        self._threads = threads

    @property
    def description(self) -> str:
        """See `petsc_dcdm.backends.base.Backend`."""
        ranks = self.hierarchy.team.ranks
        who = f"{self._threads} thread{'s' * (self._threads > 1)} per rank{waiting_text()}"
        if ranks > 1:
            who = f"{ranks} ranks of a node with {self._threads} threads share a box"
        return f"compiled kernels ({about()}), {who}, {self.hierarchy.memory / 1e6:.1f} MB on this one"

    def operator(self, problem: Problem) -> BoxOperator | None:
        """None on a small grid of one level, which is the coarse solver's alone. Collective."""
        layout = problem.layout
        if not self.hierarchy.steps_on_grid:
            return None
        return BoxOperator(
            self.hierarchy, problem.w, problem.s, layout, problem.scale, self._threads, problem.exact, problem.closed
        )
