/* From the rows of an AIJ matrix to the conductances of a 5- or 7-point stencil.
 *
 * One pass over the matrix, after the one in csr_tools.c that finds its Dirichlet rows; nothing is allocated. Errors
 * are not printed here: the first offending row (lowest number) is returned with a code, and Python makes the
 * sentence.
 */
#include <math.h>

#include "csr_rows.h"
#include "known_rows.h"
#include "pack_run.h"

/* Relative to the diagonal: what row sums that are meant to be 0 may differ by. */
static const double SUM_ROUNDING = 1e-14;

/* The sum of a row, relative to its diagonal, if it is neither rounding nor more than may be, else 0.
 * In conductances. */
INLINE double small_sum(const csr_matrix *m, const row_run *run, int t) {
    const double d = run->v[DIAGONAL][t];
    double total = 0;
    for (int f = 0; f < 6; f++) total += run->v[f][t];
    const double sum = d - total;
    return fabs(sum) > m->sum_rounding * d && sum <= m->rounding * d ? sum / d : 0;
}

INLINE void count_small(csr_report *report, double sum, int64_t rows) {
    report->small_sums[sum > 0] += (double)rows * sum;
}

/* From entries to conductances, in place (w, diagonal normalised, s); the statistics go to `report`. Returns whether
 * any row is odd: a wrong sign, NaN, not diagonally dominant. loose: there are rows that are not flagged and couple to
 * none that counts. */
