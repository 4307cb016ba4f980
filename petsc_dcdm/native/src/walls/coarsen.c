/* The faces of the next level, see petsc_dcdm/stencil/walls.py. */
#include <string.h>

#include "shared/node_team.h"
#include "walls.h"

#define PIECE 1024 /* coarse cells of a line that are added up together */

/* dcdm_walls_coarsen for n (at most PIECE) coarse cells of line (j, k), from cell `first` on. value: of 0 .. 4 packed
 * faces that conduct. */
static void coarsen_piece(const walls_grid *g, int axis, const double *value, int64_t k, int64_t j, int64_t first,
                          int64_t n, double *restrict to) {
    const int64_t bx = g->block[0], by = g->block[1], bz = g->block[2];
    const double factor = g->block[axis] == 2 ? 0.5 : 1.0;
    const int both = axis != 0 && bx == 2; /* two faces along x, but of a last cell that is cut off */
    const int64_t whole = both && 2 * (first + n) > g->n[0] ? n - 1 : n;
    uint8_t count[PIECE];
    memset(count, 0, (size_t)n);
    memset(to, 0, (size_t)n * sizeof *to);
    for (int64_t c = 0; c < (axis == 2 ? 1 : bz); c++)
        for (int64_t b = 0; b < (axis == 1 ? 1 : by); b++) {
            const int64_t z = 1 + bz * k + c, y = 1 + by * j + b;
            if (z > g->n[2] || y > g->n[1]) continue; /* beyond a block that is cut off */
            const int64_t o = z * g->pitch_z + y * g->pitch_y + 1 + bx * first;
            if (g->cells) {
                const uint8_t *restrict from = g->cells + o;
                const int bit = 2 * axis;
                if (both)
                    for (int64_t i = 0; i < whole; i++)
                        count[i] += (uint8_t)((from[2 * i] >> bit & 1) + (from[2 * i + 1] >> bit & 1));
                for (int64_t i = both ? whole : 0; i < n; i++) count[i] += (uint8_t)(from[bx * i] >> bit & 1);
            } else {
                const double *restrict from = g->face[axis] + o;
                if (both) for (int64_t i = 0; i < whole; i++) to[i] = to[i] + from[2 * i] + from[2 * i + 1];
                for (int64_t i = both ? whole : 0; i < n; i++) to[i] += from[bx * i];
            }
        }
    for (int64_t i = 0; i < n; i++) to[i] = factor * (g->cells ? value[count[i]] : to[i]);
}

typedef struct {
    walls_grid g;
    double *coarse[3], value[3][5]; /* of that many faces that conduct, added up as numbers are */
    int64_t pitch_y, pitch_z;
    int unwanted[3], parts;
} coarsening;

static void coarsen_part(void *arguments, int part) {
    const coarsening *all = arguments;
    const walls_grid *g = &all->g;
    const int64_t bx = g->block[0], by = g->block[1], bz = g->block[2];
    const int64_t mx = (g->n[0] + bx - 1) / bx, my = (g->n[1] + by - 1) / by, mz = (g->n[2] + bz - 1) / bz;
    const int64_t lines = (my + 2) * (mz + 2), end = first_of(lines, part + 1, all->parts);
    for (int64_t line = first_of(lines, part, all->parts); line < end; line++)
        for (int axis = 0; axis < 3; axis++) {
            const int64_t k = line / (my + 2) - 1, j = line % (my + 2) - 1;
            double *to = all->coarse[axis] + (k + 1) * all->pitch_z + (j + 1) * all->pitch_y + 1;
            to[-1] = to[mx] = 0;
            if (all->unwanted[axis] || k < 0 || k >= mz || j < 0 || j >= my) {
                memset(to, 0, (size_t)mx * sizeof *to);
                continue;
            }
            for (int64_t first = 0; first < mx; first += PIECE)
                coarsen_piece(g, axis, all->value[axis], k, j, first, mx - first < PIECE ? mx - first : PIECE,
                              to + first);
        }
}

/* Conductances of the low faces along each axis of the coarse cells: the sum over the fine faces on it, halved where
 * the axis is coarsened (twice the distance), and 0 along the axes whose bit is set in `closed`; x, y, z: first element
 * of a halo, which is 0. */
void dcdm_walls_coarsen(const walls_grid *g, double *x, double *y, double *z, int64_t pitch_y, int64_t pitch_z,
                        int closed, int threads) {
    coarsening all = {.g = *g, .coarse = {x, y, z}, .pitch_y = pitch_y, .pitch_z = pitch_z, .parts = threads,
                      .unwanted = {closed & 1, closed & 2, closed & 4}};
    for (int axis = 0; axis < 3; axis++)
        for (int i = 0; i < 4; i++) all.value[axis][i + 1] = all.value[axis][i] + g->c[axis];
    dcdm_run(coarsen_part, &all, sizeof all, threads);
}
