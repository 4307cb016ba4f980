/* Components side by side in one grid that is no larger than need be. */
#include <math.h>

#include "lattice/lattice.h"

enum { SAMPLE = 1 << 15, TURNING = 1 << 12 };

/* Rows in cells one after the other, or one row. */
INLINE line line_at(const search *s, int64_t i) {
    if (s->lines) return s->lines[i];
    return (line){.place = s->row[s->trail[i]].place, .row = s->trail[i], .count = 1};
}

/* Of couplings of a row of the trail: how far apart they are along each axis, and which of its two rows is first. */
INLINE void look_at_row(const search *s, int32_t v, double *apart, double *count, double *up) {
    for (int q = 0; q < SIDES && s->row[v].beside[q] >= 0; q++) {
        const int32_t u = s->row[v].beside[q];
        const int side = direction_of(s->row[u].place - s->row[v].place);
        const double distance = fabs((double)u - v);
        apart[side / 2] += log(distance), count[side / 2] += 1;
        up[side / 2] += (u > v) == (side & 1) ? 1 : -1;
    }
}

/* The same of a line. */
INLINE void look_at_line(const line *l, double *apart, double *count, double *up) {
    const double distance[3] = {l->count > 1, l->apart[0], l->apart[1]};
    for (int axis = 0; axis < 3; axis++)
        if (distance[axis] > 0) apart[axis] += log(distance[axis]), count[axis] += 1, up[axis] += 1;
}

/* Axes such that rows in the order of their numbers run along x, then y; where that order says nothing, the longest
 * is x. */
static void turn(const search *s, component *c) {
    double apart[3] = {0}, count[3] = {0}, up[3] = {0}, size[3];
    const int64_t stride = 1 + (c->end - c->begin) / TURNING;
    for (int64_t i = c->begin; i < c->end; i += stride) {
        if (s->lines) look_at_line(&s->lines[i], apart, count, up);
        else look_at_row(s, s->trail[i], apart, count, up);
    }
    for (int axis = 0; axis < 3; axis++) {
        c->axis[axis] = axis;
        c->flipped[axis] = up[axis] < -0.2 * count[axis];
        apart[axis] = count[axis] > 0 ? apart[axis] / count[axis] : 0;
        size[axis] = (double)c->extent[axis];
    }
    for (int pass = 0; pass < 2; pass++)
        for (int a = 0; a < 2; a++) {
            const int p = c->axis[a], q = c->axis[a + 1];
            const double further = apart[p] - apart[q];
            const int flat = (size[p] == 1) - (size[q] == 1);
            const int swap = flat ? flat > 0 : fabs(further) > 0.3 ? further > 0 : size[p] < size[q];
            if (swap) c->axis[a] = q, c->axis[a + 1] = p;
        }
}

/* Whether it has more rows than one thread had best look at; lines have dozens. */
INLINE int many(const search *s, const component *c) { return c->end - c->begin > (s->lines ? SAMPLE / 32 : SAMPLE); }

static void measure(const search *s, component *c) {
    int64_t x0 = INT64_MAX, y0 = INT64_MAX, z0 = INT64_MAX, x1 = 0, y1 = 0, z1 = 0;
#pragma omp parallel for num_threads(s->threads) if (many(s, c)) reduction(min : x0, y0, z0) \
    reduction(max : x1, y1, z1)
    for (int64_t i = c->begin; i < c->end; i++) {
        const line l = line_at(s, i);
        const int64_t x = coordinate(l.place, 0), y = coordinate(l.place, 1), z = coordinate(l.place, 2);
        const int64_t end = x + l.count - 1;
        x0 = x < x0 ? x : x0, y0 = y < y0 ? y : y0, z0 = z < z0 ? z : z0;
        x1 = end > x1 ? end : x1, y1 = y > y1 ? y : y1, z1 = z > z1 ? z : z1;
    }
    c->low[0] = x0, c->low[1] = y0, c->low[2] = z0;
    c->extent[0] = x1 - x0 + 1, c->extent[1] = y1 - y0 + 1, c->extent[2] = z1 - z0 + 1;
}

/* Along an axis of the grid. */
INLINE int64_t length(const component *c, int axis) { return c->extent[c->axis[axis]]; }

/* Where a component may begin: coarse cells had best not have parts of two. */
INLINE int64_t whole(const component *c, int axis, int axes) {
    const int64_t cells = length(c, axis);
    return axis >= axes ? 1 : cells >= 16 ? 8 : cells >= 4 ? 4 : 2;
}

INLINE int64_t round_up(int64_t at, int64_t to) { return (at + to - 1) / to * to; }

/* The largest first, in the order of their rows if alike. */
static int compare(const void *left, const void *right) {
    const component *a = left, *b = right;
    for (int axis = 2; axis >= 0; axis--)
        if (length(a, axis) != length(b, axis)) return length(a, axis) < length(b, axis) ? 1 : -1;
    return a->begin < b->begin ? -1 : 1;
}

