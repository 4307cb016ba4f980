/* From the rows of an AIJ matrix to the conductances of a 5- or 7-point stencil.
 *
 * One pass over the matrix, after the one in csr_tools.c that finds its Dirichlet rows; nothing is allocated. Errors are not
 * printed here: the first offending row (lowest number) is returned with a code, and Python makes the sentence.
 */
#include <math.h>

#include "csr.h"
#include "packed.h"

static int64_t find_ghost(const csr_matrix *m, int64_t column) {
    int64_t low = 0, high = m->ghosts;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (m->ghost_column[middle] < column) low = middle + 1;
        else high = middle;
    }
    return low < m->ghosts && m->ghost_column[low] == column ? low : -1;
}

/* Why a coupling between two cells is none of a face: both ends of a grid line, or anything else. */
static int64_t explain_coupling(const csr_matrix *m, int64_t a, int64_t b) {
    int64_t n[3] = {m->nx, m->ny, m->nz}, differing = 0, wrapped = 0;
    for (int axis = 0; axis < 3; axis++) {
        int64_t d = a % n[axis] - b % n[axis];
        differing += d != 0;
        wrapped += d != 0 && (d == n[axis] - 1 || d == 1 - n[axis]);
        a /= n[axis], b /= n[axis];
    }
    return differing == 1 && wrapped ? CSR_PERIODIC : CSR_NOT_NEIGHBOUR;
}

static const uint64_t FACE = 0x9E3779B97F4A7C15u;

/* One face, its number times FACE, as one of its cells sees it. A coupling that both rows agree on adds and subtracts the same number; none counts 0. Both
 * factors are mixed: else a difference that is the same on all faces, or in the exponent alone, would add up to 0. */
INLINE uint64_t face_hash(uint64_t face, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits ^= bits >> 32, bits ^= bits >> 13;
    return bits * ((face ^ face >> 29) | 1);
}

static __attribute__((noinline, cold)) void report_error(csr_report *p, int64_t code, int64_t row, int64_t column, double value) {
    if (p->code != CSR_OK && p->row <= row) return;
    p->code = code, p->row = row, p->column = column, p->value = value;
}

/* A row's place on the grid: its cell, the strides to its neighbours (0 along an axis one cell long, where nothing may couple),
 * and whether there is a neighbour, in the order low x, high x, low y, ... */
typedef struct {
    int64_t cell, step[3];
    int inside[6];
} row_place;

/* Rows of consecutive cells on one grid line, entries by place: low and high x, y, z, diagonal; as in the matrix. */
enum { RUN = 256, DIAGONAL = 6 };
typedef struct {
    double v[7][RUN];
} row_run;

/* Relative to the diagonal: what row sums that are meant to be 0 may differ by. */
static const double SUM_ROUNDING = 1e-14;

/* What the entries of one row add up to. */
typedef struct {
    double total, lowest, magnitude, diagonal;
    int64_t wrong;
} row_sums;

/* One entry that is not on the diagonal: to a local row, or (local < 0) to a ghost, -1 if nobody knows it. */
INLINE void read_coupling(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t, csr_report *report, row_sums *sums,
                          double value, int64_t local, int64_t ghost, int64_t column) {
    const double v = m->sign * value;
    if (v == 0) return;
    if (local < 0 && ghost < 0) {
        report_error(report, CSR_OUTSIDE, r, column, v);
        return;
    }
    const int64_t there = local < 0 ? m->ghost_cell[ghost] : m->cell ? m->cell[local] : m->first_cell + local;
    const int lone = local < 0 ? m->ghost_dirichlet[ghost] : m->dirichlet[local];
    const int64_t distance = there - at->cell;
    const int high = distance > 0;
    const int64_t length = high ? distance : -distance;
    const int axis = length == at->step[0] ? 0 : length == at->step[1] ? 1 : length == at->step[2] ? 2 : 3;
    if (axis == 3 || !at->inside[2 * axis + high]) {
        report_error(report, isfinite(v) ? explain_coupling(m, at->cell, there) : CSR_NOT_FINITE, r, column, v);
        return;
    }
    if (v > -sums->lowest) sums->lowest = -v, sums->wrong = column;
    if (lone) return;
    if (v > 0) {
        report->inexact = 1;
        return;
    }
    run->v[2 * axis + high][t] = value;
    sums->total -= v;
}

