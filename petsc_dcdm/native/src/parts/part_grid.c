/* The finest level of parts on the grid itself: all steps of a leg in one pass over memory. Planes of the iterates in
 * between live in rings of three, one per step, that a thread has for itself; slabs of planes overlap by as many
 * planes as there are steps, which both threads work out. */
#include "common.h"
#include "parts/part_grid.h"

enum { RING = 3 };

typedef struct {
    const parts_grid *g;
    const parts_box *r;
    float *ring;
    int64_t begin, end, steps; /* own planes */
} slab;

/* First element of a plane of iterate k. */
INLINE float *plane(const slab *s, int64_t k, int64_t z) {
    return s->ring + (k * RING + (z + RING * s->steps) % RING) * (ALIGN + plane_size(s->g)) + ALIGN;
}

INLINE vf load_part(const float *p, int64_t n) {
    vf v = {0};
    if (n >= VL) return load(p);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

INLINE void store_part(float *p, vf v, int64_t n) {
    if (n >= VL) store(p, v);
    else memcpy(p, &v, (size_t)n * sizeof *p);
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A row of an iterate and of its neighbours, and the faces between them. */
typedef struct {
    const float *x, *south, *north, *below, *above;
    const uint16_t *wx, *wy, *wy_high, *wz, *wz_high, *s;
} cells;

/* x: the planes z - 1, z, z + 1 of an iterate. Beyond the grid nothing conducts, but rings have planes of any time. */
INLINE cells cells_at(const parts_grid *g, const float *const x[3], int64_t z, int64_t y) {
    const int64_t row = y * g->pitch, at = z * plane_size(g) + row;
    const float *here = x[1] + row;
    return (cells){here, y > 0 ? here - g->pitch : here, y + 1 < g->n[1] ? here + g->pitch : here,
                   z > 0 ? x[0] + row : here, z + 1 < g->n[2] ? x[2] + row : here,
                   g->w[0] + at, g->w[1] + at, g->w[1] + at + g->pitch, g->w[2] + at, g->w[2] + at + plane_size(g),
                   g->s + at};
}

/* r - A x of VL cells from cell i of a row on. */
INLINE vf residual_at(const cells *c, vf r, int64_t i) {
    const vf x = load(c->x + i);
    vf y = r - load_half(c->s + i) * x;
    y = add_product(y, load_half(c->wx + i), load(c->x + i - 1) - x);
    y = add_product(y, load_half(c->wx + i + 1), load(c->x + i + 1) - x);
    y = add_product(y, load_half(c->wy + i), load(c->south + i) - x);
    y = add_product(y, load_half(c->wy_high + i), load(c->north + i) - x);
    y = add_product(y, load_half(c->wz + i), load(c->below + i) - x);
    return add_product(y, load_half(c->wz_high + i), load(c->above + i) - x);
}

INLINE cells cells_of_iterate(const slab *sl, int64_t k, int64_t z, int64_t y) {
    const float *const x[3] = {plane(sl, k, z - 1), plane(sl, k, z), plane(sl, k, z + 1)};
    return cells_at(sl->g, x, z, y);
}

INLINE const float *row_of(const parts_box *b, int64_t z, int64_t y) { return b->at + z * b->plane + y * b->pitch; }

INLINE vf stepped(const cells *c, const uint16_t *inverse, vf r, vf omega, int64_t i) {
    return add_product(load(c->x + i), omega * load_half(inverse + i), residual_at(c, r, i));
}

/* x + omega D^-1 (r - A x) of a plane of iterate k to that of the next one, or to a box if there is one. */
static NOINLINE void step_plane(const slab *sl, int64_t k, int64_t z, float omega, const parts_box *to) {
    const parts_grid *g = sl->g;
    const vf by = splat(omega);
    for (int64_t y = 0; y < g->n[1]; y++) {
        const cells c = cells_of_iterate(sl, k, z, y);
        const uint16_t *inverse = g->inverse + z * plane_size(g) + y * g->pitch;
        const float *r = row_of(sl->r, z, y);
        float *out = to ? (float *)row_of(to, z, y) : plane(sl, k + 1, z) + y * g->pitch;
        int64_t i = 0;
        for (; i + VL <= g->n[0]; i += VL) store(out + i, stepped(&c, inverse, load(r + i), by, i));
        if (i == g->n[0]) continue;
        const int64_t left = g->n[0] - i;
        store_part(out + i, stepped(&c, inverse, load_part(r + i, left), by, i), to ? left : VL);
    }
}

/* The residual of a plane of iterate k, added up over parts. row: room for one */
static NOINLINE void add_residual(const slab *sl, int64_t k, int64_t z, float *row, float *sum) {
    const parts_grid *g = sl->g;
    for (int64_t y = 0; y < g->n[1]; y++) {
        const cells c = cells_of_iterate(sl, k, z, y);
        const float *r = row_of(sl->r, z, y);
        const int32_t *part = g->part + (z * g->n[1] + y) * g->n[0];
        for (int64_t i = 0; i < g->n[0]; i += VL)
            store(row + i, residual_at(&c, load_part(r + i, g->n[0] - i), i));
        for (int64_t i = 0; i < g->n[0]; i++)
            if (part[i] >= 0) sum[part[i]] += row[i];
    }
}

/* The first step from 0. */
static NOINLINE void scaled_plane(const slab *sl, int64_t z, float omega) {
    const parts_grid *g = sl->g;
    const vf by = splat(omega);
    for (int64_t y = 0; y < g->n[1]; y++) {
        const uint16_t *inverse = g->inverse + z * plane_size(g) + y * g->pitch;
        const float *r = row_of(sl->r, z, y);
        float *out = plane(sl, 1, z) + y * g->pitch;
        for (int64_t i = 0; i < g->n[0]; i += VL)
            store(out + i, by * load_half(inverse + i) * load_part(r + i, g->n[0] - i));
    }
}

static NOINLINE void corrected_plane(const slab *sl, int64_t z, const float *correction) {
    const parts_grid *g = sl->g;
    float *const to = plane(sl, 0, z);
    memcpy(to, g->x + z * plane_size(g), (size_t)plane_size(g) * sizeof *to);
    for (int64_t y = 0; y < g->n[1] && correction; y++) {
        float *restrict out = to + y * g->pitch;
        const int32_t *restrict part = g->part + (z * g->n[1] + y) * g->n[0];
        for (int64_t i = 0; i < g->n[0]; i++) out[i] += part[i] >= 0 ? correction[part[i]] : 0.0f;
    }
}

/* The planes of this thread, which do not divide blocks, and its rings. */
static slab own_slab(const parts_grid *g, const parts_box *r, int64_t steps) {
    const int64_t t = omp_get_thread_num(), team = omp_get_num_threads(), pairs = (g->n[2] + 1) / 2;
    const int64_t size = (steps + 1) * RING * (ALIGN + plane_size(g)) + ALIGN;
    return (slab){g, r, g->rings + t * size, 2 * (pairs * t / team), least(2 * (pairs * (t + 1) / team), g->n[2]), steps};
}

/* Whether plane z is one that is needed of the iterate that so many steps follow. */
INLINE int needed(const slab *sl, int64_t z, int64_t following) {
    return z >= sl->begin - following && z < sl->end + following && z >= 0 && z < sl->g->n[2];
}

/* x from 0 by `steps` steps, and its residual added up over parts where there are some, to their sum, which is 0
 * before. By all threads of a team. */
void parts_grid_down(const parts_grid *g, const parts_box *r, const float *omega, int64_t steps, float *sum) {
    const slab sl = own_slab(g, r, steps);
    float *const row = plane(&sl, 0, 0); /* there is no iterate before the first */
    for (int64_t z = sl.begin - steps; z < sl.end + steps && sl.begin < sl.end; z++) {
        if (needed(&sl, z, steps)) scaled_plane(&sl, z, omega[0]);
        for (int64_t k = 1; k < steps; k++)
            if (needed(&sl, z - k, steps - k)) step_plane(&sl, k, z - k, omega[k], NULL);
        const int64_t last = z - steps;
        if (!needed(&sl, last, 0)) continue;
        memcpy(g->x + last * plane_size(g), plane(&sl, steps, last), (size_t)plane_size(g) * sizeof *g->x);
        if (sum) add_residual(&sl, steps, last, row, sum);
    }
#pragma omp barrier
}

/* As many steps from x and the correction of the next level, if there is any. */
void parts_grid_up(const parts_grid *g, const parts_box *r, const parts_box *to, const float *omega, int64_t steps,
                   const float *correction) {
    const slab sl = own_slab(g, r, steps);
    for (int64_t z = sl.begin - steps; z < sl.end + steps && sl.begin < sl.end; z++) {
        if (needed(&sl, z, steps)) corrected_plane(&sl, z, correction);
        for (int64_t k = 0; k < steps; k++)
            if (needed(&sl, z - k - 1, steps - k - 1))
                step_plane(&sl, k, z - k - 1, omega[k], k + 1 < steps ? NULL : to);
    }
#pragma omp barrier
}

INLINE uint16_t to_half(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return (uint16_t)((word + 0x7FFF + (word >> 16 & 1)) >> 16);
}

/* w, s and the inverse diagonal from float64, of which rows and planes lie so far apart; returns how many cells have an
 * unknown. */
int64_t dcdm_parts_fill_grid(const parts_grid *g, const double *const w[3], const double *s, int64_t pitch,
                             int64_t apart, int threads) {
    const int64_t nx = g->n[0], ny = g->n[1], nz = g->n[2];
    int64_t unknowns = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : unknowns)
    for (int64_t line = 0; line < ny * nz; line++) {
        const int64_t y = line % ny, z = line / ny, to = line * g->pitch, from = z * apart + y * pitch;
        const double *restrict wx = w[0] + from, *restrict own = s + from;
        /* where there is no face: any numbers, times 0 */
        const double *restrict wy = w[1] ? w[1] + from : wx, *restrict wz = w[2] ? w[2] + from : wx;
        const double *restrict wy_high = w[1] && y + 1 < ny ? wy + pitch : wx;
        const double *restrict wz_high = w[2] && z + 1 < nz ? wz + apart : wx;
        const double south = w[1] && y > 0, north = w[1] && y + 1 < ny, below = w[2] && z > 0;
        const double above = w[2] && z + 1 < nz;
        uint16_t *restrict x_to = g->w[0] + to, *restrict y_to = g->w[1] + to, *restrict z_to = g->w[2] + to;
        uint16_t *restrict s_to = g->s + to, *restrict inverse = g->inverse + to;
        for (int64_t i = 0; i < nx; i++) {
            const double east = i + 1 < nx ? wx[i + 1] : 0.0, west = i > 0 ? wx[i] : 0.0;
            const double low_y = south * wy[i], low_z = below * wz[i];
            const double sum = own[i] + west + east + low_y + north * wy_high[i] + low_z + above * wz_high[i];
            x_to[i] = to_half((float)west);
            y_to[i] = to_half((float)low_y);
            z_to[i] = to_half((float)low_z);
            s_to[i] = to_half((float)own[i]);
            inverse[i] = to_half(sum > 0.0 ? (float)(1.0 / sum) : 0.0f);
            unknowns += inverse[i] > 0;
        }
    }
    return unknowns;
}

/* to = A x; both as x of the grid, with ALIGN elements of 0 before them */
void dcdm_parts_multiply(const parts_grid *g, const float *x, float *to, int threads) {
    const int64_t size = plane_size(g);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t z = 0; z < g->n[2]; z++) {
        const float *const planes[3] = {x + (z > 0 ? z - 1 : z) * size, x + z * size, x + (z + 1 < g->n[2] ? z + 1 : z) * size};
        for (int64_t y = 0; y < g->n[1]; y++) {
            const cells c = cells_at(g, planes, z, y);
            for (int64_t i = 0; i < g->n[0]; i += VL)
                store(to + z * size + y * g->pitch + i, -residual_at(&c, splat(0.0f), i));
        }
    }
}
