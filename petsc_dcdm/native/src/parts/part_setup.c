/* From one level to the next: which unknowns hang together, and how the parts are coupled. */
#include <math.h>

#include "common.h"
#include "parts/parts.h"
#include "shared/node_team.h"

/* What the parts of a kernel get: two levels, and of the rest what the kernel itself does. */
typedef struct {
    parts_level l, c;
    int64_t bins[3][PARTS_BINS], next[3];
    const float *strongest, *ways;
    float *to, share, follows;
    int32_t *parent;
    uint8_t *joined;
    int64_t *first, *room;
    int parts;
} setup_work;

/* How far blocks are from their neighbours along y and z, -1 where there are none. */
typedef struct {
    int64_t y, z;
} apart_blocks;

INLINE apart_blocks apart_of(const parts_level *l) {
    return (apart_blocks){l->blocks[1] > 1 ? l->blocks[0] : -1, l->blocks[2] > 1 ? l->blocks[0] * l->blocks[1] : -1};
}

/* The axis along which two blocks adjoin; 3 for the same block. No branches: nobody can foresee them. */
INLINE int axis_between(apart_blocks apart, int64_t a, int64_t b) {
    const int64_t far = a < b ? b - a : a - b;
    return 3 * (far == 0) | 2 * (far == apart.z) | (far == apart.y);
}

static void seen_part(void *arguments, int part) {
    setup_work *w = arguments;
    const parts_level *l = &w->l;
    const apart_blocks apart = apart_of(l);
    int64_t bins[3][PARTS_BINS] = {{0}};
    const int64_t every = (l->n / 5000 + 1) | 1; /* a sample is enough */
    FOR_PART(sample, (l->n + every - 1) / every, part, w->parts) {
        const int64_t i = sample * every;
        float along[4] = {0.0f};
        for (int64_t e = l->row[i]; e < l->row[i + 1]; e++)
            along[axis_between(apart, l->block[i], l->block[l->column[e]])] += l->value[e];
        float most = along[0];
        for (int a = 1; a < 3; a++) most = along[a] > most ? along[a] : most;
        if (!(most > 0.0f)) continue;
        for (int a = 0; a < 3; a++) parts_count_share(bins[a], along[a], most);
    }
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < PARTS_BINS; b++) __atomic_fetch_add(&w->bins[a][b], bins[a][b], __ATOMIC_RELAXED);
}

/* The couplings along each axis beside those along the strongest axis of the same unknown, or more, that a quarter
 * of the unknowns see. */
void dcdm_parts_seen(const parts_level *l, double seen[3], int threads) {
    setup_work w = {.l = *l, .parts = threads};
    dcdm_run(seen_part, &w, sizeof w, threads);
    for (int a = 0; a < 3; a++) seen[a] = parts_share_seen(w.bins[a]);
}

static void strongest_part(void *arguments, int part) {
    const setup_work *w = arguments;
    const parts_level *l = &w->l;
    FOR_PART(i, l->n, part, w->parts) {
        float most = 0.0f;
        for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) most = l->value[e] > most ? l->value[e] : most;
        w->to[i] = most;
    }
}

/* The strongest coupling of each unknown. */
void dcdm_parts_strongest(const parts_level *l, float *strongest, int threads) {
    setup_work w = {.l = *l, .to = strongest, .parts = threads};
    dcdm_run(strongest_part, &w, sizeof w, threads);
}

/* The first of the unknowns that i is joined with so far. */
INLINE int32_t root(int32_t *parent, int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
}

INLINE void join(int32_t *parent, int32_t i, int32_t j) {
    const int32_t p = root(parent, i), q = root(parent, j);
    if (p != q) parent[p > q ? p : q] = p > q ? q : p;
}

/* Some blocks of a level, one or two along each axis. */
typedef struct {
    int64_t begin, count_x; /* the first of them; along x */
    int64_t y, z;           /* how far it is to the second along y and z, beyond all where there is none */
} block_group;

INLINE block_group group_of(const parts_level *l, const int64_t from[3], const int64_t to[3]) {
    const int64_t nx = l->blocks[0], ny = l->blocks[1];
    return (block_group){(from[2] * ny + from[1]) * nx + from[0], to[0] - from[0],
                         to[1] - from[1] > 1 ? nx : INT64_MAX, to[2] - from[2] > 1 ? nx * ny : INT64_MAX};
}

INLINE int lies_within(const parts_level *l, int32_t i, const block_group *group) {
    int64_t at = l->block[i] - group->begin;
    at -= at >= group->z ? group->z : 0;
    at -= at >= group->y ? group->y : 0;
    return (at >= 0) & (at < group->count_x);
}

/* The unknown of the same block that i follows, -1 for none: it is more strongly coupled than i, and to it goes the
 * strongest coupling of i that is at least a share `follows` of them all. */