/* Any row, with all checks, into place t of the run: couplings to Dirichlet rows as zero. */
static __attribute__((noinline)) void read_row(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t,
                                               csr_report *report) {
    const int wide = (int)m->wide, alone = m->dirichlet[r];
    row_sums sums = {.wrong = -1};
    for (int f = 0; f < 7; f++) run->v[f][t] = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift, column = local + m->first_column;
        sums.magnitude += fabs(m->values[e]);
        if (local == r) sums.diagonal = m->sign * m->values[e];
        else if (local >= 0 && local < m->rows) read_coupling(m, r, at, run, t, report, &sums, m->values[e], local, -1, column);
        else read_coupling(m, r, at, run, t, report, &sums, m->values[e], -1, find_ghost(m, column), column);
    }
    if (m->off_indptr)
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++) {
            const int64_t ghost = get_index(m->off_indices, e, wide);
            sums.magnitude += fabs(m->off_values[e]);
            read_coupling(m, r, at, run, t, report, &sums, m->off_values[e], -1, ghost, m->ghost_column[ghost]);
        }
    const double total = sums.total, lowest = sums.lowest, magnitude = sums.magnitude, diagonal = sums.diagonal;
    const int64_t wrong = sums.wrong;
    run->v[DIAGONAL][t] = m->sign * diagonal;
    const double tolerance = m->rounding * diagonal;
    if (!isfinite(magnitude)) report_error(report, CSR_NOT_FINITE, r, -1, magnitude);
    else if (alone ? diagonal < 0 : !(diagonal > 0)) report_error(report, CSR_DIAGONAL, r, r + m->first_column, diagonal);
    else if (!alone && lowest < -tolerance) report_error(report, CSR_SIGN, r, wrong, -lowest);
    else if (!alone && diagonal - total < -tolerance) report_error(report, CSR_ROW_SUM, r, -1, diagonal - total);
}

/* The common case, up to BLOCK rows at a time: 7 local entries (5 in 2D) in order, neighbours on all sides, none of them a
 * Dirichlet row. Returns 0 for any other. The values are looked at later. */
enum { BLOCK = 32, SHORTEST = 4 };
static const int places[2][7] = {{2, 0, DIAGONAL, 1, 3}, {4, 2, 0, DIAGONAL, 1, 3, 5}}; /* of the entries in order, in 2D and 3D */
INLINE int read_block(const csr_matrix *m, int64_t r, const row_place *at, row_run *run, int t0, int n, int wide,
                      int width) {
    const int *place = places[width == 7];
    const int64_t e = get_index(m->indptr, r, wide);
    int64_t base[7], odd = 0;
    for (int t = 0; t < n; t++) odd |= (get_index(m->indptr, r + t + 1, wide) - e) ^ (width * (t + 1));
    if (m->off_indptr) odd |= get_index(m->off_indptr, r + n, wide) - get_index(m->off_indptr, r, wide);
    if (odd) return 0;
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        const int64_t distance = side == DIAGONAL ? 0 : side & 1 ? at->step[side / 2] : -at->step[side / 2];
        base[f] = get_index(m->indices, e + f, wide) - m->shift;
        if ((side != DIAGONAL && !at->inside[side]) || base[f] < 0 || base[f] + n > m->rows) return 0;
        if (m->cell)
            for (int t = 0; t < n; t++) odd |= (m->cell[base[f] + t] - at->cell - t) ^ distance;
        else odd |= (base[f] - r) ^ distance;
    }
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
    uint8_t lone = 0;
    for (int f = 0; f < width; f++)
        for (int t = 0; t < n; t++) lone |= m->dirichlet[base[f] + t];
    if (odd | lone) return 0;
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

/* From entries to conductances, in place (w, diagonal normalised, s); the statistics go to `report`. Returns whether any
 * row is odd: a wrong sign, NaN, not diagonally dominant. */
