/* The rows of an AIJ matrix as runs of cells on a grid line, with all checks on what they couple to; and rows that
 * repeat others. Included by csr.c. */
#ifndef DCDM_CSR_ROWS_H
#define DCDM_CSR_ROWS_H

#include <math.h>

#include "csr.h"

/* A row's place on the grid: its cell, the strides to its neighbours (0 along an axis one cell long, where nothing may
 * couple), and whether there is a neighbour, in the order low x, high x, low y, ... */
typedef struct {
    int64_t cell, step[3];
    int inside[6];
} row_place;

/* The side on which a cell at one end of a grid line has the other end for its neighbour, that many cells on; -1 if
 * there is none. */
static int wrapped_side(const csr_matrix *m, const row_place *at, int64_t distance) {
    const int64_t n[3] = {m->nx, m->ny, m->nz};
    for (int axis = 0; axis < 3; axis++) {
        const int64_t length = n[axis] > 2 ? (n[axis] - 1) * at->step[axis] : 0;
        if (!length) continue;
        if (distance == length && !at->inside[2 * axis]) return 2 * axis;
        if (distance == -length && !at->inside[2 * axis + 1]) return 2 * axis + 1;
    }
    return -1;
}

/* Rows of consecutive cells on one grid line, entries by place: low and high x, y, z, diagonal; as in the matrix. */
enum { RUN = 256, DIAGONAL = 6 };
typedef struct {
    double v[7][RUN];
} row_run;

/* What the entries of one row add up to. */
typedef struct {
    double total, lowest, magnitude, diagonal;
    int64_t wrong;
} row_sums;

/* One entry that is not on the diagonal: to a local row, or (local < 0) to a ghost, -1 if nobody knows it. */
INLINE void read_coupling(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t, csr_report *report,
                          row_sums *sums, double value, int64_t local, int64_t ghost, int64_t column) {
    const double v = m->sign * value;
    if (v == 0) return;
    if (local < 0 && ghost < 0) {
        report_error(report, CSR_OUTSIDE, r, column, v);
        return;
    }
    const int64_t there = local < 0 ? m->ghost_cell[ghost] : cell_of(m, local);
    const int lone = local < 0 ? m->ghost_dirichlet[ghost] : m->dirichlet[local];
    const int64_t distance = there - at->cell;
    const int high = distance > 0;
    const int64_t length = high ? distance : -distance;
    const int axis = length == at->step[0] ? 0 : length == at->step[1] ? 1 : length == at->step[2] ? 2 : 3;
    const int beside = axis < 3 && at->inside[2 * axis + high];
    const int side = beside ? 2 * axis + high : wrapped_side(m, at, distance);
    if (side < 0) {
        report_error(report, isfinite(v) ? CSR_NOT_NEIGHBOUR : CSR_NOT_FINITE, r, column, v);
        return;
    }
    const int both = beside && m->ring[axis] && (axis == 0 ? m->nx : axis == 1 ? m->ny : m->nz) == 2;
    if (both || !beside) report->wrapped |= 1 << side / 2;
    if (v > -sums->lowest) sums->lowest = -v, sums->wrong = column;
    if (lone) return;
    if (v > 0) {
        report->inexact = 1;
        return;
    }
    run->v[side][t] = both ? value / 2 : value;
    if (both) run->v[side ^ 1][t] = value / 2;
    sums->total -= v;
}

