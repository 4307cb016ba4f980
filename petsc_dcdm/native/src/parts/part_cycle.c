/* The cycle on levels of parts: Chebyshev polynomials of D^-1 A before and after each correction, and of most levels
 * below the finest two corrections, combined to the least energy (a K-cycle: Notay and Vassilevski, Numer. Linear
 * Algebra Appl. 15, 2008). Coarse couplings are too strong or too weak here and there where a medium is rough: that is
 * made up for.
 *
 * Fluxes are differences times couplings, so that what stiff parts exchange within cancels in their sums. A team of
 * threads or ranks runs all of it together, every function is called by all of them; a small level, and all below it,
 * is left to the first, as waiting for one another would take longer. Sums are taken in pieces that do not depend on
 * the team. */
#include "common.h"
#include "parts/part_whole.h"

typedef struct {
    const float *inverse;      /* [n][n] of the coarsest level */
    const float *omegas;       /* [steps] */
    int64_t steps;
    double *sums;              /* [pieces of the first level][SUMS] */
} parts_cycle;

/* Slices that are summed up as one; unknowns up to which one thread is faster; sums of a piece. */
enum { PIECE = 64, ALONE = 4000, SUMS = 6 };

/* A second direction is left out where the first one leaves no more than this of the residual, as Notay and Vassilevski
 * do: with 0.25 a third to a half of them are, with 0.5 most, and outer iterations get more by one or two. */
#define ENOUGH 0.35

INLINE int64_t slices(const parts_stage *l) { return (l->n + SLICE - 1) / SLICE; }

#define SHARE(n, t, i) FOR_PART(i, n, t.number, t.count)

static NOINLINE vf with_rest(const parts_stage *l, const float *x, int64_t slice, int64_t lane, vf sum) {
    float each[VL];
    store(each, sum);
    for (int64_t e = l->rest[slice]; e < l->rest[slice + 1]; e++) {
        const int64_t i = l->rest_lane[e] - lane;
        if (i >= 0 && i < VL)
            each[i] += l->rest_value[e] * (x[l->rest_column[e]] - x[slice * SLICE + l->rest_lane[e]]);
    }
    return load(each);
}

/* -A x of VL rows of a slice from `lane` on */
INLINE vf minus_image(const parts_stage *l, const float *x, int64_t slice, int64_t lane) {
    const int64_t at = slice * SLICE + lane, end = l->slice[slice + 1];
    const int32_t base = l->base[slice / (WINDOW / SLICE)];
    const vf here = load(x + at);
    vf sum = -load(l->s + at) * here;
    int64_t e = l->slice[slice] + lane;
    if (base >= 0) {
        const float *const first = x + base;
        for (; e < end; e += SLICE) {
            const vu word = load_words(l->word + e);
            sum += (vf)(word & 0xFFFF0000u) * (gather(first, (vi)(word & 0xFFFFu)) - here);
        }
    } else
        for (; e < end; e += 2 * SLICE)
            sum += (vf)load_words(l->word + e + SLICE) * (gather(x, (vi)load_words(l->word + e)) - here);
    return l->rest[slice] == l->rest[slice + 1] ? sum : with_rest(l, x, slice, lane, sum);
}

/* x + omega D^-1 (r - A x) to y */
static void sweep(const parts_stage *l, team t, const float *x, float *y, float omega) {
    SHARE(slices(l), t, slice)
        for (int64_t lane = 0; lane < SLICE; lane += VL) {
            const int64_t at = slice * SLICE + lane;
            const vf left = load(l->r + at) + minus_image(l, x, slice, lane), here = load(x + at);
            store(y + at, here + omega * load(l->inverse + at) * left);
        }
    meet(t);
}

/* Steps from x, or from 0. Returns the iterate, x itself after an even number of them, and the other array in
 * *other. */
