/* The first division: of the cells of a grid into the parts of its blocks, and how these are coupled. The same as
 * part_setup.c does from level to level, from the faces of the grid.
 */
#include <math.h>

#include "common.h"
#include "parts/part_grid.h"

/* The cells of a block of the next level. */
typedef struct {
    int count;
    int64_t cell[8], at[8]; /* number, and element of the arrays with a halo */
    int64_t place[8][3];
    int number[8];          /* of those that the block has, by x + 2 y + 4 z within it; -1 for none */
} block_cells;

INLINE void steps_of(const parts_grid *g, int64_t cell_step[3], int64_t step[3]) {
    cell_step[0] = step[0] = 1;
    cell_step[1] = g->n[0], step[1] = g->n[0] + 2;
    cell_step[2] = g->n[0] * g->n[1], step[2] = (g->n[0] + 2) * (g->n[1] + 2);
}

INLINE void cells_of(const parts_grid *g, const int64_t halved[3], const int64_t next[3], int64_t b, block_cells *c) {
    const int64_t first[3] = {b % next[0] * (1 + halved[0]), b / next[0] % next[1] * (1 + halved[1]),
                              b / (next[0] * next[1]) * (1 + halved[2])};
    c->count = 0;
    for (int q = 0; q < 8; q++) {
        const int64_t half[3] = {q & 1, q >> 1 & 1, q >> 2};
        int there = 1;
        for (int a = 0; a < 3; a++) there &= half[a] <= halved[a] && first[a] + half[a] < g->n[a];
        c->number[q] = there ? c->count : -1;
        if (!there) continue;
        const int64_t x = first[0] + half[0], y = first[1] + half[1], z = first[2] + half[2];
        c->place[c->count][0] = x, c->place[c->count][1] = y, c->place[c->count][2] = z;
        c->cell[c->count] = (z * g->n[1] + y) * g->n[0] + x;
        c->at[c->count++] = ((z + 1) * (g->n[1] + 2) + y + 1) * (g->n[0] + 2) + x + 1;
    }
}

INLINE float stronger(float a, float b) { return a > b ? a : b; }

INLINE float strongest_at(const parts_grid *g, const int64_t step[3], int64_t at) {
    float most = 0.0f;
    for (int a = 0; a < 3; a++) most = stronger(most, stronger(g->w[a][at], g->w[a][at + step[a]]));
    return most;
}

/* As dcdm_parts_seen. axis numbers are those of g. */
void dcdm_parts_grid_seen(const parts_grid *g, double seen[3]) {
    int64_t bins[3][PARTS_BINS] = {{0}}, cell_step[3], step[3];
    steps_of(g, cell_step, step);
    const int64_t cells = g->n[0] * g->n[1] * g->n[2], every = (cells / 20000 + 1) | 1; /* a sample */
    for (int64_t cell = 0; cell < cells; cell += every) {
        const int64_t x = cell % g->n[0], y = cell / g->n[0] % g->n[1], z = cell / cell_step[2];
        const int64_t at = (z + 1) * step[2] + (y + 1) * step[1] + x + 1;
        float along[3], most = 0.0f;
        for (int a = 0; a < 3; a++) {
            along[a] = g->w[a][at] + g->w[a][at + step[a]];
            most = stronger(most, along[a]);
        }
        for (int a = 0; a < 3 && most > 0.0f; a++) parts_count_share(bins[a], along[a], most);
    }
    for (int a = 0; a < 3; a++) seen[a] = parts_median_share(bins[a]);
}

INLINE void join(int label[8], int count, int i, int j) {
    const int low = label[i] < label[j] ? label[i] : label[j], high = label[i] + label[j] - low;
    for (int k = 0; k < count; k++) label[k] = label[k] == high ? low : label[k];
}

