"""The network as a PETSc preconditioner: matrix in, approximate inverse out.

This is the only place where PETSc meets the networks. Set-up finds the grid, extracts and checks the stencil, splits
the grid
into boxes and makes the network ready for it; apply hands the residual over without a copy where the layout allows.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.devices import choose_device, mpi_reads_gpus
from petsc_dcdm.grid.errors import OptionError, UnsupportedSystem, raise_together
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import Hierarchy
from petsc_dcdm.native.build import take_notice
from petsc_dcdm.native.identity import Identity, identity, object_at, object_number
from petsc_dcdm.native.petsc_library import petsc_library
from petsc_dcdm.network import weights
from petsc_dcdm.solver.at_exit import forget, watch
from petsc_dcdm.solver.coarse import CoarseSolver
from petsc_dcdm.solver.explained import Explained, raise_misplaced, say
from petsc_dcdm.solver.foreign_guess import ForeignGuess
from petsc_dcdm.solver.loop.constant_mode import Closed, how_closed
from petsc_dcdm.solver.loop.convergence import PC_FAILED
from petsc_dcdm.solver.options import PC_OPTIONS, print_help, read
from petsc_dcdm.solver.petsc_build import require_real_double
from petsc_dcdm.solver.threads import threads_per_rank
from petsc_dcdm.solver.together import Together
from petsc_dcdm.stencil.discovery import find_grid, size_text
from petsc_dcdm.stencil.fixed import FixedRows, find_fixed_rows
from petsc_dcdm.stencil.packed import PackedStencil
from petsc_dcdm.stencil.system import GridSystem, build_system


class PC:
    """Python type ``petsc_dcdm.PC``. Options: :mod:`petsc_dcdm.solver.options`. All methods are collective."""

    def __init__(self) -> None:
        self._options: dict[str, Any] | None = None
        self._comm: MPI.Intracomm | None = None
        self._alarm: MPI.Intracomm | None = None
        self._file: weights.ModelFile | None = None
        self._system: GridSystem | None = None
        self._network: Hierarchy | None = None
        self._coarse: CoarseSolver | None = None
        self.fallback: PETSc.PC | None = None
        """What serves the matrix where the network cannot."""
        self._refusal = ""
        self._key: Identity | None = None
        self._pattern: tuple[int | None, ...] | None = None
        self._fixed: tuple[Identity, FixedRows] | None = None
        self._given: PETSc.Vec | None = None
        self.owner: int | None = None
        """Handle of the petsc_dcdm.KSP that this preconditioner belongs to; its converged reason tells of a failure."""
        self._guess = ForeignGuess()
        self._frees_constants = False
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
        if not isinstance(pc, PETSc.PC):
            raise_misplaced(pc, "petsc_dcdm.PC", "a Krylov solver", "-ksp_python_type petsc_dcdm.KSP")
        watch(pc)
        require_real_double(pc.getComm(), "PC")

    def setFromOptions(self, pc: PETSc.PC) -> None:
        prefix = pc.getOptionsPrefix()
        print_help(PC_OPTIONS, prefix, "Deep conjugate direction preconditioner (petsc_dcdm.PC)", pc.getComm())
        with Explained(pc.getComm(), "PC"):
            self._options = None
            self._options = read(PC_OPTIONS, prefix)
        self._file = self._pattern = None  # all is read anew

    def setUp(self, pc: PETSc.PC) -> None:
        """Once per matrix: nothing is done again while the matrix and its values stay the same, and where only values
        have changed the grid, the ways between rows, ranks and boxes, and the coarse solver's symbolic part are kept.
        """
        try:
            with Explained(pc.getComm(), "PC"):
                self._set_up(pc)
        except Exception:
            owner = self.owner and object_at(self.owner)
            if owner:
                owner.setConvergedReason(PC_FAILED)
            raise

    def reset(self, pc: PETSc.PC) -> None:
        if self._coarse is not None:
            self._coarse.destroy()
        if self._system is not None:
            self._system.destroy()
        if self.fallback is not None:
            self.fallback.destroy()
        self._coarse = self._system = self._network = self.fallback = self._key = None
        self._operator = self._loop = self._fixed = self._given = None

    def destroy(self, pc: PETSc.PC) -> None:
        if not isinstance(pc, PETSc.PC):  # created in vain
            return
        forget(pc)
        self.reset(pc)
        for comm in (self._comm, self._alarm):
            if comm is not None and not MPI.Is_finalized():
                comm.Free()
        self._comm = self._alarm = None

    # Set-up -------------------------------------------------------------------------------------------------------

    def _set_up(self, pc: PETSc.PC) -> None:
        _, P = pc.getOperators()
        if self._knows(P):
            return
        pattern = _pattern_of(pc, P)
        kept: tuple[GridSystem | None, CoarseSolver | None] = None, None
        same = self._system is not None and None not in pattern and pattern == self._pattern
        if self._comm is not None and self._comm.allreduce(same, op=MPI.LAND):
            assert self._system is not None
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
            if self._options["pc_dcdm_fallback"] == "none":
                raise
            self._fall_back(pc, str(problem))
        self._key = identity(P)

    def _knows(self, P: PETSc.Mat) -> bool:
        """Whether this very matrix, with these values, is the one that was set up. Collective."""
        same = self._key is not None and identity(P) == self._key
        return same if self._comm is None else bool(self._comm.allreduce(same, op=MPI.LAND))

    def _fall_back(self, pc: PETSc.PC, refusal: str) -> None:
        assert self._options is not None
        kind = self._options["pc_dcdm_fallback"]
        if refusal != self._refusal:
            say(pc.getComm(), "PC", f"using -pc_type {kind} instead (-pc_dcdm_fallback): {refusal}")
        self._refusal = refusal
        self.fallback = PETSc.PC().create(pc.getComm())
        self.fallback.setOptionsPrefix((pc.getOptionsPrefix() or "") + "pc_dcdm_fallback_")
        self.fallback.setOperators(*pc.getOperators())
        self.fallback.setType(kind)
        self.fallback.setFromOptions()
        self.fallback.setUp()

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
        self._frees_constants = self._system.singular and not P.getNullSpace()
        self._prepare_loop()

    def _prepare_loop(self) -> None:
        """The extracted stencil as an operator for the outer loop, if that can use it; the arrays are then let go."""
        assert self._system is not None
        system = self._system
        if self.keep_operator and self._compiled and system.layout.plan:
            from petsc_dcdm.backends.cpu.loop import BoxOperator

            arguments = (system.w, system.s, system.layout, system.scale, self._threads, system.exact)
            self._operator = BoxOperator(self._network, *arguments)  # type: ignore[arg-type]
        system.w, system.s = [], np.zeros(0)

    def ready(self, pc: PETSc.PC) -> None:
        """Set-up, unless it is done. PETSc does not ask again for what has failed once."""
        if self._key is None:
            self.setUp(pc)

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
        if not self._knows(A):
            return "the preconditioner was set up on another matrix or on other values"
        from petsc_dcdm.backends.cpu.loop import MAX_HISTORY, DirectionLoop

        if history > MAX_HISTORY:
            return f"the compiled loop keeps at most {MAX_HISTORY} directions"
        if self._loop is None or self._loop[0] != history:
            closed = self._system.active_cells if self._system.singular else 0
            arguments = self._network, self._operator, self._system.layout, history, closed
            self._loop = history, DirectionLoop(*arguments)  # type: ignore[arg-type]
        return self._system, self._loop[1]

    def constant_part(self, b: PETSc.Vec) -> float:
        """Norm of the part of ``b`` along constants on the coupled rows of the matrix that was set up. Collective."""
        assert self._comm is not None and self._system is not None
        total = float(b.sum()) - self._comm.allreduce(float(b.getArray(readonly=True)[self._system.fixed.rows].sum()))
        return float(abs(total) / np.sqrt(self._system.active_cells))

    def constants_are_null(self, A: PETSc.Mat) -> bool:
        """Whether ``A`` was set up and takes the constant vector to zero, to rounding. Collective."""
        return self._knows(A) and self._system is not None and self._system.singular and not self._system.fixed.anywhere

    def closed(self, A: PETSc.Mat) -> Closed:
        """What constants are to ``A``; for a matrix without entries that which was set up stands for it. Collective."""
        system, kept = self._system, "aij" in A.getType()
        if system is not None and (not kept or self._knows(A)):
            near = Closed.NEARLY if system.nearly_closed and kept else Closed.NO
            return Closed.ENTIRELY if system.singular else near
        return how_closed(A, self.fixed_rows(A)) if kept else Closed.NO

    def fixed_rows(self, A: PETSc.Mat) -> FixedRows:
        """The rows of ``A`` that are solved before the loop; for a matrix without entries those of the matrix that was
        set up stand for them. Collective.
        """
        if self._system is not None and ("aij" not in A.getType() or self._knows(A)):
            fixed = self._system.fixed
            return fixed if "aij" in A.getType() else replace(fixed, certain=False)
        if self._fixed is None or self._fixed[0] != identity(A):
            self._fixed = identity(A), find_fixed_rows(A)
        return self._fixed[1]

    def given(self, b: PETSc.Vec) -> PETSc.Vec:
        """The user's right-hand side, of which PETSc has made ``b`` by taking the null space out."""
        return b if self._given is None else self._given

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

            from petsc_dcdm.network.cnn import CnnOperator

            torch.set_num_threads(threads)
            self._backend = f"torch on {device}"
            return CnnOperator(self._file, *self._inner_arrays(), layout, device)
        if self._on_cpu and self._options["pc_dcdm_compile"] != "off":
            from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
            from petsc_dcdm.backends.cpu.setup import kernels_for
            from petsc_dcdm.native.build import KernelsUnavailable

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

        from petsc_dcdm.network.multigrid import TorchHierarchy

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
        """For Krylov methods of PETSc's: the fixed rows are solved in the initial guess.

        After this their residual is 0 and stays 0, so that the method only ever sees the symmetric operator of the
        other rows, even where those couple to Dirichlet rows that do not couple back (PETSc's tutorial ex45).
        petsc_dcdm.KSP does that itself.
        """
        if ksp.getType() == PETSc.KSP.Type.PYTHON:
            self._given, self._frees_constants = b, False
        elif self._system is not None and ksp.getType() != PETSc.KSP.Type.PREONLY:
            A, P = pc.getOperators()
            self._frees_constants = self.closed(P) is Closed.ENTIRELY and not P.getNullSpace()
            self._guess.begin(ksp, A, self.fixed_rows(P), b, x)

    def postSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        self._given = None
        self._guess.end(ksp)

    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """z = c A^-1 r approximately, with c near 1. Collective; linear in r for the multigrid network, homogeneous
        for any.
        """
        self.ready(pc)  # a second setFromOptions makes a new context without a set-up
        if self.fallback is not None:
            self.fallback.apply(r, z)
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
        system.fixed.precondition(r, z)
        if self._frees_constants:
            self._remove_constant(z)

    def applyTranspose(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """The network for the transposed system is the network: it approximates the inverse of a symmetric matrix."""
        self.apply(pc, r, z)

    def _remove_constant(self, z: PETSc.Vec) -> None:
        """Projects the output of a pure Neumann problem whose null space the user has not attached."""
        assert self._comm is not None and self._system is not None
        with z as values:
            values[self._system.fixed.rows] = 0.0
            values -= self._comm.allreduce(float(values.sum())) / self._system.active_cells
            values[self._system.fixed.rows] = 0.0

    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        if viewer.getType() != PETSc.Viewer.Type.ASCII:
            return
        if self.fallback is not None:
            viewer.printfASCII(f"    the network cannot serve this matrix: {self._refusal}\n    fallback:\n")
            self.fallback.view(viewer)
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


def _pattern_of(pc: PETSc.PC, P: PETSc.Mat) -> tuple[int | None, ...]:
    """Names the matrix, the changes of its pattern, and what tells its grid; None where PETSc cannot be asked."""
    library, changes = petsc_library(), ctypes.c_int64()
    if library is not None:
        library.MatGetNonzeroState(ctypes.c_void_p(P.handle), ctypes.byref(changes))
    cells, dms = P.query("dcdm_cells"), (pc.getDM(), P.getDM())
    return (*(object_number(o) if o else 0 for o in (P, cells, *dms)), changes.value)


def interior(padded: np.ndarray) -> np.ndarray:
    """The box without its halo, a view."""
    return padded[1:-1, 1:-1, 1:-1]
