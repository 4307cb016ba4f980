"""Files: PETSc binary in and out, .vti; and the command line that reads and writes them."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("petsc4py")
from harness import ROOT, run_program
from petsc4py import PETSc

from petsc_dcdm import cli
from petsc_dcdm.poisson import dmda, families, io, rhs
from petsc_dcdm.poisson.assemble import System, assemble

AMG = ("-ksp_type", "cg", "-pc_type", "gamg")


@pytest.fixture
def system() -> System:
    dm = dmda.create((5, 6, 7))
    return assemble(families.make("tank", (5, 6, 7), 0, dmda.box_of(dm)), dm, fluid_only=True)


def test_matrix_vector_and_cells_come_back(system: System, tmp_path: Path) -> None:
    b, cells = rhs.make("random", system), system.A.query("dcdm_cells")
    for name, thing in (("A", system.A), ("b", b), ("cells", cells)):
        io.save(tmp_path / "new" / name, thing)
    A = io.load_matrix(tmp_path / "new" / "A")
    assert A.equal(system.A)
    assert io.load_vector(tmp_path / "new" / "b", A.createVecLeft()).equal(b)
    np.testing.assert_array_equal(io.load_cells(tmp_path / "new" / "cells", A).getIndices(), cells.getIndices())
    field = io.on_grid(b, (5, 6, 7), cells)
    assert field is not None
    np.testing.assert_array_equal(field, system.field(b))
    with pytest.raises(io.FileError, match="do not fit on a grid of 7 x 6 x 2"):
        io.on_grid(b, (2, 6, 7), cells)


def write_as(path: Path, thing: PETSc.Mat | PETSc.Vec | PETSc.IS, integer: str, number: str = ">f8") -> None:
    """The file that a PETSc with these indices and scalars writes."""
    if isinstance(thing, PETSc.Mat):
        indptr, indices, values = thing.getValuesCSR()
        integers = [io.MAT_CLASSID, *thing.getSize(), len(values), *np.diff(indptr), *indices]
    elif isinstance(thing, PETSc.Vec):
        integers, values = [io.VEC_CLASSID, thing.getSize()], thing.getArray(readonly=True)
    else:
        integers, values = [io.IS_CLASSID, thing.getSize(), *thing.getIndices()], np.zeros(0)
    path.write_bytes(np.array(integers, integer).tobytes() + values.astype(number).tobytes())


@pytest.mark.parametrize("integer", [">i4", ">i8"])
def test_files_of_32_and_64_bit_petsc(system: System, tmp_path: Path, integer: str) -> None:
    b, cells = rhs.make("random", system), system.A.query("dcdm_cells")
    for name, thing in (("A", system.A), ("b", b), ("cells", cells)):
        write_as(tmp_path / name, thing, integer)
        if np.dtype(integer).itemsize == np.dtype(PETSc.IntType).itemsize:
            io.save(tmp_path / "petsc", thing)
            assert (tmp_path / "petsc").read_bytes() == (tmp_path / name).read_bytes()
    A = io.load_matrix(tmp_path / "A")
    assert A.equal(system.A)
    assert io.load_vector(tmp_path / "b", A.createVecLeft()).equal(b)
    np.testing.assert_array_equal(io.load_cells(tmp_path / "cells", A).getIndices(), cells.getIndices())
    content = (tmp_path / "A").read_bytes()
    for size in (7, 8, 30, 100, len(content) - 8):
        (tmp_path / "short").write_bytes(content[:size])
        with pytest.raises(io.FileError, match="not a PETSc binary file" if size < 8 else "damaged or shorter"):
            io.load_matrix(tmp_path / "short")


def test_more_than_the_indices_can_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PETSc, "IntType", np.int32)
    (tmp_path / "A").write_bytes(struct.pack(">qqqq", io.MAT_CLASSID, 2**31, 2**31, 0))
    with pytest.raises(io.FileError, match="2147483648 rows or columns, more than the 2147483647 .*64-bit-indices"):
        io.load_matrix(tmp_path / "A")
    (tmp_path / "cells").write_bytes(struct.pack(">qqqq", io.IS_CLASSID, 2, 5, 2**32 + 5))
    with pytest.raises(io.FileError, match="4294967302 grid cells"):
        io.load_cells(tmp_path / "cells", PETSc.Mat().createAIJ([2, 2], nnz=1))


@pytest.mark.parametrize("number, message", [(">f4", "of 4 bytes.*single"), (">c16", "of 16 bytes.*complex")])
def test_files_of_other_scalars(system: System, tmp_path: Path, number: str, message: str) -> None:
    b = rhs.make("random", system)
    write_as(tmp_path / "A", system.A, ">i4", number)
    write_as(tmp_path / "b", b, ">i4", number)
    with pytest.raises(io.FileError, match=message):
        io.load_matrix(tmp_path / "A")
    with pytest.raises(io.FileError, match=message):
        io.load_vector(tmp_path / "b", b)


def test_bad_files_are_named(system: System, tmp_path: Path) -> None:
    io.save(tmp_path / "b", rhs.make("random", system))
    io.save(tmp_path / "A", system.A)
    (tmp_path / "text").write_text("hello world")
    (tmp_path / "short").write_bytes((tmp_path / "A").read_bytes()[:100])
    (tmp_path / "dense").write_bytes(struct.pack(">iiii", io.MAT_CLASSID, 2, 2, -1) + bytes(32))
    (tmp_path / "beyond").write_bytes(struct.pack(">7id", io.MAT_CLASSID, 2, 2, 1, 1, 0, 2, 1.0))
    (tmp_path / "fewer").write_bytes(struct.pack(">7id", io.MAT_CLASSID, 2, 2, 2, 1, 0, 0, 1.0))
    for name, message in (
        ("gone", "no file .*gone"),
        ("text", "text is not a PETSc binary file"),
        ("b", "holds a vector, where a matrix was expected"),
        ("short", "damaged or shorter"),
        ("dense", "dense matrix"),
        ("beyond", "damaged"),
        ("fewer", "damaged"),
    ):
        with pytest.raises(io.FileError, match=message):
            io.load_matrix(tmp_path / name)
    other = PETSc.Vec().createMPI(3)
    with pytest.raises(io.FileError, match="the matrix has 3 rows"):
        io.load_vector(tmp_path / "b", other)


def read_vti(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Attributes of the image and its cell fields as (nz, ny, nx[, 3]), with a reader of our own."""
    head, _, rest = path.read_bytes().partition(b'<AppendedData encoding="raw">')
    raw = rest[rest.index(b"_") + 1 :]
    image = ET.fromstring(head.decode() + "</VTKFile>").find("ImageData")
    assert image is not None
    extent = [int(n) for n in image.attrib["WholeExtent"].split()]
    shape = [extent[2 * a + 1] - extent[2 * a] for a in (2, 1, 0)]
    fields = {}
    for array in image.iter("DataArray"):
        start, kind = int(array.attrib["offset"]), np.dtype(array.attrib["type"].lower())
        (size,) = struct.unpack("<Q", raw[start : start + 8])
        values = np.frombuffer(raw[start + 8 : start + 8 + size], kind)
        fields[array.attrib["Name"]] = values.reshape([*shape, *[3] * ("NumberOfComponents" in array.attrib)])
    return dict(image.attrib), fields


