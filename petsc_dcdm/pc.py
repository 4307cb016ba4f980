"""The network as a PETSc preconditioner: matrix in, approximate inverse out.

This is the only place where PETSc meets the networks. Set-up finds the grid, extracts and checks the stencil, splits
the grid
into boxes and makes the network ready for it; apply hands the residual over without a copy where the layout allows.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.at_exit import forget, watch
from petsc_dcdm.coarse import CoarseSolver
from petsc_dcdm.devices import choose_device, mpi_reads_gpus
from petsc_dcdm.explained import Explained, say
from petsc_dcdm.grid.discovery import find_grid, size_text
from petsc_dcdm.grid.errors import UnsupportedSystem, raise_together
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.system import GridSystem, build_system
from petsc_dcdm.models import weights
from petsc_dcdm.models.kernels.build import take_notice
from petsc_dcdm.models.layout import Hierarchy
from petsc_dcdm.models.packed import PackedStencil
from petsc_dcdm.options import PC_OPTIONS, OptionError, print_help, read
from petsc_dcdm.petsc_library import petsc_library
from petsc_dcdm.threads import threads_per_rank
from petsc_dcdm.together import Together


class PC:
    """Python type ``petsc_dcdm.PC``; see :mod:`petsc_dcdm.options` for its options. All methods are collective."""

    def __init__(self) -> None:
        self._options: dict[str, Any] | None = None
        self._comm: MPI.Intracomm | None = None
        self._alarm: MPI.Intracomm | None = None
        self._file: weights.ModelFile | None = None
        self._system: GridSystem | None = None
        self._network: Hierarchy | None = None
        self._coarse: CoarseSolver | None = None
        self._fallback: PETSc.PC | None = None
        self._key: tuple[int, int] | None = None
        self._pattern: tuple[int, int] | None = None
        self._set_guess = False
        self._backend = ""
        self._compiled = False
        self._on_cpu = True
        self._threads = 1
        self._operator: Any = None
        self._loop: tuple[int, Any] | None = None
        self.keep_operator = False
        """Set by petsc_dcdm.KSP before set-up: it will ask for :meth:`direction_loop`."""

    # Life cycle ---------------------------------------------------------------------------------------------------

    def create(self, pc: PETSc.PC) -> None:
        watch(pc)

    def setFromOptions(self, pc: PETSc.PC) -> None:
        prefix = pc.getOptionsPrefix()
        print_help(PC_OPTIONS, prefix, "Deep conjugate direction preconditioner (petsc_dcdm.PC)", pc.getComm())
        with Explained(pc.getComm(), "PC"):
            self._options = read(PC_OPTIONS, prefix)
        self._file = self._pattern = None  # all is read anew

    def setUp(self, pc: PETSc.PC) -> None:
        """Once per matrix: nothing is done again while the matrix and its values stay the same, and where only values
        have changed the grid, the ways between rows, ranks and boxes, and the coarse solver's symbolic part are kept.
        """
        with Explained(pc.getComm(), "PC"):
            self._set_up(pc)

    def reset(self, pc: PETSc.PC) -> None:
        if self._coarse is not None:
            self._coarse.destroy()
        if self._system is not None:
            self._system.destroy()
        if self._fallback is not None:
            self._fallback.destroy()
        self._coarse = self._system = self._network = self._fallback = self._key = None
        self._operator = self._loop = None

    def destroy(self, pc: PETSc.PC) -> None:
        forget(pc)
        self.reset(pc)
        for comm in (self._comm, self._alarm):
            if comm is not None and not MPI.Is_finalized():
                comm.Free()
        self._comm = self._alarm = None

    # Set-up -------------------------------------------------------------------------------------------------------

    def _set_up(self, pc: PETSc.PC) -> None:
        _, P = pc.getOperators()
        key = (P.handle, P.stateGet())
        if key == self._key:
            return
        pattern = _pattern_of(P)
        kept: tuple[GridSystem | None, CoarseSolver | None] = None, None
        if self._system is not None and pattern is not None and pattern == self._pattern:
            kept = self._system, self._coarse
            self._system.layout.close()
            self._system = self._coarse = None
        self.reset(pc)
        if self._options is None:
            self._options = read(PC_OPTIONS, pc.getOptionsPrefix())
        if self._comm is None:
            self._comm, self._alarm = (pc.getComm().tompi4py().Dup() for _ in range(2))
        try:
            with self.together():
                self._build(pc, P, *kept)
            self._pattern = pattern
        except UnsupportedSystem as problem:
            for part in kept:
                if part is not None:
                    part.destroy()
            self.reset(pc)
            fallback = self._options["pc_dcdm_fallback"]
            if fallback == "none":
                raise
            say(pc.getComm(), "PC", f"using -pc_type {fallback} instead (-pc_dcdm_fallback): {problem}")
            self._fallback = PETSc.PC().create(pc.getComm())
            self._fallback.setOptionsPrefix((pc.getOptionsPrefix() or "") + "pc_dcdm_fallback_")
            self._fallback.setOperators(*pc.getOperators())
            self._fallback.setType(fallback)
            self._fallback.setFromOptions()
            self._fallback.setUp()
        self._key = key

    def _build(self, pc: PETSc.PC, P: PETSc.Mat, previous: GridSystem | None, coarse: CoarseSolver | None) -> None:
        """``previous`` and ``coarse``: of a matrix with the same pattern."""
        assert self._options is not None and self._comm is not None
        if self._file is None:
            self._file = self._load_weights(self._options["pc_dcdm_model"])
        self._threads = threads_per_rank(self._comm)
        grid = previous.grid if previous is not None else find_grid(pc, P, self._options["pc_dcdm_grid"])
        self._file.require_dimension(grid.dimension)
        threshold = self._file.number("threshold") if self._file.kind == "multigrid" else None
        device, holders = choose_device(self._options["pc_dcdm_device"], self._comm)
        self._system = build_system(
            P, grid, self._comm, threshold=threshold, threads=self._threads, holders=holders, previous=previous
        )
        self._system.layout.gpu_aware = device != "cpu" and mpi_reads_gpus()
        self._on_cpu = holders is None
        self._network = self._make_network(pc, device)
        if notice := take_notice():
            say(pc.getComm(), "PC", notice)
        if self._network.coarse is not None:
            if coarse is None or not coarse.update(self._network.coarse, self._system.layout):
                if coarse is not None:
                    coarse.destroy()
                prefix = (pc.getOptionsPrefix() or "") + "pc_dcdm_coarse_"
                coarse = CoarseSolver(pc.getComm(), self._network.coarse, self._system.layout, prefix)
            self._coarse = self._network.coarse_solve = coarse
        self._prepare_loop()

    def _prepare_loop(self) -> None:
        """The extracted stencil as an operator for the outer loop, if that can use it; the arrays are then let go."""
        assert self._system is not None
        system = self._system
        if self.keep_operator and self._compiled and system.layout.plan:
            from petsc_dcdm.models.directions import BoxOperator

            arguments = (system.w, system.s, system.layout, system.scale, self._threads, system.exact)
            self._operator = BoxOperator(self._network, *arguments)  # type: ignore[arg-type]
        system.w, system.s = [], np.zeros(0)

    def together(self) -> Together:
        """For a block that all ranks enter and must not leave one by one; after set-up."""
        return Together(self._alarm)

    @property
    def layout(self) -> BoxLayout:
        """The boxes of the ranks, which count what they exchange; after set-up without the fallback."""
        assert self._system is not None
        return self._system.layout

    def direction_loop(self, A: PETSc.Mat, history: int) -> tuple[GridSystem, Any] | str:
        """The system and the DirectionLoop that take the steps of the method with ``A``, or why there are none."""
        if self._operator is None or self._system is None:
            return "the preconditioner does not run compiled on a grid of more than one level"
        if (A.handle, A.stateGet()) != self._key:
            return "the preconditioner was set up on another matrix or on other values"
        from petsc_dcdm.models.directions import MAX_HISTORY, DirectionLoop

        if history > MAX_HISTORY:
            return f"the compiled loop keeps at most {MAX_HISTORY} directions"
        if self._loop is None or self._loop[0] != history:
            closed = self._system.active_cells if self._system.singular else 0
            arguments = self._network, self._operator, self._system.layout, history, closed
            self._loop = history, DirectionLoop(*arguments)  # type: ignore[arg-type]
        return self._system, self._loop[1]

    def constant_part(self, b: PETSc.Vec) -> float:
        """Norm of the part of ``b`` along the constants on the coupled rows if these are a null space, else 0.

        Collective.
        """
        if self._system is None or not self._system.singular:
            return 0.0
        assert self._comm is not None
        total = float(b.sum()) - self._comm.allreduce(float(b.getArray(readonly=True)[self._system.dirichlet].sum()))
        return float(abs(total) / np.sqrt(self._system.active_cells))

    def _load_weights(self, name: str) -> weights.ModelFile:
        """Rank 0 reads, all get it, or its error."""
        assert self._comm is not None
        file, error = None, None
        if self._comm.Get_rank() == 0:
            try:
                file = weights.load(name)
            except weights.WeightsError as problem:
                error = problem
        raise_together(self._comm, error)
        return self._comm.bcast(file)

    def _make_network(self, pc: PETSc.PC, device: str) -> Hierarchy:
        """The network on the device that was asked for: compiled kernels on the CPU, torch on a GPU or where nothing
        can be compiled.
        """
        assert (
            self._options is not None and self._comm is not None and self._file is not None and self._system is not None
        )
        layout, threads = self._system.layout, self._threads
        self._compiled = False
        if self._file.kind == "cnn":
            import torch

            from petsc_dcdm.models.cnn import CnnOperator

            torch.set_num_threads(threads)
            self._backend = f"torch on {device}"
            return CnnOperator(self._file, *self._inner_arrays(), layout, device)
        if self._on_cpu and self._options["pc_dcdm_compile"] != "off":
            from petsc_dcdm.models.cpu import CpuHierarchy
            from petsc_dcdm.models.cpu_setup import kernels_for
            from petsc_dcdm.models.kernels.build import KernelsUnavailable

            missing = None
            try:
                kernels_for(self._file, layout=layout)
            except KernelsUnavailable as problem:
                missing = problem
            if not self._comm.allreduce(missing is not None, op=MPI.LOR):
                self._compiled = True
                self._backend = f"compiled kernels, {threads} thread{'s' * (threads > 1)} per rank"
                if isinstance(self._system.w, PackedStencil):
                    return CpuHierarchy(self._file, self._system.w, None, layout, threads)
                return CpuHierarchy(self._file, *self._inner_arrays(), layout, threads)
            if self._options["pc_dcdm_compile"] == "on":
                raise_together(self._comm, OptionError(f"-pc_dcdm_compile on: {missing}") if missing else None)
            say(
                pc.getComm(),
                "PC",
                f"{missing or 'kernels unavailable on another rank'}; running the network in plain torch, which "
                f"is slower",
            )
        import torch

        from petsc_dcdm.models.multigrid import TorchHierarchy

        torch.set_num_threads(threads)
        self._backend = f"torch on {device}"
        return TorchHierarchy(self._file, *self._inner_arrays(), layout, device)

    def _inner_arrays(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The stencil of this rank's box without its halo."""
        assert self._system is not None
        w, s = self._system.arrays()
        return [interior(face) for face in w], interior(s)

    # Apply --------------------------------------------------------------------------------------------------------

    def preSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve the decoupled Dirichlet rows exactly, once.

        After this their residual is 0 and stays 0, so that the loop only ever sees the symmetric operator of the other
        rows, even
        where those couple to Dirichlet rows that do not couple back (PETSc's tutorial ex45).
        """
        self._set_guess = False
        if self._system is None or not self._system.any_dirichlet or ksp.getType() == PETSc.KSP.Type.PREONLY:
            return
        system = self._system
        boundary = b.getArray(readonly=True)[system.dirichlet] / system.dirichlet_diagonal
        guess = x.getArray(readonly=True)[system.dirichlet] if ksp.getInitialGuessNonzero() else 0.0
        assert self._comm is not None
        if not self._comm.allreduce(bool((boundary != guess).any()), op=MPI.LOR):
            return
        if not ksp.getInitialGuessNonzero():
            x.set(0.0)
            ksp.setInitialGuessNonzero(True)
            self._set_guess = True
        with x as values:
            values[system.dirichlet] = boundary

    def postSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        if self._set_guess:
            ksp.setInitialGuessNonzero(False)
            self._set_guess = False

    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """z = c A^-1 r approximately, with c near 1. Collective; linear in r for the multigrid network, homogeneous
        for any.
        """
        if self._key is None:  # a second setFromOptions made a new context without a set-up
            self.setUp(pc)
        if self._fallback is not None:
            self._fallback.apply(r, z)
            return
        with self.together():
            self._apply(pc, r, z)

    def _apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        assert self._system is not None and self._network is not None
        system = self._system
        norm = r.norm()  # known to PETSc already where the Krylov method tests it
        if norm == 0.0 or not np.isfinite(norm):
            r.copy(z)
            return
        box = system.rows.to_box(r)
        if system.rows.copies:
            out = np.empty(box.shape)
            self._network.apply(box, out, 1.0 / norm, norm / system.scale)
            system.rows.from_box(out, z)
        else:
            with z as values:
                self._network.apply(box, values.reshape(box.shape), 1.0 / norm, norm / system.scale)
        if system.dirichlet.size:
            with z as values:
                values[system.dirichlet] = r.getArray(readonly=True)[system.dirichlet] / system.dirichlet_diagonal
        if system.singular and not pc.getOperators()[1].getNullSpace():
            self._remove_constant(z)

    def applyTranspose(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """The network for the transposed system is the network: it approximates the inverse of a symmetric matrix."""
        self.apply(pc, r, z)

    def _remove_constant(self, z: PETSc.Vec) -> None:
        """Projects the output of a pure Neumann problem whose null space the user has not attached."""
        assert self._comm is not None and self._system is not None
        with z as values:
            values[self._system.dirichlet] = 0.0
            values -= self._comm.allreduce(float(values.sum())) / self._system.active_cells
            values[self._system.dirichlet] = 0.0

    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        if viewer.getType() != PETSc.Viewer.Type.ASCII:
            return
        if self._fallback is not None:
            viewer.printfASCII("    the network cannot serve this matrix; fallback:\n")
            self._fallback.view(viewer)
            return
        if self._system is None or self._network is None or self._file is None:
            viewer.printfASCII("    not set up yet\n")
            return
        grid, layout = self._system.grid, self._system.layout
        lines = [
            f"network {self._file.kind}, weights {self._file.source} (hash {self._file.meta.get('hash', '')[:12]})",
            f"grid {size_text(grid.shape)} from {grid.source}, {self._system.active_cells} active cells; boxes "
            f"{size_text(layout.boxes.procs)}",
            f"{self._backend}; applied in single precision",
        ]
        for number, level in enumerate(self._network.levels):
            axes = "".join("xyz"[a] for a in level.coarsened) or "-"
            lines.append(
                f"level {number}: {size_text(level.global_shape)}, {level.unknowns} unknowns, coarsened along {axes}"
                + (f", visited {layout.visits} times" if number == 1 < layout.visits else "")
            )
        viewer.printfASCII("".join(f"    {line}\n" for line in lines))
        if self._coarse is not None:
            self._coarse.view(viewer)


def _pattern_of(P: PETSc.Mat) -> tuple[int, int] | None:
    """Names the matrix and counts the changes of its pattern, alike on all ranks; None where PETSc can not be asked."""
    library, number, changes = petsc_library(), ctypes.c_int64(), ctypes.c_int64()
    if library is None:
        return None
    mat = ctypes.c_void_p(P.handle)
    library.PetscObjectGetId(mat, ctypes.byref(number))
    library.MatGetNonzeroState(mat, ctypes.byref(changes))
    return number.value, changes.value


def interior(padded: np.ndarray) -> np.ndarray:
    """The box without its halo, a view."""
    return padded[1:-1, 1:-1, 1:-1]
