/* The outer loop on the grid: two passes over memory for each step of the deep conjugate direction method.
 *
 * The network's output d is float; directions p_i are double, in the same padded layout of the finest level; solution
 * and residual are double, without padding. A times a direction is formed wherever it is needed (it is never stored),
 * so that x and r = b - A x part by no more than rounding in double, and steps are those of the same method on PETSc's
 * vectors. (Directions in float would save a tenth of the time and change the residuals by some 1e-5.)
 *
 *   dots:  d . A d,  d . r,  and for all i  p_i . A d,  p_i . r
 *   step:  d' = d - sum beta_i p_i;  x += alpha d';  r -= alpha A d';  r . r,  d' . A d'
 *
 * and, for the end, the residual from x itself.
 */
#include <string.h>

#include "advance.h"
#include "apply.h"
#include "shared/node_team.h"

INLINE double total(vd v) {
    double sum = 0;
    for (int i = 0; i < VD; i++) sum += v[i];
    return sum;
}

INLINE vl first_lanes(int64_t n) {
    vl mask = {0};
    for (int t = 0; t < VD; t++) mask[t] = t < n ? -1 : 0;
    return mask;
}

/* Runs `at` for the vectors of the part `range` of a row: i is the first cell, n how many there are, a constant but at
 * the end of a row. */
#define EACH_VECTOR(range, at)                                          \
    do {                                                                \
        int64_t i = (range)[0];                                         \
        for (; i < (range)[1] && i + VD <= l->n_x; i += VD) {           \
            enum { n = VD };                                            \
            at;                                                         \
        }                                                               \
        if (i < (range)[1] && i < l->n_x) {                             \
            const int64_t n = l->n_x - i;                               \
            at;                                                         \
        }                                                               \
    } while (0)

/* A pass, compiled for each kind of matrix: which it is would be asked at every vector. */
#define EACH_KIND(name, planes)                                                                    \
    static NOINLINE void name##_coded(const sweep *s, int part) { planes(s, part, 1); }            \
    static NOINLINE void name##_other(const sweep *s, int part) { planes(s, part, 0); }            \
    static void name(void *arguments, int part) {                                                  \
        const sweep *s = arguments;                                                                \
        if (s->a.codes) name##_coded(s, part);                                                     \
        else name##_other(s, part);                                                                \
    }

/* What `dots` adds up at n cells. */
INLINE void dots_at(const dcdm_level *l, const dcdm_operator *a, int coded, const rows *d, const double *const *p,
                    int history, const double *r, int64_t k, int64_t j, int64_t i, int64_t n, vd *sum) {
    const vd q = apply_float(a, coded, l, d, k, j, i, n), x = widen(d->c + i), residual = load_some(r + i, n);
    sum[0] += x * q;
    sum[1] += x * residual;
    sum[2] += n == VD ? x : only(x, first_lanes(n));
    sum[3] += (vd)((x != 0) & (vl)residual); /* of active cells: d is 0 at others */
    for (int h = 0; h < history; h++) {
        const vd y = load_double(p[h] + i);
        sum[4 + 2 * h] += y * q;
        sum[5 + 2 * h] += y * residual;
    }
}

/* What a pass over the planes gets. */
typedef struct {
    dcdm_level l;
    dcdm_operator a;
    const float *d;
    const double *p[MAX_HISTORY], *r;
    double beta[MAX_HISTORY], alpha, *next, *x, *to, *work, *out;
    int history, from_zero;
} sweep;

INLINE void dots_planes(const sweep *s, int part, int coded) {
    const dcdm_level *l = &s->l;
    const int count = 4 + 2 * s->history;
    vd sum[4 + 2 * MAX_HISTORY] = {{0}};
    for (int64_t k = l->part[part]; k < l->part[part + 1]; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const int32_t *range = l->range + 2 * (k * l->n_r + j);
            const float *c = s->d + l->origin;
            const rows near = rows_at(l, c + k * l->pitch_w, c + plane_of(l, k - 1) * l->pitch_w,
                                      c + plane_of(l, k + 1) * l->pitch_w, j);
            const double *before[MAX_HISTORY];
            for (int h = 0; h < s->history; h++) before[h] = s->p[h] + l->origin + k * l->pitch_w + j * l->pitch_r;
            const double *residual = s->r + k * l->full_w + j * l->full_r;
            EACH_VECTOR(range, dots_at(l, &s->a, coded, &near, before, s->history, residual, k, j, i, n, sum));
        }
    for (int c = 0; c < count; c++) s->out[part * count + c] = total(sum[c]);
}

EACH_KIND(dots_part, dots_planes)

/* out[part] = d . A d, d . r, the sums of d and r, and p . A d, p . r for every p; halos of d valid. r has (n_w, n_r,
 * n_x) elements. */
void dcdm_dots(const dcdm_level *l, const dcdm_operator *a, const float *d, const double *const *p, int history,
               const double *r, double *out) {
    sweep s = {.l = *l, .a = *a, .d = d, .r = r, .out = out, .history = history};
    for (int h = 0; h < history; h++) s.p[h] = p[h];
    dcdm_run(dots_part, &s, sizeof s, (int)l->parts);
}

