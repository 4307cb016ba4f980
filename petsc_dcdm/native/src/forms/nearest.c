/* What the rows of a compact 9- or 27-point matrix add up to, axis by axis: the material of the nearest 5- or 7-point
 * operator. One pass over the matrix; nothing is allocated. */
#include <math.h>

#include "entries/csr.h"
#include "forms/compact.h"

enum { RUN = 64 };

/* Where a row's neighbours are, by place: distances are in cells, round the ends of grid lines of more than two cells,
 * whether these are known to be rings or not. A place that is outside of the grid is not inside, and those on the way
 * round a ring of two cells are not: what is there is in the place on the other side (`doubled`: bits of such axes).
 * Entries are mostly in the order of the places: the search for one begins after the last. */
typedef struct {
    int64_t distance[PLACES];
    uint8_t inside[PLACES], round[PLACES]; /* round: bits of the axes whose ends it goes round */
    int doubled, next;
} neighbourhood;

/* For cell i, j, k; i < 0: for one that is at no end of the line. */
static void look_around(const csr_matrix *m, neighbourhood *around, int64_t i, int64_t j, int64_t k) {
    const int64_t n[3] = {m->nx, m->ny, m->nz}, stride[3] = {1, m->nx, m->nx * m->ny}, at[3] = {i, j, k};
    int64_t away[3][3]; /* by axis and step + 1 */
    uint8_t inside[3][3], round[3][3];
    around->doubled = 0;
    for (int axis = 0; axis < 3; axis++) {
        around->doubled |= (m->ring[axis] && n[axis] == 2) << axis;
        for (int step = -1; step < 2; step++) {
            const int64_t to = at[axis] + step;
            const int beyond = (to < 0 || to >= n[axis]) && at[axis] >= 0;
            away[axis][step + 1] = stride[axis] * (step - (beyond ? step * n[axis] : 0));
            inside[axis][step + 1] = !beyond || n[axis] > 2;
            round[axis][step + 1] = (uint8_t)(beyond << axis);
        }
    }
    for (int q = 0; q < PLACES; q++) {
        const int x = q % 3, y = q / 3 % 3, z = q / 9;
        around->distance[q] = away[0][x] + away[1][y] + away[2][z];
        around->inside[q] = inside[0][x] & inside[1][y] & inside[2][z];
        around->round[q] = round[0][x] | round[1][y] | round[2][z];
    }
}

/* The place of a cell so far away, -1 if it is none of the neighbourhood. */
INLINE int find_place(neighbourhood *around, int64_t distance) {
    for (int n = 0, q = around->next; n < PLACES; n++, q++) {
        if (q >= PLACES) q -= PLACES;
        if (around->distance[q] != distance || !around->inside[q]) continue;
        around->next = q + 1;
        return q;
    }
    return -1;
}

/* One entry off the diagonal: to a local row, or (local < 0) to a ghost. */
INLINE void add_entry(const csr_matrix *m, int64_t r, int64_t cell, neighbourhood *around, double value,
                      int64_t local, int64_t ghost, int64_t column, double (*v)[RUN], int t, csr_report *report) {
    if (value == 0) return;
    if (!isfinite(value)) report_error(report, CSR_NOT_FINITE, r, column, value);
    if (local < 0 && ghost < 0) {
        report_error(report, CSR_OUTSIDE, r, column, value);
        return;
    }
    const int64_t there = local < 0 ? m->ghost_cell[ghost] : cell_of(m, local);
    const int place = find_place(around, there - cell);
    if (place < 0) {
        report_error(report, CSR_NOT_NEIGHBOUR, r, column, value);
        return;
    }
    const int both = around->doubled & across(place); /* axes of two cells, along which it goes both ways */
    report->wrapped |= around->round[place] | both;
    if (around->round[place]) report->wrapped |= twist_of(place, around->round[place]);
    if (local < 0 ? m->ghost_dirichlet[ghost] : m->dirichlet[local]) return;
    if (!both) {
        v[place][t] += value;
        return;
    }
    for (int axes = 0; axes < 8; axes++)
        if (!(axes & ~both)) v[mirrored(place, axes)][t] += value / (double)(1 << bits_of(both));
}

