/* The search for the components of a graph, one by one. */
#include "lattice/lattice.h"

/* Each coupling into both of its rows. Returns a row that then has more than six, or -1. */
static int64_t add_other_way(lattice_search *g) {
    for (int64_t r = 0; r < g->rows; r++)
        for (int q = 0; q < SIDES && g->row[r].beside[q] >= 0; q++) {
            int32_t *back = g->row[g->row[r].beside[q]].beside;
            int p = 0;
            while (p < SIDES && back[p] >= 0 && back[p] != r) p++;
            if (p == SIDES) return g->row[r].beside[q];
            back[p] = (int32_t)r;
        }
    return -1;
}

/* Neighbours of a row that lie on three axes, or on two, each pair sharing another; returns how many. */
static int corner_at(const search *s, int32_t r, int32_t *corner) {
    const int32_t *beside = s->row[r].beside;
    int best = 0;
    for (int a = 0; a < SIDES && beside[a] >= 0; a++)
        for (int b = a + 1; b < SIDES && beside[b] >= 0; b++) {
            if (!share_another(s, beside[a], beside[b], r)) continue;
            if (!best) corner[0] = beside[a], corner[1] = beside[b], best = 2;
            for (int c = b + 1; c < SIDES && beside[c] >= 0; c++)
                if (share_another(s, beside[a], beside[c], r) && share_another(s, beside[b], beside[c], r)) {
                    corner[0] = beside[a], corner[1] = beside[b], corner[2] = beside[c];
                    return 3;
                }
        }
    return best;
}

/* A row near r that has a corner on three axes, if there is one: with it the axes are known from the start. */
static int32_t better_seed(const search *s, int32_t r, int32_t *corner, int *corners) {
    int32_t other[3];
    for (int p = 0; p < SIDES && *corners < 3 && s->row[r].beside[p] >= 0; p++) {
        const int32_t v = s->row[r].beside[p];
        for (int q = -1; q < SIDES && (q < 0 || s->row[v].beside[q] >= 0); q++) {
            const int32_t seed = q < 0 ? v : s->row[v].beside[q];
            if (corner_at(s, seed, other) < 3) continue;
            memcpy(corner, other, sizeof other);
            *corners = 3;
            return seed;
        }
    }
    return r;
}

static int find_component(search *s, int32_t r, int32_t *corner, int corners) {
    const int32_t seed = corners ? better_seed(s, r, corner, &corners) : r;
    if (s->component_count == s->component_room) {
        const int64_t room = s->component_room ? 2 * s->component_room : 64;
        component *more = realloc(s->components, (size_t)room * sizeof *more);
        if (!more) return s->failed = 1, 0;
        s->components = more, s->component_room = room;
    }
    free_table(&s->at);
    if (!start_table(&s->at)) return s->failed = 1, 0;
    if (!embed_component(s, seed, corner, corners)) return 0;
    s->components[s->component_count++] = (component){.begin = s->begin, .end = s->tail};
    return 1;
}

/* The rows of the largest component in order, for what is to come walks through all memory else. */
static void sort_largest(search *s) {
    const component *largest = s->components;
    for (int64_t k = 0; k < s->component_count; k++) {
        const component *c = &s->components[k];
        if (c->end - c->begin > largest->end - largest->begin) largest = c;
    }
    if (s->component_count > 1) memset(s->level, 0, (size_t)s->given->rows * sizeof *s->level);
    for (int64_t i = 0; i < s->tail && s->component_count > 1; i++)
        if (i < largest->begin || i >= largest->end) s->level[s->trail[i]] = 1;
    int64_t to = largest->begin;
    for (int64_t r = 0; r < s->given->rows && to < largest->end; r++)
        if (s->row[r].place >= 0 && (s->component_count == 1 || !s->level[r])) s->trail[to++] = (int32_t)r;
}

/* Cells for rows in any order. */
static void embed_all(search *s) {
    lattice_search *g = s->given;
    int64_t left = g->rows;
    for (int64_t r = 0; r < g->rows && !s->solid; r++) s->solid = g->row[r].beside[4] >= 0;
    for (int least = 2; least >= 0; least -= 2) /* first those with a square anywhere */
        for (int64_t r = least ? 0 : left; r < g->rows && !s->failed; r++) {
            int32_t corner[3];
            if (g->row[r].place >= 0 || g->row[r].beside[0] < 0) continue;
            const int corners = least ? corner_at(s, (int32_t)r, corner) : 0;
            if (corners < least && left > r) left = r; /* the first one to come back to */
            if (corners < least || find_component(s, (int32_t)r, corner, corners)) continue;
            g->code = LATTICE_STUCK, g->bad[0] = s->clash[0], g->bad[1] = s->clash[1];
            return;
        }
    if (s->failed) return;
    if (s->component_count) sort_largest(s);
    pack_components(s);
}

/* Cells for rows in any order, whose strands are told row by row first. */
static void search_rows(search *s) {
    const size_t rows = (size_t)s->given->rows + 1;
    if (!dcdm_lattice_expand(s->given, s->threads)) {
        s->failed = 1;
        return;
    }
    s->trail = malloc(rows * sizeof *s->trail);
    s->level = calloc(rows, sizeof *s->level);
    if (s->trail && s->level) embed_all(s);
    else s->failed = 1;
    if (s->failed || s->given->code != LATTICE_STUCK) return;
    s->given->code = LATTICE_OK;
    if (!sweep(s, 1)) s->given->code = LATTICE_STUCK;
}

/* Cells for all rows. `budget`: how many placements of a component may be taken back. */
void dcdm_lattice_search(lattice_search *g, int64_t budget, int threads) {
    search s = {.given = g, .row = g->row, .budget = budget, .threads = threads};
    g->code = LATTICE_OK, g->bad[0] = g->bad[1] = -1, g->undone = g->guesses = 0;
    s.failed = g->one_way && !dcdm_lattice_expand(g, threads);
    const int64_t crowded = g->one_way && !s.failed ? add_other_way(g) : -1;
    if (crowded >= 0) {
        g->code = LATTICE_CROWDED, g->bad[0] = crowded;
        return;
    }
    if (!s.failed && !sweep(&s, 0)) search_rows(&s);
    if (s.failed) g->code = LATTICE_MEMORY;
    g->components = s.component_count;
    free_table(&s.at);
    free(s.trail), free(s.level), free(s.choices), free(s.components), free(s.lines);
    free(s.first.row), free(s.open.row), free(s.leaves.row);
}
