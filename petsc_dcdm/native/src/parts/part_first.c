/* The first division: of the cells of a grid into the parts of its blocks, and how these are coupled. The same as
 * part_setup.c does from level to level, from the faces of the grid: what many cells need alike is worked out row by
 * row first.
 */
#include <math.h>

#include "common.h"
#include "parts/part_grid.h"

/* The cells of a block of the next level. */
typedef struct {
    int count;
    int row[8], number[8];   /* which of the four rows of the line of blocks; by x + 2 y + 4 z, -1 for none */
    int64_t x[8], cell[8], at[8]; /* along the row; number; element of the arrays of the operator */
} block_cells;

/* The rows of cells that a line of blocks along x is made of, by y + 2 z; -1 for none. */
typedef struct {
    int64_t y[4], z[4];
    int there[4];
} line_rows;

INLINE line_rows rows_of_line(const parts_grid *g, const int64_t halved[3], const int64_t next[3], int64_t line) {
    line_rows rows;
    for (int k = 0; k < 4; k++) {
        const int64_t half[2] = {k & 1, k >> 1};
        rows.y[k] = line % next[1] * (1 + halved[1]) + half[0];
        rows.z[k] = line / next[1] * (1 + halved[2]) + half[1];
        rows.there[k] = half[0] <= halved[1] && half[1] <= halved[2] && rows.y[k] < g->n[1] && rows.z[k] < g->n[2];
    }
    return rows;
}

INLINE int64_t element(const parts_grid *g, int64_t z, int64_t y) { return (z * g->n[1] + y) * g->pitch; }

INLINE void cells_of(const parts_grid *g, const line_rows *rows, int64_t half, int64_t bx, block_cells *c) {
    c->count = 0;
    for (int q = 0; q < 8; q++) {
        const int k = q >> 1;
        const int64_t x = bx * (1 + half) + (q & 1);
        const int there = rows->there[k] && (q & 1) <= half && x < g->n[0];
        c->number[q] = there ? c->count : -1;
        if (!there) continue;
        const int64_t row = rows->z[k] * g->n[1] + rows->y[k];
        c->row[c->count] = k, c->x[c->count] = x;
        c->cell[c->count] = row * g->n[0] + x;
        c->at[c->count++] = row * g->pitch + x;
    }
}

INLINE float stronger(float a, float b) { return a > b ? a : b; }

/* How far an element is from its neighbour along each axis. */
INLINE void steps_of(const parts_grid *g, int64_t step[3]) { step[0] = 1, step[1] = g->pitch, step[2] = plane_size(g); }

/* As dcdm_parts_seen. axis numbers are those of g. */
void dcdm_parts_grid_seen(const parts_grid *g, double seen[3]) {
    int64_t bins[3][PARTS_BINS] = {{0}}, step[3];
    steps_of(g, step);
    const int64_t cells = g->n[0] * g->n[1] * g->n[2], every = (cells / 20000 + 1) | 1; /* a sample */
    for (int64_t cell = 0; cell < cells; cell += every) {
        const int64_t at = cell / g->n[0] * g->pitch + cell % g->n[0];
        float along[3], most = 0.0f;
        for (int a = 0; a < 3; a++) {
            along[a] = low_face(g, a, at) + low_face(g, a, at + step[a]);
            most = stronger(most, along[a]);
        }
        for (int a = 0; a < 3 && most > 0.0f; a++) parts_count_share(bins[a], along[a], most);
    }
    for (int a = 0; a < 3; a++) seen[a] = parts_share_seen(bins[a]);
}

INLINE void join(int label[8], int count, int i, int j) {
    const int low = label[i] < label[j] ? label[i] : label[j], high = label[i] + label[j] - low;
    for (int k = 0; k < count; k++) label[k] = label[k] == high ? low : label[k];
}

