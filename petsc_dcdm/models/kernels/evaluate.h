/* Set-up of one level, second half: the network wherever its answer is not known yet. Included by fields.c. */
#ifndef DCDM_EVALUATE_H
#define DCDM_EVALUATE_H

#include "survey.h"

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

/* What part of row (k, j) has active cells, and how many in [begin, end); which of them have a known answer, and which must be
 * evaluated. */
static int64_t sort_row(const dcdm_level *l, const dcdm_network *net, workspace *ws, int64_t k, int64_t j, int32_t *range, int64_t begin,
                        int64_t end) {
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
        if (begin <= block && stop <= end) active += some;
        else
            for (int32_t i = block; i < stop; i++) active += i >= begin && i < end && inverse[i] > 0;
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

#endif
