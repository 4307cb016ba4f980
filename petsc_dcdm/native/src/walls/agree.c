/* How many cells of a sample see an axis as a strong one, see petsc_dcdm/stencil/agreement.py. */
#include "compiler.h"
#include "walls.h"

/* Those of one line that begins at the padded element `o`: some cells, `step` from one to the next. */
INLINE void strong_along(const walls_grid *g, int64_t o, int64_t cells, int64_t step, double threshold,
                         int64_t counts[4]) {
    const double *const x = g->face[0] + o, *const y = g->face[1] + o, *const z = g->face[2] + o;
    const double *const y_up = y + g->pitch_y, *const z_up = z + g->pitch_z;
    int64_t along_x = 0, along_y = 0, along_z = 0, some = 0;
#pragma omp simd reduction(+ : along_x, along_y, along_z, some)
    for (int64_t i = 0; i < cells; i++) {
        const int64_t at = step * i;
        const double sx = x[at] > x[at + 1] ? x[at] : x[at + 1];
        const double sy = y[at] > y_up[at] ? y[at] : y_up[at], sz = z[at] > z_up[at] ? z[at] : z_up[at];
        const double most = sx > sy ? sx : sy, strongest = most > sz ? most : sz;
        along_x += (sx > 0) & (sx * threshold >= strongest);
        along_y += (sy > 0) & (sy * threshold >= strongest);
        along_z += (sz > 0) & (sz * threshold >= strongest);
        some += strongest > 0;
    }
    counts[0] += along_x, counts[1] += along_y, counts[2] += along_z, counts[3] += some;
}

/* Cells first, first + stride, ... along x, y, z, without the halo. counts: of those with a face that conducts x, y, z
 * as strongly as their strongest one over `threshold`; then of those that have any. */
void dcdm_walls_strong(const walls_grid *g, const int64_t first[3], const int64_t stride[3], double threshold,
                       int64_t counts[4]) {
    const int64_t cells = (g->n[0] - first[0] + stride[0] - 1) / stride[0];
    for (int a = 0; a < 4; a++) counts[a] = 0;
    for (int64_t k = first[2]; k < g->n[2]; k += stride[2])
        for (int64_t j = first[1]; j < g->n[1]; j += stride[1]) {
            const int64_t o = (k + 1) * g->pitch_z + (j + 1) * g->pitch_y + first[0] + 1;
            if (stride[0] == 1) strong_along(g, o, cells, 1, threshold, counts);
            else strong_along(g, o, cells, stride[0], threshold, counts);
        }
}
