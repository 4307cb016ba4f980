/* Set-up of one level, first half: the planes of the source as they go by, and a hash of what is around each cell.
 * Included by fields.c. */
#ifndef DCDM_SURVEY_H
#define DCDM_SURVEY_H

#include "network.h"
#include "packed.h"
#include "setup.h"

enum { SLOTS = 4, MEMORY = 2048, BUCKETS = 4 * MEMORY };

/* Rings of planes in float, slot k mod SLOTS, and rows; all of one thread. Cells and answers of a plane are numbered
 * in 32 bits: MAX_PLANE of petsc_dcdm/native/binding.py keeps larger ones away. */
typedef struct {
    float *w[4], *high[3], *inverse; /* w_x, w_r, w_w, s; high conductances with halo; 1 / d */
    uint32_t *id;             /* a hash of a cell's own stencil, 1 if inactive */
    uint32_t *patch;          /* a sum of those of the 3 x 3 cells around it in its plane */
    const prepared *network;
    float *features;          /* of each cell, made when wanted */
    int piece;                /* a row of features is made in pieces of 2^piece cells, one bit each: */
    uint64_t *made, *odd;     /* which have been made; in which of those cells have an s or are inactive */
    float *sum[7];            /* rows */
    int32_t *code;            /* of each active cell of a plane, but for common blocks: its place in `answer` */
    uint8_t *kind;            /* of each block of a plane, see below */
    int32_t *cell[4];         /* cells of a strip to evaluate, by parity along x and r: elements, ascending */
    int32_t *wanted[4];       /* their places in `answer` */
    int count[4];
    uint8_t *filled, *empty;  /* of each row, halo included: some coefficient is not 0; no cell is active */
    int64_t slot, origin, zeros;
    float (*answer)[CHANNELS]; /* what the network says: first what is kept, then that of other cells of the strip */
    uint32_t *known;          /* [MEMORY] what is around a cell with that answer */
    uint8_t *even;            /* [MEMORY] whether it is the same all around */
    uint8_t *class;           /* [MEMORY] the class of blocks of such cells, 0 if none yet */
    uint16_t *bucket;         /* [BUCKETS] place in `known` + 1 */
    int kept, others, lookups, misses;
    int common;                /* place of the first answer that is the same all around; -1 if there is none yet */
    int forgetful;            /* hardly anything comes twice here */
    int64_t block, taken_end; /* where the next block without a class goes; end of the room this thread has taken */
} workspace;

static int64_t slot_size(const dcdm_level *l) {
    return l->has_r ? (l->n_r + 2) * l->pitch_r + 2 * ALIGN : l->pitch_r + 2 * ALIGN;
}

/* Rows of a strip: what the network looks at around some, and what it says of them, stay in the second-level cache. */
INLINE int64_t strip_rows(const dcdm_level *l) {
    const int64_t rows = 1024 / l->n_x / 2 * 2;
    return rows < 2 ? 2 : rows < l->n_r ? rows : l->n_r;
}

/* Cells of a strip of one parity, at most; where places are left out that may be any. */
static int64_t class_size(const dcdm_level *l) {
    const int64_t rows = strip_rows(l);
    return (l->place_x ? l->n_x : (l->n_x + 1) >> l->half_x) * (l->place_r ? rows : (rows + 1) >> l->half_r);
}

/* Blocks of ALIGN cells: nothing active, all cells have the common answer, anything else. */
enum { EMPTY, COMMON, MIXED };

INLINE int64_t blocks_of(const dcdm_level *l) { return (l->n_x + ALIGN - 1) / ALIGN; }

/* Takes the workspace of one thread out of `memory`; returns its size, which is all it does if that is NULL. What is to
 * be zero at first comes first, up to `zeros`. */
static int64_t carve(const dcdm_level *l, char *memory, workspace *ws) {
    const int64_t slot = slot_size(l), ring = SLOTS * slot, row = l->pitch_r + 2 * ALIGN, flags = SLOTS * (l->n_r + 2);
    const int classes = (1 + (int)l->half_x) * (1 + (int)l->half_r);
    int64_t used = 0;
#define TAKE(pointer, number)                                              \
    do {                                                                   \
        if (memory) (pointer) = (void *)(memory + used);                   \
        used += ((int64_t)sizeof *(pointer) * (number) + 63) / 64 * 64;    \
    } while (0)
    *ws = (workspace){.slot = slot, .origin = ALIGN + (l->has_r ? l->pitch_r : 0)};
    for (int a = 0; a < 4; a++) TAKE(ws->w[a], ring);
    for (int a = 0; a < 3 && l->halo; a++) TAKE(ws->high[a], ring);
    TAKE(ws->inverse, ring);
    TAKE(ws->id, ring);
    TAKE(ws->patch, ring);
    TAKE(ws->made, flags);
    TAKE(ws->odd, flags);
    for (ws->piece = 4; (l->n_x + 2) >> ws->piece > 63; ws->piece++) {}
    TAKE(ws->filled, flags);
    TAKE(ws->empty, flags);
    TAKE(ws->code, slot);
    TAKE(ws->kind, blocks_of(l) * l->n_r);
    TAKE(ws->known, MEMORY);
    TAKE(ws->even, MEMORY);
    TAKE(ws->class, MEMORY);
    TAKE(ws->bucket, BUCKETS);
    ws->zeros = used;
    for (int m = 0; m < 7; m++) TAKE(ws->sum[m], row);
    TAKE(ws->features, FEATURES * ring);
    for (int c = 0; c < classes; c++) TAKE(ws->cell[c], class_size(l));
    for (int c = 0; c < classes; c++) TAKE(ws->wanted[c], class_size(l));
    TAKE(ws->answer, MEMORY + classes * class_size(l));
#undef TAKE
    return used;
}

