/* The levels of a hierarchy and their memory; mirrored by petsc_dcdm/native/binding.py. */
#ifndef DCDM_LEVELS_H
#define DCDM_LEVELS_H

#include "common.h"
#include "setup.h"

/* Memory that lives as long as the levels, zero or of whatever it holds, and that only their set-up wants, likewise. */
enum { ZEROS, ROOM, PASSING_ZEROS, PASSING_ROOM, MEMORIES };

typedef struct {
    dcdm_level *level;         /* [count + 1], the finest first, see dcdm_size_levels */
    int64_t count, threads;
    int64_t bytes[MEMORIES];      /* out, of dcdm_size_levels: of each kind of memory, */
    char *memory[MEMORIES];       /* which begin at cache lines */
    float **work;              /* out, of dcdm_place_levels: [count] workspaces of the cycle */
    /* for dcdm_make_levels: */
    const dcdm_network *const *network; /* [count] */
    const void *const *prepared;
    dcdm_setup *setup;         /* says where the source of the finest level is */
    double *coarse[4];         /* w_x, w_y, w_z, s of the coarsest level: out, or if there is no other given */
    int64_t coarse_pitch_z, coarse_pitch_y, coarse_threads;
    int64_t *active;           /* out: [count + 1] active cells */
} dcdm_levels;

#endif