def test_vti_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = {
        "p": rng.normal(size=(2, 3, 4)),
        "fluid": rng.integers(0, 2, (2, 3, 4)).astype(np.uint8),
        'u & "v"': rng.normal(size=(2, 3, 4, 3)).astype(np.float32),
    }
    io.write_vti(tmp_path / "x.vti", fields, spacing=(0.5, 1, 2), origin=(1, 2, 3))
    attributes, found = read_vti(tmp_path / "x.vti")
    assert attributes["Spacing"] == "0.5 1 2" and attributes["Origin"] == "1 2 3"
    assert found.keys() == fields.keys()
    for name, values in fields.items():
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(ValueError, match="one grid shape"):
        io.write_vti(tmp_path / "x.vti", {"a": np.zeros((1, 2, 3)), "b": np.zeros((1, 2, 4))})


def test_options_of_petsc_are_told_from_ours() -> None:
    ours, petsc = cli.split_petsc_options(
        "solve --mesh a.obj -ksp_rtol 1e-9 -ksp_monitor --rotate -1,2,3 -mat_shift -1e-3 -log_view --vti x -h".split()
    )
    assert ours == "solve --mesh a.obj --rotate -1,2,3 --vti x -h".split()
    assert petsc == "-ksp_rtol 1e-9 -ksp_monitor -mat_shift -1e-3 -log_view".split()