/* How many blocks a thread takes room for at a time: whole rows. What is taken lies together and can be in huge pages,
 * as many as needed. */
INLINE int64_t portion(const dcdm_level *l) {
    const int64_t rows = l->n_w * l->n_r / 64;
    return blocks_of(l) * (rows < 4 ? 4 : rows > 256 ? 256 : rows);
}

/* Room for as many blocks as there are, and for what may be left of each portion: less than a row, but of the last of
 * each thread. */
int64_t dcdm_count_blocks(const dcdm_level *l, int threads) {
    const int64_t size = portion(l), all = l->n_w * l->n_r * blocks_of(l);
    return (all / (size - blocks_of(l) + 1) + 1 + threads) * size;
}

/* Bytes of workspace of one thread. */
int64_t dcdm_setup_bytes(const dcdm_level *l) {
    workspace ws;
    return carve(l, NULL, &ws);
}

/* Where row j (-1 .. n_r) of plane k has its flags. */
INLINE int64_t flag(const dcdm_level *l, int64_t k, int64_t j) { return (k + SLOTS) % SLOTS * (l->n_r + 2) + j + 1; }

/* Where the first cell of plane k is in a ring. */
INLINE int64_t at(const workspace *ws, int64_t k) { return ((k + SLOTS) % SLOTS) * ws->slot + ws->origin; }

/* Which of the rows of coefficients: low conductances along x, r, w, s, high conductances. */
enum { LOW, S = 3, HIGH, ROWS = HIGH + 3 };

/* One row of the source; zero outside of the box, unless there are halos, but along rings what is there at the other
 * end. Returns whether anything in it is not zero. */
static int load_row(const dcdm_level *l, const dcdm_setup *s, int which, int64_t k, int64_t j, float *to) {
    const int64_t e = l->halo, er = e && l->has_r;
    int64_t n = 0;
    uint32_t bits = 0;
    to[-1] = 0;
    k = plane_of(l, k);
    if (l->wrap_r) j = j < 0 ? l->n_r - 1 : j == l->n_r ? 0 : j;
    if (k >= -e && k < l->n_w + e && j >= -er && j < l->n_r + er) {
        const void *array[ROWS] = {s->w_x, s->w_r, s->w_w, s->s, s->high_x, s->high_r, s->high_w};
        const int64_t o = s->origin + k * s->pitch_w + j * s->pitch_r;
        n = l->n_x + e;
        if (s->format == PACKED && which == S) {
            int some = 0;
            for (int64_t i = -e; i < n; i++) some |= s->cells[o + i] & HAS_S;
            for (int64_t i = -e; i < n; i++) to[i] = 0;
            for (int64_t i = -e; i < n && some; i++)
                if (s->cells[o + i] & HAS_S) to[i] = (float)s->s_value[s->s_index[o + i]];
        } else if (s->format == PACKED) {
            const int high = which >= HIGH, axis = high ? which - HIGH : which;
            const uint8_t *restrict cells = s->cells + o;
            const uint32_t bit = (uint32_t)1 << (s->face[axis] + high);
            const float c = (float)s->c[axis];
            for (int64_t i = -e; i < n; i++) to[i] = cells[i] & bit ? c : 0;
        } else if (s->format == DOUBLE)
            for (int64_t i = -e; i < n; i++) to[i] = (float)((const double *)array[which])[o + i];
        else memcpy(to - e, (const float *)array[which] + o - e, (size_t)(n + e) * sizeof *to);
        for (int64_t i = -e; i < n; i++) {
            uint32_t b;
            memcpy(&b, to + i, sizeof b);
            bits |= b;
        }
    }
    memset(to + n, 0, (size_t)(l->pitch_r - 1 - n) * sizeof *to);
    if (l->wrap_x) to[-1] = to[l->n_x - 1], to[l->n_x] = to[0], to[l->n_x + 1] = to[1];
    return bits != 0;
}

static void load_plane(const dcdm_level *l, const dcdm_setup *s, workspace *ws, int64_t k) {
    for (int64_t j = -l->has_r; j < l->n_r + l->has_r; j++) {
        const int64_t o = at(ws, k) + j * l->pitch_r;
        int filled = 0;
        for (int a = 0; a < 4; a++) filled |= load_row(l, s, a, k, j, ws->w[a] + o);
        for (int a = 0; a < 3 && l->halo; a++) filled |= load_row(l, s, HIGH + a, k, j, ws->high[a] + o);
        ws->filled[flag(l, k, j)] = (uint8_t)filled;
    }
}

