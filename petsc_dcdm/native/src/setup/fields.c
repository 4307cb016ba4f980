/* Set-up of one level: the field network at every active cell, and from its fields the smoothing weights and the
 * operator of the next level.
 *
 * The planes go by once. Around most cells of a voxel geometry nothing changes, and along walls the same comes again
 * and again: cells with the same around them share one evaluation of the network. It has at most 16 channels: one
 * vector of 16 floats.
 */
#include "evaluate.h"

#include <sched.h>

#include "shared/node_team.h"

/* A number as blocks hold it. */
INLINE float rounded(float v) {
    coef c[VL];
    store_coef(c, splat(v));
    return load_coef(c)[0];
}

/* The class of blocks with these conductances and this answer of the network; 0 if there are too many classes. */
static uint8_t find_class(const dcdm_level *l, dcdm_setup *s, const float *source, const float *answer, float inverse) {
    float value[FIELDS] = {0};
    for (int a = 0; a < 7; a++) value[a] = rounded(source[a / 2]);
    for (int m = 0; m < l->steps; m++) value[OMEGA + m] = rounded(answer[m] * inverse);
    int64_t q;
    while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE)) sched_yield(); /* threads may be those of other ranks */
    for (q = 1; q < s->classes; q++)
        if (!memcmp(s->class_source[q], source, sizeof s->class_source[q]) &&
            !memcmp(l->class_value + q * FIELDS, value, sizeof value))
            break;
    if (q == s->classes && q < 256) {
        memcpy(l->class_value + q * FIELDS, value, sizeof value);
        memcpy(s->class_source[q], source, sizeof s->class_source[q]);
        s->classes++;
    }
    __atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
    return q < 256 ? (uint8_t)q : 0;
}

/* The class of the block that begins at cell i of row (k, j); 0 if its cells are not all active and alike. */
static uint8_t class_of(const dcdm_level *l, dcdm_setup *s, workspace *ws, int64_t k, int64_t j, int64_t i,
                        const faces *f) {
    const int32_t *code = ws->code + ws->origin + j * l->pitch_r + i;
    const int common = ws->kind[j * blocks_of(l) + i / ALIGN] == COMMON;
    const int32_t place = common ? ws->common : code[0];
    if (place < 0 || place >= MEMORY || !ws->even[place]) return 0;
    int alike = 1;
    for (int t = 0; t < ALIGN && !common; t++) alike &= code[t] == place;
    if (!alike) return 0;
    const float source[4] = {f->c[0][i], f->c[2][i], f->c[4][i], f->c[6][i]};
    /* hashes may agree by chance, so look at the numbers too */
    for (int a = 0; a < 7; a++)
        for (int t = 0; t < ALIGN; t++) alike &= f->c[a][i + t] == source[a / 2];
    if (!alike) return 0;
    if (!ws->class[place])
        ws->class[place] = find_class(l, s, source, ws->answer[place], ws->inverse[at(ws, k) + j * l->pitch_r + i]);
    return memcmp(s->class_source[ws->class[place]], source, sizeof source) ? 0 : ws->class[place];
}

/* What the low and the high face of cell i of n count on its side in the next level: 0 inside a coarse cell, where a
 * ring of two becomes one cell, too. `half`: coarsened, `wrap`: on a ring. The last cell of a ring of odd length is a
 * coarse cell alone and no longer than before, with twice the conductance of others. */
INLINE int is_alone(int64_t half, int64_t wrap, const int32_t *places, int64_t n, int64_t i) {
    if (!half || place_of(places, i) & 1) return 0;
    return i < n - 1 ? place_of(places, i + 1) > place_of(places, i) + 1 : wrap != 0;
}

INLINE float low_share(int64_t half, int64_t wrap, const int32_t *places, int64_t n, int64_t i) {
    if (half && (place_of(places, i) & 1 || (wrap && n == 2))) return 0;
    return is_alone(half, wrap, places, n, i) ? 1 : 0.5f;
}

INLINE float high_share(int64_t half, int64_t wrap, const int32_t *places, int64_t n, int64_t i) {
    if (is_alone(half, wrap, places, n, i)) return 1;
    return half && (!(place_of(places, i) & 1) || (wrap && n == 2)) ? 0 : 0.5f;
}

