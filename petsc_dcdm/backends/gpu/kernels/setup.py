"""Set-up of a level: the field network at every cell, and the conductances of the next level made of what it says.

See `petsc_dcdm.network.fields` and `coarsen` of `petsc_dcdm.network.multigrid` for the mathematics.
"""

import triton
import triton.language as tl

from petsc_dcdm.backends.gpu.kernels.grid import (
    SHAPE,
    above,
    around,
    below,
    beside,
    cell_bits,
    cells_of,
    child,
    coarse_cells,
    extra,
    half_bits,
    low_face,
    place,
    stencil,
)

STEPS = tl.constexpr(4)
TAPS = tl.constexpr(32)
"""Room for a row of three cells, and for the eight features of each: what a product of matrices takes at once."""
FIELD_RANGE = tl.constexpr(0.9)


@triton.jit(do_not_specialize=SHAPE)
def inverse_diagonal(
    out, a0, a1, a2, a3, nx, ny, nz, px, py, pz, bx, by, PACKED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """out = 1 / d where d > 0, else 0."""
    cx, cy, cz = cells_of(tl.program_id(0), nx, ny, bx, by, BLOCK)
    inside = (cx < nx) & (cy < ny) & (cz < nz)
    x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(cx, cy, cz, nx, ny, nz, px, py, pz)
    w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
        a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float32
    )
    d = ((((s + w_x0) + w_x1) + (w_y0 + w_y1)) + w_z0) + w_z1
    tl.store(out + place(cx, cy, cz, nx, ny), tl.where(d > 0, 1.0 / tl.where(d > 0, d, 1.0), 0.0), mask=inside)


@triton.jit
def _features(
    a0, a1, a2, a3, inverse, x, y, z, there, nx, ny, nz, px, py, pz, BLOCK: tl.constexpr, PACKED: tl.constexpr
):
    """Of every cell the features of a row of cells beside it, (BLOCK, TAPS): low and high conductances along x, y, z
    over the diagonal, s over it, whether the cell is active; then those of the next cell. x and there are (BLOCK,
    STEPS), y and z (BLOCK, 1).
    """
    i = place(x, y, z, nx, ny)
    scale = tl.load(inverse + i, mask=there, other=0.0)
    x1, has_x1 = above(x, nx, px)
    y1, has_y1 = above(y, ny, py)
    z1, has_z1 = above(z, nz, pz)
    w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
        a0, a1, a2, a3, x, y, z, x1, has_x1, y1, has_y1, z1, has_z1, there, nx, ny, PACKED, tl.float32
    )
    active = tl.where(scale > 0, 1.0, 0.0)
    even = tl.join(tl.join(w_x0 * scale, w_z0 * scale), tl.join(w_y0 * scale, s * scale))
    odd = tl.join(tl.join(w_x1 * scale, w_z1 * scale), tl.join(w_y1 * scale, active))
    return tl.reshape(tl.join(even, odd), [BLOCK, TAPS])


