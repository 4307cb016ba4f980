"""The steps of the method in double precision: sums over the grid, what follows from them, and the moves of x and r.

A program walks along z through columns of cells, tile after tile of them and `planes` cells at a time, and keeps what
it has of three planes: two of six neighbours are there already. Sums are taken in two stages, over what a program walks
through and over the programs, whose number does not depend on the device: the same numbers every time. All scalars stay
on the device, in `state`:

    norm, energy, slope    what a step reports: |r|, d . A d, r . d
    ok, alpha, mean, unit  whether there is a direction; how far; the mean of it on active cells, where that counts;
                           1 / |r| before the step
    turn                   the slot of the next direction
    beta ..., slots ...    of each of the last directions; then energy, mean and whether it is there, of each slot
"""

import triton
import triton.language as tl

from petsc_dcdm.backends.gpu.kernels.grid import above, below, column_of, constants, product, stencil_at

NORM, ENERGY, SLOPE, OK, ALPHA, MEAN, UNIT, TURN = (tl.constexpr(i) for i in range(8))
BETA = tl.constexpr(8)
SLOTS = tl.constexpr(16)
"""Where in the state the slots begin, three numbers each."""

_SHAPE = ["nx", "ny", "nz", "px", "py", "pz", "bx", "tiles", "planes"]


@triton.jit
def slot_of(turn, age: tl.constexpr, HISTORY: tl.constexpr):
    """The slot of the direction that was taken 1 + age steps ago; that of the next one is `turn`."""
    return (turn + HISTORY - age) % (HISTORY + 1)


@triton.jit
def _beside(cx, cy, nx, ny, px, py):
    """Of columns and of each neighbour of theirs in the plane the place there; and whether the neighbour is there."""
    x0, has_x0 = below(cx, nx, px)
    x1, has_x1 = above(cx, nx, px)
    y0, has_y0 = below(cy, ny, py)
    y1, has_y1 = above(cy, ny, py)
    row = cy * nx
    return row + cx, row + x0, has_x0, row + x1, has_x1, y0 * nx + cx, has_y0, y1 * nx + cx, has_y1


@triton.jit
def _mine(own, flat, x, y):
    """Which columns are of this rank's box; own: begin and end along x, y, z."""
    return flat & (x >= tl.load(own)) & (x < tl.load(own + 1)) & (y >= tl.load(own + 2)) & (y < tl.load(own + 3))


@triton.jit
def _past(before, state, turn, pitch, age: tl.constexpr, HISTORY: tl.constexpr):
    """A direction of the past, and the number of its cells: 0 if there is none of that age yet."""
    if age >= HISTORY:
        return before, pitch * 0
    slot = slot_of(turn, age, HISTORY)
    return before + slot.to(tl.int64) * pitch, pitch * tl.load(state + SLOTS + 3 * slot + 2).to(tl.int32)


@triton.jit
def _of_past(p, n, i, there):
    """A direction of the past at places `i`; 0 if it has no cells."""
    return tl.load(p + i, mask=there & (i < n), other=0.0)


@triton.jit
def _neighbours(a, x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z1, has_z1, flat):
    """What an array has at the places of five neighbours, 0 where there is none; the sixth is known from the plane
    before.
    """
    v_x0 = tl.load(a + x0, mask=flat & has_x0, other=0.0).to(tl.float64)
    v_x1 = tl.load(a + x1, mask=flat & has_x1, other=0.0).to(tl.float64)
    v_y0 = tl.load(a + y0, mask=flat & has_y0, other=0.0).to(tl.float64)
    v_y1 = tl.load(a + y1, mask=flat & has_y1, other=0.0).to(tl.float64)
    v_z1 = tl.load(a + z1, mask=flat & has_z1, other=0.0).to(tl.float64)
    return v_x0, v_x1, v_y0, v_y1, v_z1


