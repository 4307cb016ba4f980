/* Set-up of one level, second half: the network wherever its answer is not known yet. Included by fields.c. */
#ifndef DCDM_EVALUATE_H
#define DCDM_EVALUATE_H

#include "survey.h"

/* Features of row j (-1 .. n_r) of plane k, those pieces of it that are `wanted` and not made yet. */
static void make_features(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, uint64_t wanted) {
    uint64_t *made = ws->made + flag(l, k, j), missing = wanted & ~*made;
    if (!missing) return;
    *made |= missing;
    uint64_t *odd = ws->odd + flag(l, k, j);
    *odd &= ~missing;
    const int64_t piece = (int64_t)1 << ws->piece, o = at(ws, k) + j * l->pitch_r;
    const faces f = faces_at(l, ws, k, j);
    const float *inverse = ws->inverse + o;
    float *restrict to = ws->features + FEATURE_SIZE * o;
    for (int64_t q = 0; q < 64 && missing >> q; q++) {
        if (!(missing >> q & 1)) continue;
        const int64_t end = (q + 1) * piece - 1 < l->n_x + 1 ? (q + 1) * piece - 1 : l->n_x + 1;
        int some = 0;
        int64_t i = q * piece - 1;
        v8i any = {0};
        for (; i + 8 <= end; i += 8) {
            v8 m[8], scale, s;
            memcpy(&scale, inverse + i, sizeof scale);
            memcpy(&s, f.c[6] + i, sizeof s);
            any |= (scale == 0) | (s != 0);
            EACH(a, 7) {
                v8 c; /* in a register: what goes to memory in two halves is waited for where it is read as one */
                memcpy(&c, f.c[a] + i, sizeof c);
                m[a] = c * scale;
            }
            m[7] = (v8)((scale > 0) & (v8i)(1 + (v8){0}));
            transpose(m);
            put_features(to + FEATURE_SIZE * i, m);
        }
        for (int t = 0; t < 8; t++) some |= any[t] != 0;
        for (; i < end; i++) {
            const float scale = inverse[i];
            float m[FEATURES];
            some |= (scale == 0) | (f.c[6][i] != 0);
            for (int a = 0; a < FEATURES; a++) m[a] = a < 7 ? f.c[a][i] * scale : scale > 0;
            put_feature(to + FEATURE_SIZE * i, m);
        }
        *odd |= (uint64_t)some << q;
    }
}

/* Where the features around the cells of plane k are, by row of the convolution, for a cell at element 0 of the plane.
 */
static void feature_rows(const dcdm_level *l, const workspace *ws, int64_t k, const float **from) {
    for (int64_t w = -1; w <= 1; w++)
        for (int64_t r = -1; r <= 1; r++)
            from[3 * (w + 1) + r + 1] =
                ws->features + FEATURE_SIZE * (at(ws, k + w) + r * l->pitch_r * l->has_r - 1);
}

/* Make what the network looks at around the cells from `element` of plane k to `span` further on. Returns whether some
 * of it is odd. */
static int make_around(const dcdm_level *l, workspace *ws, int64_t k, int64_t element, int64_t span) {
    const int64_t j = (int32_t)element / (int32_t)l->pitch_r, i = element - j * l->pitch_r;
    const uint64_t from = i >> ws->piece, to = (i + span + 2) >> ws->piece; /* cell i is place i + 1 of its row */
    const uint64_t wanted = (((uint64_t)2 << (to - from)) - 1) << from;
    uint64_t odd = 0;
    for (int64_t w = -1; w <= 1; w++)
        for (int64_t r = -l->has_r; r <= l->has_r; r++) {
            make_features(l, ws, k + w, j + r, wanted);
            odd |= ws->odd[flag(l, k + w, j + r)] & wanted;
        }
    return odd != 0;
}

/* Which parity kernel the cells of a list are for. */
INLINE int parity_of(const dcdm_level *l, int64_t k, int list) {
    const int x = l->half_x ? list & 1 : 0, r = l->half_r ? list >> l->half_x : 0;
    return x + 2 * r + 4 * (l->half_w && (place_of(l->place_w, k) & 1));
}

/* The list of the cells of row j that have an even place. */
INLINE int even_list(const dcdm_level *l, int64_t j) {
    return l->half_r && place_of(l->place_r, j) & 1 ? 1 << l->half_x : 0;
}

