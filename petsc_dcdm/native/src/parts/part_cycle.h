/* What the cycle needs of a level, in the order that its passes over memory want; mirrored by
 * petsc_dcdm/backends/parts/stages.py. */
#ifndef DCDM_PART_CYCLE_H
#define DCDM_PART_CYCLE_H

#include <stdint.h>

enum { SLICE = 16 }; /* rows that are worked on together; arrays of a stage reach to the end of the last slice */

/* (A x)_i = s_i x_i + sum over its row of value (x_i - x_j). Rows lie in slices of as many couplings each, shorter ones
 * are coupled to themselves with 0, and what single rows have beyond that is the slice's rest. */
typedef struct {
    int64_t n;
    int64_t *slice;       /* [slices + 1] where each begins in these two: */
    int32_t *column;      /* [slice][coupling][SLICE] */
    float *value;
    int64_t *rest;        /* [slices + 1] where each begins in these three: */
    int32_t *rest_column;
    float *rest_value;
    uint8_t *rest_lane;   /* the row in its slice */
    float *s, *inverse;   /* [n] extra diagonal; one over the diagonal, 0 where there is none */
    int32_t *child_first; /* [n + 1] where the unknowns of the level above begin that each stands for: */
    int32_t *child;
    int32_t *part;        /* [n] the unknown of the next level, -1 for none */
    int64_t twice;        /* whether its solution combines two directions */
    float *x, *y, *r;     /* [n] iterate; the one before it; right-hand side */
    float *kept, *image;  /* [n] the first direction of two, and A times it */
} parts_stage;

#endif
