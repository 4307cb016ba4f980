/* What set-up of a level is given and gives; mirrored by petsc_dcdm/native/binding.py. */
#ifndef DCDM_SETUP_H
#define DCDM_SETUP_H

#include <stdint.h>

enum { CHANNELS = 16, FEATURES = 8 };

/* The network for one set of coarsened axes: kernels for the 8 parities (x + 2 r + 4 w) of a cell, by row (3 w + r,
 * offsets 0 .. 2), then 3 neighbours along x times 8 features: faces low and high along x, r, w over the diagonal, s
 * over the diagonal, active. */
typedef struct {
    float conv[8][9][3 * FEATURES][CHANNELS];
    float conv_bias[CHANNELS], hidden[CHANNELS][CHANNELS], hidden_bias[CHANNELS]; /* [in][out] */
    float out[CHANNELS][CHANNELS], out_bias[CHANNELS], base[CHANNELS];
} dcdm_network;

enum { SINGLE, DOUBLE, PACKED };

/* What set-up of one level reads and writes besides the level's own coefficients. */
typedef struct {
    const void *prepared;      /* network, of dcdm_prepare */
    int64_t format;            /* of the source: SINGLE, DOUBLE or PACKED */
    const void *w_x, *w_r, *w_w, *s; /* of this level; not if packed */
    const float *high_x, *high_r, *high_w; /* with halo: high conductances of float sources, halo and corners filled */
    const uint8_t *cells, *s_index; /* packed.h; its values are: */
    const double *s_value;
    double c[3];               /* along x, r, w */
    int64_t face[3];           /* number of the low face along x, r, w */
    /* where in all those arrays the cells are; with halo there is one, if packed always */
    int64_t pitch_w, pitch_r, origin;
    /* of the next level, in its layout, zero before; the high side's share is still missing */
    float *c_x, *c_r, *c_w, *c_s;
    float *share_x, *share_r, *share_w; /* that share: what the high faces get from this side, also zero before */
    int64_t c_pitch_w, c_pitch_r, c_origin;
    int32_t *range;
    int64_t own[3][2]; /* begin and end along x, r, w of the cells that count */
    int64_t active;    /* out: number of those that are active */
    int64_t taken;     /* room for blocks without a class that threads have taken so far */
    int64_t lock;      /* 1 while a thread looks a class up or adds one */
    int64_t classes;   /* of blocks, so far; class 0 is none. And their w_x, w_r, w_w, s as in the source: */
    float class_source[256][4];
} dcdm_setup;

#endif
