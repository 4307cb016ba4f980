/* An AIJ matrix of a system, and the kernels that read it. */
#include "driver.h"

void dcdm_csr_dirichlet(const csr_matrix *m, uint8_t *flags, int64_t first, int64_t last, int64_t longest, int threads);
double dcdm_csr_sign(const csr_matrix *m);
double dcdm_csr_some_diagonal(const csr_matrix *m, int64_t step);
int64_t dcdm_csr_fixed(const csr_matrix *m, int64_t *rows, double *diagonals, int threads);
int dcdm_some_at(const double *values, const int64_t *rows, int64_t count);
int64_t dcdm_csr_penalties(const csr_matrix *m, uint8_t *flags, double least, int threads);
int64_t dcdm_csr_outside(const csr_matrix *m, int64_t *columns, int64_t room, int threads);
int64_t dcdm_csr_offsets(const csr_matrix *m, int64_t *offsets, int64_t room, int threads);
void dcdm_csr_extract(const csr_matrix *m, csr_output *out, csr_report *report, int threads);
int dcdm_csr_without_dirichlet(const csr_matrix *m, const int64_t *rows, int64_t count, const int64_t *row_of,
                               int by_rows, const double *x, const double *b, double *to, int threads);
void dcdm_csr_without_ghosts(const csr_matrix *m, const int64_t *cell, int64_t first, const double *ghost_x,
                             const double *x, const double *b, double *to, int threads);
int64_t dcdm_packed_asymmetry(const uint8_t *cells, int64_t n_x, int64_t n_y, int64_t n_z, int threads);
void dcdm_bounds(const void *w_x, const void *w_y, const void *w_z, const void *s, int is_double, int64_t n_z,
                 int64_t n_y, int64_t n_x, int64_t pitch_z, int64_t pitch_y, int64_t *found, int threads);
void dcdm_walls_torn(const walls_grid *g, int threads, int64_t counts[2]);
void dcdm_walls_coarsen(const walls_grid *g, double *x, double *y, double *z, int64_t pitch_y, int64_t pitch_z,
                        int closed, int threads);

/* Row by row; a cell that nothing holds has an identity row. Indices are int64 if `wide`. */
static csr_matrix make_matrix(const grid_system *g, int wide) {
    const int64_t rows = g->n[0] * g->n[1] * g->n[2], item = wide ? 8 : 4;
    char *indptr = zeros(rows + 1, item), *indices = zeros(7 * rows, item);
    double *values = zeros(7 * rows, sizeof *values);
    const int64_t step[3] = {1, g->pitch_y, g->pitch_z}, stride[3] = {1, g->n[0], g->n[0] * g->n[1]};
    int64_t entries = 0;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t k = r / stride[2], j = r / stride[1] % g->n[1], i = r % g->n[0];
        const int64_t at = g->first + k * g->pitch_z + j * g->pitch_y + i;
        double diagonal = g->s[at];
        for (int a = 0; a < 3; a++) diagonal += g->w[a][at] + g->w[a][at + step[a]];
        for (int side = 0; side < 7; side++) { /* low z, y, x, diagonal, high x, y, z: in the order of the columns */
            const int a = side < 3 ? 2 - side : side - 4;
            const double w = side == 3 ? 0 : side < 3 ? g->w[a][at] : g->w[a][at + step[a]];
            if (side != 3 && w == 0) continue;
            const int64_t column = side == 3 ? r : side < 3 ? r - stride[a] : r + stride[a];
            const int32_t narrow = (int32_t)column;
            memcpy(indices + entries * item, wide ? (const void *)&column : (const void *)&narrow, (size_t)item);
            values[entries++] = side == 3 ? (diagonal > 0 ? diagonal : 1.0) : -w;
        }
        const int32_t narrow = (int32_t)entries;
        memcpy(indptr + (r + 1) * item, wide ? (const void *)&entries : (const void *)&narrow, (size_t)item);
    }
    return (csr_matrix){.rows = rows, .indptr = indptr, .indices = indices, .values = values, .wide = wide,
                        .nx = g->n[0], .ny = g->n[1], .nz = g->n[2], .sign = 1, .scale = 1, .rounding = 1e-10,
                        .sum_rounding = 1e-14};
}

