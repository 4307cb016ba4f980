/* Set-up of one level: the field network at every active cell, and from its fields the smoothing weights and the operator of
 * the next level.
 *
 * The planes go by once. Around most cells of a voxel geometry nothing changes; those share one evaluation of the network, and only
 * the cells next to something else are evaluated by themselves. The network has at most 16 channels: one vector of 16 floats.
 */
#include "network.h"

enum { SLOTS = 4, REMEMBERED = 16, MUST_EVALUATE = 255 };

/* What set-up of one level reads and writes besides the level's own coefficients. */
typedef struct {
    const void *w_x, *w_r, *w_w, *s; /* of this level, float or double */
    int64_t is_double, pitch_w, pitch_r, origin; /* where in those arrays; with halo they have one */
    const float *high_x, *high_r, *high_w; /* with halo: high conductances, same places as above, halo and corners filled */
    float *c_x, *c_r, *c_w, *c_s; /* of the next level, in its layout, zero before; the high side's share is still missing: */
    float *share_x, *share_r, *share_w; /* what the high faces get from this side, in the layout of the next level, zero before */
    int64_t c_pitch_w, c_pitch_r, c_origin;
    int32_t *range;
    int64_t active;  /* out: number of active cells */
    int64_t classes; /* of blocks, so far; class 0 is none. And their w_x, w_r, w_w, s as in the source: */
    float class_source[256][4];
} dcdm_setup;

/* Rings of planes in float, slot k mod SLOTS, and rows; all of one thread. */
typedef struct {
    float *w[4], *high[3], *inverse; /* w_x, w_r, w_w, s; high conductances with halo; 1 / d */
    uint32_t *id, *uniform;          /* id: a hash of a cell's own stencil, 1 if inactive; one plane. uniform: the id where the
                                        whole 3 x 3 patch of a plane has the same, else 0 */
    float *features;                 /* FEATURES per cell, made when wanted */
    uint64_t *made;                  /* which pieces, of 2^piece cells, of a row of features have been made, one bit each */
    int piece;
    float *field[CHANNELS], *sum[7]; /* rows */
    uint8_t *code;                   /* of each cell of a plane: its place in `known`, or MUST_EVALUATE */
    int32_t *cell[4];                /* the cells of a plane to evaluate, by parity along x and r: element of the plane, ascending */
    v16 *result[4];                  /* what the network says there */
    int count[4];
    uint8_t *filled, *empty;         /* of each row, halo included: whether any coefficient in it is not 0; whether no cell is active */
    int64_t slot, origin;
    uint32_t known[REMEMBERED];      /* what the network said where everything around was the same */
    v16 answer[REMEMBERED];
    uint8_t class[REMEMBERED];       /* the class of blocks of such cells, 0 if it has none yet */
    int remembered;
    int64_t block;                   /* where the next block without a class goes */
} workspace;

static int64_t slot_size(const dcdm_level *l) { return l->has_r ? (l->n_r + 2) * l->pitch_r + 2 * ALIGN : l->pitch_r + 2 * ALIGN; }

/* Cells of a plane of one parity, at most. */
static int64_t class_size(const dcdm_level *l) { return ((l->n_x + 1) >> l->half_x) * ((l->n_r + 1) >> l->half_r); }