static float *smooth(const parts_stage *l, const parts_cycle *cycle, team t, float *x, float *y, int from_zero,
                     float **other) {
    const float *omega = cycle->omegas;
    int64_t step = 0;
    if (from_zero) {
        SHARE(slices(l), t, slice)
            for (int64_t at = slice * SLICE; at < (slice + 1) * SLICE; at += VL)
                store(y + at, omega[0] * load(l->inverse + at) * load(l->r + at));
        meet(t);
        step = 1;
    }
    for (;; step++) {
        if (step > 0) {
            float *const swap = x;
            x = y;
            y = swap;
        }
        if (step == cycle->steps) break;
        sweep(l, t, x, y, omega[step]);
    }
    *other = y;
    return x;
}

/* Right-hand side of level c: the residual of the level above, added up over what each unknown stands for. */
static void add_up(const parts_stage *c, team t, const float *residual) {
    SHARE(c->n, t, p) {
        float sum = 0.0f;
        for (int32_t k = c->child_first[p]; k < c->child_first[p + 1]; k++) sum += residual[c->child[k]];
        c->r[p] = sum;
    }
    meet(t);
}

static void solve_densely(const parts_stage *l, const parts_cycle *cycle, team t) {
    SHARE(l->n, t, i) {
        const float *row = cycle->inverse + i * l->n;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < l->n; j++) sum += row[j] * l->r[j];
        l->x[i] = sum;
    }
    meet(t);
}

/* -A x to `image`; x . image, x . r, image . other, r . r, r . image and image . image in out, the same on all threads.
 */
static void multiply(const parts_stage *l, const parts_cycle *cycle, team t, const float *x, float *image,
                     const float *other, double out[SUMS]) {
    const int64_t count = slices(l), pieces = (count + PIECE - 1) / PIECE;
    SHARE(pieces, t, piece) {
        vf of_piece[SUMS] = {{0}};
        const int64_t end = (piece + 1) * PIECE < count ? (piece + 1) * PIECE : count;
        for (int64_t slice = piece * PIECE; slice < end; slice++)
            for (int64_t lane = 0; lane < SLICE; lane += VL) {
                const int64_t at = slice * SLICE + lane;
                const vf product = minus_image(l, x, slice, lane), here = load(x + at), r = load(l->r + at);
                store(image + at, product);
                of_piece[0] += here * product;
                of_piece[1] += here * r;
                of_piece[2] += product * load(other + at);
                of_piece[3] += r * r;
                of_piece[4] += r * product;
                of_piece[5] += product * product;
            }
        for (int i = 0; i < SUMS; i++) cycle->sums[SUMS * piece + i] = total(of_piece[i]);
    }
    meet(t);
    for (int i = 0; i < SUMS; i++) out[i] = 0.0;
    for (int64_t piece = 0; piece < pieces; piece++)
        for (int i = 0; i < SUMS; i++) out[i] += cycle->sums[SUMS * piece + i];
}

/* x times a number, added to a times another array. */
static void scale(const parts_stage *l, team t, double by, double a, const float *other) {
    SHARE(slices(l), t, slice)
        for (int64_t at = slice * SLICE; at < (slice + 1) * SLICE; at += VL)
            store(l->x + at, (float)a * load(other + at) + (float)by * load(l->x + at));
    meet(t);
}

static void solve(const parts_stage *l, int64_t below, const parts_cycle *cycle, team t);

/* x of a level that has levels below: of two directions, of r and of what the first leaves of it, if that is much. */
static void combine(const parts_stage *l, int64_t below, const parts_cycle *cycle, team t) {
    double first[SUMS], second[SUMS];
    solve(l, below, cycle, t);
    multiply(l, cycle, t, l->x, l->image, l->x, first);
    /* the image is that of -A */
    const double energy = -first[0], step = energy > 0.0 ? first[1] / energy : 0.0;
    const double left_of_r = first[3] + step * (2.0 * first[4] + step * first[5]);
    if (left_of_r <= ENOUGH * ENOUGH * first[3]) {
        scale(l, t, step, 0.0, l->x);
        return;
    }
    SHARE(slices(l), t, slice)
        for (int64_t at = slice * SLICE; at < (slice + 1) * SLICE; at += VL) {
            store(l->kept + at, load(l->x + at));
            store(l->r + at, load(l->r + at) + (float)step * load(l->image + at));
        }
    meet(t);
    solve(l, below, cycle, t);
    multiply(l, cycle, t, l->x, l->image, l->kept, second);
    const double shared = energy > 0.0 ? -second[2] / energy : 0.0; /* x . A kept over kept . A kept */
    const double left = -second[0] + shared * second[2], more = left > 0.0 ? second[1] / left : 0.0;
    scale(l, t, more, step - more * shared, l->kept);
}

