/* Both sides of the faces of a packed stencil, compared; see packed.h. */
#include "packed.h"

/* Where (padded element of a cell) a face conducts for the cell below it and not for the one above, or the other way
 * round; -1 if nowhere. cells: padded, halos filled. */
int64_t dcdm_packed_asymmetry(const uint8_t *cells, int64_t n_x, int64_t n_y, int64_t n_z, int threads) {
    const int64_t pitch_y = n_x + 2, pitch_z = pitch_y * (n_y + 2);
    int64_t found = INT64_MAX;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(min : found)
    for (int64_t line = 0; line < n_y * n_z; line++) {
        const int64_t o = (1 + line / n_y) * pitch_z + (1 + line % n_y) * pitch_y + 1;
        const uint8_t *restrict c = cells + o, *restrict y = c + pitch_y, *restrict z = c + pitch_z;
        uint8_t odd = 0;
        for (int64_t i = 0; i < n_x; i++)
            odd |= (uint8_t)(((c[i] >> 1 ^ c[i + 1]) & 1) | ((c[i] >> 1 ^ y[i]) & 4) | ((c[i] >> 1 ^ z[i]) & 16));
        for (int64_t i = 0; i < n_x && odd && found == INT64_MAX; i++)
            if (((c[i] >> 1 ^ c[i + 1]) & 1) | ((c[i] >> 1 ^ y[i]) & 4) | ((c[i] >> 1 ^ z[i]) & 16)) found = o + i;
    }
    return found == INT64_MAX ? -1 : found;
}