/* Takes the workspace of one thread out of `memory`; returns its size, which is all it does if that is NULL. */
static int64_t carve(const dcdm_level *l, char *memory, workspace *ws) {
    const int64_t slot = slot_size(l), ring = SLOTS * slot, row = l->pitch_r + 2 * ALIGN, flags = SLOTS * (l->n_r + 2);
    const int classes = (1 + (int)l->half_x) * (1 + (int)l->half_r);
    int64_t used = 0;
#define TAKE(pointer, number)                                              \
    do {                                                                   \
        (pointer) = (void *)(memory + used);                               \
        used += ((int64_t)sizeof *(pointer) * (number) + 63) / 64 * 64;    \
    } while (0)
    *ws = (workspace){.slot = slot, .origin = ALIGN + (l->has_r ? l->pitch_r : 0)};
    for (int a = 0; a < 4; a++) TAKE(ws->w[a], ring);
    for (int a = 0; a < 3 && l->halo; a++) TAKE(ws->high[a], ring);
    TAKE(ws->inverse, ring);
    TAKE(ws->uniform, ring);
    TAKE(ws->features, FEATURES * ring);
    TAKE(ws->id, slot);
    for (int m = 0; m < CHANNELS; m++) TAKE(ws->field[m], row);
    for (int m = 0; m < 7; m++) TAKE(ws->sum[m], row);
    TAKE(ws->made, flags);
    for (ws->piece = 4; (l->n_x + 2) >> ws->piece > 63; ws->piece++) {}
    TAKE(ws->filled, flags);
    TAKE(ws->empty, flags);
    TAKE(ws->code, slot);
    for (int c = 0; c < classes; c++) TAKE(ws->cell[c], class_size(l));
    for (int c = 0; c < classes; c++) TAKE(ws->result[c], class_size(l));
#undef TAKE
    return used;
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

/* One row of the source; zero outside of the box, unless there are halos. Returns whether anything in it is not zero. */
static int load_row(const dcdm_level *l, const dcdm_setup *s, const void *from, int is_double, int64_t k, int64_t j, float *to) {
    const int64_t e = l->halo, er = e && l->has_r;
    int64_t n = 0;
    uint32_t bits = 0;
    to[-1] = 0;
    if (k >= -e && k < l->n_w + e && j >= -er && j < l->n_r + er) {
        const int64_t o = s->origin + k * s->pitch_w + j * s->pitch_r;
        n = l->n_x + e;
        if (is_double)
            for (int64_t i = -e; i < n; i++) to[i] = (float)((const double *)from)[o + i];
        else memcpy(to - e, (const float *)from + o - e, (size_t)(n + e) * sizeof *to);
        for (int64_t i = -e; i < n; i++) {
            uint32_t b;
            memcpy(&b, to + i, sizeof b);
            bits |= b;
        }
    }
    memset(to + n, 0, (size_t)(l->pitch_r - 1 - n) * sizeof *to);
    return bits != 0;
}

static void load_plane(const dcdm_level *l, const dcdm_setup *s, workspace *ws, int64_t k) {
    const void *from[4] = {s->w_x, s->w_r, s->w_w, s->s}, *high[3] = {s->high_x, s->high_r, s->high_w};
    for (int64_t j = -l->has_r; j < l->n_r + l->has_r; j++) {
        const int64_t o = at(ws, k) + j * l->pitch_r;
        int filled = 0;
        for (int a = 0; a < 4; a++) filled |= load_row(l, s, from[a], (int)s->is_double, k, j, ws->w[a] + o);
        for (int a = 0; a < 3 && l->halo; a++) filled |= load_row(l, s, high[a], 0, k, j, ws->high[a] + o);
        ws->filled[flag(l, k, j)] = (uint8_t)filled;
    }
}

/* The conductances of a row: low and high along x, r, w, then s. */
typedef struct {
    const float *c[7];
} faces;

INLINE faces faces_at(const dcdm_level *l, const workspace *ws, int64_t k, int64_t j) {
    const int64_t o = at(ws, k) + j * l->pitch_r;
    const float *x = ws->w[0] + o, *r = ws->w[1] + o, *w = ws->w[2] + o, *above = ws->w[2] + at(ws, k + 1) + j * l->pitch_r;
    faces f = {{x, x + 1, r, l->has_r ? r + l->pitch_r : r, w, above, ws->w[3] + o}};
    if (l->halo) /* the high face of a halo cell is the low face of a cell beyond the halo */
        for (int a = 0; a < 3; a++) f.c[2 * a + 1] = ws->high[a] + o;
    return f;
}

/* 1 / d and the hash of every cell of plane k, halo included, then where that is the same all around within the plane. */
static void survey_plane(const dcdm_level *l, workspace *ws, int64_t k) {
    static const uint32_t factor[7] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu, 0x165667B1u, 0xD3A2646Du, 0xFD7046C5u};
    for (int64_t j = -l->has_r; j < l->n_r + l->has_r; j++) {
        const faces f = faces_at(l, ws, k, j);
        float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
        uint32_t *id = ws->id + ws->origin + j * l->pitch_r;
        const uint8_t *filled = ws->filled + flag(l, k, j);
        const int beyond = l->has_r && j < l->n_r && filled[1];
        ws->empty[flag(l, k, j)] = !(filled[0] || beyond || ws->filled[flag(l, k + 1, j)]);
        if (ws->empty[flag(l, k, j)]) {
            memset(inverse - 1, 0, (size_t)l->pitch_r * sizeof *inverse);
            for (int64_t i = -1; i < l->pitch_r - 1; i++) id[i] = 1;
            continue;
        }
        /* the low halo cell first: it is an element of the row before */
        inverse[-1] = 0, id[-1] = 1;
        if (l->halo) {
            float d = f.c[6][-1];
            uint32_t h = 0, bits;
            for (int a = 0; a < 7; a++) {
                if (a < 6) d += f.c[a][-1];
                memcpy(&bits, f.c[a] - 1, sizeof bits);
                h += bits * factor[a];
            }
            if (d > 0) inverse[-1] = 1 / d, id[-1] = (h ^ h >> 15) | 2;
        }
        for (int64_t i = 0; i < l->n_x + 1; i += VL) {
            vf d = load(f.c[6] + i);
            vu h = (vu)d * factor[6];
            for (int a = 0; a < 6; a++) {
                const vf w = load(f.c[a] + i);
                d += w, h += (vu)w * factor[a];
            }
            const vi active = d > 0;
            store(inverse + i, masked(1 / d, active));
            h = ((h ^ h >> 15) | 2) & (vu)active;
            h |= 1 & ~(vu)active;
            memcpy(id + i, &h, sizeof h);
        }
    }
    for (int64_t j = 0; j < l->n_r; j++) {
        const uint32_t *id = ws->id + ws->origin + j * l->pitch_r;
        uint32_t *uniform = ws->uniform + at(ws, k) + j * l->pitch_r;
        if (ws->empty[flag(l, k, j)]) {
            memset(uniform, 0, (size_t)l->n_x * sizeof *uniform);
            continue;
        }
        for (int64_t i = 0; i < l->n_x; i++) {
            const uint32_t own = id[i];
            int same = (id[i - 1] == own) & (id[i + 1] == own);
            for (int64_t r = -l->has_r; r <= l->has_r; r += 2) {
                const uint32_t *beside = id + r * l->pitch_r + i;
                same &= (beside[-1] == own) & (beside[0] == own) & (beside[1] == own);
            }
            uniform[i] = same ? own : 0;
        }
    }
    memset(ws->made + (k + SLOTS) % SLOTS * (l->n_r + 2), 0, (size_t)(l->n_r + 2) * sizeof *ws->made);
}

