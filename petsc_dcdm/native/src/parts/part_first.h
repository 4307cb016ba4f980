/* What both halves of the first division have: the cells of its blocks. */
#ifndef DCDM_PART_FIRST_H
#define DCDM_PART_FIRST_H

#include "common.h"
#include "parts/part_grid.h"
#include "shared/node_team.h"

/* Of a row of cells: low faces along x, low and high ones along y and z. Rows of numbers that a part has room for:
 * those of the four rows of a line of blocks, words for the cells of each, and marks of blocks; known to
 * petsc_dcdm/backends/parts/grid.py. */
enum { FACES = 5, LINE_ROOM = 4 * (FACES + 1) + 1 };

/* The cells of a block of the next level. */
typedef struct {
    int count;
    int row[8], number[8];   /* which of the four rows of the line of blocks; by x + 2 y + 4 z, -1 for none */
    int64_t x[8], cell[8], at[8]; /* along the row; number; element of the arrays of the operator */
} block_cells;

/* The rows of cells that a line of blocks along x is made of, by y + 2 z; -1 for none. */
typedef struct {
    int64_t y[4], z[4];
    int there[4];
} line_rows;

INLINE line_rows rows_of_line(const parts_grid *g, const int64_t halved[3], const int64_t next[3], int64_t line) {
    line_rows rows;
    for (int k = 0; k < 4; k++) {
        const int64_t half[2] = {k & 1, k >> 1};
        rows.y[k] = line % next[1] * (1 + halved[1]) + half[0];
        rows.z[k] = line / next[1] * (1 + halved[2]) + half[1];
        rows.there[k] = half[0] <= halved[1] && half[1] <= halved[2] && rows.y[k] < g->n[1] && rows.z[k] < g->n[2];
    }
    return rows;
}

INLINE int64_t element(const parts_grid *g, int64_t z, int64_t y) { return (z * g->n[1] + y) * g->pitch; }

INLINE void cells_of(const parts_grid *g, const line_rows *rows, int64_t half, int64_t bx, block_cells *c) {
    c->count = 0;
    for (int q = 0; q < 8; q++) {
        const int k = q >> 1;
        const int64_t x = bx * (1 + half) + (q & 1);
        const int there = rows->there[k] && (q & 1) <= half && x < g->n[0];
        c->number[q] = there ? c->count : -1;
        if (!there) continue;
        const int64_t row = rows->z[k] * g->n[1] + rows->y[k];
        c->row[c->count] = k, c->x[c->count] = x;
        c->cell[c->count] = row * g->n[0] + x;
        c->at[c->count++] = row * g->pitch + x;
    }
}

/* Low faces along axis a of VL cells. */
INLINE vf low_faces(const parts_grid *g, int a, int64_t at) {
    vu pairs;
    memcpy(&pairs, (a == 2 ? g->zs : g->xy) + at, sizeof pairs);
    return (vf)(a == 1 ? pairs & 0xFFFF0000u : pairs << 16);
}

/* What the parts of a kernel get. */
typedef struct {
    parts_grid g;
    int64_t halved[3], next[3];
    float share, follows;
    int64_t *first;
    float *room;
    parts_level to; /* these two of dcdm_parts_grid_rows */
    const int64_t *of_lines;
    int parts;
} first_work;

#endif