static int evaluate_run(const csr_matrix *m, row_run *run, double *restrict s, int64_t row, int64_t cell, int n, int hashed,
                        csr_report *report) {
    const double sign = m->sign, opposite = -m->sign, rounding = m->rounding;
    const uint8_t *restrict dirichlet = m->dirichlet + row;
    int odd = 0;
    int64_t extra = 0, inexact = 0;
    double max_diagonal = report->max_diagonal;
#pragma omp simd reduction(| : odd, inexact) reduction(max : max_diagonal) reduction(+ : extra)
    for (int t = 0; t < n; t++) {
        double total = 0, least = 0;
        for (int f = 0; f < 6; f++) {
            const double w = opposite * run->v[f][t] + 0.0; /* + 0.0: never a negative zero */
            run->v[f][t] = w;
            total += w;
            least = w < least ? w : least;
        }
        const double d = sign * run->v[DIAGONAL][t], sum = d - total, tolerance = rounding * d;
        const double coupled = dirichlet[t] ? 0.0 : 1.0;
        odd |= !(least >= 0) | !(sum >= -tolerance) | !(d < HUGE_VAL) | !(d >= 0);
        run->v[DIAGONAL][t] = d;
        s[t] = sum < tolerance || coupled == 0.0 ? 0.0 : sum;
        extra += s[t] != 0;
        inexact |= (s[t] == 0) & (coupled * fabs(sum) > SUM_ROUNDING * d);
        max_diagonal = coupled * d > max_diagonal ? coupled * d : max_diagonal;
    }
    if (odd) return 1;
    report->max_diagonal = max_diagonal;
    report->extra += extra, report->inexact |= inexact;
    const uint64_t step[3] = {3 * FACE, 3 * FACE * (uint64_t)m->nx, 3 * FACE * (uint64_t)m->nx * (uint64_t)m->ny};
    for (int f = 0; f < 3; f++) {
        const double *restrict low = run->v[2 * f], *restrict high = run->v[2 * f + 1];
        double least = report->w_min[f], most = report->w_max[f], sum = 0;
        int64_t count = 0;
        uint64_t hash = 0;
        const uint64_t first = FACE * (3 * (uint64_t)cell + (uint64_t)f);
#pragma omp simd reduction(+ : sum, count, hash) reduction(min : least) reduction(max : most)
        for (int t = 0; t < n; t++) {
            const uint64_t face = first + 3 * FACE * (uint64_t)t;
            if (hashed) hash += face_hash(face + step[f], high[t]) - face_hash(face, low[t]);
            const double present = low[t] > 0 ? low[t] : HUGE_VAL;
            least = present < least ? present : least;
            most = low[t] > most ? low[t] : most;
            sum += low[t];
            count += low[t] > 0;
        }
        report->w_min[f] = least, report->w_max[f] = most;
        report->w_sum[f] += sum, report->w_count[f] += count;
        report->symmetry += hash;
    }
    return 0;
}

static void write_run(void *to, int64_t at, const double *restrict v, double scale, int n, int single) {
    if (!to) return;
    if (single) {
        float *restrict p = (float *)to + at;
        for (int t = 0; t < n; t++) p[t] = (float)(scale * v[t]);
    } else {
        double *restrict p = (double *)to + at;
        for (int t = 0; t < n; t++) p[t] = scale * v[t];
    }
}

/* A run of cells, packed. Returns 0 if it does not fit what was packed before. */
static int pack_run(csr_output *out, int64_t at, const row_run *run, const double *s, int n, s_values *known) {
    uint8_t *restrict cells = out->cells + at;
    int misfits = 0, some = 0;
    memset(cells, 0, (size_t)n);
    for (int f = 0; f < 6; f++) {
        const double *restrict w = run->v[f];
        double c;
#pragma omp atomic read
        c = out->c[f / 2];
        for (int t = 0; t < n && c == 0; t++) {
            if (!(w[t] > 0)) continue;
#pragma omp critical(dcdm_conductance)
            {
                if (out->c[f / 2] == 0) {
#pragma omp atomic write
                    out->c[f / 2] = w[t];
                }
                c = out->c[f / 2];
            }
        }
        for (int t = 0; t < n; t++) {
            cells[t] |= (uint8_t)((w[t] > 0) << f);
            misfits |= (w[t] > 0) & (w[t] != c);
        }
    }
    for (int t = 0; t < n; t++) some |= s[t] != 0;
    for (int t = 0; t < n && some; t++) {
        if (s[t] == 0) continue;
        const int v = find_s(known, s[t], out->s_value, &out->s_count);
        misfits |= v > 255;
        cells[t] |= HAS_S;
        out->s_index[at + t] = (uint8_t)v;
    }
    return !misfits;
}

