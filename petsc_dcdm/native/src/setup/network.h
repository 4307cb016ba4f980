/* The field network at a handful of cells, whose (at most 16) channels are in as many vectors as that takes: each weight
 * that is fetched serves all these cells, each feature all channels. Included by fields.c. */
#ifndef DCDM_NETWORK_H
#define DCDM_NETWORK_H

#include "common.h"
#include "setup.h"

enum { PARTS = CHANNELS / VL }; /* vectors that hold the channels of a cell */
/* Cells at a time: as many as there are registers for their channels, one weight each and a feature. */
#if defined(__AVX512F__)
enum { DENSE = 12, SPARSE = 6 };
#elif defined(__AVX__) || defined(__aarch64__)
enum { DENSE = 6, SPARSE = 6 };
#else
enum { DENSE = 2, SPARSE = 2 };
#endif

/* Loops over a handful of cells, which must leave no loop: their accumulators are to be registers. */
#define EACH(c, n) _Pragma("GCC unroll 16") for (int c = 0; c < (n); c++)

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (v8i){__VA_ARGS__})
#endif

/* Row and column change places. */
INLINE void transpose(v8 m[8]) {
    v8 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(m[i], m[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(m[i], m[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            u[i + 2 * h] = SHUFFLE(t[i + h], t[i + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * h + 1] = SHUFFLE(t[i + h], t[i + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        m[i] = SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        m[i + 4] = SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Instructions by name: the header that has them as functions takes the compiler as long as a third of this file. */
#if defined(__AVX512BF16__) && HALF
enum { PAIRS = 1 };
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef uint16_t h16 __attribute__((vector_size(32)));
#else
enum { PAIRS = 0 };
#endif

/* What is made of a network once for a level. Where all cells around have no s and are active, those two features need
 * no looking at: their part of the convolution is in plain_bias [parity]. Where the processor multiplies pairs of
 * bfloat16, and coefficients are to be no better than that, the network is in PAIRS. */
typedef struct {
    float plain_bias[8][CHANNELS];
    uint16_t conv[8][9][3][FEATURES / 2][2 * CHANNELS];
    uint16_t layer[2][CHANNELS / 2][2 * CHANNELS];
} prepared;

/* How many floats the features of a cell take. */
INLINE int64_t feature_size(void) { return PAIRS ? FEATURES / 2 : FEATURES; }

INLINE uint16_t to_half(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

static void prepare(const dcdm_network *net, int has_r, prepared *to) {
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    for (int q = 0; q < 2 * PAIRS; q++)
        for (int t = 0; t < CHANNELS; t++)
            for (int c = 0; c < CHANNELS; c++) to->layer[q][t / 2][2 * c + t % 2] = to_half(layer[q][t][c]);
    for (int parity = 0; parity < 8; parity++)
        for (int c = 0; c < CHANNELS; c++) {
            float sum = net->conv_bias[c];
            for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3)
                for (int x = 0; x < 3; x++) sum += net->conv[parity][b][FEATURES * x + FEATURES - 1][c];
            to->plain_bias[parity][c] = sum;
            for (int b = 0; b < 9 && PAIRS; b++)
                for (int x = 0; x < 3; x++)
                    for (int f = 0; f < FEATURES; f++)
                        to->conv[parity][b][x][f / 2][2 * c + f % 2] =
                            to_half(net->conv[parity][b][FEATURES * x + f][c]);
        }
}

/* The features of 8 cells, [cell], to where those of the first are to be. */
INLINE void put_features(const prepared *p, float *to, const v8 m[8]) {
    (void)p;
#if defined(__AVX512BF16__) && HALF
    if (PAIRS) {
        for (int c = 0; c < 8; c++) {
            h8 h;
            __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(m[c]));
            memcpy(to + FEATURES / 2 * c, &h, sizeof h);
        }
        return;
    }
#endif
    memcpy(to, m, 8 * sizeof *m);
}

/* Channels of a cell to where the next layer finds them. */
INLINE void put_channels(float *to, vf v) {
#if defined(__AVX512BF16__) && HALF
    h16 h;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(v));
    memcpy(to, &h, sizeof h);
#else
    store(to, v);
#endif
}

/* 1 / v, to the precision that is left. */
INLINE vf inverse_of(vf v) {
#if defined(__AVX512BF16__) && HALF
    vf inverse;
    __asm__("vrcp14ps %1, %0" : "=v"(inverse) : "v"(v));
    return inverse;
#else
    return 1 / v;
#endif
}

/* To the sum of a cell what one of its features adds, or a pair of them. */
INLINE void add_feature(vf sum[PARTS], const vf weights[PARTS], const float *feature) {
#if defined(__AVX512BF16__) && HALF
    int32_t pair;
    memcpy(&pair, feature, sizeof pair);
    const vi pairs = pair - (vi){0}; /* as an operand in memory it would take half as long again */
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum[0]) : "v"(weights[0]), "v"(pairs));
#else
    const vf x = splat(*feature);
    EACH(p, PARTS) sum[p] += weights[p] * x;
#endif
}

INLINE void load_channels(vf to[PARTS], const void *from) {
    EACH(p, PARTS) to[p] = load((const float *)from + VL * p);
}

/* The network at n cells, at most DENSE, to answer[wanted[c]]. Features of cell c start at from[b] + cell[c] for row b
 * of the convolution. If `dense` the cells lie `step` floats apart, which leaves all offsets to the compiler. plain:
 * two features less are looked at. */
INLINE void evaluate(const dcdm_network *net, const prepared *p, int parity, const float *const *from, int has_r,
                     const int64_t *cell, int64_t step, const int n, const int dense, const int plain,
                     float (*answer)[CHANNELS], const int32_t *wanted) {
    const int size = PAIRS ? FEATURES / 2 : FEATURES, inputs = plain ? size * (FEATURES - 2) / FEATURES : size;
    vf w[PARTS], sum[DENSE][PARTS];
    load_channels(w, plain ? p->plain_bias[parity] : net->conv_bias);
    EACH(c, n) EACH(q, PARTS) sum[c][q] = w[q];
    for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3) {
        const float *x[DENSE];
        EACH(c, n) x[c] = from[b] + (dense ? cell[0] + c * step : cell[c]);
        for (int t = 0; t < 3; t++)
            for (int f = 0; f < inputs; f++) {
                load_channels(w, PAIRS ? (const void *)p->conv[parity][b][t][f]
                                       : (const void *)net->conv[parity][b][FEATURES * t + f]);
                EACH(c, n) add_feature(sum[c], w, x[c] + size * t + f);
            }
    }
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    const float *bias[2] = {net->hidden_bias, net->out_bias};
    for (int m = 0; m < 2; m++) {
        float hidden[DENSE][CHANNELS] __attribute__((aligned(64)));
        EACH(c, n) EACH(q, PARTS) put_channels(hidden[c] + VL * q, masked(sum[c][q], sum[c][q] > 0));
        load_channels(w, bias[m]);
        EACH(c, n) EACH(q, PARTS) sum[c][q] = w[q];
        for (int t = 0; t < (PAIRS ? CHANNELS / 2 : CHANNELS); t++) {
            load_channels(w, PAIRS ? (const void *)p->layer[m][t] : (const void *)layer[m][t]);
            EACH(c, n) add_feature(sum[c], w, hidden[c] + t);
        }
    }
    load_channels(w, net->base);
    EACH(c, n) EACH(q, PARTS) {
        const vf v = sum[c][q], magnitude = (vf)((vi)v & 0x7FFFFFFF);
        store(answer[wanted[c]] + VL * q, w[q] * (1 + 0.9f * (v * inverse_of(1 + magnitude))));
    }
}

#define EVALUATE(cell, step, n, dense)                                                                              \
    do {                                                                                                            \
        if (plain) evaluate(net, p, parity, from, has_r, cell, (step) * feature_size(), n, dense, 1, answer, wanted); \
        else evaluate(net, p, parity, from, has_r, cell, (step) * feature_size(), n, dense, 0, answer, wanted);     \
    } while (0)

/* DENSE cells in a row, all or every second one. plain: nothing around any of them has an s or is inactive. */
static NOINLINE void evaluate_dense(const dcdm_network *net, const prepared *p, int plain, int parity,
                                    const float *const *from, int has_r, int64_t first, int half_x,
                                    float (*answer)[CHANNELS], const int32_t *wanted) {
    if (half_x) EVALUATE(&first, 2, DENSE, 1);
    else EVALUATE(&first, 1, DENSE, 1);
}

/* SPARSE cells anywhere. */
static NOINLINE void evaluate_sparse(const dcdm_network *net, const prepared *p, int plain, int parity,
                                     const float *const *from, int has_r, const int64_t *cell,
                                     float (*answer)[CHANNELS], const int32_t *wanted) {
    EVALUATE(cell, 0, SPARSE, 0);
}

#endif