/* Any row, with all checks, into place t of the run: couplings to Dirichlet rows, and of them, as zero. */
static NOINLINE void read_row(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t,
                                               csr_report *report) {
    const int wide = (int)m->wide, uncoupled = m->dirichlet[r];
    row_sums sums = {.wrong = -1};
    for (int f = 0; f < 7; f++) run->v[f][t] = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift, column = local + m->first_column;
        sums.magnitude += fabs(m->values[e]);
        if (local == r) sums.diagonal = m->sign * m->values[e];
        else if (uncoupled) continue;
        else if (local >= 0 && local < m->rows)
            read_coupling(m, r, at, run, t, report, &sums, m->values[e], local, -1, column);
        else read_coupling(m, r, at, run, t, report, &sums, m->values[e], -1, find_ghost(m, column), column);
    }
    if (m->off_indptr)
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++) {
            const int64_t ghost = get_index(m->off_indices, e, wide);
            sums.magnitude += fabs(m->off_values[e]);
            if (uncoupled) continue;
            read_coupling(m, r, at, run, t, report, &sums, m->off_values[e], -1, ghost, m->ghost_column[ghost]);
        }
    const double total = sums.total, lowest = sums.lowest, magnitude = sums.magnitude, diagonal = sums.diagonal;
    const int64_t wrong = sums.wrong;
    run->v[DIAGONAL][t] = m->sign * diagonal;
    const double tolerance = m->rounding * diagonal;
    if (!isfinite(magnitude)) report_error(report, CSR_NOT_FINITE, r, -1, magnitude);
    else if (!uncoupled && !(diagonal > 0)) report_error(report, CSR_DIAGONAL, r, r + m->first_column, diagonal);
    else if (!uncoupled && lowest < -tolerance) report_error(report, CSR_SIGN, r, wrong, -lowest);
    else if (!uncoupled && diagonal - total < -tolerance) report_error(report, CSR_ROW_SUM, r, -1, diagonal - total);
}

/* How many rows from r on, at most RUN, are not followed by the row of the next cell. */
INLINE int count_single(const csr_matrix *m, int64_t r, int64_t end) {
    const int64_t most = end - r < RUN ? end - r : RUN;
    int n = 0;
    while (n < most && (r + n + 1 == end || m->cell[r + n + 1] != m->cell[r + n] + 1)) n++;
    return n;
}

/* Rows in no order wait for what is known of their neighbours: so many rows ahead. */
enum { AHEAD = 12 };
INLINE void fetch_ahead(const csr_matrix *m, int64_t r) {
    const int wide = (int)m->wide;
    if (r + AHEAD >= m->rows) return;
    for (int64_t e = get_index(m->indptr, r + AHEAD, wide); e < get_index(m->indptr, r + AHEAD + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift;
        if (local < 0 || local >= m->rows) continue;
        __builtin_prefetch(m->cell + local);
        __builtin_prefetch(m->dirichlet + local);
    }
}

/* Asks for so many bytes from `begin` on behind p, whether they are there or not. */
INLINE void fetch(const void *p, int64_t begin, int64_t bytes) {
    const uintptr_t first = (uintptr_t)p + (uintptr_t)begin;
    for (uintptr_t at = first; at < first + (uintptr_t)bytes; at += 64) __builtin_prefetch((const void *)at);
}

/* Entries that come so many after these `count` from e on are asked for: the processor looks ahead by itself, but not
 * beyond a page of 4 KiB, and the matrix lies in such. */
enum { ENTRIES_AHEAD = 512 };
INLINE void fetch_entries(const csr_matrix *m, int64_t e, int64_t count, int wide) {
    const int64_t size = wide ? 8 : 4;
    fetch(m->values, 8 * (e + ENTRIES_AHEAD), 8 * count);
    fetch(m->indices, size * (e + ENTRIES_AHEAD), size * count);
}

/* Whether n local rows from `local` on have the cells from `cell` on, one after the other. */
INLINE int consecutive(const csr_matrix *m, int64_t local, int64_t cell, int64_t n) {
    uint64_t odd = (uint64_t)(m->cell[local] ^ cell) | (uint64_t)(m->cell[local + n - 1] ^ (cell + n - 1));
    for (int64_t t = 0; t < n && !m->ascending; t++) odd |= (uint64_t)(m->cell[local + t] ^ (cell + t));
    return !odd;
}

/* The common case, up to BLOCK rows at a time: 7 local entries (5 in 2D) in order, neighbours on all sides, none of
 * them a Dirichlet row. Returns 0 for any other. The values are lookups at later. */
enum { BLOCK = 32, SHORTEST = 4 };
/* of the entries in order, in 2D and 3D */
static const int places[2][7] = {{2, 0, DIAGONAL, 1, 3}, {4, 2, 0, DIAGONAL, 1, 3, 5}};
INLINE int read_block(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t0, int n, int wide,
                      int width) {
    const int *place = places[width == 7];
    const int64_t e = get_index(m->indptr, r, wide);
    int64_t base[7], odd = 0;
    fetch_entries(m, e, (int64_t)width * n, wide);
    for (int t = 0; t < n; t++) odd |= (get_index(m->indptr, r + t + 1, wide) - e) ^ (width * (t + 1));
    if (m->off_indptr) odd |= get_index(m->off_indptr, r + n, wide) - get_index(m->off_indptr, r, wide);
    if (odd) return 0;
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        const int64_t distance = side == DIAGONAL ? 0 : side & 1 ? at->step[side / 2] : -at->step[side / 2];
        base[f] = get_index(m->indices, e + f, wide) - m->shift;
        if ((side != DIAGONAL && !at->inside[side]) || base[f] < 0 || base[f] + n > m->rows) return 0;
        if (m->cell) odd |= !consecutive(m, base[f], at->cell + distance, n);
        else odd |= (base[f] - r) ^ distance;
    }
    uint8_t lone = 0; /* soonest seen */
    for (int f = 0; f < width; f++)
        for (int t = 0; t < n; t++) lone |= m->dirichlet[base[f] + t];
    if (odd | lone) return 0;
    if (wide) {
        int64_t expected[7 * BLOCK];
        for (int t = 0; t < n; t++)
            for (int f = 0; f < width; f++) expected[width * t + f] = base[f] + t + m->shift;
        for (int q = 0; q < width * n; q++) odd |= expected[q] ^ ((const int64_t *)m->indices)[e + q];
    } else {
        int32_t expected[7 * BLOCK], other = 0;
        for (int t = 0; t < n; t++)
            for (int f = 0; f < width; f++) expected[width * t + f] = (int32_t)(base[f] + t + m->shift);
        for (int q = 0; q < width * n; q++) other |= expected[q] ^ ((const int32_t *)m->indices)[e + q];
        odd |= other;
    }
    if (odd) return 0;
    for (int t = 0; t < n; t++)
        for (int f = 0; f < width; f++) run->v[place[f]][t0 + t] = m->values[e + width * t + f];
    if (width == 5)
        for (int t = 0; t < n; t++) run->v[4][t0 + t] = run->v[5][t0 + t] = 0;
    return 1;
}

