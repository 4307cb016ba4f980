/* How the parts of the first division are coupled, from the faces of the grid: what many cells need alike is worked out
 * row by row first. */
#include "parts/part_cycle.h"
#include "parts/part_first.h"

/* Low faces along axis a of VL cells. */
INLINE vf low_faces(const parts_grid *g, int a, int64_t at) {
    vu pairs;
    memcpy(&pairs, (a == 2 ? g->zs : g->xy) + at, sizeof pairs);
    return (vf)(a == 1 ? pairs & 0xFFFF0000u : pairs << 16);
}

/* One over what conducts, where both sides are one part. */
INLINE vf way(vf face, const int32_t *part, int64_t apart) {
    return masked(1.0f / face, (face > 0.0f) & (load_places(part) == load_places(part + apart)));
}

/* The same as for one cell below, for VL of them. */
INLINE vf series_of(const parts_grid *g, int a, const int64_t step[3], const int64_t apart[3], int64_t at,
                    const int32_t *part) {
    const vf low = low_faces(g, a, at), high = low_faces(g, a, at + step[a]), before = low_faces(g, a, at - step[a]);
    const vf ways = way(high, part, apart[a]) + way(before, part - 2 * apart[a], apart[a]);
    const vf share = 1.0f / (1.0f + 0.5f * low * ways);
    const vi more = share > 0.5f;
    return low * (vf)(((vi)share & more) | ((vi)splat(0.5f) & ~more));
}

/* Low faces along axis a of a row of cells, in series with the ways within the parts on both sides, as in
 * part_setup.c: along an axis that is halved a part reaches no further than the other cell of the block. at, cell: of
 * the first; odd: of the cells along y and z, whether it is the second of its block; inside: whether two rows or more
 * lie before it and one after it along that axis */
static NOINLINE void faces_of_row(const parts_grid *g, int a, int64_t halved, int64_t at, int64_t cell, int odd,
                                  int inside, float *restrict to) {
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
        if (a && inside && i + VL <= g->n[0]) {
            store(to + i, series_of(g, a, step, apart, at + i, part + i));
            i += VL - 1;
            continue;
        }
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
        faces_of_row(g, 0, halved[0], at, cell, 0, 0, own);
        own[g->n[0]] = 0.0f;
        for (int a = 1; a < 3; a++) {
            const int odd = k >> (a - 1) & 1;
            const int64_t step = a == 1 ? g->pitch : plane_size(g), apart = a == 1 ? g->n[0] : g->n[0] * g->n[1];
            const int64_t here = a == 1 ? rows->y[k] : rows->z[k];
            faces_of_row(g, a, halved[a], at, cell, odd, here > 1 && here + 1 < g->n[a], own + (2 * a - 1) * size);
            faces_of_row(g, a, halved[a], at + step, cell + apart, !odd, here > 0 && here + 2 < g->n[a],
                         own + 2 * a * size);
        }
    }
}

/* Couplings of a block of eight cells that is one part, as are the blocks beside it: sums over four faces each. of: its
 * first cell in the faces of the line */
INLINE void couple_whole(const parts_level *next, const int64_t blocks[3], const int64_t at[3], int64_t b,
                         const float *of, int64_t size, block_part *p) {
    const int64_t row = FACES * size, apart[3] = {1, blocks[0], blocks[0] * blocks[1]};
    const float *const rows[4] = {of, of + row, of + 2 * row, of + 3 * row};
    for (int face = 0; face < 6; face++) {
        const int a = face >> 1, high = face & 1;
        if (high ? at[a] + 1 == blocks[a] : at[a] == 0) continue;
        const float *const one = rows[a && high ? a : 0] + (a ? (2 * a - 1 + high) * size : 2 * high);
        const float *const other = rows[a ? (high ? 3 : 3 - a) : 1] + (a ? (2 * a - 1 + high) * size : 2 * high);
        float value = a ? one[0] + one[1] + other[0] + other[1] : one[0] + other[0];
        if (!a) value += rows[2][2 * high] + rows[3][2 * high];
        if (!(value > 0.0f)) continue;
        p->column[p->length] = (int32_t)next->first[high ? b + apart[a] : b - apart[a]];
        p->value[p->length++] = value;
    }
}

