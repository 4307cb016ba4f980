/* How the parts of the first division are coupled, from the faces of the grid: what many cells need alike is worked out
 * row by row first. */
#include "parts/part_cycle.h"
#include "parts/part_first.h"

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
    uint8_t latest[6]; /* where what a face of each kind led to is */
    int32_t column[24];
    float value[24];
} block_part;

INLINE void couple(block_part *p, int face, int32_t q, float w) {
    int at = p->latest[face];
    if (at >= p->length || p->column[at] != q) {
        for (at = 0; at < p->length && p->column[at] != q;) at++;
        if (at == p->length) p->column[at] = q, p->value[at] = 0.0f, p->length++;
        p->latest[face] = (uint8_t)at;
    }
    p->value[at] += w;
}

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

/* Where the faces of a cell are in those of its row, and how far the cells behind them: both of each axis in turn. */
INLINE void neighbours_of(const parts_grid *g, int64_t face[6], int64_t cell[6]) {
    const int64_t size = g->pitch + ALIGN, apart[3] = {1, g->n[0], g->n[0] * g->n[1]};
    for (int f = 0; f < 6; f++) {
        const int a = f >> 1, high = f & 1;
        face[f] = a ? (2 * a - 1 + high) * size : high;
        cell[f] = high ? apart[a] : -apart[a];
    }
}