/* The conductances of a row: low and high along x, r, w, then s. */
typedef struct {
    const float *c[7];
} faces;

INLINE faces faces_at(const dcdm_level *l, const workspace *ws, int64_t k, int64_t j) {
    const int64_t o = at(ws, k) + j * l->pitch_r;
    const float *x = ws->w[0] + o, *r = ws->w[1] + o, *w = ws->w[2] + o;
    const float *above = ws->w[2] + at(ws, k + 1) + j * l->pitch_r;
    /* row n_r of a ring is row 0 once more */
    const int64_t high = !l->has_r ? 0 : l->wrap_r && j == l->n_r ? (1 - l->n_r) * l->pitch_r : l->pitch_r;
    faces f = {{x, x + 1, r, r + high, w, above, ws->w[3] + o}};
    if (l->halo) /* the high face of a halo cell is the low face of a cell beyond the halo */
        for (int a = 0; a < 3; a++) f.c[2 * a + 1] = ws->high[a] + o;
    return f;
}

/* Weights of the cells around one in the sum of their hashes: along x, r, w. */
static const uint32_t WEIGHT[3][3] = {{0x2545F491u, 0x9E3779B9u, 0x7FEB352Du}, {0x846CA68Bu, 0x68E31DA5u, 0xB5297A4Du},
                                      {0x1B56C4E9u, 0xCC9E2D51u, 0x52DCE729u}};

INLINE vu load_hashes(const uint32_t *p) {
    vu v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_hashes(uint32_t *p, vu v) { memcpy(p, &v, sizeof v); }

INLINE vu along_x(const uint32_t *id) {
    return WEIGHT[0][0] * load_hashes(id - 1) + WEIGHT[0][1] * load_hashes(id) + WEIGHT[0][2] * load_hashes(id + 1);
}

/* Of the cells i .. i + VL - 1 of a row: 1 over the diagonal, which is s and the conductances of the six faces, and a
 * hash of these seven; 0 and 1 where the diagonal is 0. */
INLINE void invert_diagonal(const faces *f, int64_t i, vf *inverse, vu *id) {
    static const uint32_t factor[7] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu,
                                       0x165667B1u, 0xD3A2646Du, 0xFD7046C5u};
    vf d = load(f->c[6] + i);
    vu h = (vu)d * factor[6];
    for (int a = 0; a < 6; a++) {
        const vf w = load(f->c[a] + i);
        d += w, h += (vu)w * factor[a];
    }
    const vi active = d > 0;
    *inverse = masked(1 / d, active);
    *id = (((h ^ h >> 15) | 2) & (vu)active) | (1 & ~(vu)active);
}

/* 1 / d and the hash of every cell of plane k, halo included, then the sums of the hashes within the plane. */
static void survey_plane(const dcdm_level *l, workspace *ws, int64_t k) {
    for (int64_t j = -l->has_r; j < l->n_r + l->has_r; j++) {
        const faces f = faces_at(l, ws, k, j);
        float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
        uint32_t *id = ws->id + at(ws, k) + j * l->pitch_r;
        const uint8_t *filled = ws->filled + flag(l, k, j);
        const int beyond = l->has_r && (j < l->n_r ? filled[1] : l->wrap_r && ws->filled[flag(l, k, 1)]);
        ws->empty[flag(l, k, j)] = !(filled[0] || beyond || ws->filled[flag(l, k + 1, j)]);
        if (ws->empty[flag(l, k, j)]) {
            memset(inverse - 1, 0, (size_t)l->pitch_r * sizeof *inverse);
            for (int64_t i = -1; i < l->pitch_r - 1; i++) id[i] = 1;
            continue;
        }
        vf over_d;
        vu hash;
        /* the low halo cell first: it is an element of the row before */
        inverse[-1] = 0, id[-1] = 1;
        if (l->halo || l->wrap_x) {
            invert_diagonal(&f, -1, &over_d, &hash);
            inverse[-1] = over_d[0], id[-1] = hash[0];
        }
        for (int64_t i = 0; i < l->n_x + 1; i += VL) {
            invert_diagonal(&f, i, &over_d, &hash);
            store(inverse + i, over_d);
            store_hashes(id + i, hash);
        }
    }
    for (int64_t j = 0; j < l->n_r; j++) {
        const uint32_t *id = ws->id + at(ws, k) + j * l->pitch_r;
        uint32_t *restrict patch = ws->patch + at(ws, k) + j * l->pitch_r;
        if (!l->has_r) {
            for (int64_t i = 0; i < l->n_x; i += VL) store_hashes(patch + i, along_x(id + i));
            continue;
        }
        for (int64_t i = 0; i < l->n_x; i += VL) {
            const vu below = along_x(id + i - l->pitch_r), above = along_x(id + i + l->pitch_r);
            store_hashes(patch + i, WEIGHT[1][0] * below + WEIGHT[1][1] * along_x(id + i) + WEIGHT[1][2] * above);
        }
    }
    memset(ws->made + (k + SLOTS) % SLOTS * (l->n_r + 2), 0, (size_t)(l->n_r + 2) * sizeof *ws->made);
}

#endif
