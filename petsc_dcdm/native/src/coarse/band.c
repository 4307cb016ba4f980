/* Cholesky's factorisation of the coarsest system within its band: the rows are short and full there, so that this is
 * faster than a sparse one, up to some thousand cells in the plane and some hundred in space. */
#include "band.h"

#include <math.h>
#include <string.h>

#include "compiler.h"
#include "shared/node_team.h"

/* Unknowns times their neighbours in the band from which on two threads solve, and times these once more, factor. */
enum { SOLVED_BY_TWO = 100000, FACTORED_BY_TWO = 500000 };

/* One end of the unknowns: `rows` of L, of which the first `columns` are eliminated from this end. Row i is that of
 * unknown first + step i. */
typedef struct {
    int64_t rows, columns, width, first, step;
    double *lower, *inverse, *y; /* y[-width .. -1] are 0 */
    const int32_t *place;
} side;

INLINE side side_of(const dcdm_band *b, int back) {
    const int64_t rows = b->unknowns - b->back;
    if (!back)
        return (side){rows, b->back ? rows - b->width : rows, b->width, 0, 1, b->lower, b->inverse,
                      b->vector + b->width, b->place};
    return (side){b->back + b->width, b->back, b->width, b->unknowns - 1, -1, b->lower + rows * (b->width + 1),
                  b->inverse + rows, b->vector + 2 * b->width + rows, b->place};
}

/* How many unknowns are to be eliminated from the end. */
int64_t dcdm_band_back(int64_t unknowns, int64_t width) {
    return width && unknowns > 4 * width ? (unknowns - width) / 2 : 0;
}

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

/* Where unknowns are in arrays whose element `origin` is the first of the cells, at these pitches; cells are numbered
 * along x, nx of them, then y, then z. */
void dcdm_band_places(const int32_t *cells, int64_t unknowns, int64_t nx, int64_t ny, int64_t origin, int64_t pitch_y,
                      int64_t pitch_z, int32_t *place) {
    for (int64_t i = 0; i < unknowns; i++) {
        const int32_t line = cells[i] / (int32_t)nx, x = cells[i] % (int32_t)nx;
        place[i] = (int32_t)(origin + line / (int32_t)ny * pitch_z + line % (int32_t)ny * pitch_y + x);
    }
}

/* What row i has of L in column j of its band, j <= i. */
INLINE double *entry(const side *h, int64_t i, int64_t j) { return h->lower + i * (h->width + 1) + h->width - (i - j); }

/* The matrix to `lower`; diagonals are raised by the part `shift` of them. What the middle has in itself is with the
 * front. */
static void assemble(const dcdm_band_grid *g, const int32_t *number, const dcdm_band *b, double shift) {
    const side front = side_of(b, 0), back = side_of(b, 1);
    const int64_t rows = front.rows + (b->back ? back.rows : 0), last = b->unknowns - 1;
    int64_t at[3];
    memset(b->lower, 0, (size_t)(rows * (b->width + 1)) * sizeof *b->lower);
    for (at[0] = 0; at[0] < g->n[0]; at[0]++)
        for (at[1] = 0; at[1] < g->n[1]; at[1]++)
            for (at[2] = 0; at[2] < g->n[2]; at[2]++) {
                const int64_t cell = at[0] * g->stride[0] + at[1] * g->stride[1] + at[2] * g->stride[2];
                const int64_t i = number[cell];
                if (i < 0) continue;
                const int behind = i >= front.rows;
                double *const own = behind ? entry(&back, last - i, last - i) : entry(&front, i, i);
                *own = diagonal(g, at, cell) * (1 + shift);
                for (int a = 0; a < 3; a++) {
                    if (!at[a] || g->w[a][cell] == 0) continue;
                    const int64_t j = number[cell - g->stride[a]];
                    *(behind ? entry(&back, last - j, last - i) : entry(&front, i, j)) -= g->w[a][cell];
                }
            }
}

/* The pivot of column j; 0 if it is not positive. */
INLINE int pivot(const side *h, int64_t j) {
    double *d = entry(h, j, j);
    if (!(*d > 0)) return 0;
    *d = sqrt(*d);
    h->inverse[j] = 1 / *d;
    return 1;
}