/* The network at cells that lie anywhere in plane k, n of them at most SPARSE. */
static void evaluate_some(const dcdm_level *l, const dcdm_network *net, workspace *ws, const float *const *from,
                          int64_t k, int list, const int32_t *element, int n, const int32_t *wanted) {
    int64_t cell[SPARSE];
    int32_t place[SPARSE];
    for (int c = 0; c < SPARSE; c++) {
        cell[c] = FEATURE_SIZE * element[c < n ? c : n - 1];
        place[c] = wanted[c < n ? c : n - 1];
    }
    int odd = 0;
    for (int c = 0; c < n; c++) odd |= make_around(l, ws, k, element[c], 0);
    evaluate_sparse(net, ws->network, !odd, parity_of(l, k, list), from, (int)l->has_r, cell, ws->answer, place);
}

/* Whether DENSE cells of a list follow each other in steps. Where a place is left out a step may be shorter than the
 * others, and another one longer. */
INLINE int are_dense(const dcdm_level *l, const int32_t *cell, int step) {
    int dense = cell[DENSE - 1] - cell[0] == step * (DENSE - 1);
    for (int c = 1; c < DENSE && dense && l->place_x; c++) dense = cell[c] - cell[c - 1] == step;
    return dense;
}

/* The network at all cells of one list of a strip of plane k. */
static void evaluate_list(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int list) {
    const float *from[9];
    const int32_t *cell = ws->cell[list], *wanted = ws->wanted[list];
    const int count = ws->count[list], step = l->half_x ? 2 : 1;
    int32_t waiting[SPARSE], place[SPARSE];
    int n = 0;
    feature_rows(l, ws, k, from);
    for (int q = 0; q < count;) {
        if (q + DENSE <= count && are_dense(l, cell + q, step)) {
            const int odd = make_around(l, ws, k, cell[q], step * (DENSE - 1));
            evaluate_dense(net, ws->network, !odd, parity_of(l, k, list), from, (int)l->has_r,
                           FEATURE_SIZE * cell[q], (int)l->half_x, ws->answer, wanted + q);
            q += DENSE;
            continue;
        }
        waiting[n] = cell[q], place[n++] = wanted[q++];
        if (n == SPARSE) evaluate_some(l, net, ws, from, k, list, waiting, n, place), n = 0;
    }
    if (n) evaluate_some(l, net, ws, from, k, list, waiting, n, place);
}

INLINE uint32_t bucket_of(uint32_t around) { return around * 0x9E3779B1u >> 19; }

/* Forget all answers but the common one. */
static void forget(workspace *ws) {
    memset(ws->bucket, 0, BUCKETS * sizeof *ws->bucket);
    ws->kept = ws->common >= 0;
    if (!ws->kept) return;
    memcpy(ws->answer[0], ws->answer[ws->common], sizeof *ws->answer);
    ws->known[0] = ws->known[ws->common], ws->class[0] = ws->class[ws->common];
    ws->even[0] = 1, ws->common = 0, ws->bucket[bucket_of(ws->known[0])] = 1;
}

/* Before a strip: make room, and see whether answers are worth keeping. */
static void prepare_memory(workspace *ws) {
    if (ws->lookups > 1000) {
        ws->forgetful = ws->misses > ws->lookups / 2;
        ws->lookups = ws->misses = 0;
    }
    if (ws->kept > MEMORY / 2) forget(ws);
    ws->others = 0;
    memset(ws->count, 0, sizeof ws->count);
}

/* Place of the answer for cell i of row (k, j), which is to be evaluated if it is not kept. list: which one it is for,
 * around: the hash of the cells around it, even: they are all the same; then its parity does not matter. */
static int32_t find_answer(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, int64_t i, int list,
                           uint32_t around, int even) {
    int32_t place = -1;
    if (!ws->forgetful) {
        if (!even) around += 0x632BE5ABu * (uint32_t)(1 + parity_of(l, k, list));
        uint32_t b = bucket_of(around);
        while (ws->bucket[b] && ws->known[ws->bucket[b] - 1] != around) b = (b + 1) % BUCKETS;
        ws->lookups++;
        if (ws->bucket[b]) return ws->bucket[b] - 1;
        ws->misses++;
        if (ws->kept < MEMORY) {
            place = ws->kept++;
            ws->bucket[b] = (uint16_t)ws->kept;
            ws->known[place] = around, ws->even[place] = (uint8_t)even, ws->class[place] = 0;
            if (even && ws->common < 0) ws->common = place;
        }
    }
    if (place < 0) place = MEMORY + ws->others++;
    ws->wanted[list][ws->count[list]] = place;
    ws->cell[list][ws->count[list]++] = (int32_t)(j * l->pitch_r + i);
    return place;
}

