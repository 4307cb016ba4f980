/* The part of a grid outside of which there is nothing, and where rows have active cells. */
#include <stdint.h>
#include <string.h>

#include "common.h"
#include "shared/node_team.h"

/* Whether any of the n numbers from element o on is not zero; NaN counts. */
INLINE int any(const void *p, int64_t o, int64_t n, int is_double) {
    const int64_t words = is_double ? 2 : 1;
    const uint32_t *from = (const uint32_t *)p + words * o;
    uint32_t bits = 0;
    for (int64_t i = 0; i < words * n; i++) {
        uint32_t b;
        memcpy(&b, from + i, sizeof b);
        bits |= b;
    }
    return bits != 0;
}

typedef struct {
    const void *array[4];
    int is_double, parts;
    int64_t n_z, n_y, n_x, pitch_z, pitch_y, *found;
} search;

static void bounds_part(void *arguments, int part) {
    const search *s = arguments;
    const int is_double = s->is_double;
    const int64_t n_x = s->n_x;
    /* written to memory once: it is near the other threads' */
    int64_t box[6] = {INT64_MAX, INT64_MAX, INT64_MAX, 0, 0, 0};
    for (int64_t k = first_of(s->n_z, part, s->parts); k < first_of(s->n_z, part + 1, s->parts); k++)
        for (int64_t j = 0; j < s->n_y; j++) {
            const int64_t o = k * s->pitch_z + j * s->pitch_y;
            int some = 0;
            for (int a = 0; a < 4; a++) some |= any(s->array[a], o, n_x, is_double);
            if (!some) continue;
            box[0] = k < box[0] ? k : box[0], box[3] = k + 1;
            box[1] = j < box[1] ? j : box[1], box[4] = j + 1 > box[4] ? j + 1 : box[4];
            for (int a = 0; a < 4; a++) {
                while (any(s->array[a], o, box[2] < n_x ? box[2] : n_x, is_double))
                    for (int64_t i = 0; i < n_x && i < box[2]; i++)
                        if (any(s->array[a], o + i, 1, is_double)) box[2] = i;
                while (box[5] < n_x && any(s->array[a], o + box[5], n_x - box[5], is_double)) box[5]++;
            }
        }
    memcpy(s->found + 6 * part, box, sizeof box);
}

/* Where the arrays w_x, w_y, w_z, s are not zero: found[thread] = first z, y, x, then one past the last. */
void dcdm_bounds(const void *w_x, const void *w_y, const void *w_z, const void *s, int is_double, int64_t n_z,
                 int64_t n_y, int64_t n_x, int64_t pitch_z, int64_t pitch_y, int64_t *found, int threads) {
    search all = {{w_x, w_y, w_z, s}, is_double, threads, n_z, n_y, n_x, pitch_z, pitch_y, found};
    dcdm_run(bounds_part, &all, sizeof all, threads);
}

/* Where packed cells are not 0: found = first z, y, x, or 1 if there are none, then one past the last. */
void dcdm_packed_bounds(const uint8_t *cells, int64_t n_z, int64_t n_y, int64_t n_x, int64_t pitch_z, int64_t pitch_y,
                        int64_t *found) {
    int64_t box[6] = {n_z, n_y, n_x, 0, 0, 0};
    for (int64_t k = 0; k < n_z; k++)
        for (int64_t j = 0; j < n_y; j++) {
            const uint8_t *row = cells + k * pitch_z + j * pitch_y;
            uint8_t some = 0;
            for (int64_t i = 0; i < n_x; i++) some |= row[i];
            if (!some) continue;
            box[0] = least(box[0], k), box[3] = k + 1;
            box[1] = least(box[1], j), box[4] = most(box[4], j + 1);
            int64_t i = 0;
            while (i < box[2] && !row[i]) i++;
            box[2] = least(box[2], i);
            for (i = n_x; i > box[5] && !row[i - 1];) i--;
            box[5] = most(box[5], i);
        }
    for (int a = 0; a < 3; a++) found[a] = box[3] ? box[a] : 1, found[3 + a] = box[3 + a];
}

typedef struct {
    const double *array[4];
    int64_t n[3], pitch_z, pitch_y, ring[3], own[3][2], block, active;
    int32_t *range;
    int parts;
} actives;

static void active_part(void *arguments, int part) {
    actives *all = arguments;
    const actives a = *all;
    const int64_t nz = a.n[0], ny = a.n[1], nx = a.n[2];
    int64_t active = 0;
    for (int64_t k = first_of(nz, part, a.parts); k < first_of(nz, part + 1, a.parts); k++)
        for (int64_t j = 0; j < ny; j++) {
            const int64_t row = k * a.pitch_z + j * a.pitch_y;
            /* the faces beyond the last cell are those before the first one, or none */
            const double *wx = a.array[0] + row, *wy = a.array[1] + row, *wz = a.array[2] + row, *s = a.array[3] + row;
            const double *north = j + 1 < ny ? wy + a.pitch_y : a.ring[1] ? wy - j * a.pitch_y : wy;
            const double *above = k + 1 < nz ? wz + a.pitch_z : a.ring[0] ? wz - k * a.pitch_z : wz;
            const int own = k >= a.own[0][0] && k < a.own[0][1] && j >= a.own[1][0] && j < a.own[1][1];
            int64_t first = nx, end = 0;
            for (int64_t from = 0; from < nx; from += a.block) {
                const int64_t to = from + a.block < nx ? from + a.block : nx;
                int64_t found = 0;
                for (int64_t i = from; i < to; i++) {
                    const double east = i + 1 < nx ? wx[i + 1] : a.ring[2] ? wx[0] : 0.0;
                    const int lives = wx[i] + east + wy[i] + north[i] + wz[i] + above[i] + s[i] > 0.0;
                    found |= lives;
                    active += lives && own && i >= a.own[2][0] && i < a.own[2][1];
                }
                if (!found) continue;
                if (from < first) first = from;
                end = from + a.block;
            }
            a.range[2 * (k * ny + j)] = (int32_t)(end ? first : 0);
            a.range[2 * (k * ny + j) + 1] = (int32_t)end;
        }
    __atomic_fetch_add(&all->active, active, __ATOMIC_RELAXED);
}

/* Where rows of n[0] x n[1] x n[2] cells (z, y, x) have some that live, in multiples of `block`, to range[row][2];
 * returns how many lie in `own`, begin and end along z, y, x. array: w_x, w_y, w_z, s; ring: whether the first and the
 * last cell are neighbours along z, y, x. */
int64_t dcdm_active(const double *const array[4], const int64_t n[3], int64_t pitch_z, int64_t pitch_y,
                    const int64_t ring[3], const int64_t own[6], int64_t block, int32_t *range, int threads) {
    actives all = {.pitch_z = pitch_z, .pitch_y = pitch_y, .block = block, .range = range, .parts = threads};
    memcpy(all.array, array, sizeof all.array);
    memcpy(all.n, n, sizeof all.n);
    memcpy(all.ring, ring, sizeof all.ring);
    memcpy(all.own, own, sizeof all.own);
    dcdm_run(active_part, &all, sizeof all, threads);
    return all.active;
}