@triton.jit(do_not_specialize=[*SHAPE, "steps", "pitch"])
def fields(
    omega, more, inverse, a0, a1, a2, a3, conv, conv_bias, hidden, hidden_bias, last, last_bias, base,
    nx, ny, nz, px, py, pz, hx, hy, hz, fx, fy, fz, lx, ly, lz, bx, by, steps, pitch,
    PACKED: tl.constexpr, SEAMS: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, FIELDS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The network at every cell: `steps` smoothing weights over the diagonal to `omega`, as the bits of bfloat16, then
    the factor of s and those of the conductances along x, y, z to `more`; field after field, `pitch` apart.

    A tile has the cells of one place in their coarse cells, (coarse cell, coarse cell, ...): for each of the places,
    the second index of the grid, there is a kernel `conv` (9, TAPS, CHANNELS) that is turned accordingly.
    """
    columns, rows = coarse_cells(nx, hx, fx, lx, SEAMS), coarse_cells(ny, hy, fy, ly, SEAMS)
    planes = coarse_cells(nz, hz, fz, lz, SEAMS)
    qx, qy, qz = cells_of(tl.program_id(0), columns, rows, bx, by, BLOCK)
    turn = tl.program_id(1)
    cx, in_x = child(qx, turn % (1 + hx), hx, nx, fx, lx, SEAMS)
    cy, in_y = child(qy, turn // (1 + hx) % (1 + hy), hy, ny, fy, ly, SEAMS)
    cz, in_z = child(qz, turn // ((1 + hx) * (1 + hy)), hz, nz, fz, lz, SEAMS)
    inside = (qx < columns) & (qy < rows) & (qz < planes) & in_x & in_y & in_z
    channel, tap = tl.arange(0, CHANNELS), tl.arange(0, TAPS)
    step = tl.arange(0, STEPS)[None, :] - 1
    weights = conv + turn * (9 * TAPS * CHANNELS)
    x, has_x = beside(cx[:, None], step, nx, px)
    total = tl.zeros([BLOCK, CHANNELS], tl.float32)
    for row in range(9):
        z, has_z = beside(cz, row // 3 - 1, nz, pz)
        y, has_y = beside(cy, row % 3 - 1, ny, py)
        there = (inside & has_z & has_y)[:, None] & has_x & (step < 2)
        f = _features(
            a0, a1, a2, a3, inverse, x, y[:, None], z[:, None], there, nx, ny, nz, px, py, pz, BLOCK, PACKED
        )  # fmt: skip
        matrix = tl.load(weights + row * (TAPS * CHANNELS) + tap[:, None] * CHANNELS + channel[None, :])
        total += tl.dot(f, matrix, input_precision=PRECISION)
    narrow, field = tl.arange(0, HIDDEN), tl.arange(0, FIELDS)
    h = tl.maximum(total + tl.load(conv_bias + channel)[None, :], 0.0)
    h = tl.dot(h, tl.load(hidden + channel[:, None] * HIDDEN + narrow[None, :]), input_precision=PRECISION)
    h = tl.maximum(h + tl.load(hidden_bias + narrow)[None, :], 0.0)
    o = tl.dot(h, tl.load(last + narrow[:, None] * FIELDS + field[None, :]), input_precision=PRECISION)
    o += tl.load(last_bias + field)[None, :]
    value = tl.load(base + field)[None, :] * (1.0 + FIELD_RANGE * o / (1.0 + tl.abs(o)))
    i = place(cx, cy, cz, nx, ny)
    scale = tl.load(inverse + i, mask=inside, other=0.0)
    at = field.to(tl.int64)[None, :] * pitch + i[:, None]
    tl.store(omega + at, half_bits(value * scale[:, None]), mask=inside[:, None] & (field < steps)[None, :])
    rest = ((field >= steps) & (field < steps + 4))[None, :]
    tl.store(more + at - steps.to(tl.int64) * pitch, value, mask=inside[:, None] & rest)


@triton.jit
def _thin(i, n, halved_ring, first, length, SEAMS: tl.constexpr):
    """2 at the last cell of an odd ring, which is a coarse cell alone and as short as before; else 1."""
    alone = (i == n - 1) & (i * 0 + (n & halved_ring) > 0)
    if SEAMS:
        alone = alone | ((i + first + 1) % length == 0)
    return tl.where(alone, 2.0, 1.0)


@triton.jit(do_not_specialize=[*SHAPE, "pitch"])
def coarsen(
    w_x, w_y, w_z, s, more, a0, a1, a2, a3, nx, ny, nz, px, py, pz, hx, hy, hz, mx, my, sx, sy, sz,
    fx, fy, fz, lx, ly, lz, bx, by, pitch,
    PACKED: tl.constexpr, SEAMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The next level: each conductance the sum over the fine faces it consists of, times the mean factor of both sides;
    s the sum of s times its factor. Tiles are of coarse cells.
    """
    columns, rows = coarse_cells(nx, hx, fx, lx, SEAMS), coarse_cells(ny, hy, fy, ly, SEAMS)
    planes = coarse_cells(nz, hz, fz, lz, SEAMS)
    qx, qy, qz = cells_of(tl.program_id(0), columns, rows, bx, by, BLOCK)
    coarse = (qx < columns) & (qy < rows) & (qz < planes)
    sigma, gamma_x = more, more + pitch.to(tl.int64)
    gamma_y, gamma_z = more + 2 * pitch.to(tl.int64), more + 3 * pitch.to(tl.int64)
    ring_x, ring_y, ring_z = hx & px, hy & py, hz & pz
    sum_x = tl.zeros([BLOCK], tl.float32)
    sum_y = tl.zeros([BLOCK], tl.float32)
    sum_z = tl.zeros([BLOCK], tl.float32)
    sum_s = tl.zeros([BLOCK], tl.float32)
    for number in range((1 + hx) * (1 + hy) * (1 + hz)):
        kx, ky, kz = number % (1 + hx), number // (1 + hx) % (1 + hy), number // ((1 + hx) * (1 + hy))
        cx, in_x = child(qx, kx, hx, nx, fx, lx, SEAMS)
        cy, in_y = child(qy, ky, hy, ny, fy, ly, SEAMS)
        cz, in_z = child(qz, kz, hz, nz, fz, lz, SEAMS)
        inside = coarse & in_x & in_y & in_z
        i = place(cx, cy, cz, nx, ny)
        x0, has_x0 = below(cx, nx, px)
        y0, has_y0 = below(cy, ny, py)
        z0, has_z0 = below(cz, nz, pz)
        bits = cell_bits(a0, i, inside, PACKED)
        # faces inside a coarse cell vanish
        at_x, at_y = inside & has_x0 & (cx * 0 + kx == 0), inside & has_y0 & (cy * 0 + ky == 0)
        at_z = inside & has_z0 & (cz * 0 + kz == 0)
        # and with them those of a ring that has become one cell
        at_x, at_y, at_z = at_x & (cx * 0 + columns > px), at_y & (cy * 0 + rows > py), at_z & (cz * 0 + planes > pz)
        mean = tl.load(gamma_x + i, mask=at_x, other=0.0) * _thin(cx, nx, ring_x, fx, lx, SEAMS)
        mean += tl.load(gamma_x + place(x0, cy, cz, nx, ny), mask=at_x, other=0.0) * _thin(
            x0, nx, ring_x, fx, lx, SEAMS
        )
        sum_x += low_face(a0, a2, bits, 0, i, at_x, PACKED, tl.float32) * (0.5 * mean)
        mean = tl.load(gamma_y + i, mask=at_y, other=0.0) * _thin(cy, ny, ring_y, fy, ly, SEAMS)
        mean += tl.load(gamma_y + place(cx, y0, cz, nx, ny), mask=at_y, other=0.0) * _thin(
            y0, ny, ring_y, fy, ly, SEAMS
        )
        sum_y += low_face(a1, a2, bits, 1, i, at_y, PACKED, tl.float32) * (0.5 * mean)
        mean = tl.load(gamma_z + i, mask=at_z, other=0.0) * _thin(cz, nz, ring_z, fz, lz, SEAMS)
        mean += tl.load(gamma_z + place(cx, cy, z0, nx, ny), mask=at_z, other=0.0) * _thin(
            z0, nz, ring_z, fz, lz, SEAMS
        )
        sum_z += low_face(a2, a2, bits, 2, i, at_z, PACKED, tl.float32) * (0.5 * mean)
        factor = tl.load(sigma + i, mask=inside, other=0.0)
        sum_s += factor * extra(a1, a3, bits, i, inside, PACKED, tl.float32)
    to = place(qx + sx, qy + sy, qz + sz, mx, my)
    tl.store(w_x + to, sum_x, mask=coarse)
    tl.store(w_y + to, sum_y, mask=coarse)
    tl.store(w_z + to, sum_z, mask=coarse)
    tl.store(s + to, sum_s, mask=coarse)
