"""The steps of the method in double precision: sums over the grid, what follows from them, and the moves of x and r.

Sums are taken in two stages, over the tiles of a program and over the programs, whose number does not depend on the
device: the same numbers every time. All scalars stay on the device, in `state`:

    norm, energy, slope    what a step reports: |r|, d . A d, r . d
    ok, alpha, mean, unit  whether there is a direction; how far; the mean of it on active cells, where that counts;
                           1 / |r| before the step
    beta ..., slots ...    of each of the last directions; then energy, mean and whether it is there, of each slot
"""

import triton
import triton.language as tl

from petsc_dcdm.backends.gpu.kernels.grid import around, cells_of, place, product, stencil, values

NORM, ENERGY, SLOPE, OK, ALPHA, MEAN, UNIT = (tl.constexpr(i) for i in range(7))
BETA = tl.constexpr(7)
SLOTS = tl.constexpr(16)
"""Where in the state the slots begin, three numbers each."""

_SHAPE = ["nx", "ny", "nz", "px", "py", "pz", "bx", "by", "tiles", "turn"]


@triton.jit
def slot_of(turn, age: tl.constexpr, HISTORY: tl.constexpr):
    """The slot of the direction that was taken 1 + age steps ago; that of the next one is `turn`."""
    return (turn + HISTORY - age) % (HISTORY + 1)


@triton.jit
def _mine(own, x, y, z):
    """Whether cells are of this rank's box; own: begin and end along x, y, z."""
    return (
        (x >= tl.load(own)) & (x < tl.load(own + 1)) & (y >= tl.load(own + 2)) & (y < tl.load(own + 3))
        & (z >= tl.load(own + 4)) & (z < tl.load(own + 5))
    )  # fmt: skip


@triton.jit
def _past(before, state, i, inside, turn, pitch, age: tl.constexpr, HISTORY: tl.constexpr):
    """A direction of the past; 0 if there is none of that age yet."""
    slot = slot_of(turn, age, HISTORY)
    known = tl.load(state + SLOTS + 3 * slot + 2).to(tl.int32)
    return tl.load(before + slot.to(tl.int64) * pitch + i, mask=inside & (i < pitch * known), other=0.0)


