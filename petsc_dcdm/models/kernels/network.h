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

/* Convolution of n cells, added to `sum`. Features of cell c start at from[b] + cell[c] for row b. Dense: the cells lie `step` features
 * apart, which leaves all offsets to the compiler. */
INLINE void convolve(const float (*kernel)[3 * FEATURES][CHANNELS], const float *const *from, int has_r, const int64_t *cell,
                     int64_t step, const int n, const int dense, v16 *sum) {
    for (int b = has_r ? 0 : 1; b < 9; b += has_r ? 1 : 3) {
        const float *x[DENSE];
        for (int c = 0; c < n; c++) x[c] = from[b] + (dense ? cell[0] + c * step : cell[c]);
        for (int t = 0; t < 3 * FEATURES; t++) {
            v16 w;
            memcpy(&w, kernel[b][t], sizeof w);
            for (int c = 0; c < n; c++) sum[c] += w * x[c][t];
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

#define EVALUATE(name, n, dense)                                                                                            \
    static void name(const dcdm_network *net, int parity, const float *const *from, int has_r, const int64_t *cell, int half_x, \
                     v16 *to) {                                                                                             \
        v16 bias, x[n];                                                                                                     \
        memcpy(&bias, net->conv_bias, sizeof bias);                                                                         \
        for (int c = 0; c < n; c++) x[c] = bias;                                                                            \
        if (dense && half_x) convolve(net->conv[parity], from, has_r, cell, 2 * FEATURES, n, 1, x);                         \
        else convolve(net->conv[parity], from, has_r, cell, FEATURES, n, dense, x);                                         \
        finish_network(net, n, x);                                                                                          \
        memcpy(to, x, sizeof x);                                                                                            \
    }
EVALUATE(evaluate_dense, DENSE, 1)
EVALUATE(evaluate_sparse, SPARSE, 0)

#endif
