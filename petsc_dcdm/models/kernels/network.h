/* The field network at a handful of cells: one vector holds the (at most 16) channels of a cell. Included by fields.c. */
#ifndef DCDM_NETWORK_H
#define DCDM_NETWORK_H

#include "common.h"

enum { CHANNELS = 16, FEATURES = 8 };
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

/* Loops over a handful of cells, which must leave no loop: their accumulators are to be registers. */
#define EACH(c, n) _Pragma("GCC unroll 16") for (int c = 0; c < (n); c++)

/* The network at n cells. Features of cell c start at from[b] + cell[c] for row b of the convolution. If `dense` the cells lie `step`
 * features apart, which leaves all offsets to the compiler. */
INLINE void evaluate(const dcdm_network *net, int parity, const float *const *from, int has_r, const int64_t *cell, int64_t step,
                     const int n, const int dense, v16 *to) {
    v16 w, sum[n];
    memcpy(&w, net->conv_bias, sizeof w);
    EACH(c, n) sum[c] = w;
    for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3) {
        const float *x[n];
        EACH(c, n) x[c] = from[b] + (dense ? cell[0] + c * step : cell[c]);
        for (int t = 0; t < 3 * FEATURES; t++) {
            memcpy(&w, net->conv[parity][b][t], sizeof w);
            EACH(c, n) sum[c] += w * x[c][t];
        }
    }
    const float (*layer[2])[CHANNELS] = {net->hidden, net->out};
    const float *bias[2] = {net->hidden_bias, net->out_bias};
    for (int q = 0; q < 2; q++) {
        float hidden[n][CHANNELS] __attribute__((aligned(64)));
        EACH(c, n) {
            const v16 positive = (v16)((sum[c] > 0) & (v16i)sum[c]);
            memcpy(hidden[c], &positive, sizeof positive);
        }
        memcpy(&w, bias[q], sizeof w);
        EACH(c, n) sum[c] = w;
        for (int t = 0; t < CHANNELS; t++) {
            memcpy(&w, layer[q][t], sizeof w);
            EACH(c, n) sum[c] += w * hidden[c][t];
        }
    }
    memcpy(&w, net->base, sizeof w);
    EACH(c, n) {
        const v16 size = (v16)((v16i)sum[c] & 0x7FFFFFFF);
        to[c] = w * (1 + 0.9f * (sum[c] / (1 + size)));
    }
}

/* DENSE cells in a row, all or every second one. */
static __attribute__((noinline)) void evaluate_dense(const dcdm_network *net, int parity, const float *const *from, int has_r,
                                                     int64_t first, int half_x, v16 *to) {
    if (half_x) evaluate(net, parity, from, has_r, &first, 2 * FEATURES, DENSE, 1, to);
    else evaluate(net, parity, from, has_r, &first, FEATURES, DENSE, 1, to);
}

/* SPARSE cells anywhere. */
static __attribute__((noinline)) void evaluate_sparse(const dcdm_network *net, int parity, const float *const *from, int has_r,
                                                      const int64_t *cell, v16 *to) {
    evaluate(net, parity, from, has_r, cell, 0, SPARSE, 0, to);
}

#endif