/* The coefficients of row (k, j), and its shares in the next level added to the sums over the rows of a coarse row. */
static void write_row(const dcdm_level *l, dcdm_setup *s, workspace *ws, int64_t k, int64_t j, const int32_t *range) {
    const faces f = faces_at(l, ws, k, j);
    const float *inverse = ws->inverse + at(ws, k) + j * l->pitch_r;
    const uint8_t *kind = ws->kind + j * blocks_of(l);
    uint8_t *class = classes_at(l, k, j);
    const int sigma = (int)l->steps; /* of the fields; then gamma along x, r, w */
    float field[CHANNELS][ALIGN] __attribute__((aligned(64)));
    /* Along x it is seen to when the sums are taken over which faces count, and how much. */
    const float count[6] = {0.5f,
                            0.5f,
                            low_share(l->half_r, l->wrap_r, l->place_r, l->n_r, j),
                            high_share(l->half_r, l->wrap_r, l->place_r, l->n_r, j),
                            low_share(l->half_w, l->wrap_w, l->place_w, l->n_w, k),
                            high_share(l->half_w, l->wrap_w, l->place_w, l->n_w, k)};
    if (ws->block + blocks_of(l) > ws->taken_end) {
        const int64_t size = portion(l);
        ws->block = __atomic_fetch_add(&s->taken, size, __ATOMIC_RELAXED);
        ws->taken_end = ws->block + size;
    }
    l->block_start[k * l->n_r + j] = ws->block;
    for (int64_t b = range[0]; b < range[1]; b += ALIGN) {
        class[b / ALIGN] = kind[b / ALIGN] == EMPTY ? 0 : class_of(l, s, ws, k, j, b, &f);
        const int32_t first = kind[b / ALIGN] == COMMON ? ws->common : ws->code[ws->origin + j * l->pitch_r + b];
        if (class[b / ALIGN]) { /* the same numbers in all cells */
            const float *answer = ws->answer[first];
            for (int a = 0; a < 7; a++) {
                if (a < 6 && count[a] == 0) continue;
                const float share = (a < 6 ? count[a] * answer[sigma + 1 + a / 2] : answer[sigma]) * f.c[a][b];
                for (int64_t i = b; i < b + ALIGN; i += VL) store(ws->sum[a] + i, load(ws->sum[a] + i) + share);
            }
            continue;
        }
        const int64_t to = ws->block++;
        if (kind[b / ALIGN] == MIXED) collect_block(l, ws, j, b, field);
        for (int m = 0; m < sigma + 4 && kind[b / ALIGN] != MIXED; m++)
            for (int t = 0; t < ALIGN; t++) field[m][t] = kind[b / ALIGN] == COMMON ? ws->answer[ws->common][m] : 0;
        for (int64_t t = 0; t < ALIGN; t += VL) {
            const int64_t i = b + t;
            const vi active = load(inverse + i) > 0;
            for (int a = 0; a < OMEGA; a++)
                store_coef((coef *)l->blocks + (to * OMEGA + a) * ALIGN + t, load(f.c[a] + i));
            for (int m = 0; m < sigma; m++)
                store_coef((coef *)l->omegas + (l->block_count * m + to) * ALIGN + t,
                           load(field[m] + t) * load(inverse + i));
            store(ws->sum[6] + i, load(ws->sum[6] + i) + load(field[sigma] + t) * load(f.c[6] + i));
            for (int a = 0; a < 6; a++) {
                if (count[a] == 0) continue;
                const vf half_gamma = count[a] * load(field[sigma + 1 + a / 2] + t);
                store(ws->sum[a] + i, load(ws->sum[a] + i) + masked(half_gamma * load(f.c[a] + i), active));
            }
        }
    }
}

