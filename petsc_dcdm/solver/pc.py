"""The network as a PETSc preconditioner: matrix in, approximate inverse out.

This is the only place where PETSc meets the networks. Set-up finds the grid, extracts and checks the stencil, splits
the grid into boxes and makes the network ready for it; apply hands the residual over without a copy where the layout
allows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.base import Backend, Problem
from petsc_dcdm.backends.choice import kernels_serve, load_weights, make_backend
from petsc_dcdm.backends.devices import choose_device, mpi_reads_gpus
from petsc_dcdm.backends.node import NodeBoxes
from petsc_dcdm.grid.errors import UnsupportedSystem
from petsc_dcdm.grid.reductions import duplicates, over_all
from petsc_dcdm.grid.spans import record_with, span
from petsc_dcdm.native.build import take_notice
from petsc_dcdm.native.identity import identity, object_at, pattern_identity
from petsc_dcdm.native.log_events import logging, petsc_span
from petsc_dcdm.native.node_team import ONE_RANK, Sharing
from petsc_dcdm.native.petsc_library import inform
from petsc_dcdm.native.team import wake
from petsc_dcdm.native.traps import with_traps_masked
from petsc_dcdm.network.hierarchy import Hierarchy
from petsc_dcdm.network.weights import ModelFile, network_of
from petsc_dcdm.solver.at_exit import forget, watch
from petsc_dcdm.solver.coarse.solver import CoarseSolver, Coarsest, renewed
from petsc_dcdm.solver.device_vectors import apply_on_gpu, device_wanted
from petsc_dcdm.solver.explained import Explained, SayOnce, raise_misplaced, say
from petsc_dcdm.solver.foreign_guess import ForeignGuess
from petsc_dcdm.solver.loop.answers import Answers
from petsc_dcdm.solver.loop.constant_mode import Closed, remove_constant
from petsc_dcdm.solver.loop.convergence import PC_FAILED
from petsc_dcdm.solver.loop.scaled_rows import apply_scaled
from petsc_dcdm.solver.options import PC_OPTIONS, PCSettings, checked, misspelt, print_help, read
from petsc_dcdm.solver.otherwise import other_pc, with_remedy
from petsc_dcdm.solver.pc_view import found_text, text_without_network, view_text
from petsc_dcdm.solver.petsc_build import require_real_double
from petsc_dcdm.solver.sweeps import Sweeps
from petsc_dcdm.solver.threads import threads_per_rank
from petsc_dcdm.solver.together import Together
from petsc_dcdm.stencil.discovery import find_grid
from petsc_dcdm.stencil.forms.conversion import as_aij, is_aij
from petsc_dcdm.stencil.local_csr import all_zero
from petsc_dcdm.stencil.system import GridSystem, build_system


@with_traps_masked
class PC(Answers):
    """Python type ``petsc_dcdm.PC``. Options: :mod:`petsc_dcdm.solver.options`. All methods are collective."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: PCSettings | None = None
        self._set: dict[str, Any] = {}
        self._alarm: MPI.Intracomm | None = None
        self._file: ModelFile | None = None
        self._backend: Backend | None = None
        self._coarse: CoarseSolver | None = None
        self._waits = False  # for the values of a matrix that was all zero at set-up
        self.fallback: PETSc.PC | None = None  # serves the matrix where the network cannot
        self._refusal = ""
        self._say_once = SayOnce("PC")
        self._pattern: tuple[int | None, ...] | None = None
        self.owner: int | None = None  # handle of the petsc_dcdm.KSP it belongs to, whose reason tells of a failure
        self._guess = ForeignGuess()
        self._frees_constants = False  # of what `apply` gives: a null space that the user has not attached
        self._boxes = NodeBoxes()
        self._sweeps: Sweeps | None = None
        self.keep_operator = False  # petsc_dcdm.KSP says before set-up that it will ask for direction_loop

    # Life cycle ---------------------------------------------------------------------------------------------------

    def create(self, pc: PETSc.PC) -> None:
        if not isinstance(pc, PETSc.PC):
            raise_misplaced(pc, "petsc_dcdm.PC", "a Krylov solver", "-ksp_python_type petsc_dcdm.KSP")
        watch(pc)
        require_real_double(pc.getComm(), "PC")

    def setFromOptions(self, pc: PETSc.PC) -> None:
        prefix = pc.getOptionsPrefix()
        print_help(PC_OPTIONS, prefix, "Deep conjugate direction preconditioner (petsc_dcdm.PC)", pc.getComm())
        self._settings = None
        with Explained(pc.getComm(), "PC"):
            self._settings = read(PC_OPTIONS, prefix, PCSettings, self._set)
        for sentence in misspelt(PC_OPTIONS, prefix):
            self._say_once(pc, sentence)
        self._file = self._pattern = None  # all is read anew
        self._net.forget()
        self._boxes.forget()

    def set(self, **settings: Any) -> None:
        """Defaults of this preconditioner, by the options' names without ``pc_dcdm_``, as
        ``pc.getPythonContext().set(grid=(64, 32), fallback="gamg")``; options on the command line go before. It counts
        from the next set-up of a matrix that was not set up yet. Raises OptionError. The same on all ranks.
        """
        self._set.update(checked(PC_OPTIONS, settings))
        self._settings = self._file = self._pattern = self._key = None
        self._net.forget()
        self._boxes.forget()

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
        for part in (self._coarse, self._system, self.fallback, self._net):
            if part is not None:
                part.destroy()
        self._coarse = self._system = self._backend = self.fallback = self._key = self._sweeps = None
        self._operator = self._loop = self._fixed = self._given = None

    def destroy(self, pc: PETSc.PC) -> None:
        if not isinstance(pc, PETSc.PC):  # created in vain
            return
        forget(pc)
        self.reset(pc)
        self._comm = self._alarm = None
        self._boxes.forget()

    # Set-up -------------------------------------------------------------------------------------------------------

    def _set_up(self, pc: PETSc.PC) -> None:
        record_with(petsc_span if logging() else None)
        _, P = pc.getOperators()
        if self._knows(P):
            return
        self._waits = all_zero(P)
        if self._waits:
            self.reset(pc)
            return
        pattern = pattern_identity(P, (P.query("dcdm_cells"), pc.getDM(), P.getDM()))
        kept: tuple[GridSystem | None, CoarseSolver | None] = None, None
        same = self._system is not None and None not in pattern and pattern == self._pattern
        if self._comm is not None and over_all(self._comm, same, op=MPI.LAND):
            assert self._system is not None
            kept = self._system, self._coarse
            self._system.layout.close()
            self._system = self._coarse = None
        self.reset(pc)
        if self._settings is None:
            self._settings = read(PC_OPTIONS, pc.getOptionsPrefix(), PCSettings, self._set)
        if self._comm is None:
            comm = pc.getComm().tompi4py()
            # One rank sends nothing, and has nobody to tell.
            self._comm, self._alarm = duplicates(comm) if comm.Get_size() > 1 else (comm, None)
        try:
            with self.together():
                matrix = as_aij(P)
                self._build(pc, matrix, self._net.knows(pattern, self._comm), *kept)
                if matrix is not P:
                    matrix.destroy()
            self._pattern = pattern
        except UnsupportedSystem as problem:
            for part in kept:
                if part is not None:
                    part.destroy()
            self.reset(pc)
            if kept[0] is not None:  # what were stored zeros, which say nothing of the grid, may be couplings now
                self._set_up(pc)
                return
            if self._settings.fallback == "none":
                raise with_remedy(problem, pc) from None
            self._fall_back(pc, self._settings.fallback, str(problem))
        self._key = identity(P)

    def _fall_back(self, pc: PETSc.PC, kind: str, refusal: str) -> None:
        self._say_once(pc, f"using -pc_type {kind} instead (-pc_dcdm_fallback): {refusal}")
        self._refusal = refusal
        inform(pc, lambda: f"{kind} in place of the network: {refusal}")
        self.fallback = other_pc(pc, kind)

    def _build(
        self, pc: PETSc.PC, P: PETSc.Mat, caught: bool, previous: GridSystem | None, coarse: CoarseSolver | None
    ) -> None:
        """``previous`` and ``coarse``: of a matrix with the same pattern; ``caught`` by the net, if it was."""
        settings, comm = self._settings, self._comm
        assert settings is not None and comm is not None
        if self._file is None:
            self._file = load_weights(settings.model, comm)
        file, threads = self._file, threads_per_rank(comm)
        wake(threads)
        told = settings.grid, settings.periodic, settings.cells
        grid = previous.grid if previous is not None else find_grid(pc, P, *told, threads)
        file.require_dimension(grid.dimension)
        threshold = file.number("threshold") if network_of(file).levels and not caught else None
        device, holders = choose_device(device_wanted(settings.device, P), comm)
        sharing = Sharing(ONE_RANK, holders, False)
        if holders is None and not caught:
            users, possible = pc.getComm().tompi4py(), partial(kernels_serve, file, settings.compile)
            sharing = self._boxes.on_grid(settings.box, users, threads, possible, grid.shape, file)
        with span("extraction"):
            system = self._system = build_system(
                P, grid, comm, threshold=threshold, threads=threads, sharing=sharing, previous=previous
            )
        system.layout.gpu_aware = device.startswith("cuda") and mpi_reads_gpus()
        self._frees_constants = system.singular and not P.getNullSpace()
        closed = system.active_cells if system.singular else 0
        if caught:
            self._net.set_up(pc, settings.net, system)
            system.w, system.s = [], np.zeros(0)
            return
        system.exact &= is_aij(pc.getOperators()[1])  # else it is a copy: residuals are taken with the original
        problem = Problem(system.w, system.s, system.layout, system.scale, system.exact, closed, system.team)
        with span("field network"):
            self._backend = make_backend(
                *(file, problem, comm),
                device=device,
                on_gpu=holders is not None,
                threads=threads,
                compiled=settings.compile,
                say=partial(say, pc.getComm(), "PC"),
            )
        if notice := take_notice():
            say(pc.getComm(), "PC", notice)
        inform(pc, partial(found_text, system, self._backend, previous is not None))
        if system.near is not None:
            self._sweeps = Sweeps(system.near, system.layout, threads) if system.near.differs else None
        elif self.keep_operator:
            self._operator = self._backend.operator(problem)
        del problem
        system.w, system.s = [], np.zeros(0)  # the operator has kept what it needs of them
        if (operator := self.hierarchy.coarse) is not None:
            prefix = (pc.getOptionsPrefix() or "") + "pc_dcdm_coarse_"
            given = operator, system.layout, prefix, threads, self.hierarchy.levels[-1].unknowns, system.team
            self._coarse = self.hierarchy.coarse_solve = renewed(coarse, Coarsest(pc.getComm(), *given))

    def give_up(self, pc: PETSc.PC, why: str) -> bool:
        """Another PC gives the directions from now on (``-pc_dcdm_net``); False where that is not wanted, or is so."""
        settings, file = self._settings, self._file
        if settings is None or file is None or self._backend is None or not self._net.serves(settings.net, file):
            return False
        self._net.catch(pc, settings.net, self.system, self._pattern, why)
        if self._coarse is not None:
            self._coarse.destroy()
        self._backend = self._coarse = self._operator = self._loop = self._sweeps = None
        return True

    def ready(self, pc: PETSc.PC) -> None:
        """Set-up, unless it is done. PETSc does not ask again for what has failed once."""
        if self._key is None:
            self.setUp(pc)

    def together(self) -> Together:
        """For a block that all ranks enter and must not leave one by one; after set-up."""
        return Together(self._alarm)

    @property
    def hierarchy(self) -> Hierarchy:
        """The network made ready for the matrix; after set-up without the fallback."""
        assert self._backend is not None
        return self._backend.hierarchy

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
        self._serve(pc, r, z, transposed=False)

    def _serve(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec, transposed: bool) -> None:
        self.ready(pc)  # a second setFromOptions makes a new context without a set-up
        if self.fallback is not None:
            self.fallback.apply(r, z)
            return
        with self.together():
            apply_scaled(self.factors, partial(self._apply, pc), r, z, transposed)

    def _apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        norm = r.norm()  # known to PETSc already where the Krylov method tests it
        if norm == 0.0 or not np.isfinite(norm) or self._waits:
            r.copy(z)
            return
        assert self._system is not None
        system, scales = self._system, (1.0 / norm, norm / self._system.scale)
        if self._net.pc is not None:
            self._net.pc.apply(r, z)
        elif self._sweeps is not None:
            box, hierarchy = system.rows.to_box(r), self.hierarchy
            out = self._sweeps.apply(lambda left, into: hierarchy.apply(left, into, 1.0, 1.0), box, scales[0])
            out *= scales[1]
            system.rows.from_box(out, z)
        elif not apply_on_gpu(self.hierarchy, system.rows, r, z, *scales):
            box, hierarchy = system.rows.to_box(r), self.hierarchy
            if system.rows.copies:
                out = system.rows.room()
                hierarchy.apply(box, out, *scales)
                system.rows.from_box(out, z)
            else:
                with z as values:
                    hierarchy.apply(box, values.reshape(box.shape), *scales)
        system.fixed.precondition(r, z)
        if self._frees_constants:
            assert self._comm is not None
            remove_constant(z, system.fixed, system.active_cells, self._comm)

    def applyTranspose(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """The network for the transposed system is the network: it approximates the inverse of a symmetric matrix."""
        self._serve(pc, r, z, transposed=True)

    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        if viewer.getType() != PETSc.Viewer.Type.ASCII:
            return
        if self._net.pc is not None:
            viewer.printfASCII(self._net.text)
        elif self._system is None or self._backend is None or self._file is None:
            viewer.printfASCII(text_without_network(self._refusal if self.fallback is not None else "", self._waits))
        else:
            viewer.printfASCII(view_text(self._file, self._system, self._backend))
        for part in (self.fallback, self._coarse, self._net):
            if part is not None:
                part.view(viewer)