/* What part of row (k, j) has active cells, and how many in [begin, end); where their answers are or will be. */
static int64_t sort_row(const dcdm_level *l, workspace *ws, int64_t k, int64_t j, int32_t *range, int64_t begin,
                        int64_t end) {
    range[0] = range[1] = 0;
    uint8_t *kind = ws->kind + j * blocks_of(l);
    if (ws->empty[flag(l, k, j)]) {
        memset(kind, EMPTY, (size_t)blocks_of(l));
        return 0;
    }
    const uint32_t all = (WEIGHT[0][0] + WEIGHT[0][1] + WEIGHT[0][2]) *
                         (l->has_r ? WEIGHT[1][0] + WEIGHT[1][1] + WEIGHT[1][2] : 1) *
                         (WEIGHT[2][0] + WEIGHT[2][1] + WEIGHT[2][2]);
    const int64_t o = j * l->pitch_r;
    const float *inverse = ws->inverse + at(ws, k) + o;
    const uint32_t *id = ws->id + at(ws, k) + o;
    const uint32_t *below = ws->patch + at(ws, k - 1) + o, *here = ws->patch + at(ws, k) + o,
                   *above = ws->patch + at(ws, k + 1) + o;
    int32_t *code = ws->code + ws->origin + o;
    const int32_t *places = l->place_x;
    const int64_t half = l->half_x ? 1 : 0;
    const int first = even_list(l, j);
    int64_t active = 0;
    for (int32_t block = 0; block < l->n_x; block += ALIGN) {
        const int32_t n = block + ALIGN < l->n_x ? ALIGN : (int32_t)l->n_x - block;
        const int common = ws->common >= 0 && !ws->forgetful;
        const uint32_t known = common ? ws->known[ws->common] : 0;
        uint32_t around[ALIGN] __attribute__((aligned(64))), other = 0;
        int some = 0;
        for (int t = 0; t < ALIGN; t += VL) {
            const int64_t i = block + t;
            store_hashes(around + t, WEIGHT[2][0] * load_hashes(below + i) + WEIGHT[2][1] * load_hashes(here + i) +
                                         WEIGHT[2][2] * load_hashes(above + i));
        }
        for (int t = 0; t < ALIGN; t++) other |= around[t] ^ known;
        for (int t = 0; t < n; t++) some += inverse[block + t] > 0;
        kind[block / ALIGN] = !some ? EMPTY : common && !other && n == ALIGN ? COMMON : MIXED;
        if (!some) continue;
        if (!range[1]) range[0] = block;
        range[1] = block + ALIGN;
        if (begin <= block && block + n <= end) active += some;
        else
            for (int64_t i = block; i < block + n; i++) active += i >= begin && i < end && inverse[i] > 0;
        for (int t = 0; t < ALIGN && kind[block / ALIGN] == MIXED; t++) {
            const int64_t i = block + t;
            code[i] = -1;
            if (t >= n || !(inverse[i] > 0)) continue;
            const int list = first + (int)(place_of(places, i) & half);
            code[i] = find_answer(l, ws, k, j, i, list, around[t], around[t] == all * id[i]);
        }
    }
    return active;
}

/* The fields of a block of row j that begins at cell i; 0 at inactive cells. */
static void collect_block(const dcdm_level *l, workspace *ws, int64_t j, int64_t i, float field[CHANNELS][ALIGN]) {
    const int outputs = (int)l->steps + 4;
    const int32_t *code = ws->code + ws->origin + j * l->pitch_r + i;
    for (int t = 0; t < ALIGN; t += 8)
        for (int first = 0; first < outputs; first += 8) {
            v8 m[8];
            EACH(c, 8) {
                v8 answer = {0};
                if (code[t + c] >= 0) memcpy(&answer, ws->answer[code[t + c]] + first, sizeof answer);
                m[c] = answer;
            }
            transpose(m);
            for (int c = 0; c < 8; c++) memcpy(field[first + c] + t, &m[c], sizeof m[c]);
        }
}

#endif
