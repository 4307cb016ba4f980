/* Packing a stencil that lies in arrays; see packed.h. */
#include "packed.h"

/* Cells and s_index of a box from low conductances w_x, w_y, w_z and s, all in arrays of the same places: padded, at
 * the first cell. c: the conductances along x, y, z. Returns whether it fits: every w is 0 or c, and s has at most 255
 * values but 0. */
int dcdm_pack(const double *w_x, const double *w_y, const double *w_z, const double *s, const double *c, int64_t n_x,
              int64_t n_y, int64_t n_z, int64_t pitch_y, int64_t pitch_z, uint8_t *cells, uint8_t *s_index,
              double *s_value, int threads) {
    int misfits = 0, count = 1;
#pragma omp parallel num_threads(threads) reduction(+ : misfits)
    {
        s_values known = {.count = 0};
#pragma omp for schedule(static)
        for (int64_t line = 0; line < n_y * n_z; line++) {
            if (misfits) continue;
            const int64_t o = line / n_y * pitch_z + line % n_y * pitch_y;
            const double *face[6] = {w_x + o, w_x + o + 1, w_y + o, w_y + o + pitch_y, w_z + o, w_z + o + pitch_z};
            int some = 0;
            for (int f = 0; f < 6; f++) {
                const double *restrict w = face[f];
                int odd = 0;
                for (int64_t i = 0; i < n_x; i++) {
                    cells[o + i] = (uint8_t)((f ? cells[o + i] : 0) | (w[i] != 0) << f);
                    odd |= (w[i] != 0) & (w[i] != c[f / 2]);
                }
                misfits += odd;
            }
            for (int64_t i = 0; i < n_x; i++) some |= s[o + i] != 0;
            for (int64_t i = 0; i < n_x && some; i++) {
                if (s[o + i] == 0) continue;
                const int v = find_s(&known, s[o + i], s_value, &count);
                misfits += v > 255;
                cells[o + i] |= HAS_S;
                s_index[o + i] = (uint8_t)v;
            }
        }
    }
    return !misfits;
}

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