/* d' = d - sum beta p over plane k, halo included where there is one, and what lies around the ends of a row that is a
 * ring. `to` may be the plane of one of the p. */
static void orthogonalise(const dcdm_level *l, double *to, const float *d, const double *const *p, const double *beta,
                          int history, int64_t k) {
    const int64_t plane = l->origin + k * l->pitch_w, edge = l->halo && l->has_r;
    const int64_t whole = (l->n_x + ALIGN - 1) / ALIGN * ALIGN;
    for (int64_t j = -edge; j < l->n_r + edge; j++) {
        const int inside = k >= 0 && k < l->n_w && j >= 0 && j < l->n_r;
        const int32_t all[2] = {0, (int32_t)whole}, *range = inside ? l->range + 2 * (k * l->n_r + j) : all;
        const int64_t o = plane + j * l->pitch_r;
        double *t = to + j * l->pitch_r;
        for (int64_t i = range[0]; i < range[1]; i += VD) {
            vd v = widen(d + o + i);
            for (int h = 0; h < history; h++) v -= beta[h] * load_double(p[h] + o + i);
            store_some(t + i, v, VD);
        }
        for (int64_t i = -1; i <= l->n_x && l->halo; i += l->n_x + 1) {
            double v = d[o + i];
            for (int h = 0; h < history; h++) v -= beta[h] * p[h][o + i];
            t[i] = v;
        }
        WRAP_ROW(l, t);
    }
}

/* Planes of one part in the padded layout but in a place of their own. */
typedef struct {
    int64_t slot, first; /* doubles in a plane, and which of them is its first cell */
} own_planes;

INLINE own_planes planes_of(const dcdm_level *l) {
    if (l->has_r) return (own_planes){(l->n_r + 2) * l->pitch_r + ALIGN, ALIGN + l->pitch_r};
    return (own_planes){l->pitch_r + 2 * ALIGN, ALIGN};
}

INLINE void step_at(const dcdm_level *l, const dcdm_operator *a, int coded, const double_rows *d, double alpha,
                    int zero, double *x, const double *r, double *to, int64_t k, int64_t j, int64_t i, int64_t n,
                    vd *sum) {
    const vd q = apply_double(a, coded, l, d, k, j, i, n), y = load_double(d->c + i);
    const vd residual = load_some(r + i, n) - alpha * q;
    store_some(to + i, residual, n);
    store_some(x + i, zero ? alpha * y : load_some(x + i, n) + alpha * y, n);
    sum[0] += residual * residual;
    sum[1] += y * q;
}

/* A part needs a plane of each of its neighbours' too, on a ring itself perhaps, and makes it before these write over
 * what it is made from. */
static void edges_part(void *arguments, int part) {
    const sweep *s = arguments;
    const dcdm_level *l = &s->l;
    const own_planes own = planes_of(l);
    double *below = s->work + 3 * part * own.slot + own.first, *above = below + own.slot;
    if (part > 0 || l->wrap_w)
        orthogonalise(l, below, s->d, s->p, s->beta, s->history, plane_of(l, l->part[part] - 1));
    if (part < l->parts - 1 || l->wrap_w)
        orthogonalise(l, above, s->d, s->p, s->beta, s->history, plane_of(l, l->part[part + 1]));
}

INLINE void step_planes(const sweep *s, int part, int coded) {
    const dcdm_level *l = &s->l;
    const own_planes own = planes_of(l);
    const int parts = (int)l->parts;
    const int64_t begin = l->part[part], end = l->part[part + 1];
    const int zero = s->from_zero;
    const double alpha = s->alpha, *r = s->r; /* not to be read again after each store */
    double *x = s->x, *to = s->to;
    double *below = s->work + 3 * part * own.slot + own.first, *above = below + own.slot;
    vd sum[2] = {{0}};
    for (int64_t t = begin - 1; t <= end; t++) {
        double *plane[3]; /* t - 2 .. t of d' */
        for (int q = 0; q < 3; q++) {
            const int64_t k = t - 2 + q;
            plane[q] = k == begin - 1 && (part > 0 || l->wrap_w)     ? below
                       : k == end && (part < parts - 1 || l->wrap_w) ? above
                                                                     : s->next + l->origin + k * l->pitch_w;
        }
        if (plane[2] != below && plane[2] != above && t >= l->w_begin - l->halo && t < l->w_end + l->halo)
            orthogonalise(l, plane[2], s->d, s->p, s->beta, s->history, t);
        const int64_t k = t - 1;
        if (k < begin) continue;
        for (int64_t j = 0; j < l->n_r; j++) {
            const int32_t *range = l->range + 2 * (k * l->n_r + j);
            const double_rows near = double_rows_at(l, plane[1], plane[0], plane[2], j);
            const int64_t o = k * l->full_w + j * l->full_r;
            EACH_VECTOR(range,
                        step_at(l, &s->a, coded, &near, alpha, zero, x + o, r + o, to + o, k, j, i, n, sum));
        }
    }
    s->out[2 * part] = total(sum[0]), s->out[2 * part + 1] = total(sum[1]);
}

