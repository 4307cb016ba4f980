/* The coarsest system of a grid that is on one rank, factored: mirrored by petsc_dcdm/backends/cpu/band.py. */
#ifndef DCDM_BAND_H
#define DCDM_BAND_H

#include <stdint.h>

/* A = L L', in double precision. Unknowns are the active cells, numbered along the grid so that neighbours have numbers
 * that differ by `width` at most. The last `back` of them are eliminated from the end: two threads work from either
 * side, and what is left in the middle, `width` unknowns, belongs to both. Rows of L are those of the unknowns before
 * the last `back`, then from the end on those of `back` unknowns and of the middle. */
typedef struct {
    int64_t unknowns, width;
    int64_t back;         /* of dcdm_band_back */
    int64_t threads;      /* at most; the numbers are the same with one */
    double *lower;        /* [rows][width + 1]: row i of L, from column i - width; 0 where there is none */
    double *inverse;      /* [rows]: 1 over its diagonal */
    double *vector;       /* [2 width + rows] */
    const int32_t *place; /* [unknowns]: where the cells are in the arrays of solve */
} dcdm_band;

/* Cells of axis 0 are numbered slowest, those of axis 2 fastest. */
typedef struct {
    int64_t n[3], stride[3];
    const double *w[3], *s; /* conductance of the low face along each of these axes, and what a diagonal has beside */
} dcdm_band_grid;

void dcdm_band_solve(const dcdm_band *b, const float *r, float *x);

#endif