static int evaluate_run(const csr_matrix *m, row_run *run, double *restrict s, int64_t row, int64_t cell, int n,
                        int hashed, csr_report *report, int *loose) {
    const double sign = m->sign, opposite = -m->sign, rounding = m->rounding, sum_rounding = m->sum_rounding;
    const uint8_t *restrict dirichlet = m->dirichlet + row;
    int odd = 0, uncoupled = 0;
    int64_t extra = 0, inexact = 0, stiff = 0, small = 0;
    double max_diagonal = report->max_diagonal, least_diagonal = report->least_diagonal, least_sum = report->least_sum,
           most_sum = report->most_sum;
#pragma omp simd reduction(| : odd, inexact, uncoupled, small) reduction(max : max_diagonal, most_sum) \
    reduction(min : least_diagonal, least_sum) reduction(+ : extra, stiff)
    for (int t = 0; t < n; t++) {
        double total = 0, least = 0;
        for (int f = 0; f < 6; f++) {
            const double w = opposite * run->v[f][t] + 0.0; /* + 0.0: never a negative zero */
            run->v[f][t] = w;
            total += w;
            least = w < least ? w : least;
        }
        const double d = sign * run->v[DIAGONAL][t], sum = d - total;
        const double tolerance = rounding * d, zero = sum_rounding * d;
        const int coupled = !dirichlet[t];
        odd |= !(fabs(d) < HUGE_VAL) | !(least >= 0) | (coupled & (!(sum >= -tolerance) | !(d >= 0)));
        uncoupled |= (total == 0) & coupled;
        run->v[DIAGONAL][t] = d;
        s[t] = sum <= zero || !coupled ? 0.0 : sum;
        extra += s[t] != 0;
        stiff += coupled & (sum > PENALTY * total) & (total > 0);
        small |= coupled & (fabs(sum) > zero) & (sum <= tolerance);
        inexact |= (s[t] == 0) & coupled & (fabs(sum) > SUM_ROUNDING * d);
        const double counted = coupled ? d : 0, lower = coupled ? d : HUGE_VAL, ratio = sum / d;
        max_diagonal = counted > max_diagonal ? counted : max_diagonal;
        least_diagonal = lower < least_diagonal ? lower : least_diagonal;
        least_sum = (coupled & (ratio < least_sum)) ? ratio : least_sum;
        most_sum = (coupled & (ratio > most_sum)) ? ratio : most_sum;
    }
    if (odd) return 1;
    *loose = uncoupled;
    report->max_diagonal = max_diagonal, report->least_diagonal = least_diagonal;
    report->least_sum = least_sum, report->most_sum = most_sum;
    report->extra += extra, report->inexact |= inexact, report->stiff += stiff;
    for (int t = 0; small && t < n; t++)
        if (!dirichlet[t]) count_small(report, small_sum(m, run, t), 1);
    /* from a face to the next along its axis, which is the first one beyond the end of the grid */
    const int64_t nx = m->nx, plane = nx * m->ny;
    const int64_t on[3] = {1, cell % plane >= plane - nx ? nx - plane : nx,
                           cell >= plane * (m->nz - 1) ? plane - plane * m->nz : plane};
    const int64_t last = nx - 1 - cell % nx; /* of the line */
    for (int f = 0; f < 3; f++) {
        const double *restrict low = run->v[2 * f], *restrict high = run->v[2 * f + 1];
        double least = report->w_min[f], most = report->w_max[f], sum = 0;
        int64_t count = 0;
        uint64_t hash = 0;
        const uint64_t first = FACE * (3 * (uint64_t)cell + (uint64_t)f), step = 3 * FACE * (uint64_t)on[f];
#pragma omp simd reduction(+ : sum, count, hash) reduction(min : least) reduction(max : most)
        for (int t = 0; t < n; t++) {
            const uint64_t face = first + 3 * FACE * (uint64_t)t;
            if (hashed) hash += face_hash(face + step, high[t]) - face_hash(face, low[t]);
            const double present = low[t] > 0 ? low[t] : HUGE_VAL;
            least = present < least ? present : least;
            most = low[t] > most ? low[t] : most;
            sum += low[t];
            count += low[t] > 0;
        }
        if (hashed && f == 0 && last < n) {
            const uint64_t beyond = first + 3 * FACE * (uint64_t)(last + 1);
            hash += face_hash(beyond - 3 * FACE * (uint64_t)nx, high[last]) - face_hash(beyond, high[last]);
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

/* Rows whose cells are nowhere near each other, at most RUN from r on, into a packed stencil. Returns 0 if they do not
 * fit. */
static int extract_single(const csr_matrix *m, csr_output *out, csr_report *report, int64_t r, int n,
                          s_values *known) {
    const int64_t nx = m->nx, ny = m->ny, nz = m->nz, plane = nx * ny;
    row_place at = {.step = {nx > 1 ? 1 : 0, ny > 1 ? nx : 0, nz > 1 ? plane : 0}};
    row_run run;
    double s[RUN];
    int64_t to[RUN];
    uint8_t cells[RUN], s_index[RUN];
    int loose = 0;
    for (int t = 0; t < n; t++) {
        const int64_t cell = m->cell[r + t];
        fetch_ahead(m, r + t);
        to[t] = -1;
        if (cell >= 0 && cell < plane * nz) {
            const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
            int64_t longest = 1;
            at.cell = cell;
            at.inside[0] = i > 0, at.inside[1] = i + 1 < nx, at.inside[2] = j > 0, at.inside[3] = j + 1 < ny;
            at.inside[4] = k > 0, at.inside[5] = k + 1 < nz;
            to[t] = output_at(out, r + t, i, j, k, &longest);
        }
        if (to[t] < 0) {
            report_error(report, CSR_OUTSIDE, r + t, cell, 0);
            return 0;
        }
        __builtin_prefetch(out->cells + to[t], 1);
        read_row(m, r + t, &at, &run, t, report);
    }
    if (report->code != CSR_OK || evaluate_run(m, &run, s, r, 0, n, 0, report, &loose)) return 0;
    if (loose && any_hidden(m, r, n)) {
#pragma omp atomic write
        out->hidden = 1;
        return 0;
    }
    if (!pack_run(out, cells, s_index, &run, s, n, known)) {
#pragma omp atomic write
        out->misfits = 1;
        return 0;
    }
    for (int t = 0; t < n; t++) {
        out->cells[to[t]] = cells[t];
        if (cells[t] & HAS_S) out->s_index[to[t]] = s_index[t];
    }
    return 1;
}

/* seen: rows that this report has counted. */
static void extract_rows(const csr_matrix *m, csr_output *out, csr_report *report, seen_rows *seen, int64_t begin_row,
                         int64_t end_row) {
    const int64_t nx = m->nx, ny = m->ny, nz = m->nz, plane = nx * ny, cells = plane * nz;
    row_place at = {.step = {nx > 1 ? 1 : 0, ny > 1 ? nx : 0, nz > 1 ? plane : 0}};
    block_reader *read = m->wide ? read_block_wide : nz == 1 ? read_block_2d : read_block_3d;
    common_counter *count = m->wide ? count_common_wide : nz == 1 ? count_common_2d : count_common_3d;
    common_row *const common = &seen->common;
    known_row *const kinds = out->cells ? seen->kinds : NULL;
    row_run run;
    double s[RUN];
    s_values known = {.count = 0};
    for (int64_t r = begin_row; r < end_row;) {
        const int single = out->cells && m->cell ? count_single(m, r, end_row) : 0;
        if (single >= SHORTEST) {
            if (!extract_single(m, out, report, r, single, &known)) return;
            r += single;
            continue;
        }
        const int64_t cell = cell_of(m, r);
        if (cell < 0 || cell >= cells) {
            report_error(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
        at.inside[2] = j > 0, at.inside[3] = j + 1 < ny, at.inside[4] = k > 0, at.inside[5] = k + 1 < nz;
        int inside = 0; /* as bits, along y and z */
        for (int side = 2; side < 6; side++) inside |= at.inside[side] << side;
        const int64_t left = m->line ? m->line - r % m->line : nx - i; /* rows of the line */
        int64_t longest = left;
        int64_t to = output_at(out, r, i, j, k, &longest);
        if (to < 0) {
            report_error(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        if (longest > end_row - r) longest = end_row - r;
        if (longest > RUN) longest = RUN;
        if (out->cells) {
            const int64_t uncoupled = count_uncoupled(m, r, longest);
            int64_t same = 0;
            if (!uncoupled && common->entry >= 0) {
                at.cell = cell;
                at.inside[0] = i > 0, at.inside[1] = 1;
                same = count(m, r, &at, common, longest < left ? longest : longest - 1);
            }
            if (same) {
                memset(out->cells + to, common->cell, (size_t)same);
                if (common->cell & HAS_S) memset(out->s_index + to, common->s_index, (size_t)same);
                for (int f = 0; f < 3; f++)
                    report->w_sum[f] += (double)same * common->w[f], report->w_count[f] += common->w[f] > 0 ? same : 0;
                report->extra += common->cell & HAS_S ? same : 0;
                count_small(report, common->small_sum, same);
            }
            int64_t rows = uncoupled + same; /* cells are 0 before */
            if (kinds && !uncoupled && rows < longest)
                rows += write_known(m, out, report, seen, r + rows, cell + rows, to + rows, i + rows, longest - rows,
                                    inside, same > 0);
            r += rows;
            if (rows) continue;
        }
        int n = 0, regular = 0; /* the last rows are as others may be: 1; those that come next are common ones: -1 */
        while (n < longest && !regular && (!m->cell || m->cell[r + n] == cell + n)) {
            at.cell = cell + n;
            at.inside[0] = i + n > 0, at.inside[1] = 1;
            /* the last of a line is no inner cell */
            const int64_t in_line = longest < left ? longest - n : longest - n - 1;
            int block = in_line < BLOCK ? (int)in_line : BLOCK;
            while (block >= SHORTEST && !read(m, r + n, &at, &run, n, block)) block /= 4;
            if (block >= SHORTEST) {
                n += block;
                regular = out->cells != NULL; /* perhaps what follows is as this */
                continue;
            }
            /* the first of a line, or the first beside a Dirichlet row, or what is known may come next */
            const int some = i + n <= 1 || kinds ? 1 : SHORTEST;
            for (int end = n + some; n < end && n < longest && (!m->cell || m->cell[r + n] == cell + n); n++) {
                at.cell = cell + n;
                at.inside[0] = i + n > 0, at.inside[1] = i + n + 1 < nx;
                read_row(m, r + n, &at, &run, n, report);
            }
            if (common->entry >= 0 && in_line - some >= SHORTEST) {
                at.cell = cell + n;
                at.inside[0] = at.inside[1] = 1;
                regular = count(m, r + n, &at, common, SHORTEST) > 0 ? -1 : 0;
            }
            if (kinds && !regular && n < longest)
                regular = find_known(m, kinds, r + n, i + n, inside) ? -1 : 0;
        }
        if (report->code != CSR_OK) return;
        int loose = 0;
        if (evaluate_run(m, &run, s, r, cell, n, !out->cells, report, &loose)) {
            /* Once more with all checks: rounding is cleaned away, anything worse is reported. */
            for (int t = 0; t < n; t++) {
                at.cell = cell + t;
                at.inside[0] = i + t > 0, at.inside[1] = i + t + 1 < nx;
                read_row(m, r + t, &at, &run, t, report);
            }
            if (evaluate_run(m, &run, s, r, cell, n, !out->cells, report, &loose)) return;
        }
        if (loose && any_hidden(m, r, n)) {
#pragma omp atomic write
            out->hidden = 1;
            return;
        }
        if (out->cells && !pack_run(out, out->cells + to, out->s_index + to, &run, s, n, &known)) {
#pragma omp atomic write
            out->misfits = 1;
            return;
        }
        for (int t = regular > 0 ? n - 1 : 0; t < n && kinds; t++)
            keep_known(m, kinds, &at, r + t, &run, t, small_sum(m, &run, t), out->cells[to + t], out->s_index[to + t]);
        if (regular > 0) {
            *common = (common_row){.entry = get_index(m->indptr, r + n - 1, (int)m->wide),
                                .w = {run.v[0][n - 1], run.v[2][n - 1], run.v[4][n - 1]},
                                .small_sum = small_sum(m, &run, n - 1),
                                .cell = out->cells[to + n - 1],
                                .s_index = out->s_index[to + n - 1]};
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
    const csr_report nothing = {.w_min = {HUGE_VAL, HUGE_VAL, HUGE_VAL},
                                .least_sum = HUGE_VAL,
                                .most_sum = -HUGE_VAL,
                                .least_diagonal = HUGE_VAL};
    csr_report all = nothing;
#pragma omp parallel num_threads(threads)
    {
        csr_report mine = nothing;
        seen_rows seen;
        forget_rows(&seen);
        /* Chunks, so that threads share the work evenly where rows differ in length: some for each, in turns. */
        const int64_t share = m->rows / (8 * (int64_t)threads), least = 1 << 11, most = 1 << 14;
        const int64_t chunk = share < least ? least : share > most ? most : share;
#pragma omp for schedule(static, 1)
        for (int64_t c = 0; c < (m->rows + chunk - 1) / chunk; c++) {
            const int64_t a = c * chunk, b = a + chunk < m->rows ? a + chunk : m->rows;
            int64_t useless, hidden;
#pragma omp atomic read
            useless = out->misfits;
#pragma omp atomic read
            hidden = out->hidden;
            if (!useless && !hidden && mine.code == CSR_OK) extract_rows(m, out, &mine, &seen, a, b);
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
            all.wrapped |= mine.wrapped;
            all.extra += mine.extra, all.inexact |= mine.inexact, all.stiff += mine.stiff;
            if (mine.least_sum < all.least_sum) all.least_sum = mine.least_sum;
            if (mine.most_sum > all.most_sum) all.most_sum = mine.most_sum;
            if (mine.least_diagonal < all.least_diagonal) all.least_diagonal = mine.least_diagonal;
            for (int i = 0; i < 2; i++) all.small_sums[i] += mine.small_sums[i];
        }
    }
    for (int f = 0; f < 3; f++)
        if (all.w_count[f] == 0) all.w_min[f] = 0;
    *report = all;
}
