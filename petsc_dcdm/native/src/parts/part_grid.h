/* The finest level of parts, whose unknowns are the cells of a grid; mirrored by
 * petsc_dcdm/backends/parts/grid.py. */
#ifndef DCDM_PART_GRID_H
#define DCDM_PART_GRID_H

#include "parts/parts.h"
#include "shared/node_team.h"

/* The operator, bfloat16 as is enough for what only preconditions; all levels below are made from these very numbers.
 * They lie in pairs, for that two of a word are at hand in half the time: w_x and w_y of the low faces, w_z and the
 * extra diagonal s.
 *
 * Rows of these arrays and of x lie `pitch` apart, a multiple of ALIGN, planes n[1] of these. Beyond the last cell of
 * a row they are 0, and so are the low faces of the first cell along each axis: as high faces of the cell before it in
 * memory, which is the last one of another row or plane, they conduct nothing. */
typedef struct {
    int64_t n[3];    /* cells along x, y, z; of a flat grid along x, 1, y */
    int64_t flat, pitch;
    uint32_t *xy, *zs; /* with a plane of 0 after the last one */
    uint16_t *inverse; /* one over the diagonal, 0 where there is no unknown */
    int32_t *part;   /* [cells] the unknown of the next level, -1 for none */
    float *x;        /* iterate of the way down */
    float *rings;    /* [threads] of (steps + 1) RING planes with ALIGN elements before each, ALIGN more; 0 at first */
} parts_grid;

/* An array over the cells of the grid: rows and planes lie so many elements apart. */
typedef struct {
    float *at; /* its first cell */
    int64_t pitch, plane;
} parts_box;

INLINE int64_t plane_size(const parts_grid *g) { return g->n[1] * g->pitch; }

/* Of a pair: the one in the lower half, and the other. */
INLINE float lower(uint32_t pair) {
    const uint32_t word = pair << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

INLINE float upper(uint32_t pair) { return lower(pair >> 16); }

/* bfloat16, to the nearest. */
INLINE uint32_t to_half(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return (word + 0x7FFF + (word >> 16 & 1)) >> 16;
}

/* The low face along an axis of the cell at an element of the arrays. */
INLINE float low_face(const parts_grid *g, int axis, int64_t at) {
    return axis == 2 ? lower(g->zs[at]) : axis ? upper(g->xy[at]) : lower(g->xy[at]);
}

/* One of the parts that work on something together. */
typedef struct {
    int number, count;
    const dcdm_meeting *meeting;
} team;

INLINE void meet(team t) {
    if (t.count > 1) dcdm_meet(t.meeting);
}

void parts_grid_down(const parts_grid *g, team t, const parts_box *r, const float *omega, int64_t steps, float *sum);
void parts_grid_up(const parts_grid *g, team t, const parts_box *r, const parts_box *to, const float *omega,
                   int64_t steps, const float *correction);

/* A plane of A x; both vectors as x of the grid, with ALIGN elements of 0 before and after x. */
void parts_grid_multiply(const parts_grid *g, const float *x, float *to, int64_t z);

#endif
