/* The finest level of parts on the grid itself: all steps of a leg in one pass over memory. Planes of the iterates
 * in between live in rings of four, one per step, that a thread has for itself; slabs of planes overlap by as many
 * planes as there are steps, which both threads work out. */
#include "common.h"
#include "parts/part_grid.h"

enum { RING = 4 };

typedef struct {
    const parts_grid *g;
    float *ring; /* [steps + 1][RING] padded planes */
} slab;

INLINE int64_t padded_plane(const parts_grid *g) { return (g->n[0] + 2) * (g->n[1] + 2); }

/* First element of a plane of iterate k, after its halo. */
INLINE float *plane(const slab *s, int64_t k, int64_t z) {
    return s->ring + (k * RING + (z & (RING - 1))) * padded_plane(s->g) + s->g->n[0] + 3;
}

/* residual = r - A x of the cells of a row; `low` .. are the iterate's neighbours along y and z, w.. the faces'. */
#define RESIDUAL(i) \
    (r[i] - s[i] * x[i] + wx[i] * (x[i - 1] - x[i]) + wx[i + 1] * (x[i + 1] - x[i]) + wy[i] * (south[i] - x[i]) + \
     wy_high[i] * (north[i] - x[i]) + wz[i] * (below[i] - x[i]) + wz_high[i] * (above[i] - x[i]))

#define ROW(k, z, y) \
    const int64_t pitch = g->n[0] + 2, up = padded_plane(g), at = (z + 1) * up + (y + 1) * pitch + 1; \
    const float *restrict x = plane(sl, k, z) + y * pitch; \
    /* beyond the grid nothing conducts, and rings have planes of any time */ \
    const float *restrict below = z > 0 ? plane(sl, k, z - 1) + y * pitch : x; \
    const float *restrict above = z + 1 < g->n[2] ? plane(sl, k, z + 1) + y * pitch : x; \
    const float *restrict south = x - pitch, *restrict north = x + pitch; \
    const float *restrict wx = g->w[0] + at, *restrict wy = g->w[1] + at, *restrict wz = g->w[2] + at; \
    const float *restrict wy_high = wy + pitch, *restrict wz_high = wz + up, *restrict s = g->s + at; \
    const float *restrict r = g->r + (z * g->n[1] + y) * g->n[0]

/* One step for a plane of iterate k + 1 from those of k, and of k - 1 unless a is 0. */
static void step_plane(const slab *sl, int64_t k, int64_t z, float a, float b) {
    const parts_grid *g = sl->g;
    for (int64_t y = 0; y < g->n[1]; y++) {
        ROW(k, z, y);
        const float *restrict inverse = g->inverse + at;
        const float *restrict before = plane(sl, k ? k - 1 : k, z) + y * pitch;
        float *restrict out = plane(sl, k + 1, z) + y * pitch;
        for (int64_t i = 0; i < g->n[0]; i++)
            out[i] = x[i] + a * (x[i] - before[i]) + b * inverse[i] * RESIDUAL(i);
    }
}

/* The residual of a plane of iterate k. */
static void residual_plane(const slab *sl, int64_t k, int64_t z) {
    const parts_grid *g = sl->g;
    for (int64_t y = 0; y < g->n[1]; y++) {
        ROW(k, z, y);
        float *restrict out = g->y + (z * g->n[1] + y) * g->n[0];
        for (int64_t i = 0; i < g->n[0]; i++) out[i] = RESIDUAL(i);
    }
}

static void scaled_plane(const slab *sl, int64_t z, float b) {
    const parts_grid *g = sl->g;
    const int64_t pitch = g->n[0] + 2;
    for (int64_t y = 0; y < g->n[1]; y++) {
        const float *restrict inverse = g->inverse + (z + 1) * padded_plane(g) + (y + 1) * pitch + 1;
        const float *restrict r = g->r + (z * g->n[1] + y) * g->n[0];
        float *restrict out = plane(sl, 1, z) + y * pitch;
        for (int64_t i = 0; i < g->n[0]; i++) out[i] = b * inverse[i] * r[i];
    }
}

static void corrected_plane(const slab *sl, int64_t z, const float *correction) {
    const parts_grid *g = sl->g;
    for (int64_t y = 0; y < g->n[1]; y++) {
        const int64_t at = (z * g->n[1] + y) * g->n[0];
        float *restrict out = plane(sl, 0, z) + y * (g->n[0] + 2);
        const int32_t *restrict part = g->part + at;
        const float *restrict from = g->x + at;
        if (!correction) memcpy(out, from, (size_t)g->n[0] * sizeof *out);
        else
            for (int64_t i = 0; i < g->n[0]; i++) out[i] = from[i] + (part[i] >= 0 ? correction[part[i]] : 0.0f);
    }
}

static void keep_plane(const slab *sl, int64_t k, int64_t z, float *to) {
    const parts_grid *g = sl->g;
    for (int64_t y = 0; y < g->n[1]; y++)
        memcpy(to + (z * g->n[1] + y) * g->n[0], plane(sl, k, z) + y * (g->n[0] + 2), (size_t)g->n[0] * sizeof *to);
}