/* Features of row j (-1 .. n_r) of plane k, those pieces of it that are `wanted` and not made yet. */
static void make_features(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, uint64_t wanted) {
    uint64_t *made = ws->made + flag(l, k, j), missing = wanted & ~*made;
    if (!missing) return;
    *made |= missing;
    const int64_t piece = (int64_t)1 << ws->piece, o = at(ws, k) + j * l->pitch_r;
    const faces f = faces_at(l, ws, k, j);
    const float *inverse = ws->inverse + o;
    float *restrict to = ws->features + FEATURES * o;
    for (int64_t q = 0; q < 64 && missing >> q; q++) {
        if (!(missing >> q & 1)) continue;
        const int64_t end = (q + 1) * piece - 1 < l->n_x + 1 ? (q + 1) * piece - 1 : l->n_x + 1;
        for (int64_t i = q * piece - 1; i < end; i++) {
            const float scale = inverse[i];
            for (int a = 0; a < 7; a++) to[FEATURES * i + a] = f.c[a][i] * scale;
            to[FEATURES * i + 7] = scale > 0 ? 1 : 0;
        }
    }
}

/* Where the features around the cells of plane k are, by row of the convolution, for a cell at element 0 of the plane. */
static void feature_rows(const dcdm_level *l, const workspace *ws, int64_t k, const float **from) {
    for (int64_t w = -1; w <= 1; w++)
        for (int64_t r = -1; r <= 1; r++)
            from[3 * (w + 1) + r + 1] = ws->features + FEATURES * (at(ws, k + w) + r * l->pitch_r * l->has_r - 1);
}

