/* What the rows of a compact 9- or 27-point matrix add up to, axis by axis: the material of the nearest 5- or 7-point
 * operator. One pass over the matrix; nothing is allocated. */
#include <math.h>

#include "entries/csr.h"
#include "forms/compact.h"

enum { RUN = 64 };

/* Where a row's neighbours are: place 9 (dz + 1) + 3 (dy + 1) + (dx + 1); distances are in cells, and a place that is
 * outside of the grid is not inside. */
typedef struct {
    int64_t distance[PLACES];
    uint8_t inside[PLACES];
} neighbourhood;

static int64_t find_ghost_column(const csr_matrix *m, int64_t column) {
    int64_t low = 0, high = m->ghosts;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (m->ghost_column[middle] < column) low = middle + 1;
        else high = middle;
    }
    return low < m->ghosts && m->ghost_column[low] == column ? low : -1;
}

static void report_first(csr_report *p, int64_t code, int64_t row, int64_t column, double value) {
    if (p->code != CSR_OK && p->row <= row) return;
    p->code = code, p->row = row, p->column = column, p->value = value;
}

/* The place of a cell so far away, -1 if it is none of the neighbourhood. */
INLINE int find_place(const neighbourhood *around, int64_t distance) {
    for (int q = 0; q < PLACES; q++)
        if (around->inside[q] && around->distance[q] == distance) return q;
    return -1;
}

/* One entry off the diagonal: to a local row, or (local < 0) to a ghost. */
INLINE void add_entry(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around, double value,
                      int64_t local, int64_t ghost, int64_t column, double (*v)[RUN], int t, csr_report *report) {
    if (value == 0) return;
    if (!isfinite(value)) report_first(report, CSR_NOT_FINITE, r, column, value);
    if (local < 0 && ghost < 0) {
        report_first(report, CSR_OUTSIDE, r, column, value);
        return;
    }
    const int64_t there = local < 0 ? m->ghost_cell[ghost] : m->cell ? m->cell[local] : m->first_cell + local;
    const int place = find_place(around, there - cell);
    if (place < 0) report_first(report, CSR_NOT_NEIGHBOUR, r, column, value);
    else if (!(local < 0 ? m->ghost_dirichlet[ghost] : m->dirichlet[local])) v[place][t] += value;
}

/* Any row, with all checks: place t of v gets the entries, without those in the columns of Dirichlet rows, and zeros
 * for those rows. */
static void read_any(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around, double (*v)[RUN],
                     int t, csr_report *report) {
    const int wide = (int)m->wide;
    for (int q = 0; q < PLACES; q++) v[q][t] = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift, column = local + m->first_column;
        const double value = m->sign * m->values[e];
        if (m->dirichlet[r]) {
            if (!isfinite(value)) report_first(report, CSR_NOT_FINITE, r, column, value);
        } else if (local == r) v[CENTRE][t] += value;
        else if (local >= 0 && local < m->rows)
            add_entry(m, r, cell, around, value, local, -1, column, v, t, report);
        else add_entry(m, r, cell, around, value, -1, find_ghost_column(m, column), column, v, t, report);
    }
    if (m->off_indptr && !m->dirichlet[r])
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++) {
            const int64_t ghost = get_index(m->off_indices, e, wide);
            add_entry(m, r, cell, around, m->sign * m->off_values[e], -1, ghost, m->ghost_column[ghost], v, t, report);
        }
}

/* Which of n rows from r on, whose cells follow each other, have a Dirichlet row among their neighbours: rows are cells,
 * and all neighbours are rows. */
static void find_lone(const csr_matrix *m, int64_t r, const neighbourhood *around, int first, int width, int n,
                      uint8_t *lone) {
    for (int t = 0; t < n; t++) lone[t] = 0;
    for (int q = first; q < first + width; q++) {
        const uint8_t *restrict flag = m->dirichlet + r + around->distance[q];
        for (int t = 0; t < n; t++) lone[t] |= flag[t];
    }
}

