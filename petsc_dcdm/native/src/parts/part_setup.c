/* From one level to the next: which unknowns hang together, and how the parts are coupled. */
#include <math.h>

#include "common.h"
#include "parts/parts.h"

/* The axis along which two blocks adjoin; 3 for the same block. */
INLINE int axis_between(const parts_level *l, int64_t a, int64_t b) {
    const int64_t apart = a < b ? b - a : a - b;
    if (apart == 0) return 3;
    if (apart == l->blocks[0] * l->blocks[1] && l->blocks[2] > 1) return 2;
    return apart == l->blocks[0] && l->blocks[1] > 1 ? 1 : 0;
}

/* The couplings along each axis beside those along the strongest axis of the same unknown, for the median unknown. */
void dcdm_parts_seen(const parts_level *l, double seen[3], int threads) {
    int64_t bins[3][PARTS_BINS] = {{0}};
    const int64_t every = (l->n / 20000 + 1) | 1; /* a sample is enough */
#pragma omp parallel for num_threads(threads) reduction(+ : bins) schedule(static)
    for (int64_t i = 0; i < l->n; i += every) {
        float along[4] = {0.0f};
        for (int64_t e = l->row[i]; e < l->row[i + 1]; e++)
            along[axis_between(l, l->block[i], l->block[l->column[e]])] += l->value[e];
        const float most = fmaxf(along[0], fmaxf(along[1], along[2]));
        if (!(most > 0.0f)) continue;
        for (int a = 0; a < 3; a++) parts_count_share(bins[a], along[a], most);
    }
    for (int a = 0; a < 3; a++) seen[a] = parts_median_share(bins[a]);
}

/* The strongest coupling of each unknown. */
void dcdm_parts_strongest(const parts_level *l, float *strongest, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < l->n; i++) {
        float most = 0.0f;
        for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) most = l->value[e] > most ? l->value[e] : most;
        strongest[i] = most;
    }
}

/* The first of the unknowns that i is joined with so far. */
INLINE int32_t root(int32_t *parent, int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
}

/* The parts of every block of the next level, next[3] of them: first[blocks + 1], l->part; an unknown without
 * couplings gets none. Couplings of at least `theta` times the strongest of both ends join. parent: [n] room.
 * Returns how many parts there are. */
int64_t dcdm_parts_divide(const parts_level *l, const int64_t next[3], double theta, const float *strongest,
                          int32_t *parent, int64_t *first, int threads) {
    const int64_t blocks = next[0] * next[1] * next[2];
    const float share = (float)theta;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from[3], to[3], count = 0;
        parts_children(l, next, b, from, to);
        PARTS_FOR(l, from, to, i, in) parent[i] = (int32_t)i;
        PARTS_FOR(l, from, to, i, in) {
            for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
                const int32_t j = l->column[e];
                const float most = strongest[i] > strongest[j] ? strongest[i] : strongest[j];
                if (j > i || !(l->value[e] >= share * most)) continue;
                const int64_t c = l->block[j], x = c % l->blocks[0], y = c / l->blocks[0] % l->blocks[1];
                const int64_t z = c / (l->blocks[0] * l->blocks[1]);
                if (x < from[0] || x >= to[0] || y < from[1] || y >= to[1] || z < from[2] || z >= to[2]) continue;
                const int32_t p = root(parent, (int32_t)i), q = root(parent, j);
                if (p != q) parent[p > q ? p : q] = p > q ? q : p;
            }
        }
        PARTS_FOR(l, from, to, i, in) count += root(parent, (int32_t)i) == i && strongest[i] > 0.0f;
        first[b + 1] = count;
    }
    first[0] = 0;
    for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from[3], to[3];
        int32_t number = (int32_t)first[b];
        parts_children(l, next, b, from, to);
        PARTS_FOR(l, from, to, i, in)
            if (parent[i] == i) l->part[i] = strongest[i] > 0.0f ? number++ : -1;
        PARTS_FOR(l, from, to, i, in) l->part[i] = l->part[root(parent, (int32_t)i)];
    }
    return first[blocks];
}

/* Where the unknowns of the next level c are, their s, and room for their rows: all couplings of their unknowns. */
void dcdm_parts_room(const parts_level *l, const parts_level *c, int64_t *room, int threads) {
    const int64_t blocks = c->blocks[0] * c->blocks[1] * c->blocks[2];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from[3], to[3];
        parts_children(l, c->blocks, b, from, to);
        for (int64_t p = c->first[b]; p < c->first[b + 1]; p++) {
            room[p + 1] = 0;
            c->s[p] = 0.0f;
            c->block[p] = (int32_t)b;
        }
        PARTS_FOR(l, from, to, i, in) {
            if (l->part[i] < 0) continue;
            room[l->part[i] + 1] += l->row[i + 1] - l->row[i];
            c->s[l->part[i]] += l->s[i];
        }
    }
    room[0] = 0;
    for (int64_t p = 0; p < c->n; p++) room[p + 1] += room[p];
}