/* Make what the network looks at around the cells from `element` of plane k to `span` further on. */
static void make_around(const dcdm_level *l, workspace *ws, int64_t k, int64_t element, int64_t span) {
    const int64_t j = (int32_t)element / (int32_t)l->pitch_r, i = element - j * l->pitch_r;
    const uint64_t from = i >> ws->piece, to = (i + span + 2) >> ws->piece; /* cell i is place i + 1 of its row */
    const uint64_t wanted = (((uint64_t)2 << (to - from)) - 1) << from;
    for (int64_t w = -1; w <= 1; w++)
        for (int64_t r = -l->has_r; r <= l->has_r; r++) make_features(l, ws, k + w, j + r, wanted);
}

/* Which parity kernel the cells of a list are for. */
INLINE int parity_of(const dcdm_level *l, int64_t k, int list) {
    const int x = l->half_x ? list & 1 : 0, r = l->half_r ? list >> l->half_x : 0;
    return x + 2 * r + 4 * (l->half_w && (k & 1));
}

INLINE int list_of(const dcdm_level *l, int64_t j, int64_t i) {
    return (int)((l->half_x ? i & 1 : 0) + ((l->half_r ? j & 1 : 0) << l->half_x));
}

/* The network at cells that lie anywhere in plane k, n of them at most SPARSE. */
static void evaluate_some(const dcdm_level *l, const dcdm_network *net, workspace *ws, const float *const *from, int64_t k, int list,
                          const int32_t *element, int n, v16 *const *to) {
    int64_t cell[SPARSE];
    v16 x[SPARSE];
    for (int c = 0; c < SPARSE; c++) cell[c] = (int64_t)FEATURES * element[c < n ? c : n - 1];
    for (int c = 0; c < n; c++) make_around(l, ws, k, element[c], 0);
    evaluate_sparse(net, parity_of(l, k, list), from, (int)l->has_r, cell, x);
    for (int c = 0; c < n; c++) *to[c] = x[c];
}

/* The network at all cells of one list of plane k. */
static void evaluate_list(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int list) {
    const float *from[9];
    const int32_t *cell = ws->cell[list];
    const int count = ws->count[list], step = l->half_x ? 2 : 1;
    int32_t waiting[SPARSE];
    v16 *to[SPARSE];
    int n = 0;
    feature_rows(l, ws, k, from);
    for (int q = 0; q < count;) {
        if (q + DENSE <= count && cell[q + DENSE - 1] - cell[q] == step * (DENSE - 1)) {
            make_around(l, ws, k, cell[q], step * (DENSE - 1));
            evaluate_dense(net, parity_of(l, k, list), from, (int)l->has_r, (int64_t)FEATURES * cell[q], (int)l->half_x, ws->result[list] + q);
            q += DENSE;
            continue;
        }
        waiting[n] = cell[q], to[n++] = ws->result[list] + q++;
        if (n == SPARSE) evaluate_some(l, net, ws, from, k, list, waiting, n, to), n = 0;
    }
    if (n) evaluate_some(l, net, ws, from, k, list, waiting, n, to);
}