/* Columns j and, if `two`, j + 1 of L, whose first pivot there is, and their share taken out of the rows below: of two
 * at once, since these rows then come by once. Returns 0 where the second pivot is not positive. `column`: room for
 * 2 width numbers. */
INLINE int eliminate(const side *h, int64_t j, int two, double *restrict column) {
    const int64_t width = h->width, last = h->rows - 1, from = j + 1 + two;
    const int64_t end = j + width < last ? j + width : last, more = from + width - 1 < last ? from + width - 1 : last;
    double *restrict first = column, *restrict second = column + width;
    double beside = 0;
    if (two) {
        if (width > 0) {
            beside = *entry(h, j + 1, j) *= h->inverse[j];
            *entry(h, j + 1, j + 1) -= beside * beside;
        }
        if (!pivot(h, j + 1)) return 0;
    }
    for (int64_t i = from; i <= more; i++) {
        const int64_t k = i - from;
        const double c = i <= end ? *entry(h, i, j) *= h->inverse[j] : 0;
        first[k] = c, second[k] = 0;
        if (two) second[k] = *entry(h, i, j + 1) = (*entry(h, i, j + 1) - c * beside) * h->inverse[j + 1];
    }
    for (int64_t i = from; i <= more; i++) {
        const int64_t k = i - from;
        const double c = first[k], d = second[k];
        if (c == 0 && d == 0) continue;
        double *restrict row = entry(h, i, from);
#pragma omp simd
        for (int64_t t = 0; t <= k; t++) row[t] -= c * first[t] + d * second[t];
    }
    return 1;
}

/* Eliminates columns `from` to `end`; whether all pivots are positive. */
static int eliminate_all(const side *h, int64_t from, int64_t end, double *column) {
    for (int64_t j = from; j < end; j += 2)
        if (!pivot(h, j) || !eliminate(h, j, j + 1 < end, column)) return 0;
    return 1;
}

typedef struct {
    dcdm_band b;
    double *column;
    int indefinite, parts;
} factoring;

static void factor_part(void *arguments, int part) {
    factoring *f = arguments;
    for (int back = part; back < (f->b.back ? 2 : 1); back += f->parts) {
        const side h = side_of(&f->b, back);
        if (!eliminate_all(&h, 0, h.columns, f->column + 2 * h.width * back))
            __atomic_store_n(&f->indefinite, 1, __ATOMIC_RELAXED);
    }
}

/* Threads for so much work, of which `enough` is worth two. */
INLINE int threads_for(const dcdm_band *b, int64_t work, int64_t enough) {
    return b->back && b->threads > 1 && work >= enough ? 2 : 1;
}

/* Factors the system. `column`: room for 4 width numbers. Returns 0, or 1 where a pivot is not positive. */
int64_t dcdm_band_factor(const dcdm_band_grid *g, const int32_t *number, const dcdm_band *b, double shift,
                         double *column) {
    if (!b->unknowns) return 0;
    assemble(g, number, b, shift);
    factoring f = {.b = *b, .column = column};
    f.parts = threads_for(b, b->unknowns * b->width * b->width, FACTORED_BY_TWO);
    dcdm_run(factor_part, &f, sizeof f, f.parts);
    if (f.indefinite) return 1;
    if (!b->back) return 0;
    const side front = side_of(b, 0), back = side_of(b, 1);
    const int64_t last = b->unknowns - 1;
    for (int64_t i = front.columns; i < front.rows; i++) /* what the back takes out of the middle */
        for (int64_t j = front.columns; j <= i; j++) *entry(&front, i, j) += *entry(&back, last - j, last - i);
    return !eliminate_all(&front, front.columns, front.rows, column);
}

enum { TOGETHER = 4 }; /* rows that are gone through at once: sums that do not wait for each other */

/* y[i .. i + n - 1] = the solution of L y = y there, from those before. */
INLINE void forward(const side *h, int64_t i, int n) {
    const int64_t pitch = h->width + 1, shared = h->width - (n - 1);
    double *y = h->y;
    const double *row[TOGETHER];
    double sum[TOGETHER] = {0};
    for (int q = 0; q < n; q++) {
        row[q] = h->lower + (i + q) * pitch + (n - 1 - q); /* from column i + n - 1 - width on */
        for (int64_t t = 0; t < n - 1 - q; t++)
            sum[q] += row[q][t - (n - 1 - q)] * y[i + q - h->width + t];
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
        y[i + q] = (y[i + q] - sum[q]) * h->inverse[i + q];
    }
}

