/* The faces of a level, of which some may be walls; mirrored by petsc_dcdm/stencil/walls.py. */
#ifndef DCDM_WALLS_H
#define DCDM_WALLS_H

#include <stdint.h>

typedef struct {
    const double *face[3];   /* first halo element */
    int64_t pitch_y, pitch_z;
    int64_t n[3];           /* cells along x, y, z without the halo */
    int64_t block[3];
    double weak;
    int64_t skinless;
    int64_t enough;          /* torn cells: with more of them it does not matter how many there are */
    const uint8_t *cells;    /* or NULL: the faces packed, see packed.h, at the same places; then face is not used */
    double c[3];
} walls_grid;

#endif
