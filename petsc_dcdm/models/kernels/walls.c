/* Coarse cells torn by a wall, and the open faces of the next level; see petsc_dcdm/grid/walls.py.
 *
 * Faces are float64 arrays with a one-cell halo, x fastest: the low face of a cell is open where its conductance is
 * positive. A coarse cell is a block of 1 or 2 cells per axis. It is torn when its living cells are not connected
 * through open faces within the block and a ring of one cell: a flood over the 4 x 4 x 4 bits of one word.
 */
#include <stdint.h>

typedef struct {
    const double *face[3];   /* first halo element */
    int64_t pitch_y, pitch_z;
    int64_t n[3];           /* cells along x, y, z without the halo */
    int64_t block[3];
} walls_grid;

static inline int is_open(const walls_grid *g, int axis, int64_t x, int64_t y, int64_t z) {
    /* padded indices; nothing is open beyond the halo */
    if (x > g->n[0] + 1 || y > g->n[1] + 1 || z > g->n[2] + 1) return 0;
    return g->face[axis][z * g->pitch_z + y * g->pitch_y + x] > 0.0;
}

static uint64_t flood(uint64_t from, const uint64_t open[3]) {
    for (;;) {
        uint64_t to = from;
        to |= (to << 1 & open[0]) | (to & open[0]) >> 1;
        to |= (to << 4 & open[1]) | (to & open[1]) >> 4;
        to |= (to << 16 & open[2]) | (to & open[2]) >> 16;
        if (to == from) return to;
        from = to;
    }
}

/* 0: no living cell, 1: whole, 2: torn; (x, y, z) is the first cell of the block, padded. */
static int look(const walls_grid *g, int64_t x, int64_t y, int64_t z) {
    uint64_t open[3] = {0, 0, 0}, living = 0;
    for (int64_t k = 0; k < g->block[2] + 2; k++)
        for (int64_t j = 0; j < g->block[1] + 2; j++)
            for (int64_t i = 0; i < g->block[0] + 2; i++) {
                const uint64_t bit = (uint64_t)1 << (16 * k + 4 * j + i);
                if (i && is_open(g, 0, x + i - 1, y + j - 1, z + k - 1)) open[0] |= bit;
                if (j && is_open(g, 1, x + i - 1, y + j - 1, z + k - 1)) open[1] |= bit;
                if (k && is_open(g, 2, x + i - 1, y + j - 1, z + k - 1)) open[2] |= bit;
            }
    for (int64_t k = 1; k <= g->block[2]; k++)
        for (int64_t j = 1; j <= g->block[1]; j++)
            for (int64_t i = 1; i <= g->block[0]; i++) {
                const int at = (int)(16 * k + 4 * j + i);
                const uint64_t any = open[0] >> at | open[0] >> (at + 1) | open[1] >> at | open[1] >> (at + 4)
                                   | open[2] >> at | open[2] >> (at + 16);
                if (any & 1) living |= (uint64_t)1 << at;
            }
    if (!living) return 0;
    return living & ~flood(living & -living, open) ? 2 : 1;
}

/* Whether all faces inside the block are open, which settles most of them. */
static inline int all_open(const walls_grid *g, int64_t x, int64_t y, int64_t z) {
    for (int axis = 0; axis < 3; axis++) {
        if (g->block[axis] == 1) continue;
        const int64_t nx = axis == 0 ? 1 : g->block[0], ny = axis == 1 ? 1 : g->block[1], nz = axis == 2 ? 1 : g->block[2];
        const double *f = g->face[axis] + (z + (axis == 2)) * g->pitch_z + (y + (axis == 1)) * g->pitch_y + x + (axis == 0);
        for (int64_t k = 0; k < nz; k++)
            for (int64_t j = 0; j < ny; j++)
                for (int64_t i = 0; i < nx; i++)
                    if (!(f[k * g->pitch_z + j * g->pitch_y + i] > 0.0)) return 0;
    }
    return 1;
}

/* Counts of living and of torn coarse cells. */
void dcdm_walls_torn(const walls_grid *g, int threads, int64_t counts[2]) {
    const int64_t bx = g->block[0], by = g->block[1], bz = g->block[2];
    const int64_t mx = (g->n[0] + bx - 1) / bx, my = (g->n[1] + by - 1) / by, mz = (g->n[2] + bz - 1) / bz;
    int64_t living = 0, torn = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : living, torn) schedule(static)
    for (int64_t line = 0; line < my * mz; line++) {
        const int64_t z = 1 + bz * (line / my), y = 1 + by * (line % my);
        for (int64_t i = 0; i < mx; i++) {
            const int64_t x = 1 + bx * i;
            const int state = all_open(g, x, y, z) ? 1 : look(g, x, y, z);
            living += state > 0;
            torn += state == 2;
        }
    }
    counts[0] = living;
    counts[1] = torn;
}

/* The low faces along ``axis`` of the coarse cells, 1 where one of the fine faces on it is open; coarse: first halo element. */
void dcdm_walls_coarsen(const walls_grid *g, int axis, double *coarse, int64_t pitch_y, int64_t pitch_z, int threads) {
    const int64_t bx = g->block[0], by = g->block[1], bz = g->block[2];
    const int64_t mx = (g->n[0] + bx - 1) / bx, my = (g->n[1] + by - 1) / by, mz = (g->n[2] + bz - 1) / bz;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < my * mz; line++) {
        const int64_t k = line / my, j = line % my;
        for (int64_t i = 0; i < mx; i++) {
            double any = 0.0;
            for (int64_t c = 0; c < (axis == 2 ? 1 : bz); c++)
                for (int64_t b = 0; b < (axis == 1 ? 1 : by); b++)
                    for (int64_t a = 0; a < (axis == 0 ? 1 : bx); a++)
                        if (g->face[axis][(1 + bz * k + c) * g->pitch_z + (1 + by * j + b) * g->pitch_y + 1 + bx * i + a] > 0.0)
                            any = 1.0;
            coarse[(k + 1) * pitch_z + (j + 1) * pitch_y + i + 1] = any;
        }
    }
}
