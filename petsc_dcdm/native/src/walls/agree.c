/* How many cells of a sample see an axis as a strong one, see petsc_dcdm/stencil/agreement.py. */
#include "walls.h"

/* Cells first, first + stride, ... along x, y, z, without the halo. counts: of those with a face that conducts x, y, z
 * as strongly as their strongest one over `threshold`; then of those that have any. */
void dcdm_walls_strong(const walls_grid *g, const int64_t first[3], const int64_t stride[3], double threshold,
                       int64_t counts[4]) {
    const int64_t up[3] = {1, g->pitch_y, g->pitch_z};
    for (int a = 0; a < 4; a++) counts[a] = 0;
    for (int64_t z = first[2]; z < g->n[2]; z += stride[2])
        for (int64_t y = first[1]; y < g->n[1]; y += stride[1])
            for (int64_t x = first[0]; x < g->n[0]; x += stride[0]) {
                const int64_t o = (z + 1) * g->pitch_z + (y + 1) * g->pitch_y + x + 1;
                double seen[3], strongest = 0;
                for (int a = 0; a < 3; a++) {
                    const double low = g->face[a][o], high = g->face[a][o + up[a]];
                    seen[a] = low > high ? low : high;
                    if (seen[a] > strongest) strongest = seen[a];
                }
                for (int a = 0; a < 3; a++) counts[a] += seen[a] > 0 && seen[a] * threshold >= strongest;
                counts[3] += strongest > 0;
            }
}