typedef int block_reader(const csr_matrix *, int64_t, const row_place *, row_run *, int, int);
static int read_block_3d(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t0, int n) {
    return read_block(m, r, at, run, t0, n, 0, 7);
}
static int read_block_2d(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t0, int n) {
    return read_block(m, r, at, run, t0, n, 0, 5);
}
static int read_block_wide(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t0, int n) {
    return read_block(m, r, at, run, t0, n, 1, m->nz == 1 ? 5 : 7);
}

/* A row that many others repeat, packed: an inner row as read_block takes it. */
typedef struct {
    int64_t entry; /* its first; -1: none is known yet */
    double w[3], small_sum; /* the latter as csr_report counts them */
    uint8_t cell, s_index;
} common_row;

/* The bits of a value. */
INLINE uint64_t bits_at(const double *values, int64_t i) {
    uint64_t bits;
    memcpy(&bits, values + i, sizeof bits);
    return bits;
}

/* Whether `step` rows from r on, all of the same length, say bit by bit the same as the known values. base: local rows
 * of the columns t rows before. */
INLINE int repeats(const csr_matrix *m, int64_t r, const row_place *at, const double *known, const int64_t *base,
                   int64_t t, int64_t step, int width, int wide) {
    const int *place = places[width == 7];
    const int64_t e = get_index(m->indptr, r, wide);
    const double *value = m->values + e;
    uint64_t odd = 0;
    uint8_t lone = 0;
    fetch_entries(m, e, width * step, wide);
    for (int64_t q = 0; q < width; q++) odd |= bits_at(value, q) ^ bits_at(known, q);
    for (int64_t q = width; q < width * step; q++) odd |= bits_at(value, q) ^ bits_at(value, q - width);
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        const int64_t distance = side == DIAGONAL ? 0 : side & 1 ? at->step[side / 2] : -at->step[side / 2];
        const int64_t local = base[f] + t;
        odd |= (uint64_t)(get_index(m->indices, e + f, wide) - m->shift - local);
        if (m->cell) odd |= !consecutive(m, local, at->cell + t + distance, step);
        else odd |= (uint64_t)((local - r) ^ distance);
        for (int64_t q = 0; q < step; q++) lone |= m->dirichlet[local + q];
    }
    if (wide) {
        const int64_t *index = (const int64_t *)m->indices + e;
        for (int64_t q = width; q < width * step; q++) odd |= (uint64_t)((index[q] - index[q - width]) ^ 1);
    } else {
        const int32_t *index = (const int32_t *)m->indices + e;
        int32_t other = 0;
        for (int64_t q = width; q < width * step; q++) other |= (index[q] - index[q - width]) ^ 1;
        odd |= (uint64_t)other;
    }
    return !(odd | lone);
}