/* Whether two numbers are the same but for the rounding of a sum. */
static int close_to(double a, double b) { return fabs(a - b) <= 1e-13 * (fabs(a) + fabs(b) + 1); }

/* Whether a cell has a neighbour; the row of another is a Dirichlet row, whatever its s. */
static int couples(const grid_system *g, int64_t at) {
    const int64_t step[3] = {1, g->pitch_y, g->pitch_z};
    int some = 0;
    for (int a = 0; a < 3; a++) some |= g->w[a][at] > 0 || (at + step[a] < g->size && g->w[a][at + step[a]] > 0);
    return some;
}

/* The rows become the arrays that they were made of, with 64 bits of each coupling the same from both sides. */
static void check_extraction(const grid_system *g, const csr_matrix *m, csr_output where, int threads) {
    csr_report report;
    csr_output out = where;
    for (int a = 0; a < 3; a++) out.w_low[a] = zeros(g->size, sizeof(double));
    out.s = zeros(g->size, sizeof(double));
    dcdm_csr_extract(m, &out, &report, threads);
    CHECK(report.code == CSR_OK && !out.hidden && report.symmetry == 0 && report.extra > 0);
    for (int64_t at = 0; at < g->size; at++) {
        for (int a = 0; a < 3; a++) CHECK(((double *)out.w_low[a])[at] == g->w[a][at]);
        CHECK(close_to(((double *)out.s)[at], couples(g, at) ? g->s[at] : 0));
    }
    for (int a = 0; a < 3; a++) free(out.w_low[a]);
    free(out.s);
}

/* Packed out of the rows: the faces and the Dirichlet part of every cell, or that they do not fit. */
static void check_packing(const grid_system *g, const csr_matrix *m, csr_output where, int threads) {
    csr_report report;
    csr_output out = where;
    memset(g->cells, 0, (size_t)g->size);
    memset(g->s_index, 0, (size_t)g->size);
    out.cells = g->cells, out.s_index = g->s_index, out.s_value = (double *)g->s_value, out.s_count = 1;
    dcdm_csr_extract(m, &out, &report, threads);
    CHECK(report.code == CSR_OK && out.misfits == g->varying);
    if (g->varying) return;
    const int64_t step[3] = {1, g->pitch_y, g->pitch_z};
    for (int64_t at = 0; at < g->size; at++) {
        if (!couples(g, at)) continue;
        for (int a = 0; a < 3; a++) {
            CHECK((g->cells[at] >> 2 * a & 1) == (g->w[a][at] > 0));
            CHECK((g->cells[at] >> (2 * a + 1) & 1) == (g->w[a][at + step[a]] > 0));
        }
        CHECK(close_to(g->s_value[g->s_index[at]], g->s[at]));
    }
    CHECK(dcdm_packed_asymmetry(g->cells, g->n[0], g->n[1], g->n[2], threads) == -1);
}

/* Walls: numbers of living and torn cells are those of one thread, coarse conductances add up to the fine ones. */
static void check_walls(const grid_system *g, int threads) {
    walls_grid w = {.pitch_y = g->pitch_y, .pitch_z = g->pitch_z, .weak = 0.01, .skinless = 6, .enough = INT64_MAX};
    if (!g->varying) w.cells = g->cells;
    int64_t coarse[3], found[2], alone[2], bounds[6 * 64];
    for (int a = 0; a < 3; a++) {
        w.face[a] = g->w[a], w.c[a] = g->c[a], w.n[a] = g->n[a], w.block[a] = g->n[a] > 1 ? 2 : 1;
        coarse[a] = (g->n[a] + w.block[a] - 1) / w.block[a] + 2;
    }
    dcdm_walls_torn(&w, threads, found);
    dcdm_walls_torn(&w, 1, alone);
    CHECK(found[0] > 0 && found[0] == alone[0] && found[1] == alone[1]);
    w.enough = alone[1] / 2;
    dcdm_walls_torn(&w, threads, found);
    CHECK(alone[1] == 0 || (found[1] > w.enough && found[0] <= alone[0]));
    const int64_t size = coarse[0] * coarse[1] * coarse[2];
    double *to = zeros(3 * size, sizeof *to), *from = zeros(3 * size, sizeof *from);
    const int64_t pitch_z = coarse[0] * coarse[1];
    dcdm_walls_coarsen(&w, to, to + size, to + 2 * size, coarse[0], pitch_z, 2, threads);
    dcdm_walls_coarsen(&w, from, from + size, from + 2 * size, coarse[0], pitch_z, 2, 1);
    CHECK(!memcmp(to, from, 3 * (size_t)size * sizeof *to));
    free(to), free(from);
    const int64_t o = g->first;
    CHECK(threads <= 64);
    dcdm_bounds(g->w[0] + o, g->w[1] + o, g->w[2] + o, g->s + o, 1, g->n[2], g->n[1], g->n[0], g->pitch_z, g->pitch_y,
                bounds, threads);
    for (int t = 0; t < threads; t++) CHECK(bounds[6 * t + 5] <= g->n[0]);
}

