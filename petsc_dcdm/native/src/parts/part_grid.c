/* The finest level of parts on the grid itself: all steps of a leg in one pass over memory. Planes of the iterates in
 * between live in rings of three, one per step, that a thread has for itself. It has a slab of planes, and goes through
 * it once for each of some tiles of rows, so that what a step finds is still near from the one before. Slabs and tiles
 * overlap by as many planes and rows as there are steps, which are worked out twice. */
#include "common.h"
#include "parts/part_cycle.h"
#include "parts/part_grid.h"

enum { RING = 3, TILE = 8192 }; /* cells of a plane in a tile: what a step finds of eight planes is within 2 MB */

typedef struct {
    const parts_grid *g;
    const parts_box *r;
    float *ring;
    int64_t begin, end, y_begin, y_end, steps; /* own planes and rows */
} slab;

typedef struct {
    int64_t begin, end;
} range;

/* First element of a plane of iterate k. */
INLINE float *plane(const slab *s, int64_t k, int64_t z) {
    return s->ring + (k * RING + (z + RING * s->steps) % RING) * (ALIGN + plane_size(s->g)) + ALIGN;
}

/* Rows that are needed of an iterate that so many steps follow. */
INLINE range rows_for(const slab *s, int64_t following) {
    const int64_t begin = s->y_begin - following;
    return (range){begin > 0 ? begin : 0, least(s->y_end + following, s->g->n[1])};
}

/* A row of an iterate and of its neighbours, and the pairs of its cells and of those whose low faces are its high ones.
 */
typedef struct {
    const float *x, *south, *north, *below, *above;
    const uint32_t *xy, *north_xy, *zs, *above_zs;
} cells;

/* x: the planes z - 1, z, z + 1 of an iterate. Beyond the grid nothing conducts, but rings have planes of any time. */
INLINE cells cells_at(const parts_grid *g, const float *const x[3], int64_t z, int64_t y) {
    const int64_t row = y * g->pitch, at = z * plane_size(g) + row;
    const float *here = x[1] + row;
    return (cells){here, y > 0 ? here - g->pitch : here, y + 1 < g->n[1] ? here + g->pitch : here,
                   z > 0 ? x[0] + row : here, z + 1 < g->n[2] ? x[2] + row : here,
                   g->xy + at, g->xy + at + g->pitch, g->zs + at, g->zs + at + plane_size(g)};
}

/* As load, which compilers take round by way of the stack where there are many. */
typedef float near_floats __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t near_words __attribute__((vector_size(4 * VL), aligned(4), may_alias));

INLINE vf floats(const float *p) { return *(const near_floats *)p; }

