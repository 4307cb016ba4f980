"""`petsc-dcdm flow`: smoke and water, whose pressure goes through the solver that PETSc's options name."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petsc_dcdm.commands.arguments import triple
from petsc_dcdm.grid.shape import NOT_PERIODIC, axes_argument, shape_option

if TYPE_CHECKING:
    import numpy as np

    from petsc_dcdm.flow.smoke import Smoke
    from petsc_dcdm.flow.tank import Tank

EPILOG = (
    "Every option with a single dash goes to PETSc: -ksp_type cg -pc_type gamg, say, for another pressure solver. "
    "Without any it is petsc_dcdm.KSP to a relative residual of 1e-7. Under mpirun the grid is split over the ranks."
)


def add_flow_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``flow``; the parsed arguments carry the function to call as ``run``."""
    parser = subparsers.add_parser("flow", help="simulate smoke or water", epilog=EPILOG)
    parser.add_argument("scene", help="plume, tunnel, cavity, vortices or sloshing")
    parser.add_argument("--size", default="64", metavar="N | NX,NY[,NZ]", help="cells (default 64)")
    parser.add_argument("--steps", type=int, default=100, help="time steps (default 100)")
    parser.add_argument("--mesh", metavar="FILE", help="a closed surface as the obstacle (OBJ, STL, PLY, ...)")
    parser.add_argument("--rotate", type=triple, default=(0.0, 0.0, 0.0), metavar="X,Y,Z", help="degrees, x first")
    parser.add_argument("--moving", action="store_true", help="the obstacle swings: the matrix changes every step")
    parser.add_argument(
        "--periodic", type=axes_argument, default=NOT_PERIODIC, metavar="X,Y", help="axes without ends, as x,y"
    )
    parser.add_argument("--reynolds", type=float, default=100.0, help="of cavity and vortices (default 100)")
    out = parser.add_argument_group("output")
    out.add_argument("--frames", metavar="DIR", help="a picture of every few steps, and all as one animated file")
    out.add_argument("--vti", metavar="DIR", help="fields of every few steps for ParaView")
    out.add_argument("--every", type=int, default=2, help="steps between pictures and fields (default 2)")
    out.add_argument("--checkpoint", metavar="FILE", help="keep the last state here, every 20 steps and at the end")
    out.add_argument("--restart", metavar="FILE", help="go on from a checkpoint")
    out.add_argument("--json", metavar="FILE", help="iterations, times and divergence of every step")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate. Collective. Exit code 1 if a pressure solve did not converge; ValueError on bad input."""
    import petsc4py

    petsc4py.init(["petsc-dcdm", *args.petsc_options])
    from petsc4py import PETSc

    from petsc_dcdm.commands.petsc_options import say_unused
    from petsc_dcdm.flow import checkpoint
    from petsc_dcdm.flow.scenes import SCENES

    if args.scene not in SCENES:
        raise ValueError(f"There is no scene {args.scene!r}; the scenes are {', '.join(SCENES)}.")
    state = SCENES[args.scene](_wishes(args))
    if args.restart:
        checkpoint.load(args.restart, state)
    output = _Output(args, state)
    rows: list[dict[str, Any]] = []
    with _Progress(args.steps, PETSc.COMM_WORLD.rank) as progress:
        for number in range(args.steps):
            start = time.perf_counter()
            solved = state.step()
            seconds = time.perf_counter() - start
            rows.append({"step": state.steps, "time": state.time, **asdict(solved), "step_s": seconds})
            progress.show(rows[-1])
            if solved.reason <= 0:
                break
            if number % args.every == 0:
                output.write()
            if args.checkpoint and (state.steps % 20 == 0 or number == args.steps - 1):
                checkpoint.save(args.checkpoint, state)
    output.finish()
    say_unused(args.petsc_options, PETSc.COMM_WORLD)
    converged = all(row["reason"] > 0 for row in rows)
    if PETSc.COMM_WORLD.rank == 0:
        _report(args, rows)
    state.destroy()
    return 0 if converged else 1


def _wishes(args: argparse.Namespace) -> Any:
    from petsc_dcdm.flow.scenes import Wishes
    from petsc_dcdm.poisson import mesh

    surface = mesh.load(args.mesh) if args.mesh else None
    shape = shape_option("size", args.size)
    return Wishes(shape, surface, args.rotate, args.moving, args.periodic, args.reynolds)


class _Output:
    """Pictures and fields of a state, written by rank 0. Methods are collective."""

    def __init__(self, args: argparse.Namespace, state: Smoke | Tank) -> None:
        from petsc_dcdm.poisson.io import make_folder

        self._args, self._state = args, state
        self._pictures: list[np.ndarray] = []
        self._series: list[dict[str, Any]] = []
        for folder in (args.frames, args.vti):
            if folder:
                make_folder(Path(folder) / "x", state.grid.dm.comm)

    def write(self) -> None:
        if not (self._args.frames or self._args.vti):
            return
        from petsc_dcdm.flow.staggered import centred
        from petsc_dcdm.flow.tank import Tank
        from petsc_dcdm.grid.faces import interior

        state, grid = self._state, self._state.grid
        water = isinstance(state, Tank)
        shown = grid.gather(state.level if isinstance(state, Tank) else state.density)
        padded = grid.zeros()
        padded[grid.inner] = interior(state.projection.solid[0])
        solid = grid.gather(padded)
        velocity = [grid.gather(component) for component in centred(state.u)] if self._args.vti else []
        if shown is None or solid is None:
            return
        if self._args.frames:
            self._draw(shown, solid > 0, water)
        if self._args.vti:
            self._fields(shown, solid > 0, velocity, water)

    def _draw(self, shown: np.ndarray, solid: np.ndarray, water: bool) -> None:
        from petsc_dcdm.flow import picture

        image = picture.water_picture(shown) if water else picture.smoke_picture(shown, solid)
        self._pictures.append(image)
        picture.write_png(Path(self._args.frames) / f"{self._state.steps:06d}.png", image)

    def _fields(self, shown: np.ndarray, solid: np.ndarray, velocity: list[Any], water: bool) -> None:
        import numpy as np

        from petsc_dcdm.poisson.io import write_vti

        name = f"{self._state.steps:06d}.vti"
        fields = {"level" if water else "smoke": shown, "solid": solid.astype(np.uint8)}
        fields["velocity"] = np.stack(velocity, axis=-1)
        write_vti(Path(self._args.vti) / name, fields, 1.0 / max(self._state.grid.shape))
        self._series.append({"name": name, "time": self._state.time})
        series = {"file-series-version": "1.0", "files": self._series}
        (Path(self._args.vti) / "series.vti.series").write_text(json.dumps(series, indent=1) + "\n")

    def finish(self) -> None:
        """The animated file of all pictures."""
        if self._pictures:
            from petsc_dcdm.flow.picture import write_gif

            write_gif(Path(self._args.frames) / "animation.gif", self._pictures, len(self._pictures) / 20)


class _Progress:
    """A bar with the time to go, on rank 0."""

    def __init__(self, steps: int, rank: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True), disable=rank > 0)
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, row: dict[str, Any]) -> None:
        said = (
            f"{row['iterations']} iterations, set-up {1e3 * row['setup_s']:.0f} ms, "
            f"solve {1e3 * row['solve_s']:.0f} ms, divergence left {row['divergence']:.0e}"
        )
        self._bar.update(self._task, advance=1, description=said)


def _report(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """On rank 0: sums for people, every step in a file."""
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    if not rows:
        return
    pressure, total = sum(r["setup_s"] + r["solve_s"] for r in rows), sum(r["step_s"] for r in rows)
    iterations = sorted(r["iterations"] for r in rows)
    print(
        f"{len(rows)} steps in {total:.1f} s, pressure {pressure:.1f} s of it; iterations {iterations[len(rows) // 2]} "
        f"(at most {iterations[-1]}), divergence left at most {max(r['divergence'] for r in rows):.1e}"
    )
