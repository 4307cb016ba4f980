"""Systems and solutions in files: PETSc binary in and out, and .vti images for ParaView."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from petsc4py import PETSc

VTK_TYPES = {"float32": "Float32", "float64": "Float64", "int32": "Int32", "uint8": "UInt8", "int64": "Int64"}
MAT_CLASSID, VEC_CLASSID, IS_CLASSID = 1211216, 1211214, 1211218
NAMES = {MAT_CLASSID: "a matrix", VEC_CLASSID: "a vector", IS_CLASSID: "an index set"}


class FileError(ValueError):
    """A file that is missing or holds something else; the message is one sentence for the user."""


def _check(path: str | Path, classid: int) -> None:
    """Look at the first number of a PETSc binary file, which says what it holds (big-endian)."""
    path = Path(path)
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    with path.open("rb") as file:
        head = file.read(8)
    found = struct.unpack(">i", head[:4])[0] if len(head) >= 4 else None
    if found == 0 and len(head) == 8 and struct.unpack(">q", head)[0] in NAMES:
        raise FileError(f"{path} was written by a PETSc with 64-bit indices, this one has 32-bit indices.")
    if found not in NAMES:
        raise FileError(f"{path} is not a PETSc binary file (as -ksp_view_mat binary:{path.name} writes it).")
    if found != classid:
        raise FileError(f"{path} holds {NAMES[found]}, where {NAMES[classid]} was expected.")


def load_matrix(path: str | Path, comm: PETSc.Comm | None = None) -> PETSc.Mat:
    """The AIJ matrix of a PETSc binary file, its rows divided evenly. Collective. Raises FileError."""
    _check(path, MAT_CLASSID)
    comm = PETSc.COMM_WORLD if comm is None else comm
    A = PETSc.Mat().create(comm)
    A.setType(PETSc.Mat.Type.AIJ)
    _load(A, path, comm)
    return A


def load_vector(path: str | Path, like: PETSc.Vec) -> PETSc.Vec:
    """The vector of a PETSc binary file, divided as ``like``. Collective. FileError on another length."""
    _check(path, VEC_CLASSID)
    with Path(path).open("rb") as file:
        length = struct.unpack(">ii", file.read(8))[1]
    if length != like.getSize():
        raise FileError(f"{path} holds a vector of length {length}, the matrix has {like.getSize()} rows.")
    v = like.duplicate()
    _load(v, path, like.comm)
    return v


def load_cells(path: str | Path, A: PETSc.Mat) -> PETSc.IS:
    """The index set of a PETSc binary file: a cell number per row of A, divided as A. Collective."""
    _check(path, IS_CLASSID)
    with Path(path).open("rb") as file:
        length = struct.unpack(">ii", file.read(8))[1]
    rows = A.getSize()[0]
    if length != rows:
        raise FileError(f"{path} holds {length} cell numbers, the matrix has {rows} rows.")
    # Every rank reads its own part: ISLoad has its own idea of the division.
    start, end = A.getOwnershipRange()
    own = np.fromfile(path, ">i4", count=end - start, offset=8 + 4 * start).astype(PETSc.IntType)
    return PETSc.IS().createGeneral(own, comm=A.comm)


def _load(thing: PETSc.Mat | PETSc.Vec, path: str | Path, comm: PETSc.Comm) -> None:
    viewer = PETSc.Viewer().createBinary(str(path), "r", comm=comm)
    try:
        thing.load(viewer)
    except PETSc.Error as error:
        raise FileError(f"PETSc cannot read {path}: it is damaged or shorter than it says.") from error
    finally:
        viewer.destroy()


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

    fields: name -> (nz, ny, nx) scalars or (nz, ny, nx, 3) vectors, x fastest, all on the same grid.
    spacing: edge of the cells, one for all axes or one each along x, y, z. Raises ValueError on differing
    grids.
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


def on_grid(x: PETSc.Vec, shape: tuple[int, int, int], cells: PETSc.IS | None) -> np.ndarray | None:
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
        raise FileError(f"The rows do not fit on a grid of {' x '.join(str(n) for n in shape[::-1])} cells.")
    parts = comm.gather((np.asarray(numbers), x.getArray(readonly=True).copy()), root=0)
    if comm.rank != 0:
        return None
    field = np.zeros(total)
    for where, values in parts:
        field[where] = values
    return field.reshape(shape)
