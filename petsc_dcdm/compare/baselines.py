"""The solvers of a comparison by name, as PETSc options: ours, and the rivals tuned for Poisson systems.

Every solver runs with ``-ksp_norm_type unpreconditioned``, a user's own as well unless it names another norm, so that
all stop at the same true residual. A user's own is written as its options, with a name in front if wanted:
``-ksp_type cg -pc_type gamg`` or ``"my gamg=-ksp_type cg -pc_type gamg -pc_gamg_threshold 0.02"``; one that is wanted
often is an entry here, or is registered by a program (:func:`register`). ``@2`` after a name: on 2 ranks, whatever the
others run on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from petsc4py import PETSc

    from petsc_dcdm.poisson.assemble import System

CG = "-ksp_type cg -ksp_norm_type unpreconditioned"
OURS = ("petsc_dcdm.KSP", "petsc_dcdm.PC")


@dataclass(frozen=True)
class Solver:
    """One entry of a comparison.

    Attributes
    ----------
    options
        PETSc options; ``{levels}`` is replaced by the number of levels that halving the grid allows.
    several
        options on more than one rank, where they differ.
    package
        external package that PETSc must have been built with.
    needs
        "box" when there must be one row per cell of a DMDA; "struct" when its matrix must be of hypre's
        structured type as well.
    ranks
        the number of ranks it runs on; 0: on those of the comparison.
    """

    name: str
    options: str
    several: str = ""
    package: str = ""
    needs: str = ""
    ranks: int = 0

    def on(self, ranks: int, levels: int) -> str:
        """The options for a run on ``ranks`` ranks."""
        options = self.several if self.several and ranks > 1 else self.options
        return options.replace("{levels}", str(levels))

    @property
    def ours(self) -> bool:
        """Whether this package takes part in it."""
        return any(name in self.options for name in OURS)

    def obstacle(self, dimension: int, levels: int, packages: frozenset[str]) -> str:
        """Why it cannot run on a system (empty: it can).

        dimension: of the DMDA of which each cell has a row; 0 if there is none.
        """
        if self.package and self.package not in packages:
            return f"this PETSc has no {self.package}"
        if self.needs and not dimension:
            return "needs one row per cell of a DMDA"
        if self.needs == "struct" and dimension != 3:
            return "PETSc's hyprestruct matrices are 3D only"
        if "{levels}" in self.options and levels < 2:
            return "the grid cannot be halved"
        return ""


_HYPRE = f"{CG} -pc_type hypre -pc_hypre_type boomeramg"

_ALL = (
    Solver("dcdm", "-ksp_type python -ksp_python_type petsc_dcdm.KSP"),
    Solver(
        "dcdm-fcg",
        "-ksp_type fcg -ksp_fcg_mmax 2 -ksp_fcg_truncation_type standard -ksp_norm_type unpreconditioned "
        "-pc_type python -pc_python_type petsc_dcdm.PC",
    ),
    Solver(
        "boomeramg-tuned",
        f"{_HYPRE} -pc_hypre_boomeramg_coarsen_type HMIS -pc_hypre_boomeramg_interp_type ext+i "
        "-pc_hypre_boomeramg_P_max 4 -pc_hypre_boomeramg_agg_nl 1",
        package="hypre",
    ),
    Solver("boomeramg", _HYPRE, package="hypre"),
    Solver("gamg", f"{CG} -pc_type gamg"),
    Solver("ml", f"{CG} -pc_type ml", package="ml"),
    Solver(
        "mg",
        f"{CG} -pc_type mg -pc_mg_levels {{levels}} -pc_mg_galerkin both "
        "-mg_levels_ksp_type chebyshev -mg_levels_pc_type sor",
        needs="box",
    ),
    Solver("pfmg", f"{CG} -pc_type pfmg", package="hypre", needs="struct"),
    Solver(
        "pfmg-tuned",
        f"{CG} -pc_type pfmg -pc_pfmg_relax_type symmetric-red/black-gauss-seidel",
        package="hypre",
        needs="struct",
    ),
    Solver("icc", f"{CG} -pc_type icc", f"{CG} -pc_type bjacobi -sub_pc_type icc"),
    Solver("jacobi", f"{CG} -pc_type jacobi"),
    Solver("cg", f"{CG} -pc_type none"),
)
BASELINES: dict[str, Solver] = {}
AMG = ("boomeramg-tuned", "boomeramg", "gamg", "ml")
DEFAULT = ("dcdm", *AMG)


def register(solver: Solver) -> Solver:
    """Make a solver one of those that are known by name. Public: a program of one's own may add its rivals.

    ValueError for a name that another solver has, or that could not be told from a number of ranks or from options.
    """
    if BASELINES.get(solver.name, solver) != solver:
        raise ValueError(f"There is a solver {solver.name!r} already.")
    if not solver.name or solver.name.startswith("-") or any(mark in solver.name for mark in "@="):
        raise ValueError(f"A solver cannot be called {solver.name!r}: @ and = have a meaning, and so has a first -.")
    BASELINES[solver.name] = solver
    return solver


for _solver in _ALL:
    register(_solver)


def new_ksp(solver: Solver, system: System, prefix: str) -> PETSc.KSP:
    """A KSP on the system that will find the solver's options under ``prefix``. Collective."""
    from petsc4py import PETSc

    database = PETSc.Options()
    database.prefixPush(prefix)
    database.insertString(solver.on(system.A.comm.size, 1))
    database.prefixPop()
    ksp = PETSc.KSP().create(system.A.comm)
    ksp.setOptionsPrefix(prefix)
    system.attach(ksp)
    return ksp


def resolve(text: str) -> Solver:
    """A solver from its name, its options, or ``name=options``; ValueError with the names for anything else."""
    text = text.strip()
    known, _, ranks = text.partition("@")
    if known in BASELINES and (ranks.isdigit() and int(ranks) > 0 or known == text):
        return replace(BASELINES[known], ranks=int(ranks or 0))
    name, separator, options = text.partition("=")
    if text.startswith("-"):
        name, options = text, text
    if not options.strip().startswith("-") or (not text.startswith("-") and not separator):
        raise ValueError(
            f"There is no solver {text!r}; the names are {', '.join(BASELINES)}, or give PETSc options, "
            "such as 'mine=-ksp_type cg -pc_type gamg'."
        )
    needs = "struct" if "pfmg" in options or "smg" in options else ""
    if "-ksp_norm_type" not in options:
        options = f"{options.strip()} -ksp_norm_type unpreconditioned"
    return Solver(name.strip(), options.strip(), needs=needs)
