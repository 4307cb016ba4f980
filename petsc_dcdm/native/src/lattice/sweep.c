/* Rows in lexicographic order, whatever cells have none: one pass over the strands.
 *
 * A row that is coupled to the one before it lies next to that along x. Of two others before it the nearer one is its
 * neighbour along y, the other one along z. Where there is only one, the order tells which: low neighbours along y
 * never go back from row to row. Pieces that grow apart and then meet are joined. All couplings are checked, many at a
 * time where they repeat; what does not come out, or would put two rows into one cell, is left to the search. */
#include "lattice/lattice.h"

/* Pieces of rows that are known to hang together, joined to trees: where each is from its parent. */
typedef struct {
    int32_t *parent;
    int64_t *shift;
    int64_t count, room;
} pieces;

/* The root of a piece; `shift`: from places in the piece to those in the root. */
INLINE int32_t root_of(pieces *p, int32_t piece, int64_t *shift) {
    int64_t sum = 0;
    int32_t root = piece;
    while (p->parent[root] != root) sum += p->shift[root], root = p->parent[root];
    *shift = sum;
    while (p->parent[piece] != root && piece != root) { /* straight to the root from now on */
        const int32_t next = p->parent[piece];
        const int64_t part = p->shift[piece];
        p->parent[piece] = root, p->shift[piece] = sum;
        sum -= part, piece = next;
    }
    return root;
}

static int32_t new_piece(pieces *p) {
    if (p->count == p->room) {
        const int64_t room = p->room ? 2 * p->room : 1024;
        int32_t *parent = realloc(p->parent, (size_t)room * sizeof *parent);
        if (parent) p->parent = parent;
        int64_t *shift = realloc(p->shift, (size_t)room * sizeof *shift);
        if (shift) p->shift = shift;
        if (!parent || !shift) return -1;
        p->room = room;
    }
    p->parent[p->count] = (int32_t)p->count, p->shift[p->count] = 0;
    return (int32_t)p->count++;
}

static int new_line(search *s, int64_t row, int64_t place, int32_t piece) {
    if (s->line_count == s->line_room) {
        const int64_t room = s->line_room ? 2 * s->line_room : 1024;
        line *more = realloc(s->lines, (size_t)room * sizeof *more);
        if (!more) return 0;
        s->lines = more, s->line_room = room;
    }
    s->lines[s->line_count++] = (line){.place = place, .row = (int32_t)row, .piece = piece};
    return 1;
}

/* The line of a row, -1 if it has none; near: that of one before it in the same order of neighbours. */
INLINE int64_t line_of(const search *s, int64_t row, int64_t near) {
    int64_t low = near, high = s->line_count;
    if (!high) return -1;
    if (s->lines[low].row > row) high = low + 1, low = 0;
    for (int step = 0; step < 4 && low + 1 < high && s->lines[low + 1].row <= row; step++) low++;
    if (low + 1 < high && s->lines[low + 1].row > row) high = low + 1;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (s->lines[middle].row <= row) low = middle;
        else high = middle;
    }
    return row >= s->lines[low].row && row < s->lines[low].row + s->lines[low].count ? low : -1;
}

/* What is known of the first row of an entry: the low neighbours, -1 where there is none, and the one that is along y
 * or z. Returns 0 if there are too many. */
INLINE int low_neighbours(const lattice_row *entry, int64_t r, int64_t *low, int64_t *either) {
    int64_t other[2] = {-1, -1};
    low[0] = low[1] = low[2] = *either = -1;
    for (int q = 0; q < SIDES && entry->beside[q] >= 0; q++) {
        const int64_t v = entry->beside[q];
        if (v > r) continue;
        if (v == r - 1) low[0] = v;
        else if (other[0] < 0) other[0] = v;
        else if (other[1] < 0) other[1] = v;
        else return 0;
    }
    if (other[1] < 0) *either = other[0];
    else low[1] = other[0] > other[1] ? other[0] : other[1], low[2] = other[0] < other[1] ? other[0] : other[1];
    return 1;
}

INLINE int64_t place_in(const line *l, int64_t row) { return l->place + row - l->row; }