/* The strongest face of each cell of a row. */
static NOINLINE void strongest_of_row(const parts_grid *g, int64_t at, float *restrict to) {
    const uint32_t *restrict xy = g->xy + at, *restrict north = xy + g->pitch, *restrict zs = g->zs + at;
    const uint32_t *restrict above = zs + plane_size(g);
    for (int64_t i = 0; i < g->n[0]; i++) { /* bfloat16 that are not negative have the order of their words */
        uint32_t most = xy[i] << 16 > xy[i + 1] << 16 ? xy[i] << 16 : xy[i + 1] << 16;
        most = most > xy[i] ? most : xy[i];
        most = most > north[i] ? most : north[i];
        most = most > zs[i] << 16 ? most : zs[i] << 16;
        most = most > above[i] << 16 ? most : above[i] << 16;
        to[i] = upper(most);
    }
}

/* Numbers of the parts of the cells of a block within it, -1 for cells without couplings; returns how many. */
static int divide_block(const parts_grid *g, const int64_t step[3], const block_cells *c, const float strongest[8],
                        float share, float follows, int number[8]) {
    int label[8], joined[8] = {0}, count = 0, all = c->count == 8;
    for (int q = 0; q < 8 && all; q++)
        for (int a = 0; a < 3; a++) {
            if (q >> a & 1) continue;
            const int j = q | 1 << a;
            const float value = low_face(g, a, c->at[j]);
            all &= value > 0.0f && value >= share * stronger(strongest[q], strongest[j]);
        }
    if (all) {
        for (int i = 0; i < 8; i++) number[i] = 0;
        return 1;
    }
    for (int i = 0; i < c->count; i++) label[i] = i;
    for (int q = 0; q < 8; q++)
        for (int a = 0; a < 3; a++) {
            const int i = c->number[q], j = q >> a & 1 ? -1 : c->number[q | 1 << a];
            if (i < 0 || j < 0) continue;
            const float value = low_face(g, a, c->at[j]);
            if (!(value > 0.0f && value >= share * stronger(strongest[i], strongest[j]))) continue;
            joined[i] = joined[j] = 1;
            join(label, c->count, i, j);
        }
    for (int q = 0; q < 8; q++) {
        const int i = c->number[q];
        if (i < 0 || joined[i]) continue;
        float sum = 0.0f;
        for (int a = 0; a < 3; a++) sum += low_face(g, a, c->at[i]) + low_face(g, a, c->at[i] + step[a]);
        float most = follows * sum;
        int with = -1;
        for (int a = 0; a < 3; a++) {
            const int high = q >> a & 1, j = c->number[q ^ 1 << a];
            if (j < 0) continue;
            const float value = low_face(g, a, c->at[high ? i : j]);
            const float held = upper(g->zs[c->at[i]]) - upper(g->zs[c->at[j]]);
            if (value > 0.0f && value >= most && value >= follows * held && strongest[j] > strongest[i])
                most = value, with = j;
        }
        if (with >= 0) join(label, c->count, i, with);
    }
    for (int i = 0; i < c->count; i++) {
        if (label[i] == i) number[i] = strongest[i] > 0.0f ? count++ : -1;
        else number[i] = number[label[i]];
    }
    return count;
}