INLINE int32_t followed(const parts_level *l, const float *strongest, int64_t i, float follows,
                        const block_group *group) {
    int32_t found = -1;
    float most = 0.0f;
    for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) most += l->value[e];
    most *= follows;
    for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
        const int32_t j = l->column[e];
        if (l->value[e] >= most && l->value[e] >= follows * (l->s[i] - l->s[j]) && strongest[j] > strongest[i] &&
            lies_within(l, j, group))
            most = l->value[e], found = j;
    }
    return found;
}

static void divide_part(void *arguments, int part) {
    const setup_work *w = arguments;
    const parts_level *l = &w->l;
    const int64_t *const next = w->next;
    const float *const strongest = w->strongest, share = w->share, follows = w->follows;
    int32_t *const parent = w->parent;
    uint8_t *const joined = w->joined;
    int64_t *const first = w->first;
    FOR_PART(b, next[0] * next[1] * next[2], part, w->parts) {
        int64_t from[3], to[3], count = 0;
        parts_children(l, next, b, from, to);
        const block_group group = group_of(l, from, to);
        PARTS_FOR(l, from, to, i, in) parent[i] = (int32_t)i, joined[i] = 0;
        PARTS_FOR(l, from, to, i, in) {
            for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
                const int32_t j = l->column[e];
                const float most = strongest[i] > strongest[j] ? strongest[i] : strongest[j];
                if ((j > i) | !(l->value[e] >= share * most) | !lies_within(l, j, &group)) continue;
                join(parent, (int32_t)i, j);
                joined[i] = joined[j] = 1;
            }
        }
        PARTS_FOR(l, from, to, i, in) {
            const int32_t with = joined[i] ? -1 : followed(l, strongest, i, follows, &group);
            if (with >= 0) join(parent, (int32_t)i, with);
        }
        PARTS_FOR(l, from, to, i, in) count += root(parent, (int32_t)i) == i && strongest[i] > 0.0f;
        first[b + 1] = count;
    }
}

static void number_part(void *arguments, int part) {
    const setup_work *w = arguments;
    const parts_level *l = &w->l;
    const int64_t *const next = w->next;
    const float *const strongest = w->strongest;
    int32_t *const parent = w->parent;
    FOR_PART(b, next[0] * next[1] * next[2], part, w->parts) {
        int64_t from[3], to[3];
        int32_t number = (int32_t)w->first[b];
        parts_children(l, next, b, from, to);
        PARTS_FOR(l, from, to, i, in)
            if (parent[i] == i) l->part[i] = strongest[i] > 0.0f ? number++ : -1;
        PARTS_FOR(l, from, to, i, in) l->part[i] = l->part[root(parent, (int32_t)i)];
    }
}

/* The parts of every block of the next level, next[3] of them: first[blocks + 1], l->part; an unknown without
 * couplings gets none. Couplings of at least `theta` times the strongest of both ends join; unknowns that nothing
 * joins follow others. parent, joined: [n] room. Returns how many parts there are. */
int64_t dcdm_parts_divide(const parts_level *l, const int64_t next[3], double theta, double follows,
                          const float *strongest, int32_t *parent, uint8_t *joined, int64_t *first, int threads) {
    const int64_t blocks = next[0] * next[1] * next[2];
    setup_work w = {.l = *l, .next = {next[0], next[1], next[2]}, .share = (float)theta, .follows = (float)follows,
                    .strongest = strongest, .parent = parent, .joined = joined, .first = first, .parts = threads};
    dcdm_run(divide_part, &w, sizeof w, threads);
    first[0] = 0;
    for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
    dcdm_run(number_part, &w, sizeof w, threads);
    return first[blocks];
}

static void room_part(void *arguments, int part) {
    const setup_work *w = arguments;
    const parts_level *l = &w->l, *c = &w->c;
    int64_t *const room = w->room;
    FOR_PART(b, c->blocks[0] * c->blocks[1] * c->blocks[2], part, w->parts) {
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
}

/* Where the unknowns of the next level c are, their s, and room for their rows: all couplings of their unknowns. */
void dcdm_parts_room(const parts_level *l, const parts_level *c, int64_t *room, int threads) {
    setup_work w = {.l = *l, .c = *c, .room = room, .parts = threads};
    dcdm_run(room_part, &w, sizeof w, threads);
    room[0] = 0;
    for (int64_t p = 0; p < c->n; p++) room[p + 1] += room[p];
}

static void ways_part(void *arguments, int part) {
    const setup_work *w = arguments;
    const parts_level *l = &w->l;
    const apart_blocks apart = apart_of(l);
    float *const ways = w->to;
    FOR_PART(i, l->n, part, w->parts) {
        float sum[4] = {0.0f}; /* the last is nobody's */
        for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
            const int32_t j = l->column[e];
            sum[axis_between(apart, l->block[i], l->block[j]) | 3 * (l->part[j] != l->part[i])] += l->value[e];
        }
        for (int a = 0; a < 3; a++) ways[3 * i + a] = sum[a] > 0.0f ? 1.0f / sum[a] : 0.0f;
    }
}