EACH_KIND(step_part, step_planes)

/* d' = d - sum beta p to `next`, which may be one of the p;  x += alpha d', to = r - alpha A d' at active cells (`to`
 * may be r); out[part] = r . r of the new one, d' . A d'. `from_zero`: x counts as 0 and is not read. Halos of d and p
 * valid, those of `next` are valid afterwards. `work`: three planes for each part, zero before the first call. */
void dcdm_step(const dcdm_level *l, const dcdm_operator *a, double *next, const float *d, const double *const *p,
               const double *beta, int history, double alpha, int from_zero, double *x, const double *r, double *to,
               double *work, double *out) {
    sweep s = {.l = *l, .a = *a, .d = d, .r = r, .alpha = alpha, .next = next, .x = x, .to = to, .work = work,
               .out = out, .history = history, .from_zero = from_zero};
    for (int h = 0; h < history; h++) s.p[h] = p[h], s.beta[h] = beta[h];
    dcdm_run(edges_part, &s, sizeof s, (int)l->parts);
    dcdm_run(step_part, &s, sizeof s, (int)l->parts);
}

INLINE void residual_at(const dcdm_level *l, const dcdm_operator *a, int coded, const double_rows *x,
                        const double *b, double *r, int64_t k, int64_t j, int64_t i, int64_t n, vd *sum) {
    const vd residual = load_some(b + i, n) - apply_double(a, coded, l, x, k, j, i, n);
    store_some(r + i, residual, n);
    *sum += residual * residual;
}

INLINE void residual_planes(const sweep *s, int part, int coded) {
    const dcdm_level *l = &s->l;
    const own_planes own = planes_of(l);
    const int64_t begin = l->part[part], end = l->part[part + 1];
    double *ring = s->work + 3 * part * own.slot + own.first;
    vd sum = {0};
    for (int64_t t = begin - 1; t <= end; t++) {
        double *plane[3]; /* t - 2 .. t of x; what lies beyond the grid is not coupled to */
        for (int q = 0; q < 3; q++) plane[q] = ring + (t + 1 + q) % 3 * own.slot;
        const int64_t from = plane_of(l, t);
        for (int64_t j = 0; j < l->n_r && from >= l->w_begin && from < l->w_end; j++) {
            const int32_t *range = l->range + 2 * (from * l->n_r + j);
            const int64_t o = from * l->full_w + j * l->full_r, stop = range[1] < l->n_x ? range[1] : l->n_x;
            double *restrict to = plane[2] + j * l->pitch_r;
            for (int64_t i = range[0]; i < stop; i++) to[i] = s->x[o + i];
            WRAP_ROW(l, to);
        }
        const int64_t k = t - 1;
        if (k < begin) continue;
        for (int64_t j = 0; j < l->n_r; j++) {
            const int32_t *range = l->range + 2 * (k * l->n_r + j);
            const double_rows near = double_rows_at(l, plane[1], plane[0], plane[2], j);
            const int64_t o = k * l->full_w + j * l->full_r;
            EACH_VECTOR(range, residual_at(l, &s->a, coded, &near, s->r + o, s->to + o, k, j, i, n, &sum));
        }
    }
    s->out[part] = total(sum);
}

EACH_KIND(residual_part, residual_planes)

/* r = b - A x at active cells on a grid that is on one rank; out[part] = r . r. `work` as above. */
void dcdm_residual(const dcdm_level *l, const dcdm_operator *a, const double *x, const double *b, double *r,
                   double *work, double *out) {
    sweep s = {.l = *l, .a = *a, .r = b, .to = r, .work = work, .out = out, .x = (double *)x};
    dcdm_run(residual_part, &s, sizeof s, (int)l->parts);
}

/* An array of a box of the grid, of which element `begin` is the first cell of the level. */
typedef struct {
    dcdm_level l;
    double *a;
    int64_t begin, size;
} boxed;

static void outside_part(void *arguments, int part) {
    const boxed *b = arguments;
    const dcdm_level *l = &b->l;
    const int64_t first = l->part[part], last = l->part[part + 1];
    int64_t at = part > 0 ? b->begin + first * l->full_w : 0;
    for (int64_t k = first; k < last; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const int32_t *range = l->range + 2 * (k * l->n_r + j);
            const int64_t row = b->begin + k * l->full_w + j * l->full_r;
            if (range[0] >= range[1]) continue;
            memset(b->a + at, 0, (size_t)(row + range[0] - at) * sizeof *b->a);
            at = row + least(range[1], l->n_x);
        }
    const int64_t stop = part + 1 < l->parts ? b->begin + last * l->full_w : b->size;
    memset(b->a + at, 0, (size_t)(stop - at) * sizeof *b->a);
}

/* Zeros where steps never write, outside of the parts of rows with active cells, on a grid that is on one rank. */
void dcdm_clear_outside(const dcdm_level *l, double *a, int64_t begin, int64_t size) {
    boxed b = {*l, a, begin, size};
    dcdm_run(outside_part, &b, sizeof b, (int)l->parts);
}