/* One over the couplings of an unknown within its part along an axis, 0 if there are none: half of that lies
 * between it and the middle of the part. */
INLINE float way_within(const parts_level *l, int64_t i, int axis) {
    float sum = 0.0f;
    for (int64_t e = l->row[i]; e < l->row[i + 1]; e++)
        if (l->part[l->column[e]] == l->part[i] && axis_between(l, l->block[i], l->block[l->column[e]]) == axis)
            sum += l->value[e];
    return sum > 0.0f ? 1.0f / sum : 0.0f;
}

/* The rows of the next level at their room, lengths to row[p + 1]. */
void dcdm_parts_rows(const parts_level *l, const parts_level *c, const int64_t *room, int32_t *column, float *value,
                     int threads) {
    const int64_t blocks = c->blocks[0] * c->blocks[1] * c->blocks[2];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from[3], to[3];
        parts_children(l, c->blocks, b, from, to);
        for (int64_t p = c->first[b]; p < c->first[b + 1]; p++) c->row[p + 1] = 0;
        PARTS_FOR(l, from, to, i, in) {
            const int32_t p = l->part[i];
            if (p < 0) continue;
            int32_t *const to_column = column + room[p];
            float *const to_value = value + room[p];
            int64_t count = c->row[p + 1];
            for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
                const int32_t j = l->column[e], q = l->part[j];
                if (q == p) continue;
                const int axis = axis_between(l, in, l->block[j]);
                const float w = axis < 3 && l->halved[axis]
                                    ? parts_in_series(l->value[e], way_within(l, i, axis) + way_within(l, j, axis))
                                    : l->value[e];
                int64_t at = 0;
                while (at < count && to_column[at] != q) at++;
                if (at == count) to_column[count] = q, to_value[count++] = 0.0f;
                to_value[at] += w;
            }
            c->row[p + 1] = count;
        }
        for (int64_t p = c->first[b]; p < c->first[b + 1]; p++) {
            double sum = c->s[p];
            for (int64_t e = room[p]; e < room[p] + c->row[p + 1]; e++) sum += value[e];
            c->inverse[p] = sum > 0.0 ? (float)(1.0 / sum) : 0.0f;
        }
    }
}

/* How many couplings of each row of a slice go into it, the first ones: what makes the least work if one of the
 * rest is as much as REST places. length: of its rows */
enum { REST = 6 };
static int64_t width_of(const int64_t length[SLICE], int64_t longest) {
    int64_t best = longest, least = SLICE * longest;
    for (int64_t width = longest - 1; width >= 0; width--) {
        int64_t work = SLICE * width;
        for (int k = 0; k < SLICE; k++) work += length[k] > width ? REST * (length[k] - width) : 0;
        if (work < least) least = work, best = width;
    }
    return best;
}

/* Where the slices of rows begin, slice[slices + 1], and which have longer rows; returns how many places they
 * have. row has the lengths of the rows at [i + 1], and from now on where they begin. */
int64_t dcdm_parts_slices(const parts_level *l) {
    int64_t places = 0;
    for (int64_t i = 0; i < l->n; i += SLICE) {
        int64_t longest = 0, length[SLICE] = {0};
        for (int64_t k = i; k < i + SLICE && k < l->n; k++) {
            length[k - i] = l->row[k + 1];
            longest = l->row[k + 1] > longest ? l->row[k + 1] : longest;
        }
        const int64_t width = width_of(length, longest);
        l->slice[i / SLICE] = places;
        l->longer[i / SLICE] = width < longest;
        places += SLICE * width;
    }
    l->slice[(l->n + SLICE - 1) / SLICE] = places;
    l->row[0] = 0;
    for (int64_t p = 0; p < l->n; p++) l->row[p + 1] += l->row[p];
    return places;
}

/* Rows from their room, which may be where they belong: one behind the other, and in slices, in which a row that
 * is shorter than others is coupled to itself with 0. */
void dcdm_parts_pack(const parts_level *l, const int64_t *room, const int32_t *column, const float *value,
                     int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t slice = 0; slice < (l->n + SLICE - 1) / SLICE; slice++) {
        int32_t *const to_column = l->slice_column + l->slice[slice];
        float *const to_value = l->slice_value + l->slice[slice];
        const int64_t width = (l->slice[slice + 1] - l->slice[slice]) / SLICE;
        for (int64_t lane = 0; lane < SLICE; lane++) {
            const int64_t p = slice * SLICE + lane, length = p < l->n ? l->row[p + 1] - l->row[p] : 0;
            for (int64_t e = 0; e < width; e++) {
                to_column[e * SLICE + lane] = e < length ? column[room[p] + e] : (int32_t)p;
                to_value[e * SLICE + lane] = e < length ? value[room[p] + e] : 0.0f;
            }
            for (int64_t e = 0; e < length && column != l->column; e++) {
                l->column[l->row[p] + e] = column[room[p] + e];
                l->value[l->row[p] + e] = value[room[p] + e];
            }
        }
    }
}