/* Any row, with all checks: place t of v gets the entries, without those in the columns of Dirichlet rows, and zeros
 * for those rows. */
static void read_any(const csr_matrix *m, int64_t r, int64_t cell, neighbourhood *around, double (*v)[RUN],
                     int t, csr_report *report) {
    const int wide = (int)m->wide;
    around->next = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift, column = local + m->first_column;
        const double value = m->sign * m->values[e];
        if (m->dirichlet[r]) {
            if (!isfinite(value)) report_error(report, CSR_NOT_FINITE, r, column, value);
        } else if (local == r) v[CENTRE][t] += value;
        else if (local >= 0 && local < m->rows)
            add_entry(m, r, cell, around, value, local, -1, column, v, t, report);
        else add_entry(m, r, cell, around, value, -1, find_ghost(m, column), column, v, t, report);
    }
    if (m->off_indptr && !m->dirichlet[r])
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++) {
            const int64_t ghost = get_index(m->off_indices, e, wide);
            add_entry(m, r, cell, around, m->sign * m->off_values[e], -1, ghost, m->ghost_column[ghost], v, t, report);
        }
}

/* A row that has the places of the row before it, `places` of its entries in order, none of them a Dirichlet row or one
 * of another rank. Returns 0 for any other. Both rows are inner ones of the same grid line. */
INLINE int read_alike(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around, const int8_t *places,
                      int64_t width, double (*v)[RUN], int t, int wide) {
    const int64_t e = get_index(m->indptr, r, wide);
    if (get_index(m->indptr, r + 1, wide) - e != width) return 0;
    if (m->off_indptr && get_index(m->off_indptr, r + 1, wide) != get_index(m->off_indptr, r, wide)) return 0;
    int64_t odd = 0;
    for (int64_t q = 0; q < width; q++)
        odd |= (get_index(m->indices, e + q, wide) - get_index(m->indices, e + q - width, wide)) ^ 1;
    if (odd) return 0;
    for (int64_t q = 0; q < width; q++) {
        const int64_t local = get_index(m->indices, e + q, wide) - m->shift;
        if (local >= m->rows) return 0;
        odd |= m->dirichlet[local];
        if (m->cell) odd |= m->cell[local] ^ (cell + around->distance[places[q]]);
    }
    if (odd) return 0;
    for (int64_t q = 0; q < width; q++) v[places[q]][t] = m->sign * m->values[e + q];
    return 1;
}

typedef int alike_reader(const csr_matrix *, int64_t, int64_t, const neighbourhood *, const int8_t *, int64_t,
                         double (*)[RUN], int);
static int read_alike_narrow(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around,
                             const int8_t *places, int64_t width, double (*v)[RUN], int t) {
    return read_alike(m, r, cell, around, places, width, v, t, 0);
}
static int read_alike_wide(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around,
                           const int8_t *places, int64_t width, double (*v)[RUN], int t) {
    return read_alike(m, r, cell, around, places, width, v, t, 1);
}

/* The places of the entries of a row that has been read, for `read_alike`; returns how many, 0 if some are not local or
 * more than there are places. */
static int64_t list_places(const csr_matrix *m, int64_t r, int64_t cell, neighbourhood *around, int8_t *places) {
    const int wide = (int)m->wide;
    const int64_t e = get_index(m->indptr, r, wide), width = get_index(m->indptr, r + 1, wide) - e;
    if (m->dirichlet[r] || width > PLACES || around->doubled) return 0;
    if (m->off_indptr && get_index(m->off_indptr, r + 1, wide) != get_index(m->off_indptr, r, wide)) return 0;
    around->next = 0;
    for (int64_t q = 0; q < width; q++) {
        const int64_t local = get_index(m->indices, e + q, wide) - m->shift;
        if (local < 0 || local >= m->rows) return 0;
        const int place = find_place(around, cell_of(m, local) - cell);
        if (place < 0) return 0;
        places[q] = (int8_t)place;
    }
    return width;
}

/* What a run of rows adds up to. */
typedef struct {
    double v[PLACES][RUN], low[3][RUN], high[3][RUN], total[RUN], mixed[3][RUN], size[RUN];
} run_sums;

/* The sums of the entries to the low and to the high side along each axis, with the other sign, the row sum, and by
 * how much two axes are mixed: the sums of the entries times both steps, xy, xz, yz. */