/* As dcdm_parts_divide; part: [cells], -1 for cells without couplings. room: [threads][4][n[0]] */
int64_t dcdm_parts_grid_divide(const parts_grid *g, const int64_t halved[3], const int64_t next[3], double theta,
                               double follows, int64_t *first, float *room, int threads) {
    const int64_t lines = next[1] * next[2];
    int64_t step[3];
    steps_of(g, step);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < lines; line++) {
        float *const strongest = room + omp_get_thread_num() * 4 * g->n[0];
        const line_rows rows = rows_of_line(g, halved, next, line);
        for (int k = 0; k < 4; k++)
            if (rows.there[k]) strongest_of_row(g, element(g, rows.z[k], rows.y[k]), strongest + k * g->n[0]);
        for (int64_t bx = 0; bx < next[0]; bx++) {
            block_cells c;
            float most[8];
            int number[8];
            cells_of(g, &rows, halved[0], bx, &c);
            for (int i = 0; i < c.count; i++) most[i] = strongest[c.row[i] * g->n[0] + c.x[i]];
            first[line * next[0] + bx + 1] = divide_block(g, step, &c, most, (float)theta, (float)follows, number);
            for (int i = 0; i < c.count; i++) g->part[c.cell[i]] = number[i];
        }
    }
    const int64_t blocks = lines * next[0];
    first[0] = 0;
    for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < g->n[1] * g->n[2]; row++) {
        const int64_t line = row / g->n[1] / (1 + halved[2]) * next[1] + row % g->n[1] / (1 + halved[1]);
        int32_t *restrict part = g->part + row * g->n[0];
        for (int64_t x = 0; x < g->n[0]; x++)
            if (part[x] >= 0) part[x] += (int32_t)first[line * next[0] + (x >> halved[0])];
    }
    return first[blocks];
}

/* Low faces along axis a of a row of cells, in series with the ways within the parts on both sides, as in
 * part_setup.c: along an axis that is halved a part reaches no further than the other cell of the block. at, cell: of
 * the first; odd: of the cells along y and z, whether it is the second of its block */
static NOINLINE void faces_of_row(const parts_grid *g, int a, int64_t halved, int64_t at, int64_t cell, int odd,
                                  float *restrict to) {
    const int64_t step[3] = {1, g->pitch, plane_size(g)}, apart[3] = {1, g->n[0], g->n[0] * g->n[1]};
    const int32_t *part = g->part + cell;
    /* within a block nothing lies between the middles of cells of different parts */
    if (!halved || (a > 0 && odd)) {
        for (int64_t i = 0; i < g->n[0]; i++) to[i] = low_face(g, a, at + i);
        return;
    }
    const int64_t every = a ? 1 : 2;
    for (int64_t i = 1; i < g->n[0] && !a; i += 2) to[i] = low_face(g, a, at + i);
    for (int64_t i = 0; i < g->n[0]; i += every) {
        const float low = low_face(g, a, at + i);
        to[i] = low;
        if (!(low > 0.0f)) continue;
        /* beyond the last cell nothing conducts, and before the first one is no part */
        const float high = low_face(g, a, at + i + step[a]), before = low_face(g, a, at + i - step[a]);
        float ways = 0.0f;
        if (high > 0.0f && part[i] == part[i + apart[a]]) ways += 1.0f / high;
        if (before > 0.0f && part[i - apart[a]] == part[i - 2 * apart[a]]) ways += 1.0f / before;
        to[i] = parts_in_series(low, ways);
    }
}

/* A part of a block, and what it is coupled to so far. */
typedef struct {
    int length;
    float s;
    int32_t column[24];
    float value[24];
} block_part;

INLINE void couple(block_part *p, int32_t q, float w) {
    int at = 0;
    while (at < p->length && p->column[at] != q) at++;
    if (at == p->length) p->column[at] = q, p->value[at] = 0.0f, p->length++;
    p->value[at] += w;
}

enum { FACES = 5 }; /* of a row of cells: low ones along x, low and high ones along y and z */

/* Those of all rows of a line of blocks: to[row][FACES][pitch + ALIGN], for there is one more along x. */
static void faces_of_line(const parts_grid *g, const int64_t halved[3], const line_rows *rows, float *to) {
    const int64_t size = g->pitch + ALIGN;
    for (int k = 0; k < 4; k++) {
        if (!rows->there[k]) continue;
        const int64_t row = rows->z[k] * g->n[1] + rows->y[k], cell = row * g->n[0], at = row * g->pitch;
        float *const own = to + k * FACES * size;
        faces_of_row(g, 0, halved[0], at, cell, 0, own);
        own[g->n[0]] = 0.0f;
        for (int a = 1; a < 3; a++) {
            const int odd = k >> (a - 1) & 1;
            const int64_t step = a == 1 ? g->pitch : plane_size(g), apart = a == 1 ? g->n[0] : g->n[0] * g->n[1];
            faces_of_row(g, a, halved[a], at, cell, odd, own + (2 * a - 1) * size);
            faces_of_row(g, a, halved[a], at + step, cell + apart, !odd, own + 2 * a * size);
        }
    }
}

