/* As many cycles as it takes, each direction made conjugate to those before. The team of the cycle does all of it: sums
 * are those of planes, added up in their order by every part for itself. */
#include <math.h>

#include "common.h"
#include "parts/part_whole.h"

enum { MOST = 8 }; /* cycles; known to petsc_dcdm/backends/parts/solver.py */
enum { ENERGY = MOST, SLOPE, NORM, SUMS }; /* of a plane; first the products of a direction with images before it */

/* Vectors have the rows of the grid's x. room: 2 MOST + 1 of them, with ALIGN elements at either end */
typedef struct {
    parts_whole whole;
    parts_box r, to;
    float *room;
    double *sums; /* [planes][SUMS] */
    double enough;
} well;

INLINE float *vector(const well *w, int64_t number) {
    const parts_grid *g = &w->whole.grid;
    return w->room + number * (g->n[2] * plane_size(g) + 2 * ALIGN) + ALIGN;
}

INLINE float *direction(const well *w, int64_t k) { return vector(w, 1 + 2 * k); }

INLINE float *image(const well *w, int64_t k) { return vector(w, 2 + 2 * k); }

static double sum_of(const well *w, int what) {
    double sum = 0.0;
    for (int64_t z = 0; z < w->whole.grid.n[2]; z++) sum += w->sums[z * SUMS + what];
    return sum;
}

