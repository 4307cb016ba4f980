"""`petsc-dcdm solve`: a mesh, a family of scenes or a user's own matrix, solved with PETSc's options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.commands.arguments import triple
from petsc_dcdm.grid.shape import NOT_PERIODIC, axes_argument, shape_option, size_text

if TYPE_CHECKING:
    from petsc4py import PETSc

    from petsc_dcdm.poisson.assemble import System

EPILOG = (
    "Every option with a single dash goes to PETSc: -ksp_rtol 1e-10, -ksp_monitor, -ksp_view, -log_view, or another "
    "solver such as -ksp_type cg -pc_type hypre. Without any it is petsc_dcdm.KSP to a relative residual of 1e-6."
)


def add_solve_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``solve``; the parsed arguments carry the function to call as ``run``."""
    parser = subparsers.add_parser("solve", help="solve one pressure system", epilog=EPILOG)
    what = parser.add_argument_group("what to solve").add_mutually_exclusive_group(required=True)
    what.add_argument("--mesh", metavar="FILE", help="flow past a closed surface (OBJ, STL, PLY, ...)")
    what.add_argument("--family", metavar="NAME", help="a scene, such as dam_break; --family list names them")
    what.add_argument("--matrix", metavar="A.bin", help="a matrix written with -ksp_view_mat binary:A.bin")
    grid = parser.add_argument_group("grid and right-hand side")
    grid.add_argument("--size", default="64", metavar="N | NX,NY[,NZ]", help="cells of a scene (default 64)")
    grid.add_argument("--seed", type=int, default=0, help="of the scene and of a random right-hand side")
    grid.add_argument(
        "--periodic", type=axes_argument, default=NOT_PERIODIC, metavar="X,Y", help="axes of a scene whose sides meet"
    )
    grid.add_argument("--fluid-only", action="store_true", help="number only the fluid cells of a scene")
    grid.add_argument(
        "--rhs", metavar="KIND | b.bin", help="flow, random, smooth, or a file (default: flow for meshes, else random)"
    )
    grid.add_argument("--grid", metavar="NX,NY[,NZ]", help="cells of the grid of --matrix, if it cannot tell")
    grid.add_argument("--cells", metavar="cells.bin", help="index set: cell number of each row of --matrix")
    mesh = parser.add_argument_group("where the mesh goes")
    mesh.add_argument("--mesh-size", type=float, default=0.5, help="its longest edge / shortest edge of the domain")
    mesh.add_argument("--position", type=triple, default=(0.4, 0.5, 0.5), metavar="X,Y,Z", help="its centre, 0 to 1")
    mesh.add_argument("--rotate", type=triple, default=(0.0, 0.0, 0.0), metavar="X,Y,Z", help="degrees, x first")
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print the result as one JSON object")
    out.add_argument("--output", metavar="x.bin", help="the solution as a PETSc binary vector")
    out.add_argument("--vti", metavar="x.vti", help="pressure (and flags and velocity of a scene) for ParaView")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Solve and report. Collective. Exit code 0, or 1 when the solver did not converge; ValueError on bad input."""
    if args.family == "list":
        from petsc_dcdm.poisson.families import catalogue

        print(catalogue())
        return 0
    import petsc4py

    petsc4py.init(["petsc-dcdm", *args.petsc_options])
    from petsc4py import PETSc

    from petsc_dcdm.commands.files import system_of_files
    from petsc_dcdm.commands.petsc_options import say_unused
    from petsc_dcdm.poisson.solving import RTOL, print_table, result_json, solve
    from petsc_dcdm.solver.petsc_build import require_real_double

    require_real_double(PETSc.COMM_WORLD, "KSP")
    system: System | None = None
    if args.matrix:
        if any(args.periodic):
            raise ValueError("--periodic belongs to scenes; a matrix shows by itself which axes are periodic.")
        A, b = system_of_files(args)
        title = args.matrix
    else:
        system, b, title = _scene(args)
        A = system.A
    ksp = PETSc.KSP().create(A.comm)
    try:
        if system is not None:
            system.attach(ksp)
        else:
            ksp.setOperators(A)
        ksp.setType(PETSc.KSP.Type.PYTHON)
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=RTOL)
        ksp.setFromOptions()
        x = b.duplicate()
        result = solve(ksp, b, x, unknowns=system.unknowns if system else None)
    finally:
        ksp.destroy()
    if args.json:
        PETSc.Sys.Print(result_json(title, result, A.comm), comm=A.comm)
    else:
        print_table(f"{title}, {A.comm.size} rank{'s' * (A.comm.size > 1)}", [result], A.comm)
    say_unused(args.petsc_options, A.comm)
    _write(args, system, A, x)
    return 0 if result.converged else 1


def _scene(args: argparse.Namespace) -> tuple[System, PETSc.Vec, str]:
    """The system of a mesh or a family, its right-hand side and a title. Collective."""
    from petsc4py import PETSc

    from petsc_dcdm.grid.errors import raise_together
    from petsc_dcdm.poisson import dmda, families, mesh, rhs, scene
    from petsc_dcdm.poisson.assemble import assemble, close_rings
    from petsc_dcdm.poisson.pockets import seal_pockets

    for name in ("cells", "grid"):
        if getattr(args, name):
            raise ValueError(f"--{name} belongs to --matrix.")
    shape = shape_option("size", args.size)
    kind = args.rhs or ("flow" if args.mesh else "random")
    if kind not in rhs.kinds:
        raise ValueError(f"The right-hand side of a scene is one of {', '.join(rhs.kinds)}, not {kind!r}.")
    if args.family:
        families.find(args.family)
    dm = dmda.create(shape, periodic=args.periodic)
    world = problem = None
    try:
        if args.mesh:
            surface = mesh.load(args.mesh)
            if dm.comm.getRank() == 0 and mesh.gaps(surface):
                print(mesh.gaps(surface))
            placed = mesh.place(surface, shape, args.mesh_size, args.position, args.rotate)
            world = scene.around_mesh(shape, dmda.box_of(dm), placed)
        else:
            world = families.make(args.family, shape, args.seed, dmda.box_of(dm))
    except (ValueError, OSError) as error:
        problem = error
    raise_together(dm.comm.tompi4py(), problem)
    assert world is not None
    seal_pockets(close_rings(world, dm), dm)
    system = assemble(world, dm, args.fluid_only)
    if args.fluid_only:
        PETSc.Options()["pc_dcdm_grid"] = size_text(shape, ",")
    b = rhs.make(kind, system, args.seed)
    if b.norm() == 0:
        raise ValueError("A uniform stream passes this scene without a source: take --rhs random or smooth.")
    return system, b, f"{args.mesh or args.family}, {size_text(shape)}"


def _write(args: argparse.Namespace, system: System | None, A: PETSc.Mat, x: PETSc.Vec) -> None:
    """Write what --output and --vti ask for. Collective."""
    from petsc_dcdm.poisson import dmda, io
    from petsc_dcdm.poisson.flow import projected_velocity

    if args.output:
        io.save(args.output, x)
    if not args.vti:
        return
    parts: dict[str, np.ndarray | None] = {}
    if system is None:
        if not args.grid:
            raise ValueError("--vti needs --grid NX,NY[,NZ] with --matrix.")
        shape = shape_option("grid", args.grid)
        parts["pressure"] = io.on_grid(x, shape, A.query("dcdm_cells"))
    else:
        shape, values = system.world.shape, system.field(x)
        parts["pressure"] = dmda.gather(system.dm, values)
        parts["fluid"] = dmda.gather(system.dm, system.world.fluid.astype(float))
        if args.mesh or args.rhs == "flow":
            velocity = projected_velocity(system, values)
            for a, name in enumerate("xyz"):
                parts[name] = dmda.gather(system.dm, velocity[..., a])
    io.make_folder(args.vti, A.comm)
    if A.comm.rank == 0:
        fields = {name: values for name, values in parts.items() if values is not None}
        if "fluid" in fields:
            fields["fluid"] = fields["fluid"].astype(np.uint8)
        if "x" in fields:
            fields["velocity"] = np.stack([fields.pop(name) for name in "xyz"], axis=-1)
        io.write_vti(args.vti, fields, 1.0 / max(shape))