static void add_up(run_sums *s, int n) {
    double(*restrict v)[RUN] = s->v;
    for (int t = 0; t < RUN; t++) s->total[t] = s->size[t] = 0;
    for (int f = 0; f < 3; f++)
        for (int t = 0; t < RUN; t++) s->low[f][t] = s->high[f][t] = s->mixed[f][t] = 0;
    for (int q = 0; q < PLACES; q++) {
        const int step[3] = {q % 3 - 1, q / 3 % 3 - 1, q / 9 - 1};
        for (int t = 0; t < n; t++) s->total[t] += v[q][t], s->size[t] += fabs(v[q][t]);
        for (int axis = 0; axis < 3; axis++) {
            double *restrict side = step[axis] < 0 ? s->low[axis] : s->high[axis];
            for (int t = 0; step[axis] && t < n; t++) side[t] -= v[q][t];
        }
        for (int pair = 0; pair < 3; pair++) {
            const int both = step[pair == 2] * step[pair == 0 ? 1 : 2];
            double *restrict mixed = s->mixed[pair];
            for (int t = 0; both && t < n; t++) mixed[t] -= both * v[q][t];
        }
    }
}

/* Every coupling with the number of its pair of cells, with one sign from the one cell and the other from the other.
 * around: of a cell that is at no end of the line, of which the run begins with cell i. */
static uint64_t checksum(const run_sums *s, const neighbourhood *around, int64_t cell, int64_t i, int64_t nx, int n) {
    uint64_t sum = 0;
    for (int q = 0; q < PLACES; q++) {
        if (q == CENTRE) continue;
        const int64_t pair = q > CENTRE ? PLACES * cell + q : PLACES * (cell + around->distance[q]) + 2 * CENTRE - q;
        const uint64_t first = FACE * (uint64_t)pair;
        uint64_t part = 0;
        for (int t = 0; t < n; t++) part += face_hash(first + FACE * PLACES * (uint64_t)t, s->v[q][t] + 0.0);
        sum += q > CENTRE ? part : -part;
        /* the first cell of the line and the last one have their neighbours at the other end */
        const int64_t end = q % 3 == 0 ? -i : q % 3 == 2 ? nx - 1 - i : n;
        if (q > CENTRE || end < 0 || end >= n) continue;
        const uint64_t taken = first + FACE * PLACES * (uint64_t)end, length = FACE * PLACES * (uint64_t)nx;
        const double value = s->v[q][end] + 0.0;
        sum += face_hash(taken, value) - face_hash(q % 3 == 0 ? taken + length : taken - length, value);
    }
    return sum;
}

/* Where it goes; see dcdm_csr_nearest. */
typedef struct {
    const csr_output *out;
    float *couplings;
    int64_t places, size;
    double mixture[3], magnitude;
} target;

static void write_run(const csr_matrix *m, run_sums *s, int64_t r, int64_t to, int n, target *into,
                      csr_report *report) {
    const csr_output *out = into->out;
    const uint8_t *dirichlet = m->dirichlet + r;
    const double scale = m->scale;
    for (int t = 0; t < n; t++) {
        const double d = s->v[CENTRE][t];
        if (dirichlet[t]) continue;
        if (!isfinite(s->size[t])) report_error(report, CSR_NOT_FINITE, r + t, -1, s->size[t]);
        else if (!(d > 0)) report_error(report, CSR_DIAGONAL, r + t, r + t + m->first_column, d);
    }
    for (int f = 0; f < 3; f++) {
        double *restrict low = (double *)out->w_low[f] + to, *restrict high = (double *)out->w_high[f] + to;
        for (int t = 0; t < n; t++) low[t] = scale * s->low[f][t] + 0.0, high[t] = scale * s->high[f][t] + 0.0;
        for (int t = 0; t < n; t++) into->mixture[f] += dirichlet[t] ? 0 : fabs(s->mixed[f][t]) / s->v[CENTRE][t];
    }
    double *restrict sum = (double *)out->s + to, *restrict diagonal = (double *)out->diagonal + to;
    for (int t = 0; t < n; t++) sum[t] = scale * s->total[t], diagonal[t] = scale * s->v[CENTRE][t];
    for (int t = 0; t < n; t++) {
        const double ratio = dirichlet[t] ? 0 : s->size[t] / s->v[CENTRE][t];
        into->magnitude = ratio > into->magnitude ? ratio : into->magnitude;
    }
    for (int64_t f = 0; f < into->places; f++) {
        float *restrict c = into->couplings + f * into->size + to;
        for (int t = 0; t < n; t++) c[t] = (float)(scale * s->v[CENTRE + f][t]);
    }
}