/* The sums over the rows of a coarse row in plane k, taken over into the next level. */
static void add_coarse_row(const dcdm_level *l, const dcdm_setup *s, workspace *ws, int64_t k, int64_t j) {
    float *to[7] = {s->c_x, s->share_x, s->c_r, s->share_r, s->c_w, s->share_w, s->c_s};
    const int64_t o = s->c_origin + (place_of(l->place_w, k) >> l->half_w) * s->c_pitch_w +
                      (place_of(l->place_r, j) >> l->half_r) * s->c_pitch_r;
    const int64_t n = l->half_x ? (l->n_x + 1) / 2 : l->n_x;
    const int closed = l->half_x && l->wrap_x && l->n_x == 2;
    if (l->half_x && l->wrap_x && l->n_x % 2) {
        ws->sum[0][l->n_x - 1] *= 2;
        ws->sum[1][l->n_x] = 2 * ws->sum[1][l->n_x - 1];
    }
    for (int a = closed ? 2 : 0; a < 7; a++) {
        float *restrict t = to[a] + o;
        const float *restrict sum = ws->sum[a];
        if (l->place_x)
            for (int64_t i = 0; i < l->n_x; i++) {
                const float count = a == 0   ? low_share(1, 0, l->place_x, l->n_x, i)
                                    : a == 1 ? high_share(1, 0, l->place_x, l->n_x, i)
                                             : 0.5f;
                t[l->place_x[i] >> 1] += 2 * count * sum[i];
            }
        else if (!l->half_x)
            for (int64_t i = 0; i < n; i++) t[i] += sum[i];
        else if (a == 0)
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i];
        else if (a == 1)
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i + 1];
        else
            for (int64_t i = 0; i < n; i++) t[i] += sum[2 * i] + sum[2 * i + 1];
    }
}

/* Rows [begin, end) of plane k; returns how many cells are active that count. `pending`: the rows before have left sums
 * of a coarse row that is not complete. */
static int64_t set_up_strip(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, workspace *ws, int64_t k,
                            int64_t begin, int64_t end, int *pending) {
    int32_t *ranges = s->range + 2 * k * l->n_r;
    int64_t active = 0;
    prepare_memory(ws);
    const int64_t(*own)[2] = s->own;
    for (int64_t j = begin; j < end; j++) {
        const int counts = k >= own[2][0] && k < own[2][1] && j >= own[1][0] && j < own[1][1];
        active += sort_row(l, ws, k, j, ranges + 2 * j, own[0][0], counts ? own[0][1] : own[0][0]);
    }
    for (int list = 0; list < 4; list++)
        if (ws->count[list]) evaluate_list(l, net, ws, k, list);
    for (int64_t j = begin; j < end; j++) {
        const int32_t *range = ranges + 2 * j;
        if (range[0] < range[1]) {
            if (!*pending)
                for (int a = 0; a < 7; a++) memset(ws->sum[a], 0, (size_t)(l->pitch_r + ALIGN) * sizeof(float));
            write_row(l, s, ws, k, j, range);
            *pending = 1;
        }
        if (*pending && (!l->half_r || j == l->n_r - 1 || high_share(1, 0, l->place_r, l->n_r, j) > 0)) {
            add_coarse_row(l, s, ws, k, j);
            *pending = 0;
        }
    }
    return active;
}

static int64_t set_up_plane(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, workspace *ws, int64_t k) {
    const int64_t rows = strip_rows(l);
    int64_t active = 0;
    int pending = 0;
    for (int64_t j = 0; j < l->n_r; j += rows)
        active += set_up_strip(l, net, s, ws, k, j, j + rows < l->n_r ? j + rows : l->n_r, &pending);
    return active;
}

/* Where piece q of the planes begins, all of them of about the same length: at a whole coarse cell. */
INLINE int64_t piece_at(const dcdm_level *l, int64_t q, int64_t pieces) {
    const int64_t k = (l->n_w * q + pieces - 1) / pieces;
    return k >= l->n_w ? l->n_w : k + (l->half_w && k > 0 && place_of(l->place_w, k) & 1);
}

typedef struct {
    dcdm_level l;
    const dcdm_network *net;
    dcdm_setup *s;
    char *memory;
    int64_t pieces, next, active; /* pieces, the next one to work on; active cells so far */
    int parts;
} set_up;