/* One over the couplings of each unknown within its part along each axis that is halved, 0 if there are none: half of
 * that lies between it and the middle of the part. ways: [n][3] */
void dcdm_parts_ways(const parts_level *l, float *ways, int threads) {
    setup_work w = {.l = *l, .to = ways, .parts = threads};
    dcdm_run(ways_part, &w, sizeof w, threads);
}

enum { LATEST = 64 };

static void rows_part(void *arguments, int part) {
    const setup_work *work = arguments;
    const parts_level *l = &work->l, *c = &work->c;
    const float *const ways = work->ways;
    const int64_t *const room = work->room, blocks = c->blocks[0] * c->blocks[1] * c->blocks[2];
    const int64_t halved[4] = {l->halved[0], l->halved[1], l->halved[2], 0};
    const apart_blocks apart = apart_of(l);
    int64_t latest[LATEST] = {0}; /* where in a row those of such numbers were found */
    int64_t end = room[c->first[first_of(blocks, part, work->parts)]]; /* of the rows of the blocks before */
    FOR_PART(b, blocks, part, work->parts) {
        const int64_t first = c->first[b], begin = end;
        int64_t from[3], to[3];
        parts_children(l, c->blocks, b, from, to);
        for (int64_t p = first; p < c->first[b + 1]; p++) c->row[p + 1] = 0;
        PARTS_FOR(l, from, to, i, in) {
            const int32_t p = l->part[i];
            if (p < 0) continue;
            int32_t *const to_column = c->column + begin + room[p] - room[first];
            float *const to_value = c->value + begin + room[p] - room[first];
            int64_t count = c->row[p + 1];
            for (int64_t e = l->row[i]; e < l->row[i + 1]; e++) {
                const int32_t j = l->column[e], q = l->part[j];
                if (q == p) continue;
                const int axis = axis_between(apart, in, l->block[j]), a = axis * (axis < 3);
                const float either[2] = {l->value[e], parts_in_series(l->value[e], ways[3 * i + a] + ways[3 * j + a])};
                int64_t at = latest[q % LATEST];
                if (at >= count || to_column[at] != q) {
                    for (at = 0; at < count && to_column[at] != q;) at++;
                    if (at == count) to_column[count] = q, to_value[count++] = 0.0f;
                    latest[q % LATEST] = at;
                }
                to_value[at] += either[halved[axis]];
            }
            c->row[p + 1] = count;
        }
        for (int64_t p = first; p < c->first[b + 1]; p++) {
            const int64_t at = begin + room[p] - room[first];
            for (int64_t e = 0; e < c->row[p + 1]; e++, end++)
                c->column[end] = c->column[at + e], c->value[end] = c->value[at + e];
        }
    }
}

/* The rows of the next level, one behind the other, for which there is room as told; returns how many couplings they
 * have. ways: as above */
int64_t dcdm_parts_rows(const parts_level *l, const parts_level *c, const float *ways, int64_t *room, int threads) {
    const int64_t blocks = c->blocks[0] * c->blocks[1] * c->blocks[2];
    setup_work w = {.l = *l, .c = *c, .ways = ways, .room = room, .parts = threads};
    dcdm_run(rows_part, &w, sizeof w, threads);
    const written_rows written = {.l = *c, .lines = blocks, .blocks = 1, .room = room, .parts = threads};
    parts_join_rows(&written);
    return c->row[c->n];
}

/* One part moves the columns, another one the values. */
static void join_part(void *arguments, int array) {
    const written_rows *w = arguments;
    const parts_level *l = &w->l;
    for (int t = 1; t < w->parts; t++) {
        const int64_t line = first_of(w->lines, t, w->parts), begin = l->first[line * w->blocks];
        const int64_t end = l->first[first_of(w->lines, t + 1, w->parts) * w->blocks];
        const int64_t from = w->room ? w->room[begin] : w->of_lines[line], to = l->row[begin];
        const size_t count = (size_t)(l->row[end] - to);
        if (array) memmove(l->value + to, l->value + from, count * sizeof *l->value);
        else memmove(l->column + to, l->column + from, count * sizeof *l->column);
    }
}

void parts_join_rows(const written_rows *written) {
    const parts_level *l = &written->l;
    written_rows w = *written;
    l->row[0] = 0;
    for (int64_t i = 0; i < l->n; i++) l->row[i + 1] += l->row[i];
    if (w.parts > 1) dcdm_run(join_part, &w, sizeof w, 2);
}
