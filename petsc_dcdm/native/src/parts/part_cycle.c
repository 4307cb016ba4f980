/* The cycle on levels of parts: Chebyshev polynomials of D^-1 A before and after each correction, and of most levels
 * below the finest two corrections, combined to the least energy (a K-cycle: Notay and Vassilevski, Numer. Linear
 * Algebra Appl. 15, 2008). Coarse couplings are too strong or too weak here and there where a medium is rough: that is
 * made up for.
 *
 * Fluxes are differences times couplings, so that what stiff parts exchange within cancels in their sums. A team of
 * threads runs all of it together; every function is called by all of them.
 */
#include "common.h"
#include "parts/part_grid.h"

typedef struct {
    const float *inverse;      /* [n][n] of the coarsest level */
    const float *coefficients; /* [steps][2] */
    int64_t steps;
    double *sums;              /* [threads][3] */
} parts_cycle;

INLINE int64_t slices(const parts_level *l) { return (l->n + SLICE - 1) / SLICE; }

/* out = r - A x of the rows of a slice; r NULL: -A x */
INLINE void residual(const parts_level *l, const float *restrict x, const float *restrict r, int64_t slice,
                     float *restrict out) {
    const int64_t at = slice * SLICE, places = l->slice[slice + 1] - l->slice[slice];
    const int32_t *restrict column = l->slice_column + l->slice[slice];
    const float *restrict value = l->slice_value + l->slice[slice], *restrict s = l->s + at;
    float sum[SLICE], here[SLICE];
#pragma omp simd
    for (int i = 0; i < SLICE; i++) {
        here[i] = x[at + i];
        sum[i] = (r ? r[at + i] : 0.0f) - s[i] * here[i];
    }
    for (int64_t e = 0; e < places; e += SLICE) {
#pragma omp simd
        for (int i = 0; i < SLICE; i++) sum[i] += value[e + i] * (x[column[e + i]] - here[i]);
    }
    if (l->longer[slice])
        for (int i = 0; i < SLICE && at + i < l->n; i++)
            for (int64_t e = l->row[at + i] + places / SLICE; e < l->row[at + i + 1]; e++)
                sum[i] += l->value[e] * (x[l->column[e]] - here[i]);
    memcpy(out, sum, sizeof sum);
}

/* x + a (x - y) + b D^-1 (r - A x) to y, the iterate before x unless a is 0 */
static void sweep(const parts_level *l, const float *restrict x, float *restrict y, float a, float b) {
#pragma omp for schedule(static)
    for (int64_t slice = 0; slice < slices(l); slice++) {
        const int64_t at = slice * SLICE;
        float left[SLICE];
        residual(l, x, l->r, slice, left);
        const float *restrict inverse = l->inverse + at;
        if (a == 0.0f) {
#pragma omp simd
            for (int i = 0; i < SLICE; i++) y[at + i] = x[at + i] + b * inverse[i] * left[i];
        } else {
#pragma omp simd
            for (int i = 0; i < SLICE; i++)
                y[at + i] = x[at + i] + a * (x[at + i] - y[at + i]) + b * inverse[i] * left[i];
        }
    }
}

/* Steps from x, or from 0. Returns the iterate, x itself after an even number of them, and the other array in
 * *other. */
static float *smooth(const parts_level *l, const parts_cycle *cycle, float *x, float *y, int from_zero,
                     float **other) {
    const float *c = cycle->coefficients;
    int64_t step = 0;
    if (from_zero) {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < l->n; i++) {
            y[i] = c[1] * l->inverse[i] * l->r[i];
            x[i] = 0.0f;
        }
        step = 1;
    }
    for (;; step++) {
        if (step > 0) {
            float *const swap = x;
            x = y;
            y = swap;
        }
        if (step == cycle->steps) break;
        sweep(l, x, y, step ? c[2 * step] : 0.0f, c[2 * step + 1]);
    }
    *other = y;
    return x;
}

/* Right-hand side of the next level: the residual of x, which goes to `room`, added up over its parts. */
static void restrict_residual(const parts_level *l, const parts_level *c, const float *x, float *room) {
    const int64_t blocks = c->blocks[0] * c->blocks[1] * c->blocks[2];
#pragma omp for schedule(static)
    for (int64_t slice = 0; slice < slices(l); slice++) residual(l, x, l->r, slice, room + slice * SLICE);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from[3], to[3];
        parts_children(l, c->blocks, b, from, to);
        for (int64_t p = c->first[b]; p < c->first[b + 1]; p++) c->r[p] = 0.0f;
        PARTS_FOR(l, from, to, i, in)
            if (l->part[i] >= 0) c->r[l->part[i]] += room[i];
    }
}

