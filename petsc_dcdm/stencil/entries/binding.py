"""The structures of csr.h for ctypes, and the functions that read them."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.structures import mirrors


@mirrors("csr_matrix")
class Matrix(ctypes.Structure):
    """csr_matrix."""

    _fields_ = [
        ("rows", ctypes.c_int64),
        ("indptr", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("wide", ctypes.c_int64),
        ("first_column", ctypes.c_int64),
        ("shift", ctypes.c_int64),
        ("off_indptr", ctypes.c_void_p),
        ("off_indices", ctypes.c_void_p),
        ("off_values", ctypes.c_void_p),
        ("cell", ctypes.c_void_p),
        ("ascending", ctypes.c_int64),
        ("line", ctypes.c_int64),
        ("first_cell", ctypes.c_int64),
        ("ghosts", ctypes.c_int64),
        ("ghost_column", ctypes.c_void_p),
        ("ghost_cell", ctypes.c_void_p),
        ("ghost_dirichlet", ctypes.c_void_p),
        ("dirichlet", ctypes.c_void_p),
        ("nx", ctypes.c_int64),
        ("ny", ctypes.c_int64),
        ("nz", ctypes.c_int64),
        ("ring", ctypes.c_int64 * 3),
        ("sign", ctypes.c_double),
        ("scale", ctypes.c_double),
        ("rounding", ctypes.c_double),
        ("sum_rounding", ctypes.c_double),
    ]


@mirrors("csr_output")
class Output(ctypes.Structure):
    """csr_output."""

    _fields_ = [
        ("w_low", ctypes.c_void_p * 3),
        ("w_high", ctypes.c_void_p * 3),
        ("s", ctypes.c_void_p),
        ("diagonal", ctypes.c_void_p),
        ("single", ctypes.c_int64),
        ("pitch_y", ctypes.c_int64),
        ("pitch_z", ctypes.c_int64),
        ("origin", ctypes.c_int64),
        ("box", ctypes.c_int64 * 3),
        ("offset", ctypes.c_int64 * 3),
        ("cells", ctypes.c_void_p),
        ("s_index", ctypes.c_void_p),
        ("c", ctypes.c_double * 3),
        ("s_value", ctypes.c_void_p),
        ("s_count", ctypes.c_int32),
        ("misfits", ctypes.c_int32),
        ("hidden", ctypes.c_int64),
    ]


@mirrors("csr_report")
class Report(ctypes.Structure):
    """csr_report."""

    _fields_ = [
        ("code", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("column", ctypes.c_int64),
        ("value", ctypes.c_double),
        ("max_diagonal", ctypes.c_double),
        ("w_min", ctypes.c_double * 3),
        ("w_max", ctypes.c_double * 3),
        ("w_sum", ctypes.c_double * 3),
        ("w_count", ctypes.c_int64 * 3),
        ("extra", ctypes.c_int64),
        ("stiff", ctypes.c_int64),
        ("least_sum", ctypes.c_double),
        ("most_sum", ctypes.c_double),
        ("least_diagonal", ctypes.c_double),
        ("small_sums", ctypes.c_double * 2),
        ("inexact", ctypes.c_int64),
        ("wrapped", ctypes.c_int64),
        ("symmetry", ctypes.c_uint64),
    ]


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    i64, i32, f64, p = ctypes.c_int64, ctypes.c_int, ctypes.c_double, ctypes.c_void_p
    m, out, report = map(ctypes.POINTER, (Matrix, Output, Report))
    signatures = {
        "dcdm_csr_dirichlet": (None, [m, p, i64, i64, i64, i32]),
        "dcdm_csr_penalties": (i64, [m, p, f64, i32]),
        "dcdm_csr_diagonals": (None, [m, p, i64, p, i32]),
        "dcdm_csr_fixed": (i64, [m, p, p, i32]),
        "dcdm_some_at": (i32, [p, p, i64]),
        "dcdm_csr_some_diagonal": (f64, [m, i64]),
        "dcdm_csr_sign": (f64, [m]),
        "dcdm_csr_outside": (i64, [m, p, i64, i32]),
        "dcdm_csr_without_dirichlet": (i32, [m, p, i64, p, i32, p, p, p, i32]),
        "dcdm_csr_without_ghosts": (None, [m, p, i64, *[p] * 4, i32]),
        "dcdm_csr_offsets": (i64, [m, p, i64, i32]),
        "dcdm_lattice_rows": (i64, [m, p, ctypes.POINTER(i64), ctypes.POINTER(ctypes.c_uint64), i32]),
        "dcdm_csr_extract": (None, [m, out, report, i32]),
        "dcdm_csr_nearest": (None, [m, out, p, i64, i64, p, ctypes.POINTER(f64), report, i32]),
    }
    return declared(library(), signatures)


def pointer(a: np.ndarray | None) -> int | None:
    """The address of an array, NULL for none."""
    if a is None:
        return None
    return address_of(a) if a.flags.c_contiguous else a.ctypes.data


def set_box(out: Output, offset: Shape, shape: Shape) -> None:
    """Grid mode: where the padded arrays of the box are."""
    out.pitch_y, out.pitch_z = shape[2] + 2, (shape[1] + 2) * (shape[2] + 2)
    out.origin = out.pitch_z + out.pitch_y + 1
    for axis in range(3):
        out.offset[axis], out.box[axis] = offset[2 - axis], shape[2 - axis]
