/* What the rows of a compact 9- or 27-point matrix add up to, axis by axis: the material of the nearest 5- or 7-point
 * operator. One pass over the matrix; nothing is allocated. */
#include <math.h>

#include "entries/csr.h"

enum { PLACES = 27, CENTRE = 13 };

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
                      int64_t local, int64_t ghost, int64_t column, double *v, csr_report *report) {
    if (value == 0) return;
    if (local < 0 && ghost < 0) {
        report_first(report, CSR_OUTSIDE, r, column, value);
        return;
    }
    const int64_t there = local < 0 ? m->ghost_cell[ghost] : m->cell ? m->cell[local] : m->first_cell + local;
    const int place = find_place(around, there - cell);
    if (place < 0) report_first(report, CSR_NOT_NEIGHBOUR, r, column, value);
    else if (!(local < 0 ? m->ghost_dirichlet[ghost] : m->dirichlet[local])) v[place] += value;
}

/* Any row, with all checks: v gets the entries by place, without those in the columns of Dirichlet rows. Returns the
 * sum of the magnitudes of all entries. */
static double read_any(const csr_matrix *m, int64_t r, int64_t cell, const neighbourhood *around, double *v,
                       csr_report *report) {
    const int wide = (int)m->wide;
    double magnitude = 0;
    for (int q = 0; q < PLACES; q++) v[q] = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t local = get_index(m->indices, e, wide) - m->shift, column = local + m->first_column;
        const double value = m->sign * m->values[e];
        magnitude += fabs(value);
        if (local == r) v[CENTRE] += value;
        else if (local >= 0 && local < m->rows)
            add_entry(m, r, cell, around, value, local, -1, column, v, report);
        else add_entry(m, r, cell, around, value, -1, find_ghost_column(m, column), column, v, report);
    }
    if (m->off_indptr)
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++) {
            const int64_t ghost = get_index(m->off_indices, e, wide);
            magnitude += fabs(m->off_values[e]);
            add_entry(m, r, cell, around, m->sign * m->off_values[e], -1, ghost, m->ghost_column[ghost], v, report);
        }
    return magnitude;
}

/* A row with all neighbours, in their order, none of them a Dirichlet row, where rows are cells. Returns 0 for any
 * other. */
INLINE int read_inner(const csr_matrix *m, int64_t r, const neighbourhood *around, int first, int width, double *v,
                      double *magnitude, int wide) {
    const int64_t e = get_index(m->indptr, r, wide);
    if (get_index(m->indptr, r + 1, wide) - e != width) return 0;
    if (m->off_indptr && get_index(m->off_indptr, r + 1, wide) != get_index(m->off_indptr, r, wide)) return 0;
    const int64_t low = r + around->distance[first], high = r + around->distance[first + width - 1];
    if (low < 0 || high >= m->rows) return 0;
    int64_t odd = 0;
    uint8_t lone = 0;
    for (int q = 0; q < width; q++) {
        const int64_t local = r + around->distance[first + q];
        odd |= (get_index(m->indices, e + q, wide) - m->shift) ^ local;
        lone |= m->dirichlet[local];
    }
    if (odd | lone) return 0;
    double sum = 0;
    for (int q = 0; q < PLACES; q++) v[q] = 0;
    for (int q = 0; q < width; q++) v[first + q] = m->sign * m->values[e + q];
    for (int q = 0; q < width; q++) sum += fabs(v[first + q]);
    *magnitude = sum;
    return 1;
}

/* The sums of the entries to the low and to the high side along each axis, with the other sign, the row sum, and by
 * how much two axes are mixed: the sums of the entries times both steps, xy, xz, yz. */
INLINE void add_up(const double *v, double *low, double *high, double *total, double *mixed) {
    static const int stride[3] = {1, 3, 9};
    for (int axis = 0; axis < 3; axis++) {
        const int a = stride[axis], b = stride[(axis + 1) % 3], c = stride[(axis + 2) % 3];
        low[axis] = high[axis] = 0;
        for (int p = -1; p <= 1; p++)
            for (int q = -1; q <= 1; q++) {
                low[axis] -= v[CENTRE - a + p * b + q * c];
                high[axis] -= v[CENTRE + a + p * b + q * c];
            }
    }
    *total = 0;
    for (int q = 0; q < PLACES; q++) *total += v[q];
    for (int pair = 0; pair < 3; pair++) {
        const int a = stride[pair == 2], b = stride[pair == 0 ? 1 : 2], c = stride[2 - pair];
        mixed[pair] = 0;
        for (int q = -1; q <= 1; q++)
            mixed[pair] += v[CENTRE + a - b + q * c] + v[CENTRE - a + b + q * c] - v[CENTRE + a + b + q * c] -
                           v[CENTRE - a - b + q * c];
    }
}

