/* Stencils in which every conductance along an axis is 0 or the same and s takes few values: voxel geometry. A byte
 * for each cell says which of its faces conduct and whether it has an s; mirrored by petsc_dcdm/stencil/packed.py. */
#ifndef DCDM_PACKED_H
#define DCDM_PACKED_H

#include <stdint.h>
#include <string.h>

/* Bits 0 .. 5: low and high face along x, y, z. */
enum { HAS_S = 64 };

/* The different values of s that a thread knows of, a copy of the beginning of the common list. */
typedef struct {
    double value[256];
    int count;
} s_values;

/* Place of s in the list; 256 if that is full. */
static inline int find_s(s_values *mine, double s, double *common, int *count) {
    int v = 0;
    while (v < mine->count && mine->value[v] != s) v++;
    if (v < mine->count) return v;
#pragma omp critical(dcdm_s_values)
    {
        for (v = 0; v < *count && common[v] != s; v++) {}
        if (v == *count && v < 256) common[(*count)++] = s;
        mine->count = *count;
        memcpy(mine->value, common, sizeof mine->value);
    }
    return v;
}

#endif
