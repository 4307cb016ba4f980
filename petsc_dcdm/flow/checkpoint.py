"""The state of a simulation in a file, from which it goes on to the last bit, on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petsc_dcdm.flow.smoke import Smoke
from petsc_dcdm.flow.staggered import Grid
from petsc_dcdm.flow.tank import Tank
from petsc_dcdm.grid.errors import raise_together
from petsc_dcdm.poisson.io import FileError, make_folder

VERSION = 1


def _fields(state: Smoke | Tank) -> dict[str, np.ndarray]:
    """The arrays that make up a state, with their halos; faces beyond the last cells follow from the sides, but for
    open ones.
    """
    names = {f"u{a}": state.u[a] for a in state.grid.axes}
    if isinstance(state, Tank):
        return {**names, "level": state.level}
    return {**names, **{f"before{a}": state.before[a] for a in state.grid.axes}, "density": state.density}


def _place_of_last_faces(grid: Grid, a: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the layer of faces above this rank's last cells along an axis is: in its arrays, in the whole layer."""
    axis = 2 - a
    own = list(grid.inner)
    own[axis] = slice(own[axis].stop, own[axis].stop + 1)
    whole = [slice(o, o + m) for o, m in zip(grid.box.offset, grid.box.shape, strict=True)]
    whole[axis] = slice(0, 1)
    return tuple(own), tuple(whole)


def _last_faces(grid: Grid, field: np.ndarray, a: int) -> np.ndarray:
    """The layer of faces above the last cells along an axis, whole on every rank: that of an open side is a part of the
    state. Collective.
    """
    whole = np.zeros([n if d != 2 - a else 1 for d, n in enumerate(grid.shape)])
    if grid.at_end(a, True):
        own, where = _place_of_last_faces(grid, a)
        whole[where] = field[own]
    return np.asarray(grid.dm.comm.tompi4py().allreduce(whole))


def _put_last_faces(grid: Grid, field: np.ndarray, a: int, whole: np.ndarray) -> None:
    """The way back, into `field`."""
    if grid.at_end(a, True):
        own, where = _place_of_last_faces(grid, a)
        field[own] = whole[where]


def save(path: str | Path, state: Smoke | Tank) -> None:
    """Write a state (.npz). Collective; the file is whole or not there."""
    grid = state.grid
    whole = {name: grid.gather(values) for name, values in _fields(state).items()}
    for a in grid.axes:
        whole[f"u{a}_last"] = _last_faces(grid, state.u[a], a)
        if isinstance(state, Smoke):
            whole[f"before{a}_last"] = _last_faces(grid, state.before[a], a)
    if isinstance(state, Smoke):
        padded = grid.zeros()
        padded[grid.inner] = state.pressure
        whole["pressure"] = grid.gather(padded)
    make_folder(path, grid.dm.comm)
    if grid.dm.comm.rank == 0:
        numbers = [state.time, state.steps, state.pressure_dt if isinstance(state, Smoke) else state.water]
        partial = Path(f"{path}.partial")
        with partial.open("wb") as file:
            known = {name: values for name, values in whole.items() if values is not None}
            np.savez(file, version=VERSION, shape=grid.shape, numbers=np.array(numbers, float), **known)
        partial.replace(path)


def load(path: str | Path, state: Smoke | Tank) -> None:
    """Put what a file holds in the place of a state of the same scene and size. Collective.

    Raises FileError, on all ranks, for a file that is none or of another grid.
    """
    grid, comm = state.grid, state.grid.dm.comm.tompi4py()
    held: dict[str, np.ndarray] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            with np.load(path) as file:
                held = {name: file[name] for name in file.files}
            if tuple(held["shape"]) != grid.shape:
                raise FileError(f"{path} is of a grid (nz, ny, nx) = {tuple(held['shape'])}, not {grid.shape}.")
            if int(held["version"]) != VERSION or not set(_fields(state)) <= set(held):
                raise FileError(f"{path} is the checkpoint of another scene or of another version.")
        except (OSError, ValueError, KeyError) as problem:
            known = isinstance(problem, FileError)
            error = problem if known else FileError(f"{path} cannot be read as a checkpoint: {problem}")
    raise_together(comm, error)
    held = comm.bcast(held)
    assert held is not None
    for name, values in _fields(state).items():
        values[...] = grid.scatter(held[name])
    vectors = [("u", state.u)] + ([("before", state.before)] if isinstance(state, Smoke) else [])
    for name, u in vectors:
        for a in grid.axes:
            _put_last_faces(grid, u[a], a, held[f"{name}{a}_last"])
        grid.fill_faces(u)
    state.time, state.steps = float(held["numbers"][0]), int(held["numbers"][1])
    if isinstance(state, Tank):
        state.water = float(held["numbers"][2])
        return
    state.pressure_dt = float(held["numbers"][2])
    state.pressure = grid.scatter(held["pressure"])[grid.inner].copy()
    state.place_obstacle()
