"""Systems and solutions in files: PETSc binary in and out, and .vti images for ParaView."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.shape import Shape, size_text

VTK_TYPES = {"float32": "Float32", "float64": "Float64", "int32": "Int32", "uint8": "UInt8", "int64": "Int64"}
MAT_CLASSID, VEC_CLASSID, IS_CLASSID = 1211216, 1211214, 1211218
NAMES = {MAT_CLASSID: "a matrix", VEC_CLASSID: "a vector", IS_CLASSID: "an index set"}
HEADS = {MAT_CLASSID: 3, VEC_CLASSID: 1, IS_CLASSID: 1}
"""Integers that follow the class id: rows, columns and entries of a matrix, the length of the others."""
OTHER_NUMBERS = {4: "of single precision", 16: "with complex scalars or of quadruple precision"}


class FileError(ValueError):
    """A file that is missing or holds something else; the message is one sentence for the user."""


@dataclass(frozen=True)
class _Binary:
    """A PETSc binary file. It is big-endian, and its integers are as wide as the indices of the PETSc that wrote it,
    4 or 8 bytes; it does not say which, and PETSc reads its own width only.

    head: the integers that follow the class id. Positions are in bytes.
    """

    path: Path
    integer: np.dtype
    head: tuple[int, ...]
    size: int

    @classmethod
    def open(cls, path: str | Path, classid: int) -> _Binary:
        """Reads the head. Raises FileError where the file holds something else than ``classid``."""
        path = Path(path)
        if not path.is_file():
            raise FileError(f"There is no file {path}.")
        with path.open("rb") as file:
            head = file.read(32)
        ids = {np.dtype(kind): np.frombuffer(head, kind, 1)[0] for kind in (">i4", ">i8") if len(head) >= 8}
        integer, found = next(((kind, int(n)) for kind, n in ids.items() if n in NAMES), (np.dtype(">i4"), 0))
        if not found:
            raise FileError(f"{path} is not a PETSc binary file (as -ksp_view_mat binary:{path.name} writes it).")
        if found != classid:
            raise FileError(f"{path} holds {NAMES[found]}, where {NAMES[classid]} was expected.")
        made = cls(path, integer, (), path.stat().st_size)
        made.require((1 + HEADS[classid]) * integer.itemsize)
        numbers = np.frombuffer(head, integer, 1 + HEADS[classid])[1:]
        return replace(made, head=tuple(int(n) for n in numbers))

    @property
    def body(self) -> int:
        """Where the head ends."""
        return (1 + len(self.head)) * self.integer.itemsize

    def require(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise self.damaged()

    def require_doubles(self, position: int, count: int) -> None:
        """That the file goes on with ``count`` doubles, as far as its size can tell."""
        if count and (self.size - position) / count in OTHER_NUMBERS:
            width = (self.size - position) // count
            raise FileError(
                f"{self.path} holds numbers of {width} bytes, as a PETSc {OTHER_NUMBERS[width]} writes them; only "
                "those of a real double-precision PETSc, of 8 bytes, can be read."
            )
        self.require(position + 8 * count)

    def damaged(self) -> FileError:
        return FileError(f"{self.path} cannot be read: it is damaged or shorter than it says.")

    def integers(self, position: int, count: int) -> np.ndarray:
        return np.fromfile(self.path, self.integer, count, offset=position).astype(np.int64)

    def doubles(self, position: int, count: int) -> np.ndarray:
        return np.fromfile(self.path, ">f8", count, offset=position).astype(np.float64)


# Every rank reads its own rows, so that files of both widths of integers can be read, and ISLoad has its own idea of
# the division.


def load_matrix(path: str | Path, comm: PETSc.Comm | None = None) -> PETSc.Mat:
    """The AIJ matrix of a PETSc binary file, its rows divided evenly. Collective. Raises FileError."""
    file = _Binary.open(path, MAT_CLASSID)
    rows, columns, entries = file.head
    if entries < 0:
        raise FileError(f"{path} holds a dense matrix, where a sparse one was expected.")
    _fits_indices(path, max(rows, columns), "rows or columns")
    width, comm = file.integer.itemsize, PETSc.COMM_WORLD if comm is None else comm
    mpi = comm.tompi4py()
    here, _ = PETSc.Sys.splitOwnership(rows, comm=comm)
    first = mpi.scan(here) - here
    file.require(file.body + rows * width)
    indptr = np.concatenate(([0], np.cumsum(file.integers(file.body + first * width, here), dtype=np.int64)))
    own = int(indptr[-1])
    before, total = mpi.scan(own) - own, mpi.allreduce(own)
    if entries not in (total, np.iinfo(np.int32).max):  # 32-bit PETSc writes the latter for all it cannot count
        raise file.damaged()
    _fits_indices(path, mpi.allreduce(own, MPI.MAX), "entries on one rank")
    position = file.body + rows * width
    file.require_doubles(position + total * width, total)
    indices = file.integers(position + before * width, own)
    if mpi.allreduce(bool(own) and not 0 <= indices.min() <= indices.max() < columns, MPI.LOR):
        raise file.damaged()
    values = file.doubles(position + total * width + 8 * before, own)
    csr = indptr.astype(PETSc.IntType), indices.astype(PETSc.IntType), values
    return PETSc.Mat().createAIJ(((here, rows), (None, columns)), csr=csr, comm=comm)


def _fits_indices(path: str | Path, number: int, what: str) -> None:
    most = np.iinfo(PETSc.IntType).max
    if number > most:
        raise FileError(
            f"{path} has {number} {what}, more than the {most} that PETSc can count here: take one configured with "
            "--with-64-bit-indices."
        )


def load_vector(path: str | Path, like: PETSc.Vec) -> PETSc.Vec:
    """The vector of a PETSc binary file, divided as ``like``. Collective. FileError on another length."""
    file = _Binary.open(path, VEC_CLASSID)
    (length,) = file.head
    if length != like.getSize():
        raise FileError(f"{path} holds a vector of length {length}, the matrix has {like.getSize()} rows.")
    file.require_doubles(file.body, length)
    start, end = like.getOwnershipRange()
    v = like.duplicate()
    v.setArray(file.doubles(file.body + 8 * start, end - start))
    return v


def load_cells(path: str | Path, A: PETSc.Mat) -> PETSc.IS:
    """The index set of a PETSc binary file: a cell number per row of A, divided as A. Collective."""
    file = _Binary.open(path, IS_CLASSID)
    (length,), rows, width = file.head, A.getSize()[0], file.integer.itemsize
    if length != rows:
        raise FileError(f"{path} holds {length} cell numbers, the matrix has {rows} rows.")
    file.require(file.body + length * width)
    start, end = A.getOwnershipRange()
    cells = file.integers(file.body + start * width, end - start)
    _fits_indices(path, A.comm.tompi4py().allreduce(int(cells.max(initial=-1)), MPI.MAX) + 1, "grid cells")
    return PETSc.IS().createGeneral(cells.astype(PETSc.IntType), comm=A.comm)


def save(path: str | Path, thing: PETSc.Mat | PETSc.Vec | PETSc.IS) -> None:
    """Write one matrix, vector or index set as a PETSc binary file, making its folder. Collective."""
    make_folder(path, thing.comm)
    viewer = PETSc.Viewer().createBinary(str(path), "w", comm=thing.comm)
    thing.view(viewer)
    viewer.destroy()


def make_folder(path: str | Path, comm: PETSc.Comm) -> None:
    """Make the folder of a file on rank 0 and wait for it on the others. Collective."""
    if comm.rank == 0:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    comm.tompi4py().barrier()


def write_vti(
    path: str | Path,
    fields: Mapping[str, np.ndarray],
    spacing: float | tuple[float, float, float] = 1.0,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write cell data on a uniform grid as a VTK image (.vti, XML with one raw appended block). Not
    collective.

    Parameters
    ----------
    fields
        name -> (nz, ny, nx) scalars or (nz, ny, nx, 3) vectors, x fastest, all on the same grid.
    spacing
        edge of the cells, one for all axes or one each along x, y, z

    Raises ValueError on differing grids.
    """
    arrays = {name: np.ascontiguousarray(values) for name, values in fields.items()}
    shapes = {values.shape[:3] for values in arrays.values()}
    if len(shapes) != 1:
        raise ValueError(f"All fields of a .vti need one grid shape, not {sorted(shapes)}.")
    nz, ny, nx = shapes.pop()
    extent = f"0 {nx} 0 {ny} 0 {nz}"
    edges = (spacing,) * 3 if isinstance(spacing, int | float) else spacing
    lines, offset = [], 0
    for name, values in arrays.items():
        what = "" if values.ndim == 3 else f' NumberOfComponents="{values.shape[3]}"'
        kind = VTK_TYPES[str(values.dtype)]
        lines.append(f'<DataArray type="{kind}" Name={quoteattr(name)}{what} format="appended" offset="{offset}"/>')
        offset += 8 + values.nbytes
    head = f"""<?xml version="1.0"?>
<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<ImageData WholeExtent="{extent}" Origin="{_numbers(origin)}" Spacing="{_numbers(edges)}">
<Piece Extent="{extent}"><PointData/><CellData>
{chr(10).join(lines)}
</CellData></Piece></ImageData>
<AppendedData encoding="raw">
_"""
    with Path(path).open("wb") as file:
        file.write(head.encode())
        for values in arrays.values():
            file.write(struct.pack("<Q", values.nbytes))
            file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        file.write(b"\n</AppendedData></VTKFile>\n")


def _numbers(values: tuple[float, float, float]) -> str:
    return " ".join(f"{v:.17g}" for v in values)


def on_grid(x: PETSc.Vec, shape: Shape, cells: PETSc.IS | None) -> np.ndarray | None:
    """A vector as a field (nz, ny, nx) on rank 0 (0 where there is no row), None elsewhere. Collective; for
    output only.

    cells: global cell number of each local row; None where rows are the cells in order. FileError if they do
    not fit.
    """
    comm = x.comm.tompi4py()
    numbers = np.arange(*x.getOwnershipRange()) if cells is None else cells.getIndices()
    total = int(np.prod(shape))
    bad = len(numbers) and (numbers.min() < 0 or numbers.max() >= total)
    if comm.allreduce(int(bad)) or (cells is None and x.getSize() != total):
        raise FileError(f"The rows do not fit on a grid of {size_text(shape)} cells.")
    parts = comm.gather((np.asarray(numbers), x.getArray(readonly=True).copy()), root=0)
    if comm.rank != 0:
        return None
    field = np.zeros(total)
    for where, values in parts:
        field[where] = values
    return field.reshape(shape)