/* Whether row r of line l is `step` above v of another; pieces that meet here are joined. */
INLINE int fits_above(pieces *p, const line *l, int64_t r, const line *other, int64_t v, int64_t step) {
    int64_t mine = 0, theirs = 0;
    const int64_t apart = place_in(l, r) - place_in(other, v) - step;
    if (l->piece == other->piece) return apart == 0;
    const int32_t a = root_of(p, l->piece, &mine), b = root_of(p, other->piece, &theirs);
    if (a == b) return apart + mine - theirs == 0;
    p->parent[b] = a, p->shift[b] = apart + mine - theirs;
    return 1;
}

/* The couplings of a row by its entry, -1 behind them. */
static void couplings_of(const search *s, int64_t row, int64_t *beside) {
    const lattice_search *g = s->given;
    int64_t low = 0, high = g->entries;
    if (g->entries == g->rows) low = row, high = row + 1;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (first_row(g, middle) <= row) low = middle;
        else high = middle;
    }
    for (int q = 0; q < SIDES; q++) {
        const int32_t v = s->row[low].beside[q];
        beside[q] = v < 0 ? -1 : v + row - first_row(g, low);
    }
}

/* Pairs of axes (x y, x z, y z) as bits: those of which a row has two low neighbours that share another, besides those
 * known. A plane in another order may look like one that is folded: then there is no square across the fold. */
static int squares_at(const search *s, int64_t r, const int64_t *low, int known) {
    for (int pair = 0; pair < 3; pair++) {
        const int64_t a = low[pair == 2], b = low[pair == 0 ? 1 : 2];
        int64_t of_a[SIDES], of_b[SIDES];
        if (known >> pair & 1 || a < 0 || b < 0) continue;
        couplings_of(s, a, of_a), couplings_of(s, b, of_b);
        for (int i = 0; i < SIDES; i++)
            for (int k = 0; k < SIDES; k++) known |= (of_a[i] == of_b[k] && of_a[i] >= 0 && of_a[i] != r) << pair;
    }
    return known;
}

/* Of the squares that there should be by the axes (bits) that couplings lie along: whether all have been seen. */
static int all_squares(int axes, int squares) {
    const int expected = ((axes & 3) == 3) | ((axes & 5) == 5) << 1 | ((axes & 6) == 6) << 2;
    return squares == expected;
}

/* What has been seen of the rows before. */
typedef struct {
    int axes, squares, folded;
    int64_t last_y;  /* the greatest low neighbour along y so far */
    int64_t near[3]; /* the lines of the latest low neighbours along y, z, and of those along either */
} seen_so_far;

/* Places for row r and up to n - 1 after it that are neighbours of the rows after its low neighbours; returns how many
 * that are, 0 where they do not fit. */
static int64_t place_alike(search *s, pieces *p, seen_so_far *seen, int64_t r, int64_t n, int64_t *low,
                           int64_t either) {
    int64_t of[3] = {-1, -1, -1};
    if (low[0] < 0) n = 1;
    else if (!s->line_count || s->lines[s->line_count - 1].row + s->lines[s->line_count - 1].count != r) return 0;
    if (either >= 0) {
        const int64_t found = line_of(s, either, seen->near[2]);
        if (found < 0) return 0;
        int along = either > seen->last_y ? 1 : 2;
        if (low[0] >= 0) { /* seen from the row before */
            int64_t mine, theirs;
            const line *before = &s->lines[s->line_count - 1], *other = &s->lines[found];
            if (root_of(p, before->piece, &mine) == root_of(p, other->piece, &theirs)) {
                const int64_t step = place_in(before, r) + mine - place_in(other, either) - theirs;
                along = step == STEP[1] ? 1 : 2;
            }
        }
        low[along] = either, low[3 - along] = -1;
        of[along] = seen->near[2] = found;
    } else
        for (int axis = 1; axis < 3; axis++) {
            if (low[axis] < 0) continue;
            of[axis] = line_of(s, low[axis], seen->near[axis - 1]);
            if (of[axis] < 0) return 0;
            seen->near[axis - 1] = of[axis];
        }
    for (int axis = 1; axis < 3; axis++) {
        if (low[axis] < 0) continue;
        const int64_t left = s->lines[of[axis]].row + s->lines[of[axis]].count - low[axis];
        if (n > left) n = left;
    }
    if (low[1] >= 0 && low[1] + n - 1 > seen->last_y) seen->last_y = low[1] + n - 1;
    seen->axes |= (low[0] >= 0) | (low[1] >= 0) << 1 | (low[2] >= 0) << 2;
    for (int64_t t = 0; t < 2 && t < n && seen->squares != 7 && !seen->folded; t++) {
        const int64_t later[3] = {low[0] < 0 ? -1 : low[0] + t, low[1] < 0 ? -1 : low[1] + t,
                                  low[2] < 0 ? -1 : low[2] + t};
        seen->squares = squares_at(s, r + t, later, seen->squares);
    }
    const int axis = low[0] >= 0 ? 0 : low[1] >= 0 ? 1 : 2;
    if (low[axis] < 0) {
        const int32_t piece = new_piece(p);
        if (piece < 0 || !new_line(s, r, MIDDLE, piece)) return 0;
    } else if (axis > 0) {
        const line *before = &s->lines[of[axis]];
        const int64_t place = place_in(before, low[axis]);
        if (coordinate(place, axis) + 2 >= (int64_t)1 << BITS) return 0;
        if (!new_line(s, r, place + STEP[axis], before->piece)) return 0;
    }
    line *l = &s->lines[s->line_count - 1];
    l->count += (int32_t)n;
    if (coordinate(l->place, 0) + l->count + 1 >= (int64_t)1 << BITS) return 0;
    for (int other = 1; other < 3; other++) {
        if (low[other] < 0) continue;
        if (!l->apart[other - 1]) l->apart[other - 1] = (int32_t)(r - low[other]);
        if (other > axis && !fits_above(p, l, r, &s->lines[of[other]], low[other], STEP[other])) return 0;
    }
    return n;
}

