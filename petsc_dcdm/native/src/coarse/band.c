/* Cholesky's factorisation of the coarsest system within its band: the rows are short and full there, so that this is
 * faster than a sparse one, up to some thousand cells in the plane and some hundred in space. */
#include "band.h"

#include <math.h>
#include <string.h>

#include "../compiler.h"

INLINE double diagonal(const dcdm_band_grid *g, const int64_t *at, int64_t cell) {
    double d = g->s[cell];
    for (int a = 0; a < 3; a++) {
        d += g->w[a][cell];
        if (at[a] + 1 < g->n[a]) d += g->w[a][cell + g->stride[a]];
    }
    return d;
}

/* Numbers the active cells: number[cell] is the unknown, -1 at others, and cells[unknown] the cell. Returns how many
 * there are; `width` is how far the numbers of neighbours lie apart. */
int64_t dcdm_band_number(const dcdm_band_grid *g, int32_t *number, int32_t *cells, int64_t *width) {
    int64_t count = 0, at[3];
    *width = 0;
    for (at[0] = 0; at[0] < g->n[0]; at[0]++)
        for (at[1] = 0; at[1] < g->n[1]; at[1]++)
            for (at[2] = 0; at[2] < g->n[2]; at[2]++) {
                const int64_t cell = at[0] * g->stride[0] + at[1] * g->stride[1] + at[2] * g->stride[2];
                number[cell] = -1;
                if (!(diagonal(g, at, cell) > 0)) continue;
                for (int a = 0; a < 3; a++) {
                    if (!at[a] || g->w[a][cell] == 0) continue;
                    const int64_t apart = count - number[cell - g->stride[a]];
                    if (apart > *width) *width = apart;
                }
                cells[count] = (int32_t)cell;
                number[cell] = (int32_t)count++;
            }
    return count;
}

/* The matrix to `lower`, which is 0; diagonals are raised by the part `shift` of them. */
static void assemble(const dcdm_band_grid *g, const int32_t *number, const dcdm_band *b, double shift) {
    const int64_t width = b->width;
    int64_t at[3];
    for (at[0] = 0; at[0] < g->n[0]; at[0]++)
        for (at[1] = 0; at[1] < g->n[1]; at[1]++)
            for (at[2] = 0; at[2] < g->n[2]; at[2]++) {
                const int64_t cell = at[0] * g->stride[0] + at[1] * g->stride[1] + at[2] * g->stride[2];
                const int64_t i = number[cell];
                if (i < 0) continue;
                double *row = b->lower + i * (width + 1);
                row[width] = diagonal(g, at, cell) * (1 + shift);
                for (int a = 0; a < 3; a++)
                    if (at[a] && g->w[a][cell] != 0)
                        row[width - (i - number[cell - g->stride[a]])] -= g->w[a][cell];
            }
}

/* Column j of L, and its share taken out of the rows below; `column` has room for `width` numbers. */
INLINE void eliminate(const dcdm_band *b, int64_t j, double *restrict column) {
    const int64_t width = b->width, pitch = width + 1;
    const int64_t count = width < b->unknowns - 1 - j ? width : b->unknowns - 1 - j;
    for (int64_t k = 0; k < count; k++) {
        double *entry = b->lower + (j + 1 + k) * pitch + width - 1 - k;
        column[k] = *entry *= b->inverse[j];
    }
    for (int64_t k = 0; k < count; k++) {
        const double c = column[k];
        if (c == 0) continue;
        double *restrict row = b->lower + (j + 1 + k) * pitch + width - k; /* from column j + 1 on */
#pragma omp simd
        for (int64_t t = 0; t <= k; t++) row[t] -= c * column[t];
    }
}

/* Factors the system. `lower` and `vector` are 0 before; `column`: room for `width` numbers. Returns 0, or 1 + the
 * unknown whose pivot is not positive. */
int64_t dcdm_band_factor(const dcdm_band_grid *g, const int32_t *number, const dcdm_band *b, double shift,
                         double *column) {
    assemble(g, number, b, shift);
    for (int64_t j = 0; j < b->unknowns; j++) {
        double *pivot = b->lower + j * (b->width + 1) + b->width;
        if (!(*pivot > 0)) return j + 1;
        *pivot = sqrt(*pivot);
        b->inverse[j] = 1 / *pivot;
        eliminate(b, j, column);
    }
    return 0;
}

/* x = A^-1 r at the active cells; the rest of x is left alone. */
void dcdm_band_solve(const dcdm_band *b, const float *r, float *x) {
    const int64_t width = b->width, pitch = width + 1;
    double *y = b->vector + width;
    memset(b->vector, 0, (size_t)width * sizeof(double)); /* where x was not finite NaN has come there */
    for (int64_t i = 0; i < b->unknowns; i++) {
        const double *row = b->lower + i * pitch, *before = y + i - width;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t t = 0; t < width; t++) sum += row[t] * before[t];
        y[i] = (r[b->place[i]] - sum) * b->inverse[i];
    }
    for (int64_t i = b->unknowns - 1; i >= 0; i--) {
        const double *restrict row = b->lower + i * pitch;
        double *restrict before = y + i - width;
        const double value = y[i] * b->inverse[i];
        x[b->place[i]] = (float)value;
#pragma omp simd
        for (int64_t t = 0; t < width; t++) before[t] -= row[t] * value;
    }
}