/* x at rows i .. i + n - 1, the solution of L' x = y there, also to y, and what it takes out of y before them. */
INLINE void backward(const side *h, int64_t i, int n, float *x) {
    const int64_t pitch = h->width + 1, shared = h->width - (n - 1);
    double *y = h->y;
    const double *row[TOGETHER];
    double value[TOGETHER];
    for (int q = n - 1; q >= 0; q--) {
        row[q] = h->lower + (i + q) * pitch + (n - 1 - q);
        value[q] = y[i + q] *= h->inverse[i + q];
        x[h->place[h->first + h->step * (i + q)]] = (float)value[q];
        for (int p = 0; p < q; p++) y[i + p] -= row[q][shared + p] * value[q];
        for (int64_t t = 0; t < n - 1 - q; t++) y[i + q - h->width + t] -= row[q][t - (n - 1 - q)] * value[q];
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

/* Both over the rows [from, end). */
static void forward_over(const side *h, int64_t from, int64_t end) {
    int64_t i = from;
    for (; h->width >= TOGETHER && i + TOGETHER <= end; i += TOGETHER) forward(h, i, TOGETHER);
    for (; i < end; i++) forward(h, i, 1);
}

static void backward_over(const side *h, int64_t from, int64_t end, float *x) {
    int64_t i = end;
    for (; i > from && (h->width < TOGETHER || (i - from) % TOGETHER); i--) backward(h, i - 1, 1, x);
    for (; i > from; i -= TOGETHER) backward(h, i - TOGETHER, TOGETHER, x);
}

/* A solve, first up to the middle, then from there. */
typedef struct {
    dcdm_band b;
    const float *r;
    float *x;
    int from_middle, parts;
} solving;

static void solve_part(void *arguments, int part) {
    const solving *s = arguments;
    for (int back = part; back < (s->b.back ? 2 : 1); back += s->parts) {
        const side h = side_of(&s->b, back);
        double *y = h.y;
        if (!s->from_middle) {
            memset(y - h.width, 0, (size_t)h.width * sizeof *y); /* where x was not finite NaN has come there */
            for (int64_t i = 0; i < h.rows; i++) y[i] = s->r[h.place[h.first + h.step * i]];
            forward_over(&h, 0, h.columns);
        }
        for (int64_t i = h.columns; back && i < h.rows; i++) { /* of the middle, and the columns eliminated here */
            const int64_t from = i - h.width, n = h.columns - from;
            double *restrict row = entry(&h, i, from), *restrict with = y + from;
            double sum = 0;
            const double value = y[i];
            if (s->from_middle)
                for (int64_t t = 0; t < n; t++) with[t] -= row[t] * value;
            else {
#pragma omp simd reduction(+ : sum)
                for (int64_t t = 0; t < n; t++) sum += row[t] * with[t];
                y[i] = sum;
            }
        }
        if (s->from_middle) backward_over(&h, 0, h.columns, s->x);
    }
}

/* x = A^-1 r at the active cells; the rest of x is left alone. */
void dcdm_band_solve(const dcdm_band *b, const float *r, float *x) {
    if (!b->unknowns) return;
    const side front = side_of(b, 0), back = side_of(b, 1);
    solving s = {.b = *b, .r = r, .x = x, .parts = threads_for(b, b->unknowns * b->width, SOLVED_BY_TWO)};
    dcdm_run(solve_part, &s, sizeof s, s.parts);
    for (int64_t i = front.columns; i < front.rows; i++) front.y[i] -= back.y[b->unknowns - 1 - i];
    forward_over(&front, front.columns, front.rows);
    backward_over(&front, front.columns, front.rows, x);
    for (int64_t i = front.columns; i < front.rows; i++) back.y[b->unknowns - 1 - i] = front.y[i];
    s.from_middle = 1;
    dcdm_run(solve_part, &s, sizeof s, s.parts);
}