@triton.jit(do_not_specialize=[*_SHAPE, "pitch"])
def dots(
    sums, d, r, before, state, a0, a1, a2, a3, factor, own,
    nx, ny, nz, px, py, pz, bx, tiles, planes, pitch,
    HISTORY: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of every program: d . A d, d . r, the sums of d and of r where d is not 0, and p . A d and p . r for every p."""
    programs, program, size = tl.num_programs(0), tl.program_id(0), nx * ny
    c_x, c_y, c_z = constants(a2, PACKED, tl.float64)
    scale, first, last = tl.load(factor), tl.load(own + 4), tl.load(own + 5)
    turn = tl.load(state + TURN).to(tl.int32)
    p0, n0 = _past(before, state, turn, pitch, 0, HISTORY)
    p1, n1 = _past(before, state, turn, pitch, 1, HISTORY)
    p2, n2 = _past(before, state, turn, pitch, 2, HISTORY)
    p3, n3 = _past(before, state, turn, pitch, 3, HISTORY)
    zero = tl.zeros([BLOCK], tl.float64)
    energy, slope, sum_d, sum_r = zero, zero, zero, zero
    q0, q1, q2, q3, r0, r1, r2, r3 = zero, zero, zero, zero, zero, zero, zero, zero
    for walk in range(program, tiles * ((nz + planes - 1) // planes), programs):
        cx, cy = column_of(walk % tiles, nx, bx, BLOCK)
        flat = (cx < nx) & (cy < ny)
        column = _mine(own, flat, cx, cy)
        at, at_x0, has_x0, at_x1, has_x1, at_y0, has_y0, at_y1, has_y1 = _beside(cx, cy, nx, ny, px, py)
        begin = walk // tiles * planes
        z0, has_z0 = below(begin + cx * 0, nz, pz)
        v_z0 = tl.load(d + z0 * size + at, mask=flat & has_z0, other=0.0).to(tl.float64)
        v = tl.load(d + begin * size + at, mask=flat, other=0.0).to(tl.float64)
        for plane in range(begin, tl.minimum(begin + planes, nz)):
            cz, base = plane + cx * 0, plane * size
            z1, has_z1 = above(cz, nz, pz)
            i, i_x1, i_y1, i_z1 = base + at, base + at_x1, base + at_y1, z1 * size + at
            w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil_at(
                a0, a1, a2, a3, c_x, c_y, c_z, i, i_x1, has_x1, i_y1, has_y1, i_z1, has_z1, flat, PACKED, tl.float64
            )
            v_x0, v_x1, v_y0, v_y1, v_z1 = _neighbours(
                d, base + at_x0, has_x0, i_x1, has_x1, base + at_y0, has_y0, i_y1, has_y1, i_z1, has_z1, flat
            )
            q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
            mine = column & (cz >= first) & (cz < last)
            q = tl.where(mine, q, 0.0)
            residual = tl.load(r + i, mask=mine, other=0.0)
            energy += v * q
            slope += v * residual
            sum_d += tl.where(mine, v, 0.0)
            sum_r += tl.where(v != 0, residual, 0.0)
            if HISTORY > 0:
                p = _of_past(p0, n0, i, flat)
                q0 += p * q
                r0 += p * residual
            if HISTORY > 1:
                p = _of_past(p1, n1, i, flat)
                q1 += p * q
                r1 += p * residual
            if HISTORY > 2:
                p = _of_past(p2, n2, i, flat)
                q2 += p * q
                r2 += p * residual
            if HISTORY > 3:
                p = _of_past(p3, n3, i, flat)
                q3 += p * q
                r3 += p * residual
            v_z0, v = v, v_z1
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


@triton.jit
def line_search(state, totals, closed, HISTORY: tl.constexpr):
    """From the totals of `dots` to the step. closed: the number of active cells where constants are a null space of the
    matrix, else 0: what rounding leaves of them in r does not count in r . d.
    """
    cells, turn = tl.load(closed), tl.load(state + TURN).to(tl.int32)
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
def _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, i, there, HISTORY: tl.constexpr):
    """d - sum of beta p at places `i`."""
    v = tl.load(d + i, mask=there, other=0.0).to(tl.float64)
    if HISTORY > 0:
        v -= b0 * _of_past(p0, n0, i, there)
    if HISTORY > 1:
        v -= b1 * _of_past(p1, n1, i, there)
    if HISTORY > 2:
        v -= b2 * _of_past(p2, n2, i, there)
    if HISTORY > 3:
        v -= b3 * _of_past(p3, n3, i, there)
    return v


@triton.jit(do_not_specialize=[*_SHAPE, "pitch"])
def step(
    sums, x, r, right, d, before, state, a0, a1, a2, a3, factor, own,
    nx, ny, nz, px, py, pz, bx, tiles, planes, pitch,
    HISTORY: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """d' = d - sum of beta p to its slot; x += alpha d', r -= alpha A d' at active cells, and `right`, what the next
    cycle is of, r over the norm before; of every program r . r and d' . A d'. Nothing moves without a direction.
    """
    programs, program, size = tl.num_programs(0), tl.program_id(0), nx * ny
    c_x, c_y, c_z = constants(a2, PACKED, tl.float64)
    good = tl.load(state + OK).to(tl.int32)
    alpha, unit, scale = tl.load(state + ALPHA), tl.load(state + UNIT), tl.load(factor)
    first, last, turn = tl.load(own + 4), tl.load(own + 5), tl.load(state + TURN).to(tl.int32)
    p0, n0 = _past(before, state, turn, pitch, 0, HISTORY)
    p1, n1 = _past(before, state, turn, pitch, 1, HISTORY)
    p2, n2 = _past(before, state, turn, pitch, 2, HISTORY)
    p3, n3 = _past(before, state, turn, pitch, 3, HISTORY)
    b0, b1 = tl.load(state + BETA), tl.load(state + BETA + 1)
    b2, b3 = tl.load(state + BETA + 2), tl.load(state + BETA + 3)
    to = before + turn.to(tl.int64) * pitch
    square = tl.zeros([BLOCK], tl.float64)
    energy = tl.zeros([BLOCK], tl.float64)
    for walk in range(program, tiles * ((nz + planes - 1) // planes), programs):
        cx, cy = column_of(walk % tiles, nx, bx, BLOCK)
        flat = (cx < nx * good) & (cy < ny)
        column = _mine(own, flat, cx, cy)
        at, at_x0, has_x0, at_x1, has_x1, at_y0, has_y0, at_y1, has_y1 = _beside(cx, cy, nx, ny, px, py)
        begin = walk // tiles * planes
        z0, has_z0 = below(begin + cx * 0, nz, pz)
        v_z0 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, z0 * size + at, flat & has_z0, HISTORY)
        v = _conjugate(
            d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, begin * size + at, flat, HISTORY
        )  # fmt: skip
        for plane in range(begin, tl.minimum(begin + planes, nz)):
            cz, base = plane + cx * 0, plane * size
            z1, has_z1 = above(cz, nz, pz)
            i, i_x1, i_y1, i_z1 = base + at, base + at_x1, base + at_y1, z1 * size + at
            w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil_at(
                a0, a1, a2, a3, c_x, c_y, c_z, i, i_x1, has_x1, i_y1, has_y1, i_z1, has_z1, flat, PACKED, tl.float64
            )
            active = column & (w_x0 + w_x1 + w_y0 + w_y1 + w_z0 + w_z1 + s > 0) & (cz >= first) & (cz < last)
            v_x0 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, base + at_x0, flat & has_x0, HISTORY)
            v_x1 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, i_x1, flat & has_x1, HISTORY)
            v_y0 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, base + at_y0, flat & has_y0, HISTORY)
            v_y1 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, i_y1, flat & has_y1, HISTORY)
            v_z1 = _conjugate(d, p0, p1, p2, p3, n0, n1, n2, n3, b0, b1, b2, b3, i_z1, flat & has_z1, HISTORY)
            q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
            residual = tl.load(r + i, mask=active, other=0.0) - alpha * q
            tl.store(to + i, v, mask=flat)
            tl.store(x + i, tl.load(x + i, mask=active, other=0.0) + alpha * v, mask=active)
            tl.store(r + i, residual, mask=active)
            tl.store(right + i, residual * unit, mask=active)
            square += tl.where(active, residual * residual, 0.0)
            energy += tl.where(active, v * q, 0.0)
            v_z0, v = v, v_z1
    tl.store(sums + program, tl.sum(square))
    tl.store(sums + programs + program, tl.sum(energy))


@triton.jit
def end_step(state, totals, HISTORY: tl.constexpr):
    """|r| after the step, the direction in its slot, and the slot of the next one."""
    if tl.load(state + OK) != 0:
        turn = tl.load(state + TURN).to(tl.int32)
        at = state + SLOTS + 3 * turn
        tl.store(state + NORM, tl.sqrt(tl.load(totals)))
        tl.store(at, tl.load(totals + 1))
        tl.store(at + 1, tl.load(state + MEAN))
        tl.store(at + 2, 1.0)
        tl.store(state + TURN, ((turn + 1) % (HISTORY + 1)).to(tl.float64))


@triton.jit(do_not_specialize=[*_SHAPE])
def residual(
    sums, r, b, x, a0, a1, a2, a3, factor, own, nx, ny, nz, px, py, pz, bx, tiles, planes,
    PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """r = b - A x at active cells; of every program r . r there."""
    programs, program, size = tl.num_programs(0), tl.program_id(0), nx * ny
    c_x, c_y, c_z = constants(a2, PACKED, tl.float64)
    scale, first, last = tl.load(factor), tl.load(own + 4), tl.load(own + 5)
    square = tl.zeros([BLOCK], tl.float64)
    for walk in range(program, tiles * ((nz + planes - 1) // planes), programs):
        cx, cy = column_of(walk % tiles, nx, bx, BLOCK)
        flat = (cx < nx) & (cy < ny)
        column = _mine(own, flat, cx, cy)
        at, at_x0, has_x0, at_x1, has_x1, at_y0, has_y0, at_y1, has_y1 = _beside(cx, cy, nx, ny, px, py)
        begin = walk // tiles * planes
        z0, has_z0 = below(begin + cx * 0, nz, pz)
        v_z0 = tl.load(x + z0 * size + at, mask=flat & has_z0, other=0.0)
        v = tl.load(x + begin * size + at, mask=flat, other=0.0)
        for plane in range(begin, tl.minimum(begin + planes, nz)):
            cz, base = plane + cx * 0, plane * size
            z1, has_z1 = above(cz, nz, pz)
            i, i_x1, i_y1, i_z1 = base + at, base + at_x1, base + at_y1, z1 * size + at
            w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s = stencil_at(
                a0, a1, a2, a3, c_x, c_y, c_z, i, i_x1, has_x1, i_y1, has_y1, i_z1, has_z1, flat, PACKED, tl.float64
            )
            active = column & (w_x0 + w_x1 + w_y0 + w_y1 + w_z0 + w_z1 + s > 0) & (cz >= first) & (cz < last)
            v_x0, v_x1, v_y0, v_y1, v_z1 = _neighbours(
                x, base + at_x0, has_x0, i_x1, has_x1, base + at_y0, has_y0, i_y1, has_y1, i_z1, has_z1, flat
            )
            q = scale * product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1)
            rest = tl.load(b + i, mask=active, other=0.0) - q
            tl.store(r + i, rest, mask=active)
            square += tl.where(active, rest * rest, 0.0)
            v_z0, v = v, v_z1
    tl.store(sums + program, tl.sum(square))


@triton.jit(do_not_specialize=["n"])
def scaled(out, a, scale, omega, n, BLOCK: tl.constexpr):
    """out = scale a where omega is not 0, else 0, in whatever precision each has; scale is a number on the device."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    active = tl.load(omega + i, mask=i < n, other=0.0).to(tl.float32) > 0
    value = tl.load(a + i, mask=(i < n) & active, other=0.0).to(tl.float64) * tl.load(scale)
    tl.store(out + i, value, mask=i < n)