/* Place of a cell of row j in `known`, evaluating it if there is room; MUST_EVALUATE if not. */
static int recall(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int64_t j, int64_t i, uint32_t id) {
    int place = 0;
    while (place < ws->remembered && ws->known[place] != id) place++;
    if (place < ws->remembered) return place;
    if (place == REMEMBERED) return MUST_EVALUATE;
    const float *from[9];
    const int32_t element = (int32_t)(j * l->pitch_r + i);
    v16 *to = &ws->answer[place];
    feature_rows(l, ws, k, from);
    evaluate_some(l, net, ws, from, k, list_of(l, j, i), &element, 1, &to);
    ws->class[place] = 0;
    ws->known[ws->remembered++] = id;
    return place;
}

/* What part of row (k, j) has active cells, and how many; which of them have a known answer, and which must be evaluated. */
static int64_t sort_row(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int64_t j, int32_t *range) {
    range[0] = range[1] = 0;
    if (ws->empty[flag(l, k, j)]) return 0;
    const int64_t o = j * l->pitch_r;
    const float *inverse = ws->inverse + at(ws, k) + o;
    const uint32_t *below = ws->uniform + at(ws, k - 1) + o, *here = ws->uniform + at(ws, k) + o;
    const uint32_t *above = ws->uniform + at(ws, k + 1) + o;
    uint8_t *code = ws->code + ws->origin + o;
    int64_t active = 0;
    for (int32_t block = 0; block < l->n_x; block += ALIGN) {
        const int32_t stop = block + ALIGN < l->n_x ? block + ALIGN : (int32_t)l->n_x;
        const uint32_t usual = ws->remembered ? ws->known[0] : 0;
        int plain = usual != 0, some = 0;
        for (int32_t i = block; i < stop; i++) {
            plain &= (here[i] == usual) & (below[i] == usual) & (above[i] == usual);
            some += inverse[i] > 0;
        }
        if (!some) continue;
        if (!range[1]) range[0] = block;
        range[1] = block + ALIGN;
        active += some;
        memset(code + block, 0, ALIGN);
        for (int32_t i = block; i < stop && !plain; i++) {
            if (inverse[i] == 0) continue;
            const int same = here[i] != 0 && here[i] == below[i] && here[i] == above[i];
            code[i] = (uint8_t)(same ? recall(l, net, ws, k, j, i, here[i]) : MUST_EVALUATE);
            if (code[i] != MUST_EVALUATE) continue;
            const int list = list_of(l, j, i);
            ws->cell[list][ws->count[list]++] = (int32_t)(o + i);
        }
    }
    return active;
}

/* The fields of row (k, j). `done` counts what has been taken from each list. */
static void collect_row(const dcdm_level *l, workspace *ws, int64_t j, const int32_t *range, int *done) {
    const int outputs = (int)l->steps + 4;
    const int64_t o = j * l->pitch_r;
    const uint8_t *code = ws->code + ws->origin + o;
    for (int m = 0; m < outputs; m++)
        for (int64_t i = range[0]; i < range[1]; i++) ws->field[m][i] = ws->answer[0][m];
    int others = 0;
    for (int64_t i = range[0]; i < range[1]; i++) others |= code[i];
    if (!others) return;
    for (int64_t i = range[0]; i < range[1]; i++)
        if (code[i] && code[i] != MUST_EVALUATE)
            for (int m = 0; m < outputs; m++) ws->field[m][i] = ws->answer[code[i]][m];
    for (int list = list_of(l, j, 0); list <= list_of(l, j, 1); list++) {
        int q = done[list];
        for (; q < ws->count[list] && ws->cell[list][q] < o + l->n_x; q++)
            for (int m = 0; m < outputs; m++) ws->field[m][ws->cell[list][q] - o] = ws->result[list][q][m];
        done[list] = q;
    }
}

