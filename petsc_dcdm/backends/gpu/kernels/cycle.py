"""The passes of a cycle over a level, in single precision; see `petsc_dcdm.network.multigrid` for the mathematics."""

import triton
import triton.language as tl

from petsc_dcdm.backends.gpu.kernels.grid import (
    SHAPE,
    around,
    cell_bits,
    cells_of,
    child,
    coarse_cells,
    parent,
    place,
    product,
    stencil,
    values,
)

PLAIN = tl.constexpr(0)
FIRST = tl.constexpr(1)
CORRECT = tl.constexpr(2)
SCALE = tl.constexpr(3)
CHILDREN = tl.constexpr(8)
"""Room for the cells of a coarse cell."""


@triton.jit
def _iterate(
    x, r, before, e, cx, cy, cz, there, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz, nx, ny,
    MODE: tl.constexpr, SEAMS: tl.constexpr,
):  # fmt: skip
    """What is smoothed, at the cells cx, cy, cz."""
    i = place(cx, cy, cz, nx, ny)
    if MODE == FIRST:
        weight = tl.load(before + i, mask=there, other=0.0).to(tl.float32)
        return weight * tl.load(r + i, mask=there, other=0.0)
    v = tl.load(x + i, mask=there, other=0.0)
    if MODE == CORRECT:
        qx = parent(cx, hx, sx, fx, lx, SEAMS)
        qy = parent(cy, hy, sy, fy, ly, SEAMS)
        qz = parent(cz, hz, sz, fz, lz, SEAMS)
        v += tl.load(e + place(qx, qy, qz, mx, my), mask=there, other=0.0)
    return v


@triton.jit(do_not_specialize=SHAPE)
def smooth(
    out, x, r, omega, before, e, a0, a1, a2, a3, nx, ny, nz, px, py, pz, hx, hy, hz, mx, my, sx, sy, sz,
    fx, fy, fz, lx, ly, lz, bx, by,
    MODE: tl.constexpr, LAST: tl.constexpr, PACKED: tl.constexpr, SEAMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = v + omega (r - A v), omega already over the diagonal.

    PLAIN: v is `x`. FIRST: v = `before` r, the step before this one, which began with 0. CORRECT: v is `x` and the
    coarse correction `e`. SCALE: v is 0. LAST: 0 at inactive cells, where omega is 0.
    """
    cx, cy, cz = cells_of(tl.program_id(0), nx, ny, bx, by, BLOCK)
    inside = (cx < nx) & (cy < ny) & (cz < nz)
    i = place(cx, cy, cz, nx, ny)
    right = tl.load(r + i, mask=inside, other=0.0)
    weight = tl.load(omega + i, mask=inside, other=0.0).to(tl.float32)
    if MODE == SCALE:
        result = weight * right
    else:
        x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(
            cx, cy, cz, nx, ny, nz, px, py, pz
        )
        w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
            a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float32
        )
        v = _iterate(
            x, r, before, e, cx, cy, cz, inside, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_x0 = _iterate(
            x, r, before, e, x0, cy, cz, inside & has_x0, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_x1 = _iterate(
            x, r, before, e, x1, cy, cz, inside & has_x1, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_y0 = _iterate(
            x, r, before, e, cx, y0, cz, inside & has_y0, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_y1 = _iterate(
            x, r, before, e, cx, y1, cz, inside & has_y1, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_z0 = _iterate(
            x, r, before, e, cx, cy, z0, inside & has_z0, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        v_z1 = _iterate(
            x, r, before, e, cx, cy, z1, inside & has_z1, hx, hy, hz, mx, my, sx, sy, sz, fx, fy, fz, lx, ly, lz,
            nx, ny, MODE, SEAMS,
        )  # fmt: skip
        y = product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
        result = v + weight * (right - y)
    if LAST:
        result = tl.where(weight > 0, result, 0.0)
    tl.store(out + i, result, mask=inside)


@triton.jit(do_not_specialize=SHAPE)
def restrict(
    out, x, r, omega, a0, a1, a2, a3, nx, ny, nz, px, py, pz, hx, hy, hz, mx, my, sx, sy, sz,
    fx, fy, fz, lx, ly, lz, bx, by,
    PACKED: tl.constexpr, SEAMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = the residual r - A x at active cells, added up over the children of every coarse cell."""
    columns, rows = coarse_cells(nx, hx, fx, lx, SEAMS), coarse_cells(ny, hy, fy, ly, SEAMS)
    qx, qy, qz = cells_of(tl.program_id(0), columns, rows, bx, by, BLOCK)
    coarse = (qx < columns) & (qy < rows) & (qz < coarse_cells(nz, hz, fz, lz, SEAMS))
    number = tl.arange(0, CHILDREN)[:, None]
    cx, has_x = child(qx[None, :], number % (1 + hx), hx, nx, fx, lx, SEAMS)
    cy, has_y = child(qy[None, :], number // (1 + hx) % (1 + hy), hy, ny, fy, ly, SEAMS)
    cz, has_z = child(qz[None, :], number // ((1 + hx) * (1 + hy)), hz, nz, fz, lz, SEAMS)
    inside = coarse[None, :] & has_x & has_y & has_z & (number < (1 + hx) * (1 + hy) * (1 + hz))
    i = place(cx, cy, cz, nx, ny)
    x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(cx, cy, cz, nx, ny, nz, px, py, pz)
    w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
        a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float32
    )
    v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1 = values(
        x, cx, cy, cz, x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1,
        inside, nx, ny, tl.float32,
    )  # fmt: skip
    y = product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
    if PACKED:
        active = cell_bits(a0, i, inside, PACKED) != 0
    else:
        active = tl.load(omega + i, mask=inside, other=0.0).to(tl.float32) > 0
    residual = tl.where(active, tl.load(r + i, mask=inside, other=0.0) - y, 0.0)
    tl.store(out + place(qx + sx, qy + sy, qz + sz, mx, my), tl.sum(residual, 0), mask=coarse)


@triton.jit(do_not_specialize=["n", "pitch"])
def dense(out, r, cell, inverse, n, pitch, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out = inverse r at the cells `cell` of the coarsest level, of which there are n; other cells stay as they are."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, n, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        known = tl.load(r + tl.load(cell + column, mask=column < n, other=0), mask=column < n, other=0.0)
        at = inverse + row.to(tl.int64)[:, None] * pitch + column[None, :]
        total += tl.load(at, mask=(row < n)[:, None] & (column < n)[None, :], other=0.0) * known[None, :]
    tl.store(out + tl.load(cell + row, mask=row < n, other=0), tl.sum(total, 1), mask=row < n)