/* Whether a block and those beside it have one part each. */
INLINE int whole_around(const parts_level *next, const int64_t blocks[3], const int64_t at[3], int64_t b) {
    const int64_t apart[3] = {1, blocks[0], blocks[0] * blocks[1]}, *const first = next->first;
    int whole = first[b + 1] - first[b] == 1;
    for (int a = 0; a < 3 && whole; a++) {
        if (at[a] > 0) whole &= first[b - apart[a] + 1] - first[b - apart[a]] == 1;
        if (at[a] + 1 < blocks[a]) whole &= first[b + apart[a] + 1] - first[b + apart[a]] == 1;
    }
    return whole;
}

INLINE int64_t most_of_line(const parts_grid *g, const int64_t halved[3]) { /* couplings of a line of blocks */
    return 6 * g->n[0] * (1 + halved[1]) * (1 + halved[2]);
}

static void rows_part(void *arguments, int number) {
    const first_work *w = arguments;
    const parts_grid *g = &w->g;
    const parts_level *next = &w->to;
    const int64_t *const halved = w->halved, *const blocks = w->next;
    const int64_t n = g->n[0], apart[3] = {1, n, n * g->n[1]}, lines = blocks[1] * blocks[2], size = g->pitch + ALIGN;
    {
        float *const faces = w->room + number * 4 * FACES * size;
        int64_t to = first_of(lines, number, w->parts) * most_of_line(g, halved);
        block_part part[8];
        FOR_PART(line, lines, number, w->parts) {
            const line_rows rows = rows_of_line(g, halved, blocks, line);
            faces_of_line(g, halved, &rows, faces);
            for (int64_t bx = 0; bx < blocks[0]; bx++) {
                const int64_t b = line * blocks[0] + bx, first = next->first[b], parts = next->first[b + 1] - first;
                block_cells c;
                if (!parts) continue;
                cells_of(g, &rows, halved[0], bx, &c);
                for (int64_t p = 0; p < parts; p++) part[p].length = 0, part[p].s = 0.0f;
                const int64_t place[3] = {bx, line % blocks[1], line / blocks[1]};
                const int whole = c.count == 8 && whole_around(next, blocks, place, b);
                if (whole) {
                    for (int i = 0; i < 8; i++) part[0].s += g->part[c.cell[i]] < 0 ? 0.0f : upper(g->zs[c.at[i]]);
                    couple_whole(next, blocks, place, b, faces + c.x[0], size, part);
                }
                for (int i = 0; i < c.count && !whole; i++) {
                    const int32_t *const own = g->part + c.cell[i];
                    if (*own < 0) continue;
                    block_part *const p = part + (*own - first);
                    const float *const of = faces + c.row[i] * FACES * size + c.x[i];
                    p->s += upper(g->zs[c.at[i]]);
                    for (int face = 0; face < 6; face++) {
                        const int a = face >> 1, high = face & 1;
                        const float value = a ? of[(2 * a - 1 + high) * size] : of[high];
                        if (!(value > 0.0f)) continue;
                        const int32_t q = own[high ? apart[a] : -apart[a]];
                        if (q != *own) couple(p, q, value);
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
}

/* Rows of the next level from the parts of the cells; s, block. There is room for 6 couplings of each cell of each
 * line of blocks, were they whole. room: [threads][4][FACES][pitch + ALIGN] */
void dcdm_parts_grid_rows(const parts_grid *g, const int64_t halved[3], const parts_level *next, float *room,
                          int threads) {
    /* of a flat grid the next level is (x, y, 1) where g is (x, 1, y) */
    const int64_t blocks[3] = {next->blocks[0], g->flat ? 1 : next->blocks[1], next->blocks[g->flat ? 1 : 2]};
    const int64_t lines = blocks[1] * blocks[2], most = most_of_line(g, halved);
    first_work w = {.g = *g, .room = room, .to = *next, .parts = threads};
    memcpy(w.halved, halved, sizeof w.halved);
    memcpy(w.next, blocks, sizeof w.next);
    dcdm_run(rows_part, &w, sizeof w, threads);
    parts_begin_rows(next);
    for (int t = 1; t < threads; t++) { /* what each part has */
        const int64_t begin = first_of(lines, t, threads), end = first_of(lines, t + 1, threads);
        parts_move_rows(next, next->first[begin * blocks[0]], next->first[end * blocks[0]], begin * most);
    }
}
