/* The systems, and what is done with each of them. */
#include "driver.h"

void *zeros(int64_t count, int64_t size) {
    const size_t bytes = ((size_t)(count * size) + 63) / 64 * 64;
    void *memory = aligned_alloc(64, bytes ? bytes : 64);
    CHECK(memory);
    return memset(memory, 0, bytes ? bytes : 64);
}

double uniform(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / (double)((uint64_t)1 << 53);
}

/* The element of a neighbour below along an axis, on which a cell has this number. */
static int64_t below(const grid_system *g, int axis, int64_t number, int64_t at) {
    const int64_t step[3] = {1, g->pitch_y, g->pitch_z};
    return number == 0 && g->ring && g->n[axis] > 1 ? at + (g->n[axis] - 1) * step[axis] : at - step[axis];
}

/* What the high side of the halo holds, and the cells in packed form, of which the matrix is not asked. */
static void close_rings(grid_system *g) {
    const int64_t step[3] = {1, g->pitch_y, g->pitch_z};
    g->s_value[1] = 0.25;
    for (int64_t at = g->first; at < g->size - g->first; at++) {
        const int64_t number[3] = {at % g->pitch_y - 1, at / g->pitch_y % (g->n[1] + 2) - 1, at / g->pitch_z - 1};
        for (int a = 0; a < 3; a++)
            if (number[a] == 0 && g->n[a] > 1) g->w[a][at + g->n[a] * step[a]] = g->w[a][at];
    }
    for (int64_t at = g->first; at < g->size - g->first; at++) {
        for (int a = 0; a < 3; a++) {
            if (g->w[a][at] > 0) g->cells[at] |= (uint8_t)(1 << 2 * a);
            if (g->w[a][at + step[a]] > 0) g->cells[at] |= (uint8_t)(2 << 2 * a);
        }
        if (g->s[at] > 0) g->cells[at] |= HAS_S, g->s_index[at] = 1;
    }
}

grid_system make_system(int64_t nx, int64_t ny, int64_t nz, int varying, int ring) {
    grid_system g = {.n = {nx, ny, nz}, .pitch_y = nx + 2, .pitch_z = (nx + 2) * (ny + 2), .varying = varying,
                     .ring = ring};
    g.size = g.pitch_z * (nz + 2), g.first = g.pitch_z + g.pitch_y + 1;
    for (int a = 0; a < 3; a++) g.w[a] = zeros(g.size, sizeof(double)), g.c[a] = 0.125 * (a + 1);
    g.s = zeros(g.size, sizeof(double));
    g.cells = zeros(g.size, 1), g.s_index = zeros(g.size, 1);
    uint8_t *fluid = zeros(g.size, 1);
    for (int64_t k = 0; k < nz; k++)
        for (int64_t j = 0; j < ny; j++)
            for (int64_t i = 0; i < nx; i++) {
                const int64_t at = g.first + k * g.pitch_z + j * g.pitch_y + i;
                /* a solid ball in the middle of many equal cells, and some loose solid cells */
                const double x = (double)(2 * i - nx) / (double)nx, y = (double)(2 * j - ny) / (double)ny;
                fluid[at] = x * x + y * y > 0.1 && (i < 3 * nx / 4 || uniform() > 0.1);
            }
    for (int64_t k = 0; k < nz; k++)
        for (int64_t j = 0; j < ny; j++)
            for (int64_t i = 0; i < nx; i++) {
                const int64_t number[3] = {i, j, k}, at = g.first + k * g.pitch_z + j * g.pitch_y + i;
                for (int a = 0; a < 3 && fluid[at]; a++)
                    if (fluid[below(&g, a, number[a], at)])
                        g.w[a][at] = varying ? g.c[a] * (0.1 + 0.9 * uniform()) : g.c[a];
                if (fluid[at] && (j == 0 || (i > 3 * nx / 4 && uniform() < 0.02))) g.s[at] = 0.25;
            }
    free(fluid);
    if (ring) close_rings(&g);
    return g;
}

void free_system(grid_system *g) {
    for (int a = 0; a < 3; a++) free(g->w[a]);
    free(g->s), free(g->cells), free(g->s_index);
}

int main(int argc, char **argv) {
    static const int64_t shape[3][3] = {{70, 22, 24}, {70, 61, 1}, {5, 3, 9}};
    enum { VARYING = 1, RING = 2 };
    const int most = argc > 1 ? atoi(argv[1]) : 3;
    for (int q = 0; q < 3; q++)
        for (int kind = 0; kind < 4; kind++) {
            char name[64];
            snprintf(name, sizeof name, "%s %dD%s", kind & VARYING ? "varying" : "voxel", shape[q][2] > 1 ? 3 : 2,
                     kind & RING ? ",ring" : "");
            grid_system g = make_system(shape[q][0], shape[q][1], shape[q][2], kind & VARYING, kind & RING);
            float *direction = zeros(direction_size(&g), sizeof(float));
            for (int threads = 1; threads <= most; threads++) {
                if (!g.ring) check_matrix(&g, threads, threads % 2);
                check_cycle(&g, threads, threads == 1 ? name : NULL, direction);
            }
            free(direction);
            free_system(&g);
        }
    return 0;
}