/* Rows of the next level from the parts of the cells; s, block. There is room for 6 couplings of each cell of each
 * line of blocks, were they whole. room: [threads][4][FACES][pitch + ALIGN] */
void dcdm_parts_grid_rows(const parts_grid *g, const int64_t halved[3], const parts_level *next, float *room,
                          int threads) {
    /* of a flat grid the next level is (x, y, 1) where g is (x, 1, y) */
    const int64_t blocks[3] = {next->blocks[0], g->flat ? 1 : next->blocks[1], next->blocks[g->flat ? 1 : 2]};
    const int64_t n = g->n[0], apart[3] = {1, n, n * g->n[1]}, lines = blocks[1] * blocks[2], size = g->pitch + ALIGN;
    const int64_t most = 6 * n * (1 + halved[1]) * (1 + halved[2]); /* couplings of a line */
    int64_t team = 1;
#pragma omp parallel num_threads(threads)
    {
        const int64_t t = omp_get_thread_num(), count = omp_get_num_threads();
        float *const faces = room + t * 4 * FACES * size;
        int64_t to = lines * t / count * most;
        block_part part[8];
        if (t == 0) team = count;
        for (int64_t line = lines * t / count; line < lines * (t + 1) / count; line++) {
            const line_rows rows = rows_of_line(g, halved, blocks, line);
            faces_of_line(g, halved, &rows, faces);
            for (int64_t bx = 0; bx < blocks[0]; bx++) {
                const int64_t b = line * blocks[0] + bx, first = next->first[b], parts = next->first[b + 1] - first;
                block_cells c;
                if (!parts) continue;
                cells_of(g, &rows, halved[0], bx, &c);
                for (int64_t p = 0; p < parts; p++) part[p].length = 0, part[p].s = 0.0f;
                for (int i = 0; i < c.count; i++) {
                    const int32_t *const own = g->part + c.cell[i];
                    if (*own < 0) continue;
                    block_part *const p = part + (*own - first);
                    const float *const of = faces + c.row[i] * FACES * size + c.x[i];
                    p->s += upper(g->zs[c.at[i]]);
                    for (int face = 0; face < 6; face++) {
                        const int a = face >> 1, high = face & 1;
                        const float w = a ? of[(2 * a - 1 + high) * size] : of[high];
                        if (!(w > 0.0f)) continue;
                        const int32_t q = own[high ? apart[a] : -apart[a]];
                        if (q != *own) couple(p, q, w);
                    }
                }
                for (int64_t p = 0; p < parts; p++) {
                    next->row[first + p + 1] = part[p].length;
                    next->s[first + p] = part[p].s;
                    next->block[first + p] = (int32_t)b;
                    for (int e = 0; e < part[p].length; e++, to++)
                        next->column[to] = part[p].column[e], next->value[to] = part[p].value[e];
                }
            }
        }
    }
    next->row[0] = 0;
    for (int64_t p = 0; p < next->n; p++) next->row[p + 1] += next->row[p];
    for (int64_t t = 1; t < team; t++) { /* what each thread has to where it belongs */
        const int64_t begin = lines * t / team, p = next->first[begin * blocks[0]];
        const int64_t q = next->first[lines * (t + 1) / team * blocks[0]], count = next->row[q] - next->row[p];
        memmove(next->column + next->row[p], next->column + begin * most, (size_t)count * sizeof *next->column);
        memmove(next->value + next->row[p], next->value + begin * most, (size_t)count * sizeof *next->value);
    }
}
