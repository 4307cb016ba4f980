/* What the cycle needs of a level, in the order that its passes over memory want; mirrored by
 * petsc_dcdm/backends/parts/stages.py. */
#ifndef DCDM_PART_CYCLE_H
#define DCDM_PART_CYCLE_H

#include <stdint.h>

#include "common.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { SLICE = 16 }; /* rows that are worked on together; arrays of a stage reach to the end of the last slice */
enum { WINDOW = 1024 }; /* rows that are sorted among themselves, by their lengths */

/* (A x)_i = s_i x_i + sum over its row of value (x_i - x_j). Rows lie in slices of as many couplings each, shorter ones
 * are coupled to themselves with 0, and what single rows have beyond that is the slice's rest. Values are bfloat16,
 * which is enough as it is on the grid: then a coupling is one word, of its value and of how far its column is from the
 * first one of the window, if all are that near. A pass over a large stage takes the time of what it reads. */
typedef struct {
    int64_t n;
    int64_t *slice;       /* [slices + 1] where each begins in `word`: */
    uint32_t *word;       /* [slice][coupling][SLICE]; far apart: [slice][coupling][column, value][SLICE] */
    int32_t *base;        /* [windows] the column that is the first, -1 where they are far apart */
    int64_t *rest;        /* [slices + 1] where each begins in these three: */
    int32_t *rest_column;
    float *rest_value;
    uint8_t *rest_lane;   /* the row in its slice */
    float *s, *inverse;   /* [n] extra diagonal; one over the diagonal, 0 where there is none */
    int32_t *child_first; /* [n + 1] where the unknowns of the stage above begin that each stands for: */
    int32_t *child;       /* (both are of no account in the first stage) */
    int32_t *part;        /* [n] the unknown of the next level, -1 for none, to the end of the last slice */
    int64_t twice;        /* whether its solution combines two directions */
    float *x, *y, *r;     /* [n] iterate; the one before it; right-hand side */
    float *kept, *image;  /* [n] the first direction of two, and A times it */
} parts_stage;

INLINE vf gather(const float *x, vi at) {
#if defined(__AVX512F__)
    return (vf)_mm512_i32gather_ps((__m512i)at, x, 4);
#elif defined(__AVX2__)
    return (vf)_mm256_i32gather_ps(x, (__m256i)at, 4);
#else
    vf v;
    for (int i = 0; i < VL; i++) v[i] = x[at[i]];
    return v;
#endif
}

INLINE vi load_places(const int32_t *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE vu load_words(const uint32_t *p) {
    vu v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE double total(vf v) {
    double sum = 0.0;
    for (int i = 0; i < VL; i++) sum += v[i];
    return sum;
}

/* e at its places, 0 where a place is negative */
INLINE vf gather_some(const float *e, vi at) {
    const vi some = at >= 0;
    return masked(gather(e, at & some), some);
}

#endif