/* The planes of this thread and its rings. */
static slab own_slab(const parts_grid *g, int64_t steps, int64_t *begin, int64_t *end) {
    const int64_t t = omp_get_thread_num(), team = omp_get_num_threads();
    *begin = g->n[2] * t / team;
    *end = g->n[2] * (t + 1) / team;
    const slab own = {g, g->rings + t * (steps + 1) * RING * padded_plane(g)};
    return own;
}

INLINE int within(int64_t z, int64_t begin, int64_t end, int64_t nz) {
    return z >= begin && z < end && z >= 0 && z < nz;
}

/* x from 0 by `steps` steps with coefficients c[steps][2], and its residual to y. By all threads of a team. */
void parts_grid_down(const parts_grid *g, const float *c, int64_t steps) {
    int64_t begin, end;
    const slab sl = own_slab(g, steps, &begin, &end);
    memset(sl.ring, 0, (size_t)(RING * padded_plane(g)) * sizeof *sl.ring); /* the iterate before the first */
    for (int64_t z = begin - steps; z < end + steps && begin < end; z++) {
        if (within(z, begin - steps, end + steps, g->n[2])) scaled_plane(&sl, z, c[1]);
        for (int64_t k = 1; k < steps; k++)
            if (within(z - k, begin - steps + k, end + steps - k, g->n[2]))
                step_plane(&sl, k, z - k, c[2 * k], c[2 * k + 1]);
        if (within(z - steps, begin, end, g->n[2])) {
            keep_plane(&sl, steps, z - steps, g->x);
            residual_plane(&sl, steps, z - steps);
        }
    }
#pragma omp barrier
}

/* y by as many steps from x and the correction of the next level, if there is any. */
void parts_grid_up(const parts_grid *g, const float *c, int64_t steps, const float *correction) {
    int64_t begin, end;
    const slab sl = own_slab(g, steps, &begin, &end);
    for (int64_t z = begin - steps; z < end + steps && begin < end; z++) {
        if (within(z, begin - steps, end + steps, g->n[2])) corrected_plane(&sl, z, correction);
        for (int64_t k = 0; k < steps; k++)
            if (within(z - k - 1, begin - steps + k + 1, end + steps - k - 1, g->n[2]))
                step_plane(&sl, k, z - k - 1, k ? c[2 * k] : 0.0f, c[2 * k + 1]);
        if (within(z - steps, begin, end, g->n[2])) keep_plane(&sl, steps, z - steps, g->y);
    }
#pragma omp barrier
}

/* w, s and the inverse diagonal in single precision with a halo of 0, from float64 without one; cells without an
 * unknown have no inverse. */
void dcdm_parts_fill_grid(const parts_grid *g, const double *const w[3], const double *s, int threads) {
    const int64_t nx = g->n[0], ny = g->n[1], nz = g->n[2], pitch = nx + 2, up = padded_plane(g);
    const int64_t far[3] = {1, nx, nx * ny};
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < ny * nz; line++) {
        const int64_t at[2] = {line % ny, line / ny}, to = (at[1] + 1) * up + (at[0] + 1) * pitch + 1;
        for (int64_t x = 0; x < nx; x++) {
            const int64_t cell = line * nx + x;
            double sum = s[cell];
            for (int a = 0; a < 3; a++) {
                const int64_t n = g->n[a], here = a == 0 ? x : at[a - 1];
                const double low = w[a] && here > 0 ? w[a][cell] : 0.0;
                g->w[a][to + x] = (float)low;
                sum += low + (w[a] && here + 1 < n ? w[a][cell + far[a]] : 0.0);
            }
            g->s[to + x] = (float)s[cell];
            g->inverse[to + x] = sum > 0.0 ? (float)(1.0 / sum) : 0.0f;
        }
    }
}

/* to = A x; both [cells] */
void dcdm_parts_multiply(const parts_grid *g, const float *x, float *to, int threads) {
    const int64_t nx = g->n[0], ny = g->n[1], nz = g->n[2], pitch = nx + 2, up = padded_plane(g);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < ny * nz; line++) {
        const int64_t y = line % ny, z = line / ny, at = (z + 1) * up + (y + 1) * pitch + 1;
        const float *restrict here = x + line * nx;
        /* where there is no neighbour the face conducts nothing */
        const float *restrict south = y > 0 ? here - nx : here, *restrict north = y + 1 < ny ? here + nx : here;
        const float *restrict below = z > 0 ? here - nx * ny : here;
        const float *restrict above = z + 1 < nz ? here + nx * ny : here;
        const float *restrict wx = g->w[0] + at, *restrict wy = g->w[1] + at, *restrict wz = g->w[2] + at;
        const float *restrict wy_high = wy + pitch, *restrict wz_high = wz + up, *restrict s = g->s + at;
        float *restrict out = to + line * nx;
        for (int64_t i = 0; i < nx; i++) {
            const float west = i > 0 ? here[i - 1] : here[i], east = i + 1 < nx ? here[i + 1] : here[i];
            out[i] = s[i] * here[i] + wx[i] * (here[i] - west) + wx[i + 1] * (here[i] - east) +
                     wy[i] * (here[i] - south[i]) + wy_high[i] * (here[i] - north[i]) + wz[i] * (here[i] - below[i]) +
                     wz_high[i] * (here[i] - above[i]);
        }
    }
}