INLINE vf load_part(const float *p, int64_t n) {
    vf v = {0};
    if (n >= VL) return floats(p);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

INLINE void store_part(float *p, vf v, int64_t n) {
    if (n >= VL) store(p, v);
    else memcpy(p, &v, (size_t)n * sizeof *p);
}

INLINE vu words(const uint32_t *p) { return *(const near_words *)p; }

INLINE vf lowers(vu pairs) { return (vf)(pairs << 16); }

INLINE vf uppers(vu pairs) { return (vf)(pairs & 0xFFFF0000u); }

/* r - A x of VL cells from cell i of a row on. */
INLINE vf residual_at(const cells *c, vf r, int64_t i) {
    const vf x = floats(c->x + i);
    const vu xy = words(c->xy + i), zs = words(c->zs + i);
    vf y = r - uppers(zs) * x;
    y = add_product(y, lowers(xy), floats(c->x + i - 1) - x);
    y = add_product(y, lowers(words(c->xy + i + 1)), floats(c->x + i + 1) - x);
    y = add_product(y, uppers(xy), floats(c->south + i) - x);
    y = add_product(y, uppers(words(c->north_xy + i)), floats(c->north + i) - x);
    y = add_product(y, lowers(zs), floats(c->below + i) - x);
    return add_product(y, lowers(words(c->above_zs + i)), floats(c->above + i) - x);
}

INLINE cells cells_of_iterate(const slab *sl, int64_t k, int64_t z, int64_t y) {
    const float *const x[3] = {plane(sl, k, z - 1), plane(sl, k, z), plane(sl, k, z + 1)};
    return cells_at(sl->g, x, z, y);
}

INLINE const float *row_of(const parts_box *b, int64_t z, int64_t y) { return b->at + z * b->plane + y * b->pitch; }

INLINE vf stepped(const cells *c, const uint16_t *inverse, vf r, vf omega, int64_t i) {
    return add_product(floats(c->x + i), omega * load_half(inverse + i), residual_at(c, r, i));
}

/* x + omega D^-1 (r - A x) of a plane of iterate k to that of the next one, or to a box if there is one. */
static NOINLINE void step_plane(const slab *sl, int64_t k, int64_t z, range rows, float omega, const parts_box *to) {
    const parts_grid *g = sl->g;
    const vf by = splat(omega);
    for (int64_t y = rows.begin; y < rows.end; y++) {
        const cells c = cells_of_iterate(sl, k, z, y);
        const uint16_t *inverse = g->inverse + z * plane_size(g) + y * g->pitch;
        const float *r = row_of(sl->r, z, y);
        float *out = to ? (float *)row_of(to, z, y) : plane(sl, k + 1, z) + y * g->pitch;
        int64_t i = 0;
        for (; i + VL <= g->n[0]; i += VL) store(out + i, stepped(&c, inverse, floats(r + i), by, i));
        if (i == g->n[0]) continue;
        const int64_t left = g->n[0] - i;
        store_part(out + i, stepped(&c, inverse, load_part(r + i, left), by, i), to ? left : VL);
    }
}

/* The residual of a plane of iterate k, added up over parts. row: room for one */
static NOINLINE void add_residual(const slab *sl, int64_t k, int64_t z, float *row, float *sum) {
    const parts_grid *g = sl->g;
    for (int64_t y = sl->y_begin; y < sl->y_end; y++) {
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
static NOINLINE void scaled_plane(const slab *sl, int64_t z, range rows, float omega) {
    const parts_grid *g = sl->g;
    const vf by = splat(omega);
    for (int64_t y = rows.begin; y < rows.end; y++) {
        const uint16_t *inverse = g->inverse + z * plane_size(g) + y * g->pitch;
        const float *r = row_of(sl->r, z, y);
        float *out = plane(sl, 1, z) + y * g->pitch;
        for (int64_t i = 0; i < g->n[0]; i += VL)
            store(out + i, by * load_half(inverse + i) * load_part(r + i, g->n[0] - i));
    }
}

static NOINLINE void corrected_plane(const slab *sl, int64_t z, range rows, const float *correction) {
    const parts_grid *g = sl->g;
    for (int64_t y = rows.begin; y < rows.end; y++) {
        float *restrict out = plane(sl, 0, z) + y * g->pitch;
        memcpy(out, g->x + z * plane_size(g) + y * g->pitch, (size_t)g->pitch * sizeof *out);
        const int32_t *restrict part = g->part + (z * g->n[1] + y) * g->n[0];
        if (!correction) continue;
        int64_t i = 0;
        for (; i + VL <= g->n[0]; i += VL)
            store(out + i, floats(out + i) + gather_some(correction, load_places(part + i)));
        for (; i < g->n[0]; i++) out[i] += part[i] >= 0 ? correction[part[i]] : 0.0f;
    }
}

/* The planes of this part of the team, which do not divide blocks, and its rings. */
static slab own_slab(const parts_grid *g, team t, const parts_box *r, int64_t steps) {
    const int64_t pairs = (g->n[2] + 1) / 2, size = (steps + 1) * RING * (ALIGN + plane_size(g)) + ALIGN;
    return (slab){.g = g, .r = r, .ring = g->rings + t.number * size, .steps = steps,
                  .begin = 2 * first_of(pairs, t.number, t.count),
                  .end = least(2 * first_of(pairs, t.number + 1, t.count), g->n[2])};
}

/* Tiles of rows, none if there are no planes, and the rows of one of them. */
INLINE int64_t tiles(const slab *sl) {
    return sl->begin < sl->end ? (plane_size(sl->g) + TILE - 1) / TILE : 0;
}

INLINE void take_tile(slab *sl, int64_t tile) {
    const int64_t pairs = (sl->g->n[1] + 1) / 2, count = tiles(sl);
    sl->y_begin = 2 * (pairs * tile / count);
    sl->y_end = least(2 * (pairs * (tile + 1) / count), sl->g->n[1]);
}

/* Whether plane z is one that is needed of the iterate that so many steps follow. */
INLINE int needed(const slab *sl, int64_t z, int64_t following) {
    return z >= sl->begin - following && z < sl->end + following && z >= 0 && z < sl->g->n[2];
}

static void down_tile(const slab *sl, const float *omega, float *sum) {
    const parts_grid *g = sl->g;
    const int64_t steps = sl->steps, at = sl->y_begin * g->pitch, size = (sl->y_end - sl->y_begin) * g->pitch;
    float *const row = plane(sl, 0, 0); /* there is no iterate before the first */
    for (int64_t z = sl->begin - steps; z < sl->end + steps; z++) {
        if (needed(sl, z, steps)) scaled_plane(sl, z, rows_for(sl, steps), omega[0]);
        for (int64_t k = 1; k < steps; k++)
            if (needed(sl, z - k, steps - k)) step_plane(sl, k, z - k, rows_for(sl, steps - k), omega[k], NULL);
        const int64_t last = z - steps;
        if (!needed(sl, last, 0)) continue;
        memcpy(g->x + last * plane_size(g) + at, plane(sl, steps, last) + at, (size_t)size * sizeof *g->x);
        if (sum) add_residual(sl, steps, last, row, sum);
    }
}

/* x from 0 by `steps` steps, and its residual added up over parts where there are some, to their sum, which is 0
 * before. By all parts of a team. */
void parts_grid_down(const parts_grid *g, team t, const parts_box *r, const float *omega, int64_t steps, float *sum) {
    slab sl = own_slab(g, t, r, steps);
    for (int64_t tile = 0; tile < tiles(&sl); tile++) {
        take_tile(&sl, tile);
        down_tile(&sl, omega, sum);
    }
    meet(t);
}

/* As many steps from x and the correction of the next level, if there is any. */
void parts_grid_up(const parts_grid *g, team t, const parts_box *r, const parts_box *to, const float *omega,
                   int64_t steps, const float *correction) {
    slab sl = own_slab(g, t, r, steps);
    for (int64_t tile = 0; tile < tiles(&sl); tile++) {
        take_tile(&sl, tile);
        for (int64_t z = sl.begin - steps; z < sl.end + steps; z++) {
            if (needed(&sl, z, steps)) corrected_plane(&sl, z, rows_for(&sl, steps), correction);
            for (int64_t k = 0; k < steps; k++) {
                const int64_t after = steps - k - 1;
                if (needed(&sl, z - k - 1, after))
                    step_plane(&sl, k, z - k - 1, rows_for(&sl, after), omega[k], after ? NULL : to);
            }
        }
    }
    meet(t);
}

typedef struct {
    parts_grid g;
    const double *w[3], *s;
    int64_t pitch, apart, unknowns;
    int parts;
} filling;

static void fill_part(void *arguments, int part) {
    filling *f = arguments;
    const parts_grid *g = &f->g;
    const double *const *w = f->w, *const s = f->s;
    const int64_t nx = g->n[0], ny = g->n[1], nz = g->n[2], pitch = f->pitch, apart = f->apart;
    int64_t unknowns = 0;
    FOR_PART(line, ny * nz, part, f->parts) {
        const int64_t y = line % ny, z = line / ny, to = line * g->pitch, from = z * apart + y * pitch;
        const double *restrict wx = w[0] + from, *restrict own = s + from;
        /* where there is no face: any numbers, times 0 */
        const double *restrict wy = w[1] ? w[1] + from : wx, *restrict wz = w[2] ? w[2] + from : wx;
        const double *restrict wy_high = w[1] && y + 1 < ny ? wy + pitch : wx;
        const double *restrict wz_high = w[2] && z + 1 < nz ? wz + apart : wx;
        const double south = w[1] && y > 0, north = w[1] && y + 1 < ny, below = w[2] && z > 0;
        const double above = w[2] && z + 1 < nz;
        uint32_t *restrict xy = g->xy + to, *restrict zs = g->zs + to;
        uint16_t *restrict inverse = g->inverse + to;
        for (int64_t i = 0; i < nx; i++) {
            const double east = i + 1 < nx ? wx[i + 1] : 0.0, west = i > 0 ? wx[i] : 0.0;
            const double low_y = south * wy[i], low_z = below * wz[i];
            const double sum = own[i] + west + east + low_y + north * wy_high[i] + low_z + above * wz_high[i];
            xy[i] = to_half((float)west) | to_half((float)low_y) << 16;
            zs[i] = to_half((float)low_z) | to_half((float)own[i]) << 16;
            inverse[i] = (uint16_t)to_half(sum > 0.0 ? (float)(1.0 / sum) : 0.0f);
            unknowns += inverse[i] > 0;
        }
        for (int64_t i = nx; i < g->pitch; i++) xy[i] = zs[i] = 0, inverse[i] = 0;
    }
    __atomic_fetch_add(&f->unknowns, unknowns, __ATOMIC_RELAXED);
}

/* w, s and the inverse diagonal from float64, of which rows and planes lie so far apart; returns how many cells have an
 * unknown. */
int64_t dcdm_parts_fill_grid(const parts_grid *g, const double *const w[3], const double *s, int64_t pitch,
                             int64_t apart, int threads) {
    filling f = {*g, {w[0], w[1], w[2]}, s, pitch, apart, 0, threads};
    const int64_t size = g->n[2] * plane_size(g), beyond = plane_size(g) + ALIGN;
    memset(g->xy + size, 0, (size_t)beyond * sizeof *g->xy);
    memset(g->zs + size, 0, (size_t)beyond * sizeof *g->zs);
    memset(g->inverse + size, 0, (size_t)beyond * sizeof *g->inverse);
    dcdm_run(fill_part, &f, sizeof f, threads);
    return f.unknowns;
}

void parts_grid_multiply(const parts_grid *g, const float *x, float *to, int64_t z) {
    const int64_t size = plane_size(g), below = z > 0 ? z - 1 : z, above = z + 1 < g->n[2] ? z + 1 : z;
    const float *const planes[3] = {x + below * size, x + z * size, x + above * size};
    for (int64_t y = 0; y < g->n[1]; y++) {
        const cells c = cells_at(g, planes, z, y);
        for (int64_t i = 0; i < g->n[0]; i += VL)
            store(to + z * size + y * g->pitch + i, -residual_at(&c, splat(0.0f), i));
    }
}