void check_matrix(const grid_system *g, int threads, int wide) {
    csr_matrix m = make_matrix(g, wide);
    uint8_t *flags = zeros(m.rows, 1);
    int64_t *alone = zeros(m.rows, sizeof *alone), count = 0, offsets[4], columns[4];
    dcdm_csr_dirichlet(&m, flags, 0, m.rows, 7, threads);
    for (int64_t r = 0; r < m.rows; r++)
        if (flags[r]) alone[count++] = r;
    m.dirichlet = flags;
    CHECK(count > 0 && count < m.rows && dcdm_csr_sign(&m) == 1);
    int64_t *rows = zeros(count, sizeof *rows);
    double *diagonals = zeros(count, sizeof *diagonals), *values = zeros(m.rows, sizeof *values);
    CHECK(dcdm_csr_fixed(&m, rows, diagonals, threads) == 0 && !memcmp(rows, alone, (size_t)count * sizeof *rows));
    for (int64_t q = 0; q < count; q++) CHECK(diagonals[q] > 0 && diagonals[q] <= dcdm_csr_some_diagonal(&m, 1));
    CHECK(!dcdm_some_at(values, rows, count));
    values[rows[count - 1]] = -1;
    CHECK(dcdm_some_at(values, rows, count));
    free(rows), free(diagonals), free(values);
    CHECK(dcdm_csr_outside(&m, columns, 4, threads) == 0);
    CHECK(dcdm_csr_offsets(&m, offsets, 4, threads) == (g->n[2] > 1 ? 3 : 2));
    CHECK(dcdm_csr_penalties(&m, flags, 0.5, threads) == 0);
    csr_output where = {.pitch_y = g->pitch_y, .pitch_z = g->pitch_z, .origin = g->first};
    for (int a = 0; a < 3; a++) where.box[a] = g->n[a];
    check_extraction(g, &m, where, threads);
    check_packing(g, &m, where, threads);
    check_walls(g, threads);
    double *x = zeros(m.rows, sizeof *x), *b = zeros(m.rows, sizeof *b), *to = zeros(m.rows, sizeof *to);
    for (int64_t r = 0; r < m.rows; r++) x[r] = 2, b[r] = 3;
    int64_t *cell = zeros(m.rows, sizeof *cell);
    for (int64_t r = 0; r < m.rows; r++) cell[r] = r;
    for (int by_rows = 0; by_rows < 2; by_rows++) {
        CHECK(dcdm_csr_without_dirichlet(&m, alone, count, by_rows ? cell : NULL, by_rows, x, b, to, threads));
        dcdm_csr_without_ghosts(&m, by_rows ? cell : NULL, 0, NULL, x, b, to, threads);
        for (int64_t r = 0; r < m.rows; r++) CHECK(to[r] == (flags[r] ? 0 : 3)); /* nothing couples to these rows */
    }
    free(cell);
    free(x), free(b), free(to), free(alone), free(flags);
    free((void *)m.indptr), free((void *)m.indices), free((void *)m.values);
}