/* As dcdm_parts_divide; part: [cells], -1 for cells without couplings. */
int64_t dcdm_parts_grid_divide(const parts_grid *g, const int64_t halved[3], const int64_t next[3], double theta,
                               double follows, int32_t *part, int64_t *first, int threads) {
    const int64_t blocks = next[0] * next[1] * next[2];
    const float share = (float)theta;
    int64_t cell_step[3], step[3];
    steps_of(g, cell_step, step);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        block_cells c;
        float strongest[8];
        int label[8], joined[8] = {0}, count = 0;
        cells_of(g, halved, next, b, &c);
        for (int i = 0; i < c.count; i++) label[i] = i, strongest[i] = strongest_at(g, step, c.at[i]);
        for (int q = 0; q < 8; q++)
            for (int a = 0; a < 3; a++) {
                const int i = c.number[q], j = q >> a & 1 ? -1 : c.number[q | 1 << a];
                if (i < 0 || j < 0) continue;
                const float value = g->w[a][c.at[j]];
                if (!(value > 0.0f && value >= share * stronger(strongest[i], strongest[j]))) continue;
                joined[i] = joined[j] = 1;
                join(label, c.count, i, j);
            }
        for (int q = 0; q < 8; q++) {
            const int i = c.number[q];
            if (i < 0 || joined[i]) continue;
            float all = 0.0f;
            for (int a = 0; a < 3; a++) all += g->w[a][c.at[i]] + g->w[a][c.at[i] + step[a]];
            float most = (float)follows * all;
            int with = -1;
            for (int a = 0; a < 3; a++) {
                const int high = q >> a & 1, j = c.number[q ^ 1 << a];
                if (j < 0) continue;
                const float value = g->w[a][c.at[high ? i : j]];
                if (value > 0.0f && value >= most && strongest[j] > strongest[i]) most = value, with = j;
            }
            if (with >= 0) join(label, c.count, i, with);
        }
        int32_t number[8];
        for (int i = 0; i < c.count; i++) {
            if (label[i] == i) number[i] = strongest[i] > 0.0f ? count++ : -1;
            part[c.cell[i]] = number[label[i]];
        }
        first[b + 1] = count;
    }
    first[0] = 0;
    for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        block_cells c;
        cells_of(g, halved, next, b, &c);
        for (int i = 0; i < c.count; i++)
            if (part[c.cell[i]] >= 0) part[c.cell[i]] += (int32_t)first[b];
    }
    return first[blocks];
}

/* As in part_setup.c. */
INLINE float way_within(const parts_grid *g, int64_t step, int64_t cell_step, int64_t cell, int64_t at, int a) {
    const float low = g->w[a][at], high = g->w[a][at + step];
    float sum = 0.0f;
    if (low > 0.0f && g->part[cell - cell_step] == g->part[cell]) sum += low;
    if (high > 0.0f && g->part[cell + cell_step] == g->part[cell]) sum += high;
    return sum > 0.0f ? 1.0f / sum : 0.0f;
}

/* Rows of the next level from the parts of the cells: with `lengths` only how long they are, to row[p + 1], and s,
 * block; else the couplings, to where row has them. */
void dcdm_parts_grid_rows(const parts_grid *g, const int64_t halved[3], const parts_level *next, int lengths,
                          int threads) {
    const int64_t blocks = next->blocks[0] * next->blocks[1] * next->blocks[2];
    /* of a flat grid the next level is (x, y, 1) where g is (x, 1, y) */
    const int64_t next_of_grid[3] = {next->blocks[0], g->flat ? 1 : next->blocks[1], next->blocks[g->flat ? 1 : 2]};
    int64_t cell_step[3], step[3];
    steps_of(g, cell_step, step);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t begin = next->first[b], count = next->first[b + 1] - begin;
        block_cells c;
        int32_t column[8][24];
        float value[8][24];
        double s[8] = {0.0};
        int length[8] = {0};
        if (!count) continue;
        cells_of(g, halved, next_of_grid, b, &c);
        for (int i = 0; i < c.count; i++) {
            const int64_t p = g->part[c.cell[i]] - begin;
            if (p < 0) continue;
            s[p] += g->s[c.at[i]];
            for (int a = 0; a < 3; a++)
                for (int high = 0; high < 2; high++) {
                    const int64_t cell = c.cell[i], there = high ? cell + cell_step[a] : cell - cell_step[a];
                    float w = g->w[a][high ? c.at[i] + step[a] : c.at[i]];
                    if (!(w > 0.0f)) continue;
                    const int32_t q = g->part[there];
                    if (q == begin + p) continue;
                    if (halved[a] && !lengths)
                        w = parts_in_series(
                            w, way_within(g, step[a], cell_step[a], cell, c.at[i], a) +
                                   way_within(g, step[a], cell_step[a], there,
                                              high ? c.at[i] + step[a] : c.at[i] - step[a], a));
                    int at = 0;
                    while (at < length[p] && column[p][at] != q) at++;
                    if (at == length[p]) column[p][at] = q, value[p][at] = 0.0f, length[p]++;
                    value[p][at] += w;
                }
        }
        for (int64_t p = 0; p < count; p++) {
            if (lengths) {
                next->row[begin + p + 1] = length[p];
                next->s[begin + p] = (float)s[p];
                next->block[begin + p] = (int32_t)b;
                continue;
            }
            for (int e = 0; e < length[p]; e++) {
                next->column[next->row[begin + p] + e] = column[p][e];
                next->value[next->row[begin + p] + e] = value[p][e];
            }
        }
    }
}
