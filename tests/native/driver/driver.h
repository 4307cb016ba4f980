/* A program that calls the kernels without Python: for sanitizers that Python does not get along with, for processors
 * that are emulated, and for any compiler. run_scripts/check_native.sh builds it with all of src/. */
#ifndef DCDM_DRIVER_H
#define DCDM_DRIVER_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "entries/csr.h"
#include "cycle/operator.h"
#include "packed.h"
#include "setup/setup.h"
#include "walls/walls.h"

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (condition) break;                                                                \
        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);              \
        exit(1);                                                                             \
    } while (0)

/* A system on a box: low conductances along x, y, z and s, with a halo of zeros; `first` is the element of cell
 * (0, 0, 0). c: the conductances along the axes if none varies, and then also packed. `ring`: all axes of more than one
 * cell are periodic, and the high side of the halo holds the conductances of the first cells. */
typedef struct {
    int64_t n[3], pitch_y, pitch_z, size, first;
    int varying, ring;
    double c[3], *w[3], *s, s_value[256];
    uint8_t *cells, *s_index;
} grid_system;

/* Zeros at a multiple of 64 bytes, and uniform numbers below 1. */
void *zeros(int64_t count, int64_t size);
double uniform(void);

grid_system make_system(int64_t nx, int64_t ny, int64_t nz, int varying, int ring);
void free_system(grid_system *g);

/* The matrix of the system is read back, packed, lookups at for walls. */
void check_matrix(const grid_system *g, int threads, int wide);
/* Levels are set up and steps taken. Prints what they find after `name`, unless that is NULL; the directions are to be
 * those that `expected` has, or go there. */
void check_cycle(const grid_system *g, int threads, const char *name, float *expected);
int64_t direction_size(const grid_system *g);

#endif