static void sum_rows(const csr_matrix *m, target *into, csr_report *report, int64_t begin_row, int64_t end_row) {
    const csr_output *out = into->out;
    const int64_t nx = m->nx, ny = m->ny, nz = m->nz, plane = nx * ny, cells = plane * nz;
    neighbourhood around, middle;
    run_sums s;
    alike_reader *read = m->wide ? read_alike_wide : read_alike_narrow;
    int8_t places[PLACES];
    for (int64_t r = begin_row; r < end_row && report->code == CSR_OK;) {
        const int64_t cell = cell_of(m, r);
        if (cell < 0 || cell >= cells) {
            report_error(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
        int64_t n = nx - i < RUN ? nx - i : RUN;
        const int64_t to = output_at(out, r, i, j, k, &n);
        if (to < 0) {
            report_error(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        if (n > end_row - r) n = end_row - r;
        for (int64_t t = 1; m->cell && t < n; t++)
            if (m->cell[r + t] != cell + t) n = t;
        memset(s.v, 0, sizeof s.v);
        look_around(m, &middle, -1, j, k);
        int known = -1; /* whether the row is at the low or the high end of the line, of which the places are known */
        int64_t width = 0;
        for (int t = 0; t < n; t++) {
            const int end = (i + t == 0) + 2 * (i + t + 1 == nx);
            if (width && !end && read(m, r + t, cell + t, &around, places, width, s.v, t)) continue;
            if (end != known && end) look_around(m, &around, i + t, j, k);
            else if (end != known) around = middle;
            known = end;
            read_any(m, r + t, cell + t, &around, s.v, t, report);
            width = end ? 0 : list_places(m, r + t, cell + t, &around, places);
        }
        add_up(&s, (int)n);
        report->symmetry += checksum(&s, &middle, cell, i, nx, (int)n);
        write_run(m, &s, r, to, (int)n, into, report);
        r += n;
    }
}

/* Per row, in float64 times `scale`: in w_low and w_high what it gives a linear function along each axis, in s its sum,
 * and its diagonal; and its couplings (compact.h), in `places` arrays of `size` elements. mixture (xy, xz, yz): sums
 * over the rows of what mixes two axes, relative to the diagonal; magnitude: the largest sum of a row's magnitudes,
 * couplings to Dirichlet rows left out, relative to its diagonal. Of the report the error, the symmetry, and what is
 * wrapped. */
void dcdm_csr_nearest(const csr_matrix *m, const csr_output *out, float *couplings, int64_t places, int64_t size,
                      double *mixture, double *magnitude, csr_report *report, int threads) {
    csr_report all = {.code = CSR_OK};
    double xy = 0, xz = 0, yz = 0, largest = 0;
    const int64_t chunk = 1 << 12, chunks = (m->rows + chunk - 1) / chunk;
#pragma omp parallel num_threads(threads) reduction(+ : xy, xz, yz) reduction(max : largest)
    {
        csr_report mine = {.code = CSR_OK};
        target into = {.out = out, .couplings = couplings, .places = places, .size = size};
#pragma omp for schedule(static)
        for (int64_t c = 0; c < chunks; c++)
            sum_rows(m, &into, &mine, c * chunk, (c + 1) * chunk < m->rows ? (c + 1) * chunk : m->rows);
        xy += into.mixture[0], xz += into.mixture[1], yz += into.mixture[2];
        largest = into.magnitude;
#pragma omp critical
        {
            if (mine.code != CSR_OK) report_error(&all, mine.code, mine.row, mine.column, mine.value);
            all.symmetry += mine.symmetry, all.wrapped |= mine.wrapped;
        }
    }
    mixture[0] = xy, mixture[1] = xz, mixture[2] = yz;
    *magnitude = largest;
    *report = all;
}