#define ROWS(g, z, row) \
    for (int64_t row = (z) * plane_size(g), row##_end = row + plane_size(g); row < row##_end; row += (g)->pitch)

/* a . b of a plane. */
static double product(const parts_grid *g, const float *a, const float *b, int64_t z) {
    double sum = 0.0;
    ROWS(g, z, row) {
        vf some = {0};
        for (int64_t i = row; i < row + g->n[0]; i += VL) some = add_product(some, load(a + i), load(b + i));
        sum += total(some);
    }
    return sum;
}

/* The right-hand side to the first vector, and what it leaves of it in planes of this part. */
static void begin(const well *w, team t) {
    const parts_grid *g = &w->whole.grid;
    float *const left = vector(w, 0);
    FOR_PART(z, g->n[2], t.number, t.count) {
        const float *from = w->r.at + z * w->r.plane;
        ROWS(g, z, row) {
            memset(left + row, 0, (size_t)g->pitch * sizeof *left);
            memcpy(left + row, from, (size_t)g->n[0] * sizeof *left);
            from += w->r.pitch;
        }
        w->sums[z * SUMS + NORM] = product(g, left, left, z);
    }
}

/* Zeros where the cycle does not write. */
static void clear(const well *w, team t, float *to) {
    const parts_grid *g = &w->whole.grid;
    const int64_t size = plane_size(g);
    FOR_PART(z, g->n[2], t.number, t.count) memset(to + z * size, 0, (size_t)size * sizeof *to);
    if (t.number > 0) return;
    memset(to - ALIGN, 0, ALIGN * sizeof *to);
    memset(to + g->n[2] * size, 0, ALIGN * sizeof *to);
}

/* The image of direction k, and its products with those before. */
static void multiply(const well *w, team t, int k) {
    const parts_grid *g = &w->whole.grid;
    const float *const d = direction(w, k);
    FOR_PART(z, g->n[2], t.number, t.count) {
        parts_grid_multiply(g, d, image(w, k), z);
        for (int j = 0; j < k; j++) w->sums[z * SUMS + j] = product(g, d, image(w, j), z);
    }
}

/* Direction k less its shares of those before, and the same of its image. */
static void conjugate(const well *w, team t, int k, const double share[MOST]) {
    const parts_grid *g = &w->whole.grid;
    float *const d = direction(w, k), *const a = image(w, k);
    FOR_PART(z, g->n[2], t.number, t.count) {
        for (int j = 0; j < k; j++) {
            const float *const before = direction(w, j), *const image_before = image(w, j);
            const vf by = splat((float)-share[j]);
            ROWS(g, z, row)
                for (int64_t i = row; i < row + g->n[0]; i += VL) {
                    store(d + i, add_product(load(d + i), by, load(before + i)));
                    store(a + i, add_product(load(a + i), by, load(image_before + i)));
                }
        }
        w->sums[z * SUMS + ENERGY] = product(g, d, a, z);
        w->sums[z * SUMS + SLOPE] = product(g, d, vector(w, 0), z);
    }
}

/* What a step along direction k leaves. */
static void advance(const well *w, team t, int k, double step) {
    const parts_grid *g = &w->whole.grid;
    float *const left = vector(w, 0);
    const float *const a = image(w, k);
    const vf by = splat((float)-step);
    FOR_PART(z, g->n[2], t.number, t.count) {
        ROWS(g, z, row)
            for (int64_t i = row; i < row + g->n[0]; i += VL)
                store(left + i, add_product(load(left + i), by, load(a + i)));
        w->sums[z * SUMS + NORM] = product(g, left, left, z);
    }
}

/* The sum of so many steps. */
static void end(const well *w, team t, int count, const double step[MOST]) {
    const parts_grid *g = &w->whole.grid;
    FOR_PART(z, g->n[2], t.number, t.count) {
        float *to = w->to.at + z * w->to.plane;
        ROWS(g, z, row) {
            for (int64_t i = 0; i < g->n[0]; i += VL) {
                vf sum = {0};
                for (int k = 0; k < count; k++)
                    sum = add_product(sum, splat((float)step[k]), load(direction(w, k) + row + i));
                if (i + VL <= g->n[0]) store(to + i, sum);
                else memcpy(to + i, &sum, (size_t)(g->n[0] - i) * sizeof *to);
            }
            to += w->to.pitch;
        }
    }
}

static void well_part(void *arguments, int part) {
    const well *w = arguments;
    const parts_grid *g = &w->whole.grid;
    const team t = {part, w->whole.meeting.count, &w->whole.meeting};
    const parts_box left = {vector(w, 0), g->pitch, plane_size(g)};
    double energy[MOST], step[MOST], wanted = 0.0;
    int count = 0;
    begin(w, t);
    for (int k = 0; k < MOST; k++) {
        const parts_box found = {direction(w, k), g->pitch, plane_size(g)};
        clear(w, t, found.at);
        meet(t);
        const double norm = sum_of(w, NORM);
        if (k == 0) wanted = w->enough * w->enough * norm;
        else if (norm <= wanted) break;
        parts_run_cycle(&w->whole, t, &left, &found);
        multiply(w, t, k);
        meet(t);
        double share[MOST];
        for (int j = 0; j < k; j++) share[j] = sum_of(w, j) / energy[j];
        conjugate(w, t, k, share);
        meet(t);
        energy[k] = sum_of(w, ENERGY);
        const double slope = sum_of(w, SLOPE);
        if (!(energy[k] > 0.0 && isfinite(slope))) break;
        step[k] = slope / energy[k];
        count = k + 1;
        advance(w, t, k, step[k]);
    }
    end(w, t, count, step);
}

/* As dcdm_parts_solve by cycles that reduce the residual to `enough` of r, at most MOST. r and `to` may be one. room:
 * of 2 MOST + 1 vectors (see above); plane_sums: [planes][SUMS] */
void dcdm_parts_solve_well(const parts_grid *grid, const parts_box *r, const parts_box *to, const parts_stage *levels,
                           int64_t count, const float *inverse, const float *omegas, int64_t steps,
                           int64_t steps_below, double *sums, float *room, double *plane_sums, double enough,
                           int threads) {
    well w = {.whole = {.grid = *grid, .levels = levels, .count = count, .inverse = inverse, .omegas = omegas,
                        .steps = steps, .steps_below = steps_below, .sums = sums},
              .r = *r, .to = *to, .room = room, .sums = plane_sums, .enough = enough};
    dcdm_run_together(well_part, &w, sizeof w, threads);
}