/* A number as blocks hold it. */
INLINE float rounded(const dcdm_level *l, float v) {
    if (!l->half) return v;
    uint16_t h[VL];
    store_half(h, splat(v));
    return load_half(h)[0];
}

/* The class of blocks with these conductances and this answer of the network; 0 if there are too many classes. */
static uint8_t find_class(const dcdm_level *l, dcdm_setup *s, const float *source, v16 answer, float inverse) {
    float value[FIELDS] = {0};
    for (int a = 0; a < 7; a++) value[a] = rounded(l, source[a / 2]);
    for (int m = 0; m < l->steps; m++) value[OMEGA + m] = rounded(l, answer[m] * inverse);
    int64_t q;
#pragma omp critical(dcdm_classes)
    {
        for (q = 1; q < s->classes; q++)
            if (!memcmp(s->class_source[q], source, sizeof s->class_source[q]) &&
                !memcmp(l->class_value + q * FIELDS, value, sizeof value))
                break;
        if (q == s->classes && q < 256) {
            memcpy(l->class_value + q * FIELDS, value, sizeof value);
            memcpy(s->class_source[q], source, sizeof s->class_source[q]);
            s->classes++;
        }
    }
    return q < 256 ? (uint8_t)q : 0;
}

/* The class of the block that begins at cell i of row (k, j); 0 if its cells are not all active and alike. */
static uint8_t class_of(const dcdm_level *l, dcdm_setup *s, workspace *ws, int64_t k, int64_t j, int64_t i, const faces *f) {
    if (i + ALIGN > l->n_x) return 0;
    const uint8_t *code = ws->code + ws->origin + j * l->pitch_r + i;
    const float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r + i;
    int alike = code[0] != MUST_EVALUATE;
    for (int t = 0; t < ALIGN; t++) alike &= (code[t] == code[0]) & (inverse[t] > 0);
    if (!alike) return 0;
    const float source[4] = {f->c[0][i], f->c[2][i], f->c[4][i], f->c[6][i]};
    /* hashes may agree by chance, so look at the numbers too */
    for (int a = 0; a < 7; a++)
        for (int t = 0; t < ALIGN; t++) alike &= f->c[a][i + t] == source[a / 2];
    if (!alike) return 0;
    const int place = code[0];
    if (!ws->class[place]) ws->class[place] = find_class(l, s, source, ws->answer[place], inverse[0]);
    return memcmp(s->class_source[ws->class[place]], source, sizeof source) ? 0 : ws->class[place];
}

INLINE void put(const dcdm_level *l, void *to, int64_t at, vf v) {
    if (l->half) store_half((uint16_t *)to + at, v);
    else store((float *)to + at, v);
}

/* The coefficients of row (k, j), and its shares in the next level added to the sums over the rows of a coarse row. */
static void write_row(const dcdm_level *l, dcdm_setup *s, workspace *ws, int64_t k, int64_t j, const int32_t *range) {
    const faces f = faces_at(l, ws, k, j);
    const float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
    float *const *field = ws->field, *const *more = ws->field + l->steps; /* sigma, gamma x, r, w */
    uint8_t *class = classes_at(l, k, j);
    /* Faces inside a coarse cell vanish. Along x that is seen to when the sums are taken over. */
    const int keep[6] = {1, 1, !l->half_r || !(j & 1), !l->half_r || (j & 1), !l->half_w || !(k & 1), !l->half_w || (k & 1)};
    l->block_start[k * l->n_r + j] = ws->block;
    for (int64_t b = range[0]; b < range[1]; b += ALIGN) {
        class[b / ALIGN] = class_of(l, s, ws, k, j, b, &f);
        if (class[b / ALIGN]) continue;
        const int64_t to = ws->block++;
        for (int64_t i = b; i < b + ALIGN; i += VL) {
            for (int a = 0; a < OMEGA; a++) put(l, l->blocks, (to * OMEGA + a) * ALIGN + i - b, load(f.c[a] + i));
            for (int m = 0; m < l->steps; m++)
                put(l, l->omegas, (l->room * m + to) * ALIGN + i - b, load(field[m] + i) * load(inverse + i));
        }
    }
    for (int64_t i = range[0]; i < range[1]; i += VL) {
        const vi active = load(inverse + i) > 0;
        store(ws->sum[6] + i, load(ws->sum[6] + i) + load(more[0] + i) * load(f.c[6] + i));
        for (int a = 0; a < 6; a++) {
            if (!keep[a]) continue;
            const vf half_gamma = 0.5f * load(more[a / 2 + 1] + i);
            store(ws->sum[a] + i, load(ws->sum[a] + i) + masked(half_gamma * load(f.c[a] + i), active));
        }
    }
}

