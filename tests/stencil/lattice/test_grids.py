"""Matrices in any order of their rows are solved as if the cell of each row had been told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, poisson, refused, relative_residual, right_hand_side, solve

from petsc_dcdm.grid.errors import GridError
from petsc_dcdm.stencil.discovery import find_grid

SHAPE = (18, 20, 22)


def holes(shape: tuple[int, int, int]) -> np.ndarray:
    """A ball with a bore and blocks taken out."""
    z, y, x = np.indices(shape)
    middle = [(n - 1) / 2 for n in shape]
    active = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < (0.55 * max(shape)) ** 2
    blocks = np.random.default_rng(4).random([-(-n // 4) for n in shape]) < 0.15
    return active & ~np.kron(blocks, np.ones((4, 4, 4), bool))[: shape[0], : shape[1], : shape[2]]


ACTIVE = holes(SHAPE)
CELLS = np.flatnonzero(ACTIVE)
PLACE = np.unravel_index(CELLS, SHAPE)
ORDERS: dict[str, Callable[[], np.ndarray]] = {
    "lexicographic": lambda: np.arange(CELLS.size),
    "z fastest": lambda: np.lexsort(PLACE),
    "red-black": lambda: np.argsort(sum(PLACE) % 2, kind="stable"),
    "halves along x": lambda: np.argsort(PLACE[2] >= 11, kind="stable"),
    "random": lambda: np.random.default_rng(1).permutation(CELLS.size),
}


def system(order: np.ndarray) -> tuple[PETSc.Mat, PETSc.Vec]:
    A = matrix(*conductances(SHAPE, ACTIVE), cells=CELLS[order])
    b = A.createVecLeft()
    b.setArray(np.random.default_rng(2).standard_normal(CELLS.size)[order])
    return A, b


@pytest.fixture(scope="module")
def told() -> tuple[int, np.ndarray]:
    """Iterations and solution where the cells are told."""
    A, b = system(np.arange(CELLS.size))
    A.compose("dcdm_cells", PETSc.IS().createGeneral(CELLS.astype(PETSc.IntType)))
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid="22,20,18")
    return ksp.getIterationNumber(), x.getArray().copy()


@pytest.mark.parametrize("name", ORDERS)
def test_iterations_are_those_of_cells_that_are_told(name: str, told: tuple[int, np.ndarray]) -> None:
    order = ORDERS[name]()
    A, b = system(order)
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    grid = ksp.getPC().getPythonContext()._system.grid
    assert grid.source == "graph of the matrix" and sorted(grid.shape) == sorted(SHAPE)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8
    assert ksp.getIterationNumber() == told[0]
    np.testing.assert_allclose(x.getArray(), told[1][order], atol=1e-6 * np.abs(told[1]).max())


def pc_for(A: PETSc.Mat) -> PETSc.PC:
    pc = PETSc.PC().create()
    pc.setOperators(A)
    return pc


def test_the_grid_is_kept_for_the_pattern() -> None:
    A, b = system(ORDERS["random"]())
    ksp, _ = solve(A, b)
    grid = ksp.getPC().getPythonContext()._system.grid
    A.scale(2.0)
    ksp.solve(b, b.duplicate())
    assert ksp.getPC().getPythonContext()._system.grid is grid and ksp.getConvergedReason() > 0


def test_zeros_that_are_stored_are_no_couplings_until_they_get_values() -> None:
    """A whole grid in random order whose middle faces are closed first: then opened, with the same pattern."""
    shape, open_again = (1, 12, 14), conductances((1, 12, 14))
    order = np.random.default_rng(3).permutation(168)
    A = matrix(*open_again, cells=order)
    whole = A.copy()
    row, column = np.repeat(np.arange(168), np.diff(A.getValuesCSR()[0])), A.getValuesCSR()[1]
    values = A.getValuesCSR()[2].copy()
    across = (order[row] % 14 < 7) != (order[column] % 14 < 7)
    values[across] = 0.0
    A.setValuesCSR(A.getValuesCSR()[0], column, values)
    A.assemble()
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8
    whole.copy(A)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(whole, x, b) <= 1e-5
    assert sorted(ksp.getPC().getPythonContext()._system.grid.shape) == sorted(shape)


def test_a_grid_that_is_not_the_rows_order_is_found() -> None:
    """A size that is told the other way round, and a DMDA whose order the matrix does not follow."""
    A, b = poisson((1, 9, 12)), right_hand_side(poisson((1, 9, 12)))
    for grid in ("9,12", "12,20"):
        ksp, x = solve(A, b, pc_dcdm_grid=grid)
        assert ksp.getConvergedReason() > 0 and sorted(ksp.getPC().getPythonContext()._system.grid.shape) == [1, 9, 12]
    random = matrix(*conductances((1, 9, 12)), cells=np.random.default_rng(0).permutation(108))
    ksp, _ = solve(random, b, dm=PETSc.DMDA().create([12, 9], stencil_width=1))
    assert ksp.getConvergedReason() > 0


@pytest.mark.parametrize("shape", [SHAPE, (1, 16, 20), (1, 1, 30)])
def test_the_size_of_the_grid_from_the_cells(shape: tuple[int, int, int]) -> None:
    active = holes(shape) if shape[1] > 1 else np.ones(shape, bool)
    cells = np.flatnonzero(active)[np.random.default_rng(5).permutation(int(active.sum()))]
    A = matrix(*conductances(shape, active), cells=cells)
    A.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType)))
    grid = find_grid(pc_for(A), A, None)
    assert grid.shape[1:] == shape[1:] and grid.shape[0] <= shape[0] and (grid.cells == cells).all()
    A.compose("dcdm_cells", PETSc.IS().createGeneral(np.random.default_rng(6).permutation(cells).astype(PETSc.IntType)))
    with pytest.raises(GridError, match="do not tell the size of the grid.*-pc_dcdm_grid"):
        find_grid(pc_for(A), A, None)


def test_couplings_that_come_later_may_show_another_size_of_the_grid() -> None:
    """Cells without a size, no coupling along z at first: the planes lie side by side until the zeros get values."""
    whole = poisson((6, 8, 10))
    begin, column, values = whole.getValuesCSR()
    row = np.repeat(np.arange(480), np.diff(begin))
    A = PETSc.Mat().createAIJ(whole.getSize(), csr=(begin, column, np.where(abs(row - column) == 80, 0.0, values)))
    A.compose("dcdm_cells", PETSc.IS().createGeneral(np.arange(480, dtype=PETSc.IntType)))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8
    assert ksp.getPC().getPythonContext()._system.grid.shape == (1, 48, 10)
    whole.copy(A, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    ksp.setTolerances(rtol=1e-8)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(whole, x, b) <= 1e-8
    assert ksp.getPC().getPythonContext()._system.grid.shape == (6, 8, 10)


def test_cells_from_a_file(tmp_path: Path) -> None:
    order = ORDERS["random"]()
    A, b = system(order)
    np.save(tmp_path / "cells.npy", CELLS[order])
    viewer = PETSc.Viewer().createBinary(str(tmp_path / "cells"), "w")
    PETSc.IS().createGeneral(CELLS[order].astype(PETSc.IntType)).view(viewer)
    viewer.destroy()
    for name in ("cells.npy", "cells"):
        ksp, _ = solve(A, b, pc_dcdm_cells=str(tmp_path / name))
        grid = ksp.getPC().getPythonContext()._system.grid
        assert ksp.getConvergedReason() > 0 and (grid.cells == CELLS[order]).all()
        assert grid.source == "index set dcdm_cells"
    np.save(tmp_path / "short.npy", CELLS[:-1])
    (tmp_path / "other").write_bytes(b"no index set")
    for name, message in (("none", "there is no file"), ("other", "neither"), ("short.npy", "one integer for each")):
        with refused(message):
            solve(A, b, pc_dcdm_cells=str(tmp_path / name))