static void sum_rows(const csr_matrix *m, const csr_output *out, double *mixture, double *magnitude,
                     csr_report *report, int64_t begin_row, int64_t end_row) {
    const int64_t nx = m->nx, ny = m->ny, nz = m->nz, plane = nx * ny, cells = plane * nz;
    neighbourhood around;
    for (int q = 0; q < PLACES; q++) around.distance[q] = (q / 9 - 1) * plane + (q / 3 % 3 - 1) * nx + q % 3 - 1;
    const int first = nz > 1 ? 0 : 9, width = nz > 1 ? 27 : 9, wide = (int)m->wide;
    for (int64_t r = begin_row; r < end_row; r++) {
        if (m->dirichlet[r]) continue;
        const int64_t cell = m->cell ? m->cell[r] : m->first_cell + r;
        if (cell < 0 || cell >= cells) {
            report_first(report, CSR_OUTSIDE, r, cell, 0);
            return;
        }
        const int64_t k = cell / plane, j = cell / nx - k * ny, i = cell % nx;
        int64_t to = r;
        if (out->pitch_y > 0) {
            const int64_t x = i - out->offset[0], y = j - out->offset[1], z = k - out->offset[2];
            if (x < 0 || x >= out->box[0] || y < 0 || y >= out->box[1] || z < 0 || z >= out->box[2]) {
                report_first(report, CSR_OUTSIDE, r, cell, 0);
                return;
            }
            to = out->origin + z * out->pitch_z + y * out->pitch_y + x;
        }
        double v[PLACES], size = 0, total, low[3], high[3], mixed[3];
        const int inner = i > 0 && i + 1 < nx && j > 0 && j + 1 < ny && (nz == 1 || (k > 0 && k + 1 < nz));
        if (!inner || m->cell || !read_inner(m, r, &around, first, width, v, &size, wide)) {
            for (int q = 0; q < PLACES; q++) {
                const int64_t x = i + q % 3 - 1, y = j + q / 3 % 3 - 1, z = k + q / 9 - 1;
                around.inside[q] = x >= 0 && x < nx && y >= 0 && y < ny && z >= 0 && z < nz;
            }
            size = read_any(m, r, cell, &around, v, report);
        }
        if (!isfinite(size)) report_first(report, CSR_NOT_FINITE, r, -1, size);
        else if (!(v[CENTRE] > 0)) report_first(report, CSR_DIAGONAL, r, r + m->first_column, v[CENTRE]);
        add_up(v, low, high, &total, mixed);
        for (int f = 0; f < 3; f++) {
            ((double *)out->w_low[f])[to] = m->scale * low[f];
            ((double *)out->w_high[f])[to] = m->scale * high[f];
            mixture[f] += fabs(mixed[f]) / v[CENTRE];
        }
        ((double *)out->s)[to] = m->scale * total;
        ((double *)out->diagonal)[to] = m->scale * v[CENTRE];
        if (size / v[CENTRE] > *magnitude) *magnitude = size / v[CENTRE];
    }
}

/* Per row, in float64 times `scale`: in w_low and w_high what it gives a linear function along each axis, in s its sum,
 * and its diagonal. mixture (xy, xz, yz): sums over the rows of what mixes two axes, relative to the diagonal;
 * magnitude: the largest sum of a row's magnitudes, relative to its diagonal. Of the report only the error is set. */
void dcdm_csr_nearest(const csr_matrix *m, const csr_output *out, double *mixture, double *magnitude,
                      csr_report *report, int threads) {
    csr_report all = {.code = CSR_OK};
    double xy = 0, xz = 0, yz = 0, largest = 0;
    const int64_t chunk = 1 << 12, chunks = (m->rows + chunk - 1) / chunk;
#pragma omp parallel num_threads(threads) reduction(+ : xy, xz, yz) reduction(max : largest)
    {
        csr_report mine = {.code = CSR_OK};
        double own[3] = {0, 0, 0}, most = 0;
#pragma omp for schedule(static)
        for (int64_t c = 0; c < chunks; c++)
            sum_rows(m, out, own, &most, &mine, c * chunk, (c + 1) * chunk < m->rows ? (c + 1) * chunk : m->rows);
        xy += own[0], xz += own[1], yz += own[2];
        largest = most;
#pragma omp critical
        if (mine.code != CSR_OK) report_first(&all, mine.code, mine.row, mine.column, mine.value);
    }
    mixture[0] = xy, mixture[1] = xz, mixture[2] = yz;
    *magnitude = largest;
    *report = all;
}
