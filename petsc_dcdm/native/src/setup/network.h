/* The field network at a handful of cells, whose channels, at most 16, are in as many vectors as that takes: each
 * weight that is fetched serves all these cells, each feature all channels. Included by fields.c. */
#ifndef DCDM_NETWORK_H
#define DCDM_NETWORK_H

#include "common.h"
#include "setup.h"

enum { PARTS = CHANNELS / VL }; /* vectors that hold the channels of a cell */
/* Cells at a time: as many as there are registers for their channels, one weight each and a feature. */
#if defined(__AVX512F__)
enum { DENSE = 8, SPARSE = 6 };
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
    _Pragma("GCC unroll 4") for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(m[i], m[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(m[i], m[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4)
        EACH(h, 2) {
            u[i + 2 * h] = SHUFFLE(t[i + h], t[i + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * h + 1] = SHUFFLE(t[i + h], t[i + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    EACH(i, 4) {
        m[i] = SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        m[i + 4] = SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Instructions by name: the header that has them as functions takes the compiler as long as a third of this file. Where
 * the processor multiplies pairs of bfloat16, and coefficients are to be no better than that, the network is in PAIRS:
 * a step of a layer adds two numbers of a cell to its channels, else one. PAIRS=0 tells that it is slow at that. */
#if !defined(PAIRS) && defined(__AVX512BF16__) && HALF
#define PAIRS 1
#else
#undef PAIRS
#define PAIRS 0
#endif
#if PAIRS
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef uint16_t h16 __attribute__((vector_size(32)));
enum { OTHER = FEATURES / 2, PLAIN = OTHER - 1, DEEP = CHANNELS / 2 }; /* steps, see below */
#else
enum { OTHER = FEATURES - 1, PLAIN = FEATURES - 3, DEEP = CHANNELS };
#endif
/* Floats that the features of a cell take. */
enum { FEATURE_SIZE = PAIRS ? FEATURES / 2 : FEATURES };

/* What is made of a network once for a level: steps of the convolution for each parity and neighbour, and of the deeper
 * layers. PLAIN steps do where all cells around are active and have no s, the last two features: what is always the
 * same is in the bias. One feature less is looked at if it is not for pairs, since the first seven of an active cell
 * add up to one, which the eighth is, and those of others to zero. */
typedef struct {
    float plain_bias[8][CHANNELS], plain[8][9][3][PLAIN][CHANNELS], other[8][9][3][OTHER][CHANNELS];
    float layer[2][DEEP][CHANNELS];
} prepared;

#if PAIRS
INLINE uint16_t to_half(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

/* Steps of pairs from weights [number of a cell][channel]. */
static void pair_up(const float (*from)[CHANNELS], int steps, float (*to)[CHANNELS]) {
    EACH(f, steps) {
        uint16_t pair[2 * CHANNELS];
        for (int c = 0; c < CHANNELS; c++)
            pair[2 * c] = to_half(from[2 * f][c]), pair[2 * c + 1] = to_half(from[2 * f + 1][c]);
        memcpy(to[f], pair, sizeof pair);
    }
}
#endif

/* The steps for one neighbour; `from` are the weights of its features. Returns in `bias` what is always there. */
INLINE void prepare_neighbour(const float (*from)[CHANNELS], float *bias, float (*plain)[CHANNELS],
                              float (*other)[CHANNELS]) {
    enum { S = FEATURES - 2, ACTIVE = FEATURES - 1 };
#if PAIRS
    for (int c = 0; c < CHANNELS; c++) bias[c] += from[ACTIVE][c];
    pair_up(from, PLAIN, plain);
    pair_up(from, OTHER, other);
#else
    for (int c = 0; c < CHANNELS; c++) {
        bias[c] += from[PLAIN][c] + from[ACTIVE][c];
        for (int f = 0; f < PLAIN; f++) plain[f][c] = from[f][c] - from[PLAIN][c];
        for (int f = 0; f <= S; f++) other[f][c] = from[f][c] + from[ACTIVE][c];
    }
#endif
}

/* `parities`: bits 0, 1, 2 of the axes x, r, w that are coarsened. */
static void prepare(const dcdm_network *net, int parities, int has_r, prepared *to) {
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    for (int m = 0; m < 2; m++)
#if PAIRS
        pair_up(layer[m], DEEP, to->layer[m]);
#else
        memcpy(to->layer[m], layer[m], sizeof to->layer[m]);
#endif
    for (int parity = 0; parity < 8; parity++) {
        if (parity & ~parities) continue;
        float bias[CHANNELS];
        memcpy(bias, net->conv_bias, sizeof bias);
        for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3)
            for (int x = 0; x < 3; x++)
                prepare_neighbour(net->conv[parity][b] + FEATURES * x, bias, to->plain[parity][b][x],
                                  to->other[parity][b][x]);
        memcpy(to->plain_bias[parity], bias, sizeof bias);
    }
}

/* The features of 8 cells, [cell], to where those of the first are to be. */
INLINE void put_features(float *to, const v8 m[8]) {
#if PAIRS
    for (int c = 0; c < 8; c++) {
        h8 h;
        __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(m[c]));
        memcpy(to + FEATURE_SIZE * c, &h, sizeof h);
    }
#else
    memcpy(to, m, 8 * sizeof *m);
#endif
}

/* Those of one cell. */
INLINE void put_feature(float *to, const float m[FEATURES]) {
#if PAIRS
    uint16_t half[FEATURES];
    for (int a = 0; a < FEATURES; a++) half[a] = to_half(m[a]);
    memcpy(to, half, sizeof half);
#else
    memcpy(to, m, FEATURES * sizeof *m);
#endif
}

/* Channels of a cell to where the next layer finds them. */
INLINE void put_channels(float *to, vf v) {
#if PAIRS
    h16 h;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(v));
    memcpy(to, &h, sizeof h);
#else
    store(to, v);
#endif
}

/* 1 / v, to the precision that is left. */
INLINE vf inverse_of(vf v) {
#if PAIRS
    vf inverse;
    __asm__("vrcp14ps %1, %0" : "=v"(inverse) : "v"(v));
    return inverse;
#else
    return 1 / v;
#endif
}

/* One step of a layer at one cell, whose number or pair of numbers it is. */
INLINE void add_step(vf sum[PARTS], const vf weights[PARTS], const float *number) {
#if PAIRS
    int32_t pair;
    memcpy(&pair, number, sizeof pair);
    const vi pairs = pair - (vi){0}; /* as an operand in memory it would take half as long again */
    vf to = sum[0];
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(to) : "v"(weights[0]), "v"(pairs));
    sum[0] = to;
#else
    const vf x = splat(*number);
    EACH(p, PARTS) sum[p] = add_product(sum[p], weights[p], x);
#endif
}

INLINE void load_channels(vf to[PARTS], const float *from) { EACH(p, PARTS) to[p] = load(from + VL * p); }

/* The network at n cells, at most DENSE, to answer[wanted[c]]. Features of cell c start at from[b] + cell[c] for row b
 * of the convolution. If `dense` the cells lie `step` floats apart, which leaves all offsets to the compiler. */
INLINE void evaluate(const dcdm_network *net, const prepared *p, int parity, const float *const *from, int has_r,
                     const int64_t *cell, int64_t step, const int n, const int dense, const int plain,
                     float (*answer)[CHANNELS], const int32_t *wanted) {
    const int steps = plain ? PLAIN : OTHER;
    vf w[PARTS], sum[DENSE][PARTS];
    load_channels(w, plain ? p->plain_bias[parity] : net->conv_bias);
    EACH(c, n) EACH(q, PARTS) sum[c][q] = w[q];
    for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3) {
        const float *x[DENSE];
        EACH(c, n) x[c] = from[b] + (dense ? cell[0] + c * step : cell[c]);
        for (int t = 0; t < 3; t++)
            EACH(f, steps) {
                load_channels(w, plain ? p->plain[parity][b][t][f] : p->other[parity][b][t][f]);
                EACH(c, n) add_step(sum[c], w, x[c] + FEATURE_SIZE * t + f);
            }
    }
    const float *bias[2] = {net->hidden_bias, net->out_bias};
    for (int m = 0; m < 2; m++) {
        float hidden[DENSE][CHANNELS] __attribute__((aligned(64)));
        EACH(c, n) EACH(q, PARTS) put_channels(hidden[c] + VL * q, masked(sum[c][q], sum[c][q] > 0));
        load_channels(w, bias[m]);
        EACH(c, n) EACH(q, PARTS) sum[c][q] = w[q];
        for (int t = 0; t < DEEP; t++) {
            load_channels(w, p->layer[m][t]);
            EACH(c, n) add_step(sum[c], w, hidden[c] + t);
        }
    }
    load_channels(w, net->base);
    EACH(c, n) EACH(q, PARTS) {
        const vf v = sum[c][q], magnitude = (vf)((vi)v & 0x7FFFFFFF);
        store(answer[wanted[c]] + VL * q, w[q] * (1 + 0.9f * (v * inverse_of(1 + magnitude))));
    }
}

#define EVALUATE(cell, step, n, dense)                                                                           \
    do {                                                                                                         \
        if (plain) evaluate(net, p, parity, from, has_r, cell, (step) * FEATURE_SIZE, n, dense, 1, answer, wanted); \
        else evaluate(net, p, parity, from, has_r, cell, (step) * FEATURE_SIZE, n, dense, 0, answer, wanted);    \
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