/* The sums over the rows of a coarse row in plane k, taken over into the next level. */
static void add_coarse_row(const dcdm_level *l, const dcdm_setup *s, workspace *ws, int64_t k, int64_t j) {
    float *to[7] = {s->c_x, s->share_x, s->c_r, s->share_r, s->c_w, s->share_w, s->c_s};
    const int64_t o = s->c_origin + (k >> l->half_w) * s->c_pitch_w + (j >> l->half_r) * s->c_pitch_r;
    const int64_t n = l->half_x ? (l->n_x + 1) / 2 : l->n_x;
    for (int a = 0; a < 7; a++) {
        float *restrict t = to[a] + o;
        const float *restrict sum = ws->sum[a];
        if (!l->half_x)
            for (int64_t i = 0; i < n; i++) t[i] += sum[i];
        else if (a == 0)
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i];
        else if (a == 1)
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i + 1];
        else
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i] + sum[2 * i + 1];
    }
}

static int64_t set_up_plane(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, workspace *ws, int64_t k) {
    int32_t *ranges = s->range + 2 * k * l->n_r;
    int64_t active = 0;
    int pending = 0, done[4] = {0};
    if (ws->remembered == REMEMBERED) ws->remembered = 1;
    memset(ws->count, 0, sizeof ws->count);
    for (int64_t j = 0; j < l->n_r; j++) active += sort_row(l, net, ws, k, j, ranges + 2 * j);
    for (int list = 0; list < 4; list++)
        if (ws->count[list]) evaluate_list(l, net, ws, k, list);
    for (int64_t j = 0; j < l->n_r; j++) {
        const int32_t *range = ranges + 2 * j;
        if (range[0] < range[1]) {
            if (!pending)
                for (int a = 0; a < 7; a++) memset(ws->sum[a], 0, (size_t)(l->pitch_r + ALIGN) * sizeof(float));
            collect_row(l, ws, j, range, done);
            write_row(l, s, ws, k, j, range);
            pending = 1;
        }
        if (pending && (!l->half_r || (j & 1) || j == l->n_r - 1)) {
            add_coarse_row(l, s, ws, k, j);
            pending = 0;
        }
    }
    return active;
}

/* Set up one level. `memory`: dcdm_setup_bytes for each thread. */
void dcdm_set_up(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, char *memory, int threads) {
    const int64_t bytes = dcdm_setup_bytes(l);
    s->classes = 1;
    int64_t active = 0, piece = l->n_w / (4 * threads);
    /* A piece begins with three planes that its neighbour reads too; where cells are halved it begins with a whole block. */
    piece = piece < 8 ? 8 : piece + (piece & 1);
    const int pieces = (int)((l->n_w + piece - 1) / piece);
#pragma omp parallel num_threads(threads) reduction(+ : active)
    {
        workspace ws;
        carve(l, memory + omp_get_thread_num() * bytes, &ws);
#pragma omp for schedule(dynamic, 1)
        for (int q = 0; q < pieces; q++) {
            const int64_t begin = q * piece, end = begin + piece < l->n_w ? begin + piece : l->n_w;
            /* There is room for all blocks of all planes; of that of a piece the beginning is used. */
            ws.block = begin * l->n_r * ((l->n_x + ALIGN - 1) / ALIGN);
            load_plane(l, s, &ws, begin - 1);
            for (int64_t k = begin - 1; k <= end; k++) {
                load_plane(l, s, &ws, k + 1);
                survey_plane(l, &ws, k);
                if (k > begin) active += set_up_plane(l, net, s, &ws, k - 1);
            }
        }
    }
    s->active = active;
}

