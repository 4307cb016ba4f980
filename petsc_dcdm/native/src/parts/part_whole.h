/* All levels of parts as kernels get them that go through a whole cycle. */
#ifndef DCDM_PART_WHOLE_H
#define DCDM_PART_WHOLE_H

#include "parts/part_cycle.h"
#include "parts/part_grid.h"

typedef struct {
    dcdm_meeting meeting;
    parts_grid grid;
    const parts_stage *levels; /* `count` below the grid */
    int64_t count;
    const float *inverse; /* of the last one, NULL if it is to be smoothed only */
    const float *omegas;  /* of as many steps on the grid, and then on the levels: */
    int64_t steps, steps_below;
    double *sums;         /* room for SUMS of each PIECE of slices of the first level */
} parts_whole;

/* `to` from r by a cycle. By all parts of a team. */
void parts_run_cycle(const parts_whole *w, team t, const parts_box *r, const parts_box *to);

#endif