/* Which faces of each cell of a row lead to other parts: bit f for face f of neighbours_of. y, z: of the row */
static NOINLINE void ways_out_of_row(const parts_grid *g, int64_t y, int64_t z, const float *faces, int32_t *to) {
    const int64_t n = g->n[0], row = z * g->n[1] + y, *const sizes = g->n;
    const int there[6] = {1, 1, y > 0, y + 1 < sizes[1], z > 0, z + 1 < sizes[2]};
    const int32_t *part = g->part + row * n;
    int64_t face[6], cell[6], i = 0;
    neighbours_of(g, face, cell);
    /* the vectors of the first and the last row of the grid would reach beyond it */
    const int64_t vectors = row > 0 && row + 1 < sizes[1] * sizes[2] ? n / VL * VL : 0;
    for (; i < vectors; i += VL) {
        const vi own = load_places(part + i);
        vi bits = {0};
        for (int f = 0; f < 6; f++)
            if (there[f])
                bits |= (load(faces + face[f] + i) > 0.0f) & (load_places(part + i + cell[f]) != own) & (1 << f);
        memcpy(to + i, &bits, sizeof bits);
    }
    for (; i < n; i++) {
        to[i] = 0;
        for (int f = 0; f < 6; f++)
            if (there[f] && faces[face[f] + i] > 0.0f && part[i + cell[f]] != part[i]) to[i] |= 1 << f;
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

/* Whether each block of a line, and those beside it, have one part each. */
static NOINLINE void whole_around(const parts_level *next, const int64_t blocks[3], int64_t line, uint8_t *whole) {
    const int64_t n = blocks[0], apart[3] = {1, n, n * blocks[1]}, *const first = next->first + line * n;
    const int64_t at[3] = {0, line % blocks[1], line / blocks[1]};
    for (int64_t b = 0; b < n; b++) whole[b] = first[b + 1] - first[b] == 1;
    for (int64_t b = 1; b < n; b++) whole[b] &= first[b] - first[b - 1] == 1;
    for (int64_t b = 0; b + 1 < n; b++) whole[b] &= first[b + 2] - first[b + 1] == 1;
    for (int side = 0; side < 4; side++) {
        const int a = 1 + (side >> 1), high = side & 1;
        if (high ? at[a] + 1 == blocks[a] : at[a] == 0) continue;
        const int64_t *const beside = first + (high ? apart[a] : -apart[a]);
        for (int64_t b = 0; b < n; b++) whole[b] &= beside[b + 1] - beside[b] == 1;
    }
}

static void rows_part(void *arguments, int number) {
    const first_work *w = arguments;
    const parts_grid *g = &w->g;
    const parts_level *next = &w->to;
    const int64_t *const halved = w->halved, *const blocks = w->next;
    const int64_t n = g->n[0], lines = blocks[1] * blocks[2], size = g->pitch + ALIGN;
    float *const faces = w->room + number * LINE_ROOM * size;
    int32_t *const out = (int32_t *)(faces + 4 * FACES * size);
    uint8_t *const whole = (uint8_t *)(out + 4 * size);
    int64_t to = w->of_lines[first_of(lines, number, w->parts)], face[6], apart[6];
    neighbours_of(g, face, apart);
    FOR_PART(line, lines, number, w->parts) {
        const line_rows rows = rows_of_line(g, halved, blocks, line);
        const int full = halved[0] && rows.there[0] && rows.there[1] && rows.there[2] && rows.there[3];
        const int32_t *part_of[4];
        const uint32_t *zs[4];
        faces_of_line(g, halved, &rows, faces);
        for (int k = 0; k < 4; k++) {
            if (!rows.there[k]) continue;
            part_of[k] = g->part + (rows.z[k] * g->n[1] + rows.y[k]) * n;
            zs[k] = g->zs + element(g, rows.z[k], rows.y[k]);
            ways_out_of_row(g, rows.y[k], rows.z[k], faces + k * FACES * size, out + k * size);
        }
        whole_around(next, blocks, line, whole);
        for (int64_t bx = 0; bx < blocks[0]; bx++) {
            const int64_t b = line * blocks[0] + bx, first = next->first[b], parts = next->first[b + 1] - first;
            const int64_t x = bx * (1 + halved[0]), x_end = least(x + 1 + halved[0], n);
            block_part part[8];
            if (!parts) continue;
            for (int64_t p = 0; p < parts; p++) {
                part[p].length = 0, part[p].s = 0.0f;
                memset(part[p].latest, 0, sizeof part[p].latest);
            }
            const int simple = full && x_end - x == 2 && whole[bx];
            if (simple) {
                const int64_t place[3] = {bx, line % blocks[1], line / blocks[1]};
                couple_whole(next, blocks, place, b, faces + x, size, part);
            }
            for (int k = 0; k < 4; k++) {
                for (int64_t i = x; i < x_end && rows.there[k]; i++) {
                    const int32_t own = part_of[k][i];
                    if (own < 0) continue;
                    block_part *const p = part + (own - first);
                    p->s += upper(zs[k][i]);
                    const float *const of = faces + k * FACES * size + i;
                    for (uint32_t bits = simple ? 0 : (uint32_t)out[k * size + i]; bits; bits &= bits - 1) {
                        const int f = __builtin_ctz(bits);
                        couple(p, f, part_of[k][i + apart[f]], of[face[f]]);
                    }
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

/* Rows of the next level from the parts of the cells; s, block. of_lines: [lines + 1] where there is room for the
 * couplings of each line of blocks. room: [threads][LINE_ROOM][pitch + ALIGN] */
void dcdm_parts_grid_rows(const parts_grid *g, const int64_t halved[3], const parts_level *next,
                          const int64_t *of_lines, float *room, int threads) {
    /* of a flat grid the next level is (x, y, 1) where g is (x, 1, y) */
    const int64_t blocks[3] = {next->blocks[0], g->flat ? 1 : next->blocks[1], next->blocks[g->flat ? 1 : 2]};
    const int64_t lines = blocks[1] * blocks[2];
    first_work w = {.g = *g, .room = room, .to = *next, .of_lines = of_lines, .parts = threads};
    memcpy(w.halved, halved, sizeof w.halved);
    memcpy(w.next, blocks, sizeof w.next);
    dcdm_run(rows_part, &w, sizeof w, threads);
    const written_rows written = {.l = *next, .lines = lines, .blocks = blocks[0], .of_lines = of_lines,
                                  .parts = threads};
    parts_join_rows(&written);
}
