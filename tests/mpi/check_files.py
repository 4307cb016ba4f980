"""What PETSc writes is read back, divided as before, whatever the width of the file's integers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.poisson import io

RANKS = (1, 3)

comm = MPI.COMM_WORLD
kept = tempfile.TemporaryDirectory() if comm.rank == 0 else None
folder = Path(comm.bcast(kept and kept.name))


def chain(n: int) -> tuple[PETSc.Mat, PETSc.Vec, PETSc.IS]:
    A = PETSc.Mat().createAIJ([n, n], nnz=3, comm=PETSc.COMM_WORLD)
    first, last = A.getOwnershipRange()
    for row in range(first, last):
        for column in range(max(row - 1, 0), min(row + 2, n)):
            A.setValue(row, column, 10.0 * row + column)
    A.assemble()
    b = A.createVecLeft()
    b.setArray(np.arange(first, last) + 0.5)
    return A, b, PETSc.IS().createGeneral(np.arange(last, first, -1, dtype=PETSc.IntType), comm=A.comm)


def other_width(path: Path, integers: int) -> None:
    """The first ``integers`` of the file in the width of the other kind of PETSc."""
    own = np.dtype(PETSc.IntType).newbyteorder(">")
    content = path.read_bytes()
    numbers = np.frombuffer(content, own, integers)
    path.write_bytes(numbers.astype(">i4" if own.itemsize == 8 else ">i8").tobytes() + content[numbers.nbytes :])


def test_both_widths() -> None:
    for n in (2, 3, 10):  # two rows on three ranks: one has none
        A, b, cells = chain(n)
        for width in ("own", "other"):
            for name, thing, integers in (("A", A, 4 + n + 3 * n - 2), ("b", b, 2), ("cells", cells, 2 + n)):
                path = folder / f"{name}-{n}-{width}"
                io.save(path, thing)
                if width == "other" and comm.rank == 0:
                    other_width(path, integers)
                comm.barrier()
                if name == "A":
                    read = io.load_matrix(path)
                    assert read.getOwnershipRange() == A.getOwnershipRange() and read.equal(A), (n, width)
                elif name == "b":
                    assert io.load_vector(path, b).equal(b), (n, width)
                else:
                    found = io.load_cells(path, A).getIndices()
                    np.testing.assert_array_equal(found, cells.getIndices())


def test_a_bad_column_is_told_on_all_ranks() -> None:
    path = folder / "A"
    if comm.rank == 0:
        numbers = [io.MAT_CLASSID, 4, 4, 4, 1, 1, 1, 1, 0, 1, 2, 4]
        path.write_bytes(np.array(numbers, ">i4").tobytes() + bytes(32))
    comm.barrier()
    try:
        io.load_matrix(path)
    except io.FileError as error:
        assert "damaged" in str(error)
    else:
        raise AssertionError("column 4 of a 4 x 4 matrix was taken")
