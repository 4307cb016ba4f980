/* A run of cells in the packed form of voxel geometry. Included by csr.c. */
#ifndef DCDM_PACK_RUN_H
#define DCDM_PACK_RUN_H

#include "csr_rows.h"
#include "packed.h"

/* A run of cells, packed, into `cells` and, where they have an s, `s_index`. Returns 0 if it does not fit what was
 * packed before. */
static int pack_run(csr_output *out, uint8_t *restrict cells, uint8_t *restrict s_index, const row_run *run,
                    const double *s, int n, s_values *known) {
    int misfits = 0, some = 0;
    memset(cells, 0, (size_t)n);
    for (int f = 0; f < 6; f++) {
        const double *restrict w = run->v[f];
        double c;
#pragma omp atomic read
        c = out->c[f / 2];
        for (int t = 0; t < n && c == 0; t++) {
            if (!(w[t] > 0)) continue;
#pragma omp critical(dcdm_conductance)
            {
                if (out->c[f / 2] == 0) {
#pragma omp atomic write
                    out->c[f / 2] = w[t];
                }
                c = out->c[f / 2];
            }
        }
        for (int t = 0; t < n; t++) {
            cells[t] |= (uint8_t)((w[t] > 0) << f);
            misfits |= (w[t] > 0) & (w[t] != c);
        }
    }
    for (int t = 0; t < n; t++) some |= s[t] != 0;
    for (int t = 0; t < n && some; t++) {
        if (s[t] == 0) continue;
        const int v = find_s(known, s[t], out->s_value, &out->s_count);
        misfits |= v > 255;
        cells[t] |= HAS_S;
        s_index[t] = (uint8_t)v;
    }
    return !misfits;
}

#endif
