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

/* The matrix to `lower`; diagonals are raised by the part `shift` of them. */
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
                memset(row, 0, (size_t)width * sizeof *row);
                row[width] = diagonal(g, at, cell) * (1 + shift);
                for (int a = 0; a < 3; a++)
                    if (at[a] && g->w[a][cell] != 0)
                        row[width - (i - number[cell - g->stride[a]])] -= g->w[a][cell];
            }
}

/* What row i has of L in column j of its band, j < i. */
INLINE double *entry(const dcdm_band *b, int64_t i, int64_t j) {
    return b->lower + i * (b->width + 1) + b->width - (i - j);
}

/* The pivot of column j; 0 if it is not positive. */
INLINE int pivot(const dcdm_band *b, int64_t j) {
    double *d = entry(b, j, j);
    if (!(*d > 0)) return 0;
    *d = sqrt(*d);
    b->inverse[j] = 1 / *d;
    return 1;
}

/* Columns j and, if `two`, j + 1 of L, whose first pivot there is, and their share taken out of the rows below: of two
 * at once, since these rows then come by once. Returns 0 where the second pivot is not positive. `column`: room for
 * 2 width numbers. */
INLINE int eliminate(const dcdm_band *b, int64_t j, int two, double *restrict column) {
    const int64_t width = b->width, last = b->unknowns - 1, from = j + 1 + two;
    const int64_t end = j + width < last ? j + width : last, more = from + width - 1 < last ? from + width - 1 : last;
    double *restrict first = column, *restrict second = column + width;
    double beside = 0;
    if (two) {
        if (width > 0) {
            beside = *entry(b, j + 1, j) *= b->inverse[j];
            *entry(b, j + 1, j + 1) -= beside * beside;
        }
        if (!pivot(b, j + 1)) return 0;
    }
    for (int64_t i = from; i <= more; i++) {
        const int64_t k = i - from;
        const double c = i <= end ? *entry(b, i, j) *= b->inverse[j] : 0;
        first[k] = c, second[k] = 0;
        if (two) second[k] = *entry(b, i, j + 1) = (*entry(b, i, j + 1) - c * beside) * b->inverse[j + 1];
    }
    for (int64_t i = from; i <= more; i++) {
        const int64_t k = i - from;
        const double c = first[k], d = second[k];
        if (c == 0 && d == 0) continue;
        double *restrict row = entry(b, i, from);
#pragma omp simd
        for (int64_t t = 0; t <= k; t++) row[t] -= c * first[t] + d * second[t];
    }
    return 1;
}

/* Factors the system. `column`: room for 2 width numbers. Returns 0, or 1 + the
 * unknown whose pivot is not positive. */
int64_t dcdm_band_factor(const dcdm_band_grid *g, const int32_t *number, const dcdm_band *b, double shift,
                         double *column) {
    assemble(g, number, b, shift);
    for (int64_t j = 0; j < b->unknowns; j += 2) {
        if (!pivot(b, j)) return j + 1;
        if (!eliminate(b, j, j + 1 < b->unknowns, column)) return j + 2;
    }
    return 0;
}

enum { TOGETHER = 4 }; /* rows that are gone through at once: sums that do not wait for each other */

/* y[i .. i + n - 1] = the solution of L y = r there, from those before. */
INLINE void forward(const dcdm_band *b, const float *r, int64_t i, int n, double *y) {
    const int64_t pitch = b->width + 1, shared = b->width - (n - 1);
    const double *row[TOGETHER];
    double sum[TOGETHER] = {0};
    for (int q = 0; q < n; q++) {
        row[q] = b->lower + (i + q) * pitch + (n - 1 - q); /* from column i + n - 1 - width on */
        for (int64_t t = 0; t < n - 1 - q; t++)
            sum[q] += row[q][t - (n - 1 - q)] * y[i + q - b->width + t];
    }
    const double *before = y + i - shared;
    if (n == TOGETHER) {
        const double *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t t = 0; t < shared; t++) {
            const double v = before[t];
            s0 += r0[t] * v, s1 += r1[t] * v, s2 += r2[t] * v, s3 += r3[t] * v;
        }
        sum[0] += s0, sum[1] += s1, sum[2] += s2, sum[3] += s3;
    } else
        for (int q = 0; q < n; q++)
            for (int64_t t = 0; t < shared; t++) sum[q] += row[q][t] * before[t];
    for (int q = 0; q < n; q++) {
        for (int p = 0; p < q; p++) sum[q] += row[q][shared + p] * y[i + p];
        y[i + q] = (r[b->place[i + q]] - sum[q]) * b->inverse[i + q];
    }
}

/* x at unknowns i .. i + n - 1, the solution of L' x = y there, and what it takes out of y before them. */
INLINE void backward(const dcdm_band *b, int64_t i, int n, double *y, float *x) {
    const int64_t pitch = b->width + 1, shared = b->width - (n - 1);
    const double *row[TOGETHER];
    double value[TOGETHER];
    for (int q = n - 1; q >= 0; q--) {
        row[q] = b->lower + (i + q) * pitch + (n - 1 - q);
        value[q] = y[i + q] * b->inverse[i + q];
        x[b->place[i + q]] = (float)value[q];
        for (int p = 0; p < q; p++) y[i + p] -= row[q][shared + p] * value[q];
        for (int64_t t = 0; t < n - 1 - q; t++) y[i + q - b->width + t] -= row[q][t - (n - 1 - q)] * value[q];
    }
    double *restrict before = y + i - shared;
    if (n == TOGETHER) {
        const double *restrict r0 = row[0], *restrict r1 = row[1], *restrict r2 = row[2], *restrict r3 = row[3];
        const double v0 = value[0], v1 = value[1], v2 = value[2], v3 = value[3];
#pragma omp simd
        for (int64_t t = 0; t < shared; t++) before[t] -= (r0[t] * v0 + r1[t] * v1) + (r2[t] * v2 + r3[t] * v3);
    } else
        for (int q = 0; q < n; q++)
            for (int64_t t = 0; t < shared; t++) before[t] -= row[q][t] * value[q];
}

/* x = A^-1 r at the active cells; the rest of x is left alone. */
void dcdm_band_solve(const dcdm_band *b, const float *r, float *x) {
    const int64_t width = b->width, whole = width >= TOGETHER ? b->unknowns / TOGETHER * TOGETHER : 0;
    double *y = b->vector + width;
    memset(b->vector, 0, (size_t)width * sizeof(double)); /* where x was not finite NaN has come there */
    for (int64_t i = 0; i < whole; i += TOGETHER) forward(b, r, i, TOGETHER, y);
    for (int64_t i = whole; i < b->unknowns; i++) forward(b, r, i, 1, y);
    for (int64_t i = b->unknowns; i-- > whole;) backward(b, i, 1, y, x);
    for (int64_t i = whole; i > 0; i -= TOGETHER) backward(b, i - TOGETHER, TOGETHER, y, x);
}
