/* The first division: of the cells of a grid into the parts of its blocks. The same as part_setup.c does from level to
 * level, from the faces of the grid. */
#include "common.h"
#include "parts/part_cycle.h"
#include "parts/part_first.h"

INLINE float stronger(float a, float b) { return a > b ? a : b; }

/* How far an element is from its neighbour along each axis. */
INLINE void steps_of(const parts_grid *g, int64_t step[3]) { step[0] = 1, step[1] = g->pitch, step[2] = plane_size(g); }

/* As dcdm_parts_seen. axis numbers are those of g. */
void dcdm_parts_grid_seen(const parts_grid *g, double seen[3]) {
    int64_t bins[3][PARTS_BINS] = {{0}}, step[3];
    steps_of(g, step);
    const int64_t cells = g->n[0] * g->n[1] * g->n[2], every = (cells / 5000 + 1) | 1; /* a sample */
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

/* Whether the low faces of each cell of a row join it to the cell below: bit a for axis a. strongest: of the row, with
 * an element before it; south, below: of the rows below it in the same blocks, or of any */
static NOINLINE void joined_of_row(const parts_grid *g, int64_t at, float share, const float *strongest,
                                   const float *south, const float *below, int32_t *to) {
    const float *const others[3] = {strongest - 1, south, below};
    for (int64_t i = 0; i < g->n[0]; i += VL) {
        const vf own = load(strongest + i);
        vi bits = {0};
        for (int a = 0; a < 3; a++) {
            const vf face = low_faces(g, a, at + i), other = load(others[a] + i);
            const vi less = own > other;
            const vf most = (vf)(((vi)own & less) | ((vi)other & ~less));
            bits |= (face > 0.0f) & (face >= share * most) & (1 << a);
        }
        memcpy(to + i, &bits, sizeof bits);
    }
}

/* Numbers of the parts of the cells of a block within it, -1 for cells without couplings; returns how many. holds: of
 * the cells, as of joined_of_row */
static int divide_block(const parts_grid *g, const int64_t step[3], const block_cells *c, const float strongest[8],
                        const int32_t holds[8], float follows, int number[8]) {
    int label[8], joined[8] = {0}, count = 0;
    for (int i = 0; i < c->count; i++) label[i] = i;
    for (int q = 0; q < 8; q++)
        for (int a = 0; a < 3; a++) {
            const int i = c->number[q], j = q >> a & 1 ? -1 : c->number[q | 1 << a];
            if (i < 0 || j < 0 || !(holds[j] >> a & 1)) continue;
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

static void divide_part(void *arguments, int part) {
    const first_work *w = arguments;
    const parts_grid *g = &w->g;
    const int64_t *const halved = w->halved, *const next = w->next, size = g->pitch + ALIGN;
    int64_t step[3], *const first = w->first;
    float *const strongest = w->room + part * LINE_ROOM * size + ALIGN;
    int32_t *const holds = (int32_t *)(strongest + 4 * size);
    steps_of(g, step);
    FOR_PART(line, next[1] * next[2], part, w->parts) {
        const line_rows rows = rows_of_line(g, halved, next, line);
        const int full = halved[0] && rows.there[0] && rows.there[1] && rows.there[2] && rows.there[3];
        int32_t *row[4];
        for (int k = 0; k < 4; k++) {
            if (!rows.there[k]) continue;
            row[k] = g->part + (rows.z[k] * g->n[1] + rows.y[k]) * g->n[0];
            float *const own = strongest + k * size;
            const float *const south = k & 1 ? own - size : own, *const below = k & 2 ? own - 2 * size : own;
            strongest_of_row(g, element(g, rows.z[k], rows.y[k]), own);
            joined_of_row(g, element(g, rows.z[k], rows.y[k]), w->share, own, south, below, holds + k * size);
        }
        for (int64_t bx = 0; bx < next[0]; bx++) {
            block_cells c;
            float most[8];
            int32_t held[8];
            int number[8];
            if (full && 2 * bx + 1 < g->n[0]) { /* cell q is joined along the axes of its bits in most blocks */
                int32_t all = 7;
                for (int q = 1; q < 8; q++) all &= holds[(q >> 1) * size + 2 * bx + (q & 1)] | ~q;
                if (all == 7) {
                    for (int q = 0; q < 8; q++) row[q >> 1][2 * bx + (q & 1)] = 0;
                    first[line * next[0] + bx + 1] = 1;
                    continue;
                }
            }
            cells_of(g, &rows, halved[0], bx, &c);
            for (int i = 0; i < c.count; i++) {
                most[i] = strongest[c.row[i] * size + c.x[i]];
                held[i] = holds[c.row[i] * size + c.x[i]];
            }
            first[line * next[0] + bx + 1] = divide_block(g, step, &c, most, held, w->follows, number);
            for (int i = 0; i < c.count; i++) g->part[c.cell[i]] = number[i];
        }
    }
}

static void number_part(void *arguments, int number) {
    const first_work *w = arguments;
    const parts_grid *g = &w->g;
    const int64_t *const halved = w->halved, *const next = w->next, *const first = w->first;
    FOR_PART(row, g->n[1] * g->n[2], number, w->parts) {
        const int64_t line = row / g->n[1] / (1 + halved[2]) * next[1] + row % g->n[1] / (1 + halved[1]);
        int32_t *restrict part = g->part + row * g->n[0];
        for (int64_t x = 0; x < g->n[0]; x++)
            if (part[x] >= 0) part[x] += (int32_t)first[line * next[0] + (x >> halved[0])];
    }
}

/* As dcdm_parts_divide; part: [cells], -1 for cells without couplings. room: [threads][LINE_ROOM][pitch +
 * ALIGN] */
int64_t dcdm_parts_grid_divide(const parts_grid *g, const int64_t halved[3], const int64_t next[3], double theta,
                               double follows, int64_t *first, float *room, int threads) {
    const int64_t blocks = next[0] * next[1] * next[2];
    first_work w = {.g = *g, .share = (float)theta, .follows = (float)follows, .first = first, .room = room,
                    .parts = threads};
    memcpy(w.halved, halved, sizeof w.halved);
    memcpy(w.next, next, sizeof w.next);
    dcdm_run(divide_part, &w, sizeof w, threads);
    first[0] = 0;
    for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
    dcdm_run(number_part, &w, sizeof w, threads);
    return first[blocks];
}