/* How many rows from r on, at most n, say bit by bit the same as the common row, which they are to follow in the
 * pattern as well. */
INLINE int64_t count_common(const csr_matrix *m, int64_t r, const row_place *at, const common_row *common, int64_t n,
                           int width, int wide) {
    const int *place = places[width == 7];
    const int64_t first = get_index(m->indptr, r, wide);
    const double *known = m->values + common->entry;
    int64_t base[7];
    if (get_index(m->indptr, r + 1, wide) - first != width) return 0;
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        base[f] = get_index(m->indices, first + f, wide) - m->shift;
        if (side != DIAGONAL && !at->inside[side]) return 0;
        if (n > m->rows - base[f]) n = m->rows - base[f];
        if (base[f] < 0 || n < SHORTEST) return 0;
    }
    if (m->line) { /* the same two lines on: cells of the highest neighbours are looked at for the first time */
        fetch(m->cell, 8 * (base[width - 1] + 2 * m->line), 1);
        fetch(m->cell, 8 * (base[width - 1] + 2 * m->line + n - 1), 1);
    }
    int64_t t = 0;
    for (int64_t step = 16 * SHORTEST; t < n;) {
        while (step > SHORTEST && t + step > n) step /= 2;
        if (t + step > n) t = n - step; /* some of these once more */
        const int64_t e = first + width * t;
        uint64_t odd = 0;
        for (int64_t q = 0; q < step; q++)
            odd |= (uint64_t)((get_index(m->indptr, r + t + q + 1, wide) - e) ^ (width * (q + 1)));
        if (m->off_indptr)
            odd |= (uint64_t)(get_index(m->off_indptr, r + t + step, wide) - get_index(m->off_indptr, r + t, wide));
        if (!odd && repeats(m, r + t, at, known, base, t, step, width, wide)) {
            t += step;
            continue;
        }
        if (step == SHORTEST) break;
        step = step > 4 * SHORTEST ? 4 * SHORTEST : SHORTEST;
    }
    return t;
}

typedef int64_t common_counter(const csr_matrix *, int64_t, const row_place *, const common_row *, int64_t);
static int64_t count_common_3d(const csr_matrix *m, int64_t r, const row_place *at, const common_row *common,
                               int64_t n) {
    return count_common(m, r, at, common, n, 7, 0);
}
static int64_t count_common_2d(const csr_matrix *m, int64_t r, const row_place *at, const common_row *common,
                               int64_t n) {
    return count_common(m, r, at, common, n, 5, 0);
}
static int64_t count_common_wide(const csr_matrix *m, int64_t r, const row_place *at, const common_row *common,
                                int64_t n) {
    return count_common(m, r, at, common, n, m->nz == 1 ? 5 : 7, 1);
}

/* Whether any of n rows from r on is a Dirichlet row that is not flagged. */
static int any_hidden(const csr_matrix *m, int64_t r, int64_t n) {
    for (int64_t t = r; t < r + n; t++)
        if (!m->dirichlet[t] && is_uncoupled(m, t, (int)m->wide)) return 1;
    return 0;
}

/* How many rows from r on, at most n, are flagged and sound. */
static int64_t count_uncoupled(const csr_matrix *m, int64_t r, int64_t n) {
    const int wide = (int)m->wide;
    int64_t t = 0;
    for (; t < n && m->dirichlet[r + t]; t++) {
        double magnitude = 0;
        for (int64_t e = get_index(m->indptr, r + t, wide); e < get_index(m->indptr, r + t + 1, wide); e++)
            magnitude += fabs(m->values[e]);
        if (!(magnitude < HUGE_VAL)) break;
    }
    return t;
}

#endif
