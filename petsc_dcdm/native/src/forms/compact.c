/* Sweeps of a compact symmetric 9- or 27-point stencil on the grid, in single precision. */
#include <stdint.h>

#include "compiler.h"
#include "forms/compact.h"

enum { RUN = 256 };

/* acc = what the stencil makes of p, for n cells of a line from element `at` on; `distance`: to the neighbours. */
INLINE void multiply_run(const float *const *c, const int64_t *distance, int64_t places, const float *p, int64_t at,
                         int64_t n, float *restrict acc) {
    const float *restrict centre = c[0] + at, *restrict own = p + at;
    for (int64_t t = 0; t < n; t++) acc[t] = centre[t] * own[t];
    for (int64_t f = 1; f < places; f++) {
        const float *restrict here = c[f] + at, *restrict there = c[f] + at - distance[f];
        const float *restrict high = p + at + distance[f], *restrict low = p + at - distance[f];
        for (int64_t t = 0; t < n; t++) acc[t] += here[t] * high[t] + there[t] * low[t];
    }
}

/* left -= A p, q = beta p + alpha D^-1 left, z += q: one step of a polynomial of D^-1 A, for n[2] x n[1] x n[0] cells
 * of a box. c is `places` padded arrays (n[2] + 2, n[1] + 2, n[0] + 2), p and q are such ones; left and z have no halo.
 * Without p the product is 0, without q and z that is all. */
void dcdm_compact_step(const float *c, int64_t places, const int64_t *n, const float *p, double *left, float *q,
                       double *z, double beta, double alpha, int threads) {
    const int64_t pitch_y = n[0] + 2, pitch_z = pitch_y * (n[1] + 2), size = pitch_z * (n[2] + 2);
    const float *array[PLACES_3D];
    int64_t distance[PLACES_3D];
    for (int64_t f = 0; f < places; f++) {
        const int64_t place = CENTRE + f;
        array[f] = c + f * size;
        distance[f] = (place / 9 - 1) * pitch_z + (place / 3 % 3 - 1) * pitch_y + place % 3 - 1;
    }
    const float slope = (float)alpha, keep = (float)beta;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < n[1] * n[2]; line++)
        for (int64_t i = 0; i < n[0]; i += RUN) {
            const int64_t length = n[0] - i < RUN ? n[0] - i : RUN, from = line * n[0] + i;
            const int64_t at = (line / n[1] + 1) * pitch_z + (line % n[1] + 1) * pitch_y + 1 + i;
            float product[RUN], step[RUN];
            const float *restrict d = c + at;
            if (p) multiply_run(array, distance, places, p, at, length, product);
            double *restrict rest = left + from;
            for (int64_t t = 0; p && t < length; t++) rest[t] -= (double)product[t];
            if (!q) continue;
            for (int64_t t = 0; t < length; t++) step[t] = d[t] > 0 ? slope * (float)rest[t] / d[t] : 0;
            for (int64_t t = 0; p && t < length; t++) step[t] += keep * p[at + t];
            for (int64_t t = 0; t < length; t++) q[at + t] = step[t];
            for (int64_t t = 0; t < length; t++) z[from + t] += (double)step[t];
        }
}
