/* The finest level of parts, whose unknowns are the cells of a grid; mirrored by
 * petsc_dcdm/backends/parts/grid.py. */
#ifndef DCDM_PART_GRID_H
#define DCDM_PART_GRID_H

#include "parts/parts.h"

typedef struct {
    int64_t n[3];    /* cells along x, y, z; of a flat grid along x, 1, y */
    int64_t flat;
    float *w[3];     /* of the low faces, with a halo of one cell of 0, as are */
    float *s, *inverse;
    const int32_t *part; /* [cells] the unknown of the next level, -1 for none */
    float *x, *y, *r;    /* [cells] iterate of the way down; its residual, then the result; right-hand side */
    float *rings;        /* [threads][(steps + 1) * 4 padded planes], 0 at first */
} parts_grid;

void parts_grid_down(const parts_grid *g, const float *c, int64_t steps);
void parts_grid_up(const parts_grid *g, const float *c, int64_t steps, const float *correction);

#endif