/* A row that many others repeat, packed: an inner row as read_block takes it. */
typedef struct {
    int64_t entry; /* its first; -1: none is known yet */
    double w[3];
    uint8_t cell, s_index;
} usual_row;

/* Whether `step` rows from r on, all of the same length, say bit by bit the same as the known values. base: local rows of the columns
 * t rows before. */
INLINE int repeats(const csr_matrix *m, int64_t r, const row_place *at, const uint64_t *known, const int64_t *base, int64_t t, int64_t step,
                   int width, int wide) {
    const int *place = places[width == 7];
    const int64_t e = get_index(m->indptr, r, wide);
    const uint64_t *value = (const uint64_t *)(m->values + e);
    uint64_t odd = 0;
    uint8_t lone = 0;
    for (int64_t q = 0; q < width; q++) odd |= value[q] ^ known[q];
    for (int64_t q = width; q < width * step; q++) odd |= value[q] ^ value[q - width];
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        const int64_t distance = side == DIAGONAL ? 0 : side & 1 ? at->step[side / 2] : -at->step[side / 2];
        const int64_t local = base[f] + t;
        odd |= (uint64_t)(get_index(m->indices, e + f, wide) - m->shift - local);
        if (m->cell)
            for (int64_t q = 0; q < step; q++) odd |= (uint64_t)((m->cell[local + q] - at->cell - t - q) ^ distance);
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

/* How many rows from r on, at most n, say bit by bit the same as the usual row, which they are to follow in the pattern as well. */
INLINE int64_t count_usual(const csr_matrix *m, int64_t r, const row_place *at, const usual_row *usual, int64_t n, int width, int wide) {
    const int *place = places[width == 7];
    const int64_t first = get_index(m->indptr, r, wide);
    const uint64_t *known = (const uint64_t *)(m->values + usual->entry);
    int64_t base[7];
    if (get_index(m->indptr, r + 1, wide) - first != width) return 0;
    for (int f = 0; f < width; f++) {
        const int side = place[f];
        base[f] = get_index(m->indices, first + f, wide) - m->shift;
        if (side != DIAGONAL && !at->inside[side]) return 0;
        if (n > m->rows - base[f]) n = m->rows - base[f];
        if (base[f] < 0 || n < SHORTEST) return 0;
    }
    int64_t t = 0;
    for (int64_t step = 4 * SHORTEST; t + SHORTEST <= n;) {
        while (t + step > n) step /= 2;
        const int64_t e = first + width * t;
        uint64_t odd = 0;
        for (int64_t q = 0; q < step; q++) odd |= (uint64_t)((get_index(m->indptr, r + t + q + 1, wide) - e) ^ (width * (q + 1)));
        if (m->off_indptr) odd |= (uint64_t)(get_index(m->off_indptr, r + t + step, wide) - get_index(m->off_indptr, r + t, wide));
        if (!odd && repeats(m, r + t, at, known, base, t, step, width, wide)) {
            t += step;
            continue;
        }
        if (step == SHORTEST) break;
        step = SHORTEST;
    }
    return t;
}

typedef int64_t usual_counter(const csr_matrix *, int64_t, const row_place *, const usual_row *, int64_t);
static int64_t count_usual_3d(const csr_matrix *m, int64_t r, const row_place *at, const usual_row *usual, int64_t n) {
    return count_usual(m, r, at, usual, n, 7, 0);
}
static int64_t count_usual_2d(const csr_matrix *m, int64_t r, const row_place *at, const usual_row *usual, int64_t n) {
    return count_usual(m, r, at, usual, n, 5, 0);
}
static int64_t count_usual_wide(const csr_matrix *m, int64_t r, const row_place *at, const usual_row *usual, int64_t n) {
    return count_usual(m, r, at, usual, n, m->nz == 1 ? 5 : 7, 1);
}

/* How many rows from r on, at most n, have nothing but a sound diagonal. */
static int64_t count_alone(const csr_matrix *m, int64_t r, int64_t n) {
    const int wide = (int)m->wide;
    int64_t t = 0;
    for (; t < n && m->dirichlet[r + t]; t++) {
        const int64_t e = get_index(m->indptr, r + t, wide);
        if (get_index(m->indptr, r + t + 1, wide) != e + 1) break;
        if (m->off_indptr && get_index(m->off_indptr, r + t, wide) != get_index(m->off_indptr, r + t + 1, wide)) break;
        const double d = m->sign * m->values[e];
        if (!(d >= 0) || !(d < HUGE_VAL)) break;
    }
    return t;
}

static void extract_rows(const csr_matrix *m, csr_output *out, csr_report *report, int64_t begin_row, int64_t end_row) {
    const int64_t nx = m->nx, ny = m->ny, nz = m->nz, plane = nx * ny, cells = plane * nz;
    row_place at = {.step = {nx > 1 ? 1 : 0, ny > 1 ? nx : 0, nz > 1 ? plane : 0}};
    block_reader *read = m->wide ? read_block_wide : nz == 1 ? read_block_2d : read_block_3d;
    usual_counter *count = m->wide ? count_usual_wide : nz == 1 ? count_usual_2d : count_usual_3d;
    usual_row usual = {.entry = -1};
    row_run run;
    double s[RUN];
    s_values known = {.count = 0};
    for (int64_t r = begin_row; r < end_row;) {
        const int64_t cell = m->cell ? m->cell[r] : m->first_cell + r;
        if (cell < 0 || cell >= cells) {
            report_error(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
        at.inside[2] = j > 0, at.inside[3] = j + 1 < ny, at.inside[4] = k > 0, at.inside[5] = k + 1 < nz;
        int64_t to = r, longest = nx - i;
        if (out->pitch_y > 0) {
            const int64_t x = i - out->offset[0], y = j - out->offset[1], z = k - out->offset[2];
            if (x < 0 || x >= out->box[0] || y < 0 || y >= out->box[1] || z < 0 || z >= out->box[2]) {
                report_error(report, CSR_OUTSIDE, r, cell, 0);
                return;
            }
            to = out->origin + z * out->pitch_z + y * out->pitch_y + x;
            if (longest > out->box[0] - x) longest = out->box[0] - x;
        }
        if (longest > end_row - r) longest = end_row - r;
        if (longest > RUN) longest = RUN;
        if (out->cells) {
            const int64_t alone = count_alone(m, r, longest);
            int64_t same = 0;
            if (!alone && usual.entry >= 0) {
                at.cell = cell;
                at.inside[0] = i > 0, at.inside[1] = 1;
                same = count(m, r, &at, &usual, i + longest < nx ? longest : longest - 1);
            }
            if (same) {
                memset(out->cells + to, usual.cell, (size_t)same);
                if (usual.cell & HAS_S) memset(out->s_index + to, usual.s_index, (size_t)same);
                for (int f = 0; f < 3; f++) report->w_sum[f] += (double)same * usual.w[f], report->w_count[f] += usual.w[f] > 0 ? same : 0;
                report->extra += usual.cell & HAS_S ? same : 0;
            }
            r += alone + same; /* cells are 0 before */
            if (alone + same) continue;
        }
        int n = 0, regular = 0; /* the last rows are as others may be: 1; those that come next are usual ones: -1 */
        while (n < longest && !regular && (!m->cell || m->cell[r + n] == cell + n)) {
            at.cell = cell + n;
            at.inside[0] = i + n > 0, at.inside[1] = 1;
            const int64_t room = i + longest < nx ? longest - n : longest - n - 1; /* the last of a line is no inner cell */
            int block = room < BLOCK ? (int)room : BLOCK;
            while (block >= SHORTEST && !read(m, r + n, &at, &run, n, block)) block /= 4;
            if (block >= SHORTEST) {
                n += block;
                regular = out->cells != NULL; /* perhaps what follows is as this */
                continue;
            }
            const int some = i + n == 0 ? 1 : SHORTEST;
            for (int end = n + some; n < end && n < longest && (!m->cell || m->cell[r + n] == cell + n); n++) {
                at.cell = cell + n;
                at.inside[0] = i + n > 0, at.inside[1] = i + n + 1 < nx;
                read_row(m, r + n, &at, &run, n, report);
            }
            if (usual.entry >= 0 && room - some >= SHORTEST) {
                at.cell = cell + n;
                at.inside[0] = at.inside[1] = 1;
                regular = count(m, r + n, &at, &usual, SHORTEST) > 0 ? -1 : 0;
            }
        }
        if (evaluate_run(m, &run, s, r, cell, n, !out->cells, report)) {
            /* Once more with all checks: rounding is cleaned away, anything worse is reported. */
            for (int t = 0; t < n; t++) {
                at.cell = cell + t;
                at.inside[0] = i + t > 0, at.inside[1] = i + t + 1 < nx;
                read_row(m, r + t, &at, &run, t, report);
            }
            if (evaluate_run(m, &run, s, r, cell, n, !out->cells, report)) return;
        }
        if (out->cells && !pack_run(out, to, &run, s, n, &known)) {
#pragma omp atomic write
            out->misfits = 1;
            return;
        }
        if (regular > 0) {
            usual = (usual_row){get_index(m->indptr, r + n - 1, (int)m->wide), {run.v[0][n - 1], run.v[2][n - 1], run.v[4][n - 1]},
                                out->cells[to + n - 1], out->s_index[to + n - 1]};
        }
        for (int f = 0; f < 3; f++) {
            write_run(out->w_low[f], to, run.v[2 * f], m->scale, n, (int)out->single);
            write_run(out->w_high[f], to, run.v[2 * f + 1], m->scale, n, (int)out->single);
        }
        write_run(out->s, to, s, m->scale, n, (int)out->single);
        write_run(out->diagonal, to, run.v[DIAGONAL], m->scale, n, (int)out->single);
        r += n;
    }
}

void dcdm_csr_extract(const csr_matrix *m, csr_output *out, csr_report *report, int threads) {
    csr_report all = {.w_min = {HUGE_VAL, HUGE_VAL, HUGE_VAL}};
#pragma omp parallel num_threads(threads)
    {
        csr_report mine = {.w_min = {HUGE_VAL, HUGE_VAL, HUGE_VAL}};
        /* Chunks, so that threads share the work evenly where rows differ in length. */
        const int64_t chunk = 1 << 14;
#pragma omp for schedule(static)
        for (int64_t c = 0; c < (m->rows + chunk - 1) / chunk; c++) {
            const int64_t a = c * chunk, b = a + chunk < m->rows ? a + chunk : m->rows;
            int stop;
#pragma omp atomic read
            stop = out->misfits;
            if (!stop) extract_rows(m, out, &mine, a, b);
        }
#pragma omp critical
        {
            if (mine.code != CSR_OK) report_error(&all, mine.code, mine.row, mine.column, mine.value);
            if (mine.max_diagonal > all.max_diagonal) all.max_diagonal = mine.max_diagonal;
            for (int f = 0; f < 3; f++) {
                if (mine.w_min[f] < all.w_min[f]) all.w_min[f] = mine.w_min[f];
                if (mine.w_max[f] > all.w_max[f]) all.w_max[f] = mine.w_max[f];
                all.w_sum[f] += mine.w_sum[f];
                all.w_count[f] += mine.w_count[f];
            }
            all.symmetry += mine.symmetry;
            all.extra += mine.extra, all.inexact |= mine.inexact;
        }
    }
    for (int f = 0; f < 3; f++)
        if (all.w_count[f] == 0) all.w_min[f] = 0;
    *report = all;
}