static int place_entries(search *s, pieces *p, int folded) {
    const lattice_search *g = s->given;
    seen_so_far seen = {.last_y = -1, .folded = folded};
    for (int64_t k = 0; k < g->entries; k++) {
        int64_t low[3], either;
        if (s->row[k].beside[0] < 0) continue;
        const int64_t end = first_row(g, k + 1);
        int64_t r = first_row(g, k);
        if (!low_neighbours(&s->row[k], r, low, &either)) return 0;
        while (r < end) {
            const int64_t n = place_alike(s, p, &seen, r, end - r, low, either);
            if (!n) return 0;
            r += n;
            either += either >= 0 ? n : 0;
            for (int axis = 0; axis < 3; axis++) low[axis] += low[axis] >= 0 ? n : 0;
        }
    }
    return folded || all_squares(seen.axes, seen.squares);
}

/* Lines component by component, with their places in these. */
static int sort_components(search *s, pieces *p) {
    int32_t *number = malloc((size_t)(p->count + 1) * sizeof *number), count = 0;
    line *sorted = malloc((size_t)(s->line_count + 1) * sizeof *sorted);
    int64_t shift;
    for (int32_t k = 0; number && k < p->count; k++) number[k] = root_of(p, k, &shift) == k ? count++ : -1;
    s->components = calloc((size_t)count + 1, sizeof *s->components);
    if (!number || !sorted || !s->components) {
        free(number), free(sorted);
        return 0;
    }
    s->component_count = s->component_room = count;
    for (int32_t k = 0; k < p->count; k++) number[k] = number[root_of(p, k, &shift)];
    for (int64_t i = 0; i < s->line_count; i++) s->components[number[s->lines[i].piece]].end++;
    for (int32_t k = 0; k < count; k++)
        s->components[k].begin = k ? s->components[k - 1].begin + s->components[k - 1].end : 0;
    for (int32_t k = 0; k < count; k++) s->components[k].end = s->components[k].begin;
    for (int64_t i = 0; i < s->line_count; i++) {
        line *l = &s->lines[i];
        root_of(p, l->piece, &shift);
        l->place += shift;
        s->tail += l->count;
        sorted[s->components[number[l->piece]].end++] = *l;
    }
    free(s->lines), free(number);
    s->lines = sorted;
    return 1;
}

/* As if nothing had been looked for. */
static void forget_all(search *s) {
    free(s->components), free(s->lines);
    s->components = NULL, s->component_count = s->component_room = s->tail = 0;
    s->lines = NULL, s->line_count = s->line_room = 0;
}

/* Cells for rows in lexicographic order; 0 if they are in another, or may be if what is found may be `folded`. */
int sweep(search *s, int folded) {
    pieces p = {0};
    forget_all(s);
    const int found = place_entries(s, &p, folded) && sort_components(s, &p) && pack_components(s);
    free(p.parent), free(p.shift);
    if (!found) forget_all(s);
    return found;
}
