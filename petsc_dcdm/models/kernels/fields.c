/* Set-up of one level: the field network at every active cell, and from its fields the smoothing weights and the operator of
 * the next level.
 *
 * The planes go by once. Around most cells of a voxel geometry nothing changes; those share one evaluation of the network, and only
 * the cells next to something else are evaluated by themselves. The network has at most 16 channels: one vector of 16 floats.
 */
#include "common.h"

enum { CHANNELS = 16, FEATURES = 8, SLOTS = 4, REMEMBERED = 4 };
typedef float v16 __attribute__((vector_size(4 * CHANNELS)));
typedef int32_t v16i __attribute__((vector_size(4 * CHANNELS)));
#if defined(__AVX512F__)
enum { DENSE = 12, SPARSE = 6 }; /* cells at a time: as many accumulators as there are registers for */
#else
enum { DENSE = 6, SPARSE = 6 };
#endif

/* The network for one set of coarsened axes: kernels for the 8 parities (x + 2 r + 4 w) of a cell, by row (3 w + r, offsets 0 .. 2),
 * then 3 neighbours along x times 8 features: faces low and high along x, r, w over the diagonal, s over the diagonal, active. */
typedef struct {
    float conv[8][9][3 * FEATURES][CHANNELS];
    float conv_bias[CHANNELS], hidden[CHANNELS][CHANNELS], hidden_bias[CHANNELS]; /* [in][out] */
    float out[CHANNELS][CHANNELS], out_bias[CHANNELS], base[CHANNELS];
} dcdm_network;

/* What set-up of one level reads and writes besides the level's own coefficients. */
typedef struct {
    const void *w_x, *w_r, *w_w, *s; /* of this level, float or double */
    int64_t is_double, pitch_w, pitch_r, origin; /* where in those arrays; with halo they have one */
    const float *high_x, *high_r, *high_w; /* with halo: high conductances, same places as above, halo and corners filled */
    float *c_x, *c_r, *c_w, *c_s; /* of the next level, in its layout, zero before; the high side's share is still missing: */
    float *share_x, *share_r, *share_w; /* what the high faces get from this side, in the layout of the next level, zero before */
    int64_t c_pitch_w, c_pitch_r, c_origin;
    int32_t *range;
    int64_t active; /* out: number of active cells */
} dcdm_setup;

/* Rings of planes in float, slot k mod SLOTS, and rows; all of one thread. */
typedef struct {
    float *w[4], *high[3], *inverse; /* w_x, w_r, w_w, s; high conductances with halo; 1 / d */
    uint32_t *id, *uniform;          /* id: a hash of a cell's own stencil, 1 if inactive; one plane. uniform: the id where the
                                        whole 3 x 3 patch of a plane has the same, else 0 */
    float *features;                 /* FEATURES per cell, made when wanted */
    uint64_t *made;                  /* which parts of a row of features have been made, one bit each */
    float *field[CHANNELS], *sum[7]; /* rows */
    int32_t *cells;                  /* cells of a row that must be evaluated */
    uint8_t *filled, *empty;         /* of each row, halo included: whether any coefficient in it is not 0; whether no cell is active */
    int64_t slot, origin;
    uint32_t known[REMEMBERED];      /* what the network said where everything around was the same */
    v16 answer[REMEMBERED];
    int next;
} workspace;

static int64_t slot_size(const dcdm_level *l) { return l->has_r ? (l->n_r + 2) * l->pitch_r + 2 * ALIGN : l->pitch_r + 2 * ALIGN; }

/* Bytes of workspace of one thread. */
int64_t dcdm_setup_bytes(const dcdm_level *l) {
    const int64_t row = l->pitch_r + 2 * ALIGN;
    const int64_t floats = SLOTS * slot_size(l) * (4 + (l->halo ? 3 : 0) + 1 + 1 + FEATURES) + slot_size(l) + (CHANNELS + 7) * row;
    return 4 * (floats + l->n_x + 4) + (8 + 2) * SLOTS * (l->n_r + 2) + 128;
}

