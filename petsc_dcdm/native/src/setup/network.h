/* The field network at a handful of cells: one vector holds the (at most 16) channels of a cell. Included by fields.c.
 */
#ifndef DCDM_NETWORK_H
#define DCDM_NETWORK_H

#include "common.h"
#include "setup.h"

typedef float v16 __attribute__((vector_size(4 * CHANNELS)));
typedef int32_t v16i __attribute__((vector_size(4 * CHANNELS)));
#if defined(__AVX512F__)
enum { DENSE = 12, SPARSE = 6 }; /* cells at a time: as many accumulators as there are registers for */
#else
enum { DENSE = 6, SPARSE = 6 };
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

/* The channels of a cell to where the next layer finds them. */
INLINE void put_channels(float *to, v16 v, const int half) {
    (void)half;
#if defined(__AVX512BF16__) && HALF
    if (half) {
        h16 h;
        __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(v));
        memcpy(to, &h, sizeof h);
        return;
    }
#endif
    memcpy(to, &v, sizeof v);
}

/* 1 / v, to the precision that is left. */
INLINE v16 inverse_of(v16 v, const int half) {
    (void)half;
#if defined(__AVX512BF16__) && HALF
    if (half) {
        v16 inverse;
        __asm__("vrcp14ps %1, %0" : "=v"(inverse) : "v"(v));
        return inverse;
    }
#endif
    return 1 / v;
}

/* sum + what one feature adds, or a pair of them, of a cell. */
INLINE v16 add_feature(v16 sum, const void *weights, const float *feature, const int half) {
    v16 w;
    memcpy(&w, weights, sizeof w);
    (void)half;
#if defined(__AVX512BF16__) && HALF
    if (half) {
        int32_t pair;
        memcpy(&pair, feature, sizeof pair);
        const v16i pairs = pair - (v16i){0}; /* as an operand in memory it would take half as long again */
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(pairs));
        return sum;
    }
#endif
    return sum + w * *feature;
}

/* The network at n cells, at most DENSE. Features of cell c start at from[b] + cell[c] for row b of the convolution.
 * If `dense` the cells lie `step` floats apart, which leaves all offsets to the compiler. plain: two features less are
 * lookups at. */
INLINE void evaluate(const dcdm_network *net, const prepared *p, int parity, const float *const *from, int has_r,
                     const int64_t *cell, int64_t step, const int n, const int dense, const int plain, const int half,
                     v16 *to) {
    const int size = half ? FEATURES / 2 : FEATURES, inputs = plain ? size * (FEATURES - 2) / FEATURES : size;
    v16 w, sum[DENSE];
    memcpy(&w, plain ? p->plain_bias[parity] : net->conv_bias, sizeof w);
    EACH(c, n) sum[c] = w;
    for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3) {
        const float *x[DENSE];
        EACH(c, n) x[c] = from[b] + (dense ? cell[0] + c * step : cell[c]);
        for (int t = 0; t < 3; t++)
            for (int f = 0; f < inputs; f++) {
                const void *weights = half ? (const void *)p->conv[parity][b][t][f]
                                           : (const void *)net->conv[parity][b][FEATURES * t + f];
                EACH(c, n) sum[c] = add_feature(sum[c], weights, x[c] + size * t + f, half);
            }
    }
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    const float *bias[2] = {net->hidden_bias, net->out_bias};
    for (int q = 0; q < 2; q++) {
        float hidden[DENSE][CHANNELS] __attribute__((aligned(64)));
        EACH(c, n) {
            put_channels(hidden[c], (v16)((sum[c] > 0) & (v16i)sum[c]), half);
        }
        memcpy(&w, bias[q], sizeof w);
        EACH(c, n) sum[c] = w;
        for (int t = 0; t < (half ? CHANNELS / 2 : CHANNELS); t++) {
            const void *weights = half ? (const void *)p->layer[q][t] : (const void *)layer[q][t];
            EACH(c, n) sum[c] = add_feature(sum[c], weights, hidden[c] + t, half);
        }
    }
    memcpy(&w, net->base, sizeof w);
    EACH(c, n) {
        const v16 magnitude = (v16)((v16i)sum[c] & 0x7FFFFFFF);
        to[c] = w * (1 + 0.9f * (sum[c] * inverse_of(1 + magnitude, half)));
    }
}

#define EVALUATE(cell, step, n, dense)                                                                                \
    do {                                                                                                              \
        if (plain) evaluate(net, p, parity, from, has_r, cell, (step) * feature_size(), n, dense, 1, PAIRS, to);      \
        else evaluate(net, p, parity, from, has_r, cell, (step) * feature_size(), n, dense, 0, PAIRS, to);            \
    } while (0)

/* DENSE cells in a row, all or every second one. plain: nothing around any of them has an s or is inactive. */
static NOINLINE void evaluate_dense(const dcdm_network *net, const prepared *p, int plain, int parity,
                                    const float *const *from, int has_r, int64_t first, int half_x, v16 *to) {
    if (half_x) EVALUATE(&first, 2, DENSE, 1);
    else EVALUATE(&first, 1, DENSE, 1);
}

/* SPARSE cells anywhere. */
static NOINLINE void evaluate_sparse(const dcdm_network *net, const prepared *p, int plain, int parity,
                                     const float *const *from, int has_r, const int64_t *cell, v16 *to) {
    EVALUATE(cell, 0, SPARSE, 0);
}

#endif