/* A row with all neighbours, in their order, where rows are cells. Returns 0 for any other. */
INLINE int read_inner(const csr_matrix *m, int64_t r, const int64_t *distance, int first, int width, double (*v)[RUN],
                      int t, int wide) {
    const int64_t e = get_index(m->indptr, r, wide);
    if (get_index(m->indptr, r + 1, wide) - e != width) return 0;
    if (m->off_indptr && get_index(m->off_indptr, r + 1, wide) != get_index(m->off_indptr, r, wide)) return 0;
    int64_t odd = 0;
    for (int q = 0; q < width; q++) odd |= (get_index(m->indices, e + q, wide) - m->shift) ^ (r + distance[first + q]);
    if (odd) return 0;
    for (int q = 0; q < width; q++) v[first + q][t] = m->sign * m->values[e + q];
    return 1;
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

/* Every coupling with the number of its pair of cells, with one sign from the one cell and the other from the other. */
static uint64_t checksum(const run_sums *s, const neighbourhood *around, int64_t cell, int n) {
    uint64_t sum = 0;
    for (int q = 0; q < PLACES; q++) {
        if (q == CENTRE) continue;
        const int64_t pair = q > CENTRE ? PLACES * cell + q : PLACES * (cell + around->distance[q]) + 2 * CENTRE - q;
        const uint64_t first = FACE * (uint64_t)pair;
        uint64_t part = 0;
        for (int t = 0; t < n; t++) part += face_hash(first + FACE * PLACES * (uint64_t)t, s->v[q][t] + 0.0);
        sum += q > CENTRE ? part : -part;
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
        if (!isfinite(s->size[t])) report_first(report, CSR_NOT_FINITE, r + t, -1, s->size[t]);
        else if (!(d > 0)) report_first(report, CSR_DIAGONAL, r + t, r + t + m->first_column, d);
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
    const int first = nz > 1 ? 0 : 9, width = nz > 1 ? 27 : 9, wide = (int)m->wide;
    neighbourhood around;
    run_sums s;
    uint8_t lone[RUN];
    for (int q = 0; q < PLACES; q++) {
        around.distance[q] = (q / 9 - 1) * plane + (q / 3 % 3 - 1) * nx + q % 3 - 1;
        for (int t = 0; t < RUN; t++) s.v[q][t] = 0;
    }
    for (int64_t r = begin_row; r < end_row && report->code == CSR_OK;) {
        const int64_t cell = m->cell ? m->cell[r] : m->first_cell + r;
        if (cell < 0 || cell >= cells) {
            report_first(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
        int64_t to = r, n = nx - i < RUN ? nx - i : RUN;
        if (out->pitch_y > 0) {
            const int64_t x = i - out->offset[0], y = j - out->offset[1], z = k - out->offset[2];
            if (x < 0 || x >= out->box[0] || y < 0 || y >= out->box[1] || z < 0 || z >= out->box[2]) {
                report_first(report, CSR_OUTSIDE, r, cell, 0);
                return;
            }
            to = out->origin + z * out->pitch_z + y * out->pitch_y + x;
            if (n > out->box[0] - x) n = out->box[0] - x;
        }
        if (n > end_row - r) n = end_row - r;
        for (int64_t t = 1; m->cell && t < n; t++)
            if (m->cell[r + t] != cell + t) n = t;
        /* the neighbours of the inner cells of a line, where they are local rows in the same order */
        const int64_t a = i > 0 ? 0 : 1, b = i + n < nx ? n : n - 1, end = first + width - 1;
        const int inner = !m->cell && a < b && j > 0 && j + 1 < ny && (nz == 1 || (k > 0 && k + 1 < nz)) &&
                          r + a + around.distance[first] >= 0 && r + b - 1 + around.distance[end] < m->rows;
        if (inner) find_lone(m, r + a, &around, first, width, (int)(b - a), lone + a);
        for (int t = 0; t < n; t++) {
            if (inner && t >= a && t < b && !lone[t] && read_inner(m, r + t, around.distance, first, width, s.v, t, wide))
                continue;
            for (int q = 0; q < PLACES; q++) {
                const int64_t x = i + t + q % 3 - 1, y = j + q / 3 % 3 - 1, z = k + q / 9 - 1;
                around.inside[q] = x >= 0 && x < nx && y >= 0 && y < ny && z >= 0 && z < nz;
            }
            read_any(m, r + t, cell + t, &around, s.v, t, report);
        }
        add_up(&s, (int)n);
        report->symmetry += checksum(&s, &around, cell, (int)n);
        write_run(m, &s, r, to, (int)n, into, report);
        r += n;
    }
}

/* Per row, in float64 times `scale`: in w_low and w_high what it gives a linear function along each axis, in s its sum,
 * and its diagonal; and its couplings (compact.h), in `places` arrays of `size` elements. mixture (xy, xz, yz): sums
 * over the rows of what mixes two axes, relative to the diagonal; magnitude: the largest sum of a row's magnitudes,
 * couplings to Dirichlet rows left out, relative to its diagonal. Of the report the error is set, and the symmetry. */
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
            if (mine.code != CSR_OK) report_first(&all, mine.code, mine.row, mine.column, mine.value);
            all.symmetry += mine.symmetry;
        }
    }
    mixture[0] = xy, mixture[1] = xz, mixture[2] = yz;
    *magnitude = largest;
    *report = all;
}