static void carve(const dcdm_level *l, char *memory, workspace *ws) {
    const int64_t row = l->pitch_r + 2 * ALIGN, ring = SLOTS * slot_size(l);
    float *f = (float *)(((uintptr_t)memory + 63) / 64 * 64);
    *ws = (workspace){.slot = slot_size(l), .origin = ALIGN + (l->has_r ? l->pitch_r : 0)};
    for (int a = 0; a < 4; a++) ws->w[a] = f, f += ring;
    for (int a = 0; a < 3 && l->halo; a++) ws->high[a] = f, f += ring;
    ws->inverse = f, f += ring;
    ws->uniform = (uint32_t *)f, f += ring;
    ws->features = f, f += FEATURES * ring;
    ws->id = (uint32_t *)f, f += slot_size(l);
    for (int m = 0; m < CHANNELS; m++) ws->field[m] = f, f += row;
    for (int m = 0; m < 7; m++) ws->sum[m] = f, f += row;
    ws->made = (uint64_t *)(((uintptr_t)f + 7) / 8 * 8);
    ws->cells = (int32_t *)(ws->made + SLOTS * (l->n_r + 2));
    ws->filled = (uint8_t *)(ws->cells + l->n_x + 4);
    ws->empty = ws->filled + SLOTS * (l->n_r + 2);
    for (int q = 0; q < REMEMBERED; q++) ws->known[q] = 1; /* the hash of no active cell */
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

/* Features of the cells low .. high of row j (-1 .. n_r) of plane k, in pieces of which each is made once. */
static void make_features(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, int64_t low, int64_t high) {
    const int64_t piece = (l->n_x + 2) / 64 + 16, end = l->n_x + 1;
    uint64_t *made = ws->made + (k + SLOTS) % SLOTS * (l->n_r + 2) + j + 1;
    for (int64_t q = (low + 1) / piece; q <= (high + 1) / piece; q++) {
        if (*made >> q & 1) continue;
        *made |= (uint64_t)1 << q;
        const faces f = faces_at(l, ws, k, j);
        const int64_t o = at(ws, k) + j * l->pitch_r;
        float *to = ws->features + FEATURES * o;
        for (int64_t i = q * piece - 1; i < (q + 1) * piece - 1 && i < end; i++) {
            const float scale = ws->inverse[o + i];
            for (int a = 0; a < 7; a++) to[FEATURES * i + a] = f.c[a][i] * scale;
            to[FEATURES * i + 7] = scale > 0 ? 1 : 0;
        }
    }
}

/* Convolution of n cells. Dense: the cells lie `step` apart, which leaves all offsets to the compiler. */
INLINE void convolve(const dcdm_level *l, const float (*kernel)[3 * FEATURES][CHANNELS], const float *const *row, const int32_t *cell,
                     int64_t step, const int n, const int dense, v16 *sum) {
    const int first = l->has_r ? 0 : 1, stride = l->has_r ? 1 : 3;
    for (int b = first; b < 9; b += stride) {
        const float *from[DENSE];
        for (int c = 0; c < n; c++) from[c] = row[b] + FEATURES * (dense ? cell[0] + c * step : (int64_t)cell[c]);
        for (int t = 0; t < 3 * FEATURES; t++) {
            v16 w;
            memcpy(&w, kernel[b][t], sizeof w);
            for (int c = 0; c < n; c++) sum[c] += w * from[c][t];
        }
    }
}

/* The layers after the convolution, in place. */
INLINE void finish_network(const dcdm_network *net, const int n, v16 *x) {
    float hidden[DENSE][CHANNELS] __attribute__((aligned(64)));
    v16 w;
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    const float *bias[2] = {net->hidden_bias, net->out_bias};
    for (int q = 0; q < 2; q++) {
        memcpy(&w, bias[q], sizeof w);
        for (int c = 0; c < n; c++) {
            const v16 positive = (v16)((x[c] > 0) & (v16i)x[c]);
            memcpy(hidden[c], &positive, sizeof positive);
            x[c] = w;
        }
        for (int t = 0; t < CHANNELS; t++) {
            memcpy(&w, layer[q][t], sizeof w);
            for (int c = 0; c < n; c++) x[c] += w * hidden[c][t];
        }
    }
    memcpy(&w, net->base, sizeof w);
    for (int c = 0; c < n; c++) {
        const v16 size = (v16)((v16i)x[c] & 0x7FFFFFFF);
        x[c] = w * (1 + 0.9f * (x[c] / (1 + size)));
    }
}

#define EVALUATE(name, n, dense)                                                                                                     \
    static void name(const dcdm_level *l, const dcdm_network *net, int parity, const float *const *row, const int32_t *cell, v16 *x) { \
        v16 bias;                                                                                                                    \
        memcpy(&bias, net->conv_bias, sizeof bias);                                                                                  \
        for (int c = 0; c < n; c++) x[c] = bias;                                                                                     \
        if (!(dense)) convolve(l, net->conv[parity], row, cell, 0, n, 0, x);                                                         \
        else if (l->half_x) convolve(l, net->conv[parity], row, cell, 2, n, 1, x);                                                   \
        else convolve(l, net->conv[parity], row, cell, 1, n, 1, x);                                                                  \
        finish_network(net, n, x);                                                                                                   \
    }
EVALUATE(evaluate_dense, DENSE, 1)
EVALUATE(evaluate_sparse, SPARSE, 0)

/* Evaluate the network at `count` cells of row (k, j), all of one parity along x, in ascending order. */
static void evaluate_cells(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int64_t j, const int32_t *cell,
                           int count) {
    const int step = l->half_x ? 2 : 1, outputs = (int)l->steps + 4;
    const int parity = (int)((l->half_x && (cell[0] & 1)) + 2 * (l->half_r && (j & 1)) + 4 * (l->half_w && (k & 1)));
    const float *row[9] = {0};
    for (int64_t w = -1; w <= 1; w++)
        for (int64_t r = -l->has_r; r <= l->has_r; r++)
            row[3 * (w + 1) + r + 1] = ws->features + FEATURES * (at(ws, k + w) + (j + r) * l->pitch_r - 1);
    for (int done = 0; done < count;) {
        const int left = count - done;
        const int dense = left >= DENSE && cell[done + DENSE - 1] - cell[done] == step * (DENSE - 1);
        const int n = dense ? DENSE : left < SPARSE ? left : SPARSE;
        int32_t batch[DENSE];
        v16 x[DENSE];
        for (int c = 0; c < DENSE; c++) batch[c] = cell[done + (c < n ? c : n - 1)];
        for (int64_t w = -1; w <= 1; w++)
            for (int64_t r = -l->has_r; r <= l->has_r; r++) {
                if (dense) make_features(l, ws, k + w, j + r, batch[0] - 1, batch[n - 1] + 1);
                else
                    for (int c = 0; c < n; c++) make_features(l, ws, k + w, j + r, batch[c] - 1, batch[c] + 1);
            }
        if (dense) evaluate_dense(l, net, parity, row, batch, x);
        else evaluate_sparse(l, net, parity, row, batch, x);
        for (int c = 0; c < n; c++)
            for (int m = 0; m < outputs; m++) ws->field[m][batch[c]] = x[c][m];
        done += n;
    }
}

/* The fields of row (k, j), by the cell; returns the number of active cells and what part of the row they are in. */
static int64_t evaluate_row(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int64_t j, int32_t *range) {
    const int outputs = (int)l->steps + 4;
    const float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
    const uint32_t *below = ws->uniform + at(ws, k - 1) + j * l->pitch_r, *here = ws->uniform + at(ws, k) + j * l->pitch_r;
    const uint32_t *above = ws->uniform + at(ws, k + 1) + j * l->pitch_r;
    int32_t begin = -1, end = 0, count[2] = {0, 0}, *list[2] = {ws->cells, ws->cells + (l->n_x + 1) / 2};
    int64_t active = 0;
    range[0] = range[1] = 0;
    if (ws->empty[flag(l, k, j)]) return 0;
    uint32_t unknown = 0;
    int32_t example = 0;
    for (int32_t block = 0; block < l->n_x; block += ALIGN) {
        const int32_t stop = block + ALIGN < l->n_x ? block + ALIGN : (int32_t)l->n_x;
        int plain = 1, some = 0;
        for (int32_t i = block; i < stop; i++) {
            plain &= (here[i] == ws->known[0]) & (below[i] == ws->known[0]) & (above[i] == ws->known[0]);
            some += inverse[i] > 0;
        }
        if (!some) continue;
        if (begin < 0) begin = block;
        end = block + ALIGN;
        active += some;
        for (int m = 0; m < outputs; m++)
            for (int i = 0; i < ALIGN; i++) ws->field[m][block + i] = ws->answer[0][m];
        if (plain) continue;
        for (int32_t i = block; i < stop; i++) {
            if (inverse[i] == 0) continue;
            const int same = here[i] != 0 && here[i] == below[i] && here[i] == above[i];
            int slot = 0;
            while (slot < REMEMBERED && !(same && ws->known[slot] == here[i])) slot++;
            if (slot < REMEMBERED) {
                for (int m = 0; m < outputs && slot; m++) ws->field[m][i] = ws->answer[slot][m];
                continue;
            }
            if (same) unknown = here[i], example = i;
            const int odd = l->half_x && (i & 1);
            list[odd][count[odd]++] = i;
        }
    }
    for (int odd = 0; odd < 2; odd++)
        if (count[odd]) evaluate_cells(l, net, ws, k, j, list[odd], count[odd]);
    if (unknown) {
        ws->next = ws->known[0] == 1 ? 0 : ws->next % (REMEMBERED - 1) + 1;
        ws->known[ws->next] = unknown;
        for (int m = 0; m < CHANNELS; m++) ws->answer[ws->next][m] = m < outputs ? ws->field[m][example] : 0;
    }
    if (begin >= 0) range[0] = begin, range[1] = end;
    return active;
}

INLINE void put_row(const dcdm_level *l, const void *to, int64_t o, int64_t i, vf v) {
    if (l->half) store_half((uint16_t *)(uintptr_t)to + o + i, v);
    else store((float *)(uintptr_t)to + o + i, v);
}

/* The coefficients of row (k, j), and its shares in the next level added to the sums over the rows of a coarse row. */
static void write_row(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, const int32_t *range) {
    const faces f = faces_at(l, ws, k, j);
    const int64_t o = l->origin + k * l->pitch_w + j * l->pitch_r;
    const float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
    float *const *field = ws->field, *const *more = ws->field + l->steps; /* sigma, gamma x, r, w */
    /* Faces inside a coarse cell vanish. Along x that is seen to when the sums are taken over. */
    const int keep[6] = {1, 1, !l->half_r || !(j & 1), !l->half_r || (j & 1), !l->half_w || !(k & 1), !l->half_w || (k & 1)};
    for (int64_t i = range[0]; i < range[1]; i += VL) {
        const vf d = load(inverse + i), s = load(f.c[6] + i);
        put_row(l, l->w_x, o, i, load(f.c[0] + i));
        put_row(l, l->w_r, o, i, load(f.c[2] + i));
        put_row(l, l->w_w, o, i, load(f.c[4] + i));
        put_row(l, l->s, o, i, s);
        for (int m = 0; m < l->steps; m++) put_row(l, l->omega[m], o, i, load(field[m] + i) * d);
        store(ws->sum[6] + i, load(ws->sum[6] + i) + load(more[0] + i) * s);
        for (int a = 0; a < 6; a++) {
            if (!keep[a]) continue;
            const vf half_gamma = 0.5f * load(more[a / 2 + 1] + i);
            store(ws->sum[a] + i, load(ws->sum[a] + i) + masked(half_gamma * load(f.c[a] + i), d > 0));
        }
    }
}

/* With halos: the low conductances of the cells beyond the high side, which are faces of our cells too. */
static void write_beyond(const dcdm_level *l, workspace *ws, int64_t k, int64_t j) {
    const int64_t from = at(ws, k) + j * l->pitch_r, to = l->origin + k * l->pitch_w + j * l->pitch_r;
    put_row(l, l->w_x, to, l->n_x, load(ws->w[0] + from + l->n_x));
    for (int64_t i = 0; i < l->n_x && l->has_r && j == l->n_r - 1; i += VL)
        put_row(l, l->w_r, to + l->pitch_r, i, load(ws->w[1] + from + l->pitch_r + i));
    for (int64_t i = 0; i < l->n_x && k == l->n_w - 1; i += VL)
        put_row(l, l->w_w, to + l->pitch_w, i, load(ws->w[2] + at(ws, k + 1) + j * l->pitch_r + i));
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

static int64_t set_up_plane(const dcdm_level *l, const dcdm_network *net, const dcdm_setup *s, workspace *ws, int64_t k) {
    int64_t active = 0;
    int pending = 0;
    for (int64_t j = 0; j < l->n_r; j++) {
        int32_t *range = s->range + 2 * (k * l->n_r + j);
        const int64_t found = evaluate_row(l, net, ws, k, j, range);
        if (found) {
            if (!pending)
                for (int a = 0; a < 7; a++) memset(ws->sum[a], 0, (size_t)(l->pitch_r + ALIGN) * sizeof(float));
            write_row(l, ws, k, j, range);
            pending = 1, active += found;
        }
        if (l->halo) write_beyond(l, ws, k, j);
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