def command(*argv: str | Path, expect: int = 0) -> str:
    """The command in a process of its own."""
    import sys

    return run_program([sys.executable, "-m", "petsc_dcdm.cli", *argv], expect=expect)


def test_solve_a_mesh_and_the_system_it_wrote(tmp_path: Path) -> None:
    fox = ROOT / "meshes" / "fox.obj"
    write = ("-ksp_view_mat", f"binary:{tmp_path}/A.bin", "-ksp_view_rhs", f"binary:{tmp_path}/b.bin")
    text = command(
        "solve", "--mesh", fox, "--size", "20,16,16", "--vti", tmp_path / "a.vti", "--output", tmp_path / "x.bin",
        *AMG, *write, "-ksp_rtol", "1e-10",
    )  # fmt: skip
    assert "fox.obj, 20 x 16 x 16, 1 rank" in text and "cg + gamg" in text
    _, first = read_vti(tmp_path / "a.vti")
    assert first["velocity"].shape == (16, 16, 20, 3) and not first["fluid"].all()
    command(
        "solve", "--matrix", tmp_path / "A.bin", "--rhs", tmp_path / "b.bin", "--grid", "20,16,16", "--vti",
        tmp_path / "b.vti", *AMG, "-ksp_rtol", "1e-10",
    )  # fmt: skip
    _, second = read_vti(tmp_path / "b.vti")
    np.testing.assert_allclose(second["pressure"], first["pressure"], atol=1e-8)
    A = io.load_matrix(tmp_path / "A.bin")
    x = io.load_vector(tmp_path / "x.bin", A.createVecRight())
    np.testing.assert_array_equal(x.getArray(), first["pressure"].ravel())


@pytest.mark.mpi
def test_solve_on_two_ranks_writes_the_same_field(mpirun: Callable[..., str], tmp_path: Path) -> None:
    code = "import sys; from petsc_dcdm.cli import main; assert main(sys.argv[1:]) == 0"
    for ranks in (1, 2):
        mpirun(
            ranks, code, "solve", "--family", "mixed", "--size", "12,9,10", "--fluid-only", *AMG, "-ksp_rtol", "1e-12",
            "--vti", tmp_path / f"{ranks}.vti",
        )  # fmt: skip
    (_, one), (_, two) = (read_vti(tmp_path / f"{ranks}.vti") for ranks in (1, 2))
    np.testing.assert_array_equal(one["fluid"], two["fluid"])
    np.testing.assert_allclose(one["pressure"], two["pressure"], atol=1e-9)


@pytest.mark.parametrize(
    "argv, message",
    [
        (("solve", "--mesh", "gone.obj"), "petsc-dcdm: There is no mesh file gone.obj."),
        (("solve", "--family", "lake"), "petsc-dcdm: There is no family 'lake'"),
        (("solve", "--family", "box", "--size", "0"), "petsc-dcdm: --size '0' is no grid"),
        (("solve", "--family", "box", "--rhs", "flow", "--size", "4"), "petsc-dcdm: A uniform stream"),
        (("solve", "--family", "box", "--grid", "3,3"), "petsc-dcdm: --grid belongs to --matrix."),
        (("solve", "--matrix", "gone.bin"), "petsc-dcdm: There is no file gone.bin."),
        (("solve",), "one of the arguments --mesh --family --matrix is required"),
        (("solve", "--mesh", "x", "--position", "1,2"), "not three numbers"),
        (("fly",), "invalid choice: 'fly'"),
        ((), "required: COMMAND"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(argv: tuple[str, ...], message: str) -> None:
    text = command(*argv, expect=2)
    assert message in text and "Traceback" not in text


def test_a_solver_that_does_not_converge_is_said() -> None:
    text = command("solve", "--family", "box", "--size", "12", *AMG, "-ksp_max_it", "1", "-ksp_rtol", "1e-12", expect=1)
    assert "DIVERGED_ITS" in text


def test_info_and_warmup() -> None:
    text = command("info")
    assert "PETSc" in text and "weights: " in text and "kernel cache" in text
    assert "petsc-dcdm: " in command("info", "gone", expect=2)
    assert "ready" in command("warmup")


def test_help_imports_nothing_heavy() -> None:
    import sys

    code = "import sys, petsc_dcdm.cli as c\ntry: c.main(['solve', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'petsc4py', 'numpy', 'trimesh') if m in sys.modules])"
    assert "['numpy']" in run_program([sys.executable, "-c", code])