@triton.jit(do_not_specialize=[*_SHAPE, "pitch"])
def dots(
    sums, d, r, before, state, a0, a1, a2, a3, factor, own, nx, ny, nz, px, py, pz, bx, by, tiles, turn, pitch,
    HISTORY: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of every program: d . A d, d . r, the sums of d and of r where d is not 0, and p . A d and p . r for every p."""
    programs, program = tl.num_programs(0), tl.program_id(0)
    scale = tl.load(factor)
    zero = tl.zeros([BLOCK], tl.float64)
    energy, slope, sum_d, sum_r = zero, zero, zero, zero
    q0, q1, q2, q3, r0, r1, r2, r3 = zero, zero, zero, zero, zero, zero, zero, zero
    for tile in range(program, tiles, programs):
        cx, cy, cz = cells_of(tile, nx, ny, bx, by, BLOCK)
        inside = (cx < nx) & (cy < ny) & (cz < nz)
        i = place(cx, cy, cz, nx, ny)
        x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(
            cx, cy, cz, nx, ny, nz, px, py, pz
        )
        w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
            a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float64
        )
        v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1 = values(
            d, cx, cy, cz, x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1,
            inside, nx, ny, tl.float64,
        )  # fmt: skip
        q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
        mine = inside & _mine(own, cx, cy, cz)
        q = tl.where(mine, q, 0.0)
        residual = tl.load(r + i, mask=mine, other=0.0)
        energy += v * q
        slope += v * residual
        sum_d += tl.where(mine, v, 0.0)
        sum_r += tl.where(v != 0, residual, 0.0)
        if HISTORY > 0:
            p = _past(before, state, i, inside, turn, pitch, 0, HISTORY)
            q0 += p * q
            r0 += p * residual
        if HISTORY > 1:
            p = _past(before, state, i, inside, turn, pitch, 1, HISTORY)
            q1 += p * q
            r1 += p * residual
        if HISTORY > 2:
            p = _past(before, state, i, inside, turn, pitch, 2, HISTORY)
            q2 += p * q
            r2 += p * residual
        if HISTORY > 3:
            p = _past(before, state, i, inside, turn, pitch, 3, HISTORY)
            q3 += p * q
            r3 += p * residual
    tl.store(sums + program, tl.sum(energy))
    tl.store(sums + programs + program, tl.sum(slope))
    tl.store(sums + 2 * programs + program, tl.sum(sum_d))
    tl.store(sums + 3 * programs + program, tl.sum(sum_r))
    if HISTORY > 0:
        tl.store(sums + 4 * programs + program, tl.sum(q0))
        tl.store(sums + 5 * programs + program, tl.sum(r0))
    if HISTORY > 1:
        tl.store(sums + 6 * programs + program, tl.sum(q1))
        tl.store(sums + 7 * programs + program, tl.sum(r1))
    if HISTORY > 2:
        tl.store(sums + 8 * programs + program, tl.sum(q2))
        tl.store(sums + 9 * programs + program, tl.sum(r2))
    if HISTORY > 3:
        tl.store(sums + 10 * programs + program, tl.sum(q3))
        tl.store(sums + 11 * programs + program, tl.sum(r3))


@triton.jit(do_not_specialize=["programs"])
def add_up(totals, sums, programs, BLOCK: tl.constexpr):
    """The sums of all programs, a program for each number."""
    number = tl.program_id(0)
    part = tl.arange(0, BLOCK)
    values = tl.load(sums + number * programs + part, mask=part < programs, other=0.0)
    tl.store(totals + number, tl.sum(values))


@triton.jit(do_not_specialize=["turn"])
def line_search(state, totals, closed, turn, HISTORY: tl.constexpr):
    """From the totals of `dots` to the step. closed: the number of active cells where constants are a null space of the
    matrix, else 0: what rounding leaves of them in r does not count in r . d.
    """
    cells = tl.load(closed)
    energy, slope = tl.load(totals), tl.load(totals + 1)
    sum_r = tl.load(totals + 3)
    mean = tl.where(cells > 0, tl.load(totals + 2) / tl.maximum(cells, 1.0), 0.0)
    slope -= mean * sum_r
    for age in tl.static_range(HISTORY):
        at = state + SLOTS + 3 * slot_of(turn, age, HISTORY)
        known = tl.load(at + 2) != 0
        p_q, p_r = tl.load(totals + 4 + 2 * age), tl.load(totals + 5 + 2 * age)
        beta = tl.where(known, p_q / tl.where(known, tl.load(at), 1.0), 0.0)
        mean_p = tl.where(known, tl.load(at + 1), 0.0)
        energy -= beta * p_q
        slope -= beta * (p_r - mean_p * sum_r)
        mean -= beta * mean_p
        tl.store(state + BETA + age, beta)
    infinite = float("inf")
    finite = (tl.abs(energy) < infinite) & (tl.abs(slope) < infinite)
    good = finite & (energy != 0) & (slope != 0)
    tl.store(state + ENERGY, energy)
    tl.store(state + SLOPE, slope)
    tl.store(state + MEAN, mean)
    tl.store(state + UNIT, 1.0 / tl.load(state + NORM))
    tl.store(state + OK, tl.where(good, 1.0, 0.0).to(tl.float64))
    tl.store(state + ALPHA, tl.where(good, slope / tl.where(good, energy, 1.0), 0.0))


@triton.jit
def _conjugate(d, before, state, i, there, turn, pitch, HISTORY: tl.constexpr):
    """d - sum of beta p at places `i`."""
    v = tl.load(d + i, mask=there, other=0.0).to(tl.float64)
    for age in tl.static_range(HISTORY):
        v -= tl.load(state + BETA + age) * _past(before, state, i, there, turn, pitch, age, HISTORY)
    return v


@triton.jit(do_not_specialize=[*_SHAPE, "pitch"])
def step(
    sums, x, r, right, d, before, state, a0, a1, a2, a3, factor, own,
    nx, ny, nz, px, py, pz, bx, by, tiles, turn, pitch,
    HISTORY: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """d' = d - sum of beta p to its slot; x += alpha d', r -= alpha A d' at active cells, and `right`, what the next
    cycle is of, r over the norm before; of every program r . r and d' . A d'. Nothing moves without a direction.
    """
    programs, program = tl.num_programs(0), tl.program_id(0)
    good = tl.load(state + OK).to(tl.int32)
    alpha, unit, scale = tl.load(state + ALPHA), tl.load(state + UNIT), tl.load(factor)
    square = tl.zeros([BLOCK], tl.float64)
    energy = tl.zeros([BLOCK], tl.float64)
    for tile in range(program, tiles, programs):
        cx, cy, cz = cells_of(tile, nx, ny, bx, by, BLOCK)
        inside = (cx < nx * good) & (cy < ny) & (cz < nz)
        i = place(cx, cy, cz, nx, ny)
        x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(
            cx, cy, cz, nx, ny, nz, px, py, pz
        )
        w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
            a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float64
        )
        active = inside & _mine(own, cx, cy, cz) & (w_x0 + w_x1 + w_y0 + w_y1 + w_z0 + w_z1 + s > 0)
        v = _conjugate(d, before, state, i, inside, turn, pitch, HISTORY)
        v_x0 = _conjugate(d, before, state, place(x0, cy, cz, nx, ny), inside & has_x0, turn, pitch, HISTORY)
        v_x1 = _conjugate(d, before, state, place(x1, cy, cz, nx, ny), inside & has_x1, turn, pitch, HISTORY)
        v_y0 = _conjugate(d, before, state, place(cx, y0, cz, nx, ny), inside & has_y0, turn, pitch, HISTORY)
        v_y1 = _conjugate(d, before, state, place(cx, y1, cz, nx, ny), inside & has_y1, turn, pitch, HISTORY)
        v_z0 = _conjugate(d, before, state, place(cx, cy, z0, nx, ny), inside & has_z0, turn, pitch, HISTORY)
        v_z1 = _conjugate(d, before, state, place(cx, cy, z1, nx, ny), inside & has_z1, turn, pitch, HISTORY)
        q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
        residual = tl.load(r + i, mask=active, other=0.0) - alpha * q
        tl.store(before + (turn.to(tl.int64) * pitch + i), v, mask=inside)
        tl.store(x + i, tl.load(x + i, mask=active, other=0.0) + alpha * v, mask=active)
        tl.store(r + i, residual, mask=active)
        tl.store(right + i, residual * unit, mask=active)
        square += tl.where(active, residual * residual, 0.0)
        energy += tl.where(active, v * q, 0.0)
    tl.store(sums + program, tl.sum(square))
    tl.store(sums + programs + program, tl.sum(energy))


@triton.jit(do_not_specialize=["turn"])
def end_step(state, totals, turn):
    """|r| after the step, and the direction in its slot."""
    if tl.load(state + OK) != 0:
        at = state + SLOTS + 3 * turn
        tl.store(state + NORM, tl.sqrt(tl.load(totals)))
        tl.store(at, tl.load(totals + 1))
        tl.store(at + 1, tl.load(state + MEAN))
        tl.store(at + 2, 1.0)


@triton.jit(do_not_specialize=[*_SHAPE])
def residual(
    sums, r, b, x, a0, a1, a2, a3, factor, own, nx, ny, nz, px, py, pz, bx, by, tiles,
    PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """r = b - A x at active cells; of every program r . r there."""
    programs, program = tl.num_programs(0), tl.program_id(0)
    scale = tl.load(factor)
    square = tl.zeros([BLOCK], tl.float64)
    for tile in range(program, tiles, programs):
        cx, cy, cz = cells_of(tile, nx, ny, bx, by, BLOCK)
        inside = (cx < nx) & (cy < ny) & (cz < nz)
        i = place(cx, cy, cz, nx, ny)
        x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1 = around(
            cx, cy, cz, nx, ny, nz, px, py, pz
        )
        w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil(
            a0, a1, a2, a3, cx, cy, cz, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny, PACKED, tl.float64
        )
        active = inside & _mine(own, cx, cy, cz) & (w_x0 + w_x1 + w_y0 + w_y1 + w_z0 + w_z1 + s > 0)
        v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1 = values(
            x, cx, cy, cz, x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1,
            inside, nx, ny, tl.float64,
        )  # fmt: skip
        q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
        rest = tl.load(b + i, mask=active, other=0.0) - q
        tl.store(r + i, rest, mask=active)
        square += tl.where(active, rest * rest, 0.0)
    tl.store(sums + program, tl.sum(square))


@triton.jit(do_not_specialize=["n"])
def scaled(out, a, scale, omega, n, BLOCK: tl.constexpr):
    """out = scale a where omega is not 0, else 0, in whatever precision each has; scale is a number on the device."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    active = tl.load(omega + i, mask=i < n, other=0.0).to(tl.float32) > 0
    value = tl.load(a + i, mask=(i < n) & active, other=0.0).to(tl.float64) * tl.load(scale)
    tl.store(out + i, value, mask=i < n)