/* Pieces as long as there are any. */
static void set_up_part(void *arguments, int part) {
    set_up *u = arguments;
    const dcdm_level *l = &u->l;
    int64_t active = 0;
    workspace ws;
    char *memory = u->memory + part * dcdm_setup_bytes(l);
    carve(l, memory, &ws);
    memset(memory, 0, (size_t)ws.zeros); /* by the one who works on it */
    ws.network = u->s->prepared;
    for (int64_t q; (q = __atomic_fetch_add(&u->next, 1, __ATOMIC_RELAXED)) < u->pieces;) {
        /* An answer has other last bits among others: what is kept must not depend on who had which pieces before. */
        ws.common = -1;
        ws.forgetful = ws.lookups = ws.misses = 0;
        forget(&ws);
        const int64_t begin = piece_at(l, q, u->pieces), end = piece_at(l, q + 1, u->pieces);
        load_plane(l, u->s, &ws, begin - 1);
        for (int64_t k = begin - 1; k <= end; k++) {
            load_plane(l, u->s, &ws, k + 1);
            survey_plane(l, &ws, k);
            if (k > begin) active += set_up_plane(l, u->net, u->s, &ws, k - 1);
        }
    }
    __atomic_fetch_add(&u->active, active, __ATOMIC_RELAXED);
}

int64_t dcdm_prepared_bytes(void) { return sizeof(prepared); }

/* What dcdm_set_up is to have of a network: to `to`, at a cache line. half: coarsened axes; has_r as of a level. */
void dcdm_prepare(const dcdm_network *net, int half_x, int half_r, int half_w, int has_r, void *to) {
    prepare(net, (half_x ? 1 : 0) | (half_r ? 2 : 0) | (half_w ? 4 : 0), has_r, to);
}

/* Set up one level. `memory`: dcdm_setup_bytes for each thread. */
void dcdm_set_up(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, char *memory, int threads) {
    s->classes = 1, s->taken = s->lock = 0;
    /* A piece begins with three planes that its neighbour reads too. The number of threads is of no account: an answer
     * has other last bits in other pieces. As a rule it divides their number. */
    const int64_t part = l->n_w / 16, piece = l->n_w < 16 ? 4 : part < 8 ? 8 : part + (part & 1);
    set_up u = {.l = *l, .net = net, .s = s, .memory = memory, .parts = threads};
    u.pieces = (l->n_w + piece - 1) / piece;
    if (l->n_w >= 16) u.pieces = (u.pieces + 3) / 4 * 4;
    dcdm_run(set_up_part, &u, sizeof u, threads);
    s->active = u.active;
}

typedef struct {
    dcdm_level l;
    const dcdm_setup *s;
    int parts;
} joining;

static void join_part(void *arguments, int part) {
    const joining *g = arguments;
    const dcdm_level *l = &g->l;
    const dcdm_setup *s = g->s;
    float *to[3] = {s->c_x, s->c_r, s->c_w};
    const float *share[3] = {s->share_x, s->share_r, s->share_w};
    for (int64_t k = first_of(l->n_w, part, g->parts); k < first_of(l->n_w, part + 1, g->parts); k++)
        for (int64_t j = 0; j < l->n_r; j++)
            for (int a = 0; a < 3; a++) {
                if (a == 1 && !l->has_r) continue;
                const int64_t o = l->origin + k * l->pitch_w + j * l->pitch_r;
                const int64_t back[3] = {-1, row_below(l, j), (plane_of(l, k - 1) - k) * l->pitch_w};
                float *restrict t = to[a] + o;
                const float *restrict from = share[a] + o + back[a];
                for (int64_t i = 0; i < l->n_x; i++) t[i] += from[i];
                if (a == 0 && l->wrap_x) t[0] += from[l->n_x];
            }
}

/* The shares of the low neighbours join the coarse conductances; `l` is the next level: its shape, layout and rings
 * count. */
void dcdm_join_shares(const dcdm_level *l, const dcdm_setup *s, int threads) {
    const int parts = l->n_w * l->n_r * l->n_x < 1 << 14 ? 1 : threads;
    joining g = {*l, s, parts};
    dcdm_run(join_part, &g, sizeof g, parts);
}