static void solve_densely(const parts_level *l, const parts_cycle *cycle) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < l->n; i++) {
        const float *row = cycle->inverse + i * l->n;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < l->n; j++) sum += row[j] * l->r[j];
        l->x[i] = sum;
    }
}

/* -A x to `to` */
static void multiply(const parts_level *l, const float *x, float *to) {
#pragma omp for schedule(static)
    for (int64_t slice = 0; slice < slices(l); slice++) residual(l, x, NULL, slice, to + slice * SLICE);
}

/* a.b, a.c and d.b, the same on all threads. */
static void dots(int64_t n, const parts_cycle *cycle, const float *a, const float *b, const float *c, const float *d,
                 double out[3]) {
    double sum[3] = {0.0, 0.0, 0.0};
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        sum[0] += (double)a[i] * b[i];
        sum[1] += (double)a[i] * c[i];
        sum[2] += (double)d[i] * b[i];
    }
    memcpy(cycle->sums + 3 * omp_get_thread_num(), sum, sizeof sum);
#pragma omp barrier
    out[0] = out[1] = out[2] = 0.0;
    for (int t = 0; t < omp_get_num_threads(); t++)
        for (int i = 0; i < 3; i++) out[i] += cycle->sums[3 * t + i];
#pragma omp barrier
}

static void solve(const parts_level *l, int64_t below, const parts_cycle *cycle);

/* x of a level that has levels below: two directions, of r and of what the first leaves of it. */
static void solve_twice(const parts_level *l, int64_t below, const parts_cycle *cycle) {
    double first[3], second[3];
    solve(l, below, cycle);
    multiply(l, l->x, l->image);
    dots(l->n, cycle, l->x, l->image, l->r, l->x, first);
    /* the image is that of -A */
    const double energy = -first[0], step = energy > 0.0 ? first[1] / energy : 0.0;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < l->n; i++) {
        l->kept[i] = l->x[i];
        l->r[i] += (float)step * l->image[i];
    }
    solve(l, below, cycle);
    multiply(l, l->x, l->y);
    dots(l->n, cycle, l->x, l->y, l->r, l->kept, second);
    const double shared = energy > 0.0 ? -second[2] / energy : 0.0; /* x . A kept over kept . A kept */
    const double left = -second[0] + shared * second[2], more = left > 0.0 ? second[1] / left : 0.0;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < l->n; i++)
        l->x[i] = (float)(step - more * shared) * l->kept[i] + (float)more * l->x[i];
}

/* x of a level with so many below from its r. */
static void solve(const parts_level *l, int64_t below, const parts_cycle *cycle) {
    if (!below && cycle->inverse) {
        solve_densely(l, cycle);
        return;
    }
    float *y, *x = smooth(l, cycle, l->x, l->y, 1, &y);
    if (below) {
        const parts_level *c = l + 1;
        restrict_residual(l, c, x, y);
        if (c->twice) solve_twice(c, below - 1, cycle);
        else solve(c, below - 1, cycle);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < l->n; i++)
            if (l->part[i] >= 0) x[i] += c->x[l->part[i]];
    }
    x = smooth(l, cycle, x, y, 0, &y);
    if (x == l->x) return;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < l->n; i++) l->x[i] = x[i];
}

/* y of the grid from its r; levels: `count` below it. inverse: of the last one, or NULL if it is to be smoothed only;
 * sums: [3 * threads] room. */
void dcdm_parts_solve(const parts_grid *grid, const parts_level *levels, int64_t count, const float *inverse,
                      const float *coefficients, int64_t steps, double *sums, int threads) {
    const parts_cycle cycle = {inverse, coefficients, steps, sums};
#pragma omp parallel num_threads(threads)
    {
        parts_grid_down(grid, coefficients, steps, count ? levels : NULL);
        if (count && levels->twice) solve_twice(levels, count - 1, &cycle);
        else if (count) solve(levels, count - 1, &cycle);
        parts_grid_up(grid, coefficients, steps, count ? levels->x : NULL);
    }
}