static void arrange(search *s, int64_t *size) {
    int axes = s->component_count > 1 ? 2 : 1;
    int64_t most[3] = {1, 1, 1}, at[3] = {0, 0, 0}, next_line = 0, layer = 0;
    double volume = 0;
    for (int64_t k = 0; k < s->component_count; k++)
        for (int axis = 0; axis < 3; axis++) {
            const int64_t cells = length(&s->components[k], axis);
            if (cells > most[axis]) most[axis] = cells;
            if (cells > 1 && axis >= axes) axes = axis + 1;
        }
    for (int64_t k = 0; k < s->component_count; k++) {
        double cells = 1;
        for (int axis = 0; axis < axes; axis++)
            cells *= (double)round_up(length(&s->components[k], axis) + 1, whole(&s->components[k], axis, axes));
        volume += cells;
    }
    const double widest = (double)(most[0] > most[1] ? most[0] : most[1]);
    const int64_t side = (int64_t)ceil(pow(volume, 1.0 / axes));
    if (s->component_count > 1 && volume > 4 * (double)most[0] * (axes == 3 ? (double)most[1] * widest : widest)) {
        if (most[0] < side) most[0] = side;
        if (axes == 3 && most[1] < side) most[1] = side;
    }
    if (axes < 3) most[1] = INT64_MAX / 2;
    qsort(s->components, (size_t)s->component_count, sizeof *s->components, compare);
    size[0] = size[1] = size[2] = 1;
    for (int64_t k = 0; k < s->component_count; k++) {
        component *c = &s->components[k];
        at[0] = round_up(at[0], whole(c, 0, axes));
        if (at[0] + length(c, 0) > most[0]) at[0] = 0, at[1] = next_line;
        at[1] = round_up(at[1], whole(c, 1, axes));
        if (at[1] + length(c, 1) > most[1]) at[0] = at[1] = next_line = 0, at[2] = layer;
        at[2] = round_up(at[2], whole(c, 2, axes));
        for (int axis = 0; axis < 3; axis++) {
            c->origin[axis] = at[axis];
            if (at[axis] + length(c, axis) > size[axis]) size[axis] = at[axis] + length(c, axis);
        }
        at[0] += length(c, 0) + 1;
        if (at[1] + length(c, 1) + 1 > next_line) next_line = at[1] + length(c, 1) + 1;
        if (at[2] + length(c, 2) + 1 > layer) layer = at[2] + length(c, 2) + 1;
    }
}

/* The grid with enough cells for the rows without couplings; these may be anywhere. */
static void make_room(const search *s, int64_t *size) {
    const lattice_search *g = s->given;
    if (!s->tail) {
        size[0] = (int64_t)ceil(sqrt((double)g->rows));
        size[1] = size[2] = 1;
    }
    const int slowest = size[2] > 1 ? 2 : 1;
    const int64_t layer = size[0] * (slowest == 2 ? size[1] : 1), missing = g->rows - layer * size[slowest];
    if (missing > 0) size[slowest] += (missing + layer - 1) / layer;
}

/* Most cells that a grid may have: for every row, and all the same. */
enum { CELLS_PER_ROW = 64, CELLS_ANYWAY = 4096 };

/* The cells of a component, marked as taken. */
static void number_cells(const search *s, const component *c, uint8_t *taken) {
    const lattice_search *g = s->given;
    const int64_t pitch[3] = {1, g->shape[0], g->shape[0] * g->shape[1]};
    int64_t base = 0, step[3]; /* along the axes of the search */
    for (int axis = 0; axis < 3; axis++) {
        const int from = c->axis[axis];
        step[from] = c->flipped[from] ? -pitch[axis] : pitch[axis];
        base += pitch[axis] * (c->origin[axis] + (c->flipped[from] ? c->extent[from] - 1 : 0));
        base -= step[from] * c->low[from];
    }
#pragma omp parallel for num_threads(s->threads) if (many(s, c))
    for (int64_t i = c->begin; i < c->end; i++) {
        const line l = line_at(s, i);
        const int64_t cell = base + step[0] * coordinate(l.place, 0) + step[1] * coordinate(l.place, 1) +
                             step[2] * coordinate(l.place, 2);
        int64_t *to = g->cell + l.row;
        if (step[0] == 1) memset(taken + cell, 1, (size_t)l.count);
        for (int64_t t = 0; t < l.count; t++) to[t] = cell + t * step[0];
        for (int64_t t = 0; t < l.count && step[0] != 1; t++) taken[cell + t * step[0]] = 1;
    }
}

/* Cells for all rows from the places of those that are coupled; 0 if two have the same. */
int pack_components(search *s) {
    lattice_search *g = s->given;
    for (int64_t k = 0; k < s->component_count; k++) {
        measure(s, &s->components[k]);
        turn(s, &s->components[k]);
    }
    arrange(s, g->shape);
    make_room(s, g->shape);
    const double cells = (double)g->shape[0] * (double)g->shape[1] * (double)g->shape[2];
    if (cells > CELLS_ANYWAY + CELLS_PER_ROW * (double)g->rows) {
        g->code = LATTICE_LARGE;
        return 1;
    }
    uint8_t *taken = calloc((size_t)cells + 8, 1);
    if (!taken) return s->failed = 1, 1;
    for (int64_t k = 0; k < s->component_count; k++) number_cells(s, &s->components[k], taken);
    int64_t next = 0, count = 0;
    for (int64_t cell = 0; cell < (int64_t)cells; cell += 8) {
        uint64_t eight; /* each of them 0 or 1 */
        memcpy(&eight, taken + cell, sizeof eight);
        count += __builtin_popcountll(eight);
    }
    const int distinct = count == s->tail;
    for (int64_t k = 0; k < g->entries && distinct && s->tail < g->rows; k++) {
        const int64_t end = first_row(g, k + 1);
        for (int64_t r = first_row(g, k); r < end && g->row[k].beside[0] < 0; r++) {
            while (taken[next]) next++;
            g->cell[r] = next++;
        }
    }
    free(taken);
    return distinct;
}