/* x of a level with so many below from its r. */
static void find(const parts_stage *l, int64_t below, const parts_cycle *cycle, team t) {
    const team first = {0, 1, NULL};
    if (t.count > 1 && l->n <= ALONE) {
        if (t.number == 0) find(l, below, cycle, first);
        meet(t);
    } else if (l->twice) combine(l, below, cycle, t);
    else solve(l, below, cycle, t);
}

/* The same by one direction. */
static void solve(const parts_stage *l, int64_t below, const parts_cycle *cycle, team t) {
    if (!below && cycle->inverse) {
        solve_densely(l, cycle, t);
        return;
    }
    float *y, *x = smooth(l, cycle, t, l->x, l->y, 1, &y);
    if (below) {
        SHARE(slices(l), t, slice)
            for (int64_t lane = 0; lane < SLICE; lane += VL) {
                const int64_t at = slice * SLICE + lane;
                store(y + at, load(l->r + at) + minus_image(l, x, slice, lane));
            }
        meet(t);
        add_up(l + 1, t, y);
        find(l + 1, below - 1, cycle, t);
        const float *e = l[1].x;
        SHARE(slices(l), t, slice)
            for (int64_t at = slice * SLICE; at < (slice + 1) * SLICE; at += VL)
                store(x + at, load(x + at) + gather_some(e, load_places(l->part + at)));
        meet(t);
    }
    x = smooth(l, cycle, t, x, y, 0, &y);
    if (x == l->x) return;
    SHARE(l->n, t, i) l->x[i] = x[i];
    meet(t);
}

void parts_run_cycle(const parts_whole *w, team t, const parts_box *r, const parts_box *to) {
    const parts_stage *levels = w->levels;
    const int64_t count = w->count;
    const parts_cycle cycle = {w->inverse, w->omegas + w->steps, w->steps_below, w->sums};
    if (count) {
        SHARE(slices(levels), t, slice)
            memset(levels->r + slice * SLICE, 0, SLICE * sizeof *levels->r);
        meet(t);
    }
    parts_grid_down(&w->grid, t, r, w->omegas, w->steps, count ? levels->r : NULL);
    if (count) find(levels, count - 1, &cycle, t);
    parts_grid_up(&w->grid, t, r, to, w->omegas, w->steps, count ? levels->x : NULL);
}

typedef struct {
    parts_whole whole;
    parts_box r, to;
} one_cycle;

static void cycle_part(void *arguments, int part) {
    const one_cycle *c = arguments;
    parts_run_cycle(&c->whole, (team){part, c->whole.meeting.count, &c->whole.meeting}, &c->r, &c->to);
}

/* `to`, of the grid, from r; the rest as in parts_whole. */
void dcdm_parts_solve(const parts_grid *grid, const parts_box *r, const parts_box *to, const parts_stage *levels,
                      int64_t count, const float *inverse, const float *omegas, int64_t steps, int64_t steps_below,
                      double *sums, int threads) {
    one_cycle c = {.whole = {.grid = *grid, .levels = levels, .count = count, .inverse = inverse, .omegas = omegas,
                             .steps = steps, .steps_below = steps_below, .sums = sums},
                   .r = *r, .to = *to};
    dcdm_run_together(cycle_part, &c, sizeof c, threads);
}