/* The shares of the low neighbours join the coarse conductances; `l` is the next level, whose shape and layout count. */
void dcdm_join_shares(const dcdm_level *l, const dcdm_setup *s, int threads) {
    const int64_t back[3] = {1, s->c_pitch_r, s->c_pitch_w};
    float *to[3] = {s->c_x, s->c_r, s->c_w};
    const float *share[3] = {s->share_x, s->share_r, s->share_w};
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r; j++)
            for (int a = 0; a < 3; a++) {
                if (a == 1 && !l->has_r) continue;
                float *restrict t = to[a] + l->origin + k * l->pitch_w + j * l->pitch_r;
                const float *restrict from = share[a] + l->origin + k * l->pitch_w + j * l->pitch_r - back[a];
                for (int64_t i = 0; i < l->n_x; i++) t[i] += from[i];
            }
}

/* Whether any of n numbers is not zero; NaN counts. */
INLINE int any_float(const float *p, int64_t n) {
    uint32_t bits = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t b;
        memcpy(&b, p + i, sizeof b);
        bits |= b;
    }
    return bits != 0;
}

INLINE int any_double(const double *p, int64_t n) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t b;
        memcpy(&b, p + i, sizeof b);
        bits |= b;
    }
    return bits != 0;
}

INLINE int any(const void *p, int64_t o, int64_t n, int is_double) {
    return is_double ? any_double((const double *)p + o, n) : any_float((const float *)p + o, n);
}

/* Where the arrays w_x, w_y, w_z, s are not zero: found[thread] = first z, y, x, then one past the last. */
void dcdm_bounds(const void *w_x, const void *w_y, const void *w_z, const void *s, int is_double, int64_t n_z, int64_t n_y, int64_t n_x,
                 int64_t pitch_z, int64_t pitch_y, int64_t *found, int threads) {
    const void *array[4] = {w_x, w_y, w_z, s};
    for (int t = 0; t < threads; t++)
        for (int c = 0; c < 6; c++) found[6 * t + c] = c < 3 ? INT64_MAX : 0;
#pragma omp parallel num_threads(threads)
    {
        int64_t box[6] = {INT64_MAX, INT64_MAX, INT64_MAX, 0, 0, 0}; /* written to memory once: it is near the other threads' */
#pragma omp for schedule(static)
        for (int64_t k = 0; k < n_z; k++)
            for (int64_t j = 0; j < n_y; j++) {
                const int64_t o = k * pitch_z + j * pitch_y;
                int some = 0;
                for (int a = 0; a < 4; a++) some |= any(array[a], o, n_x, is_double);
                if (!some) continue;
                box[0] = k < box[0] ? k : box[0], box[3] = k + 1;
                box[1] = j < box[1] ? j : box[1], box[4] = j + 1 > box[4] ? j + 1 : box[4];
                for (int a = 0; a < 4; a++) {
                    while (any(array[a], o, box[2] < n_x ? box[2] : n_x, is_double))
                        for (int64_t i = 0; i < n_x && i < box[2]; i++)
                            if (any(array[a], o + i, 1, is_double)) box[2] = i;
                    while (box[5] < n_x && any(array[a], o + box[5], n_x - box[5], is_double)) box[5]++;
                }
            }
        memcpy(found + 6 * omp_get_thread_num(), box, sizeof box);
    }
}
