/* Rows in lexicographic order, whatever cells have none: one pass.
 *
 * A row that is coupled to the one before it lies next to that along x. Of two others before it the nearer one is its
 * neighbour along y, the other one along z. Where there is only one, the order tells which: low neighbours along y
 * never go back from row to row. Pieces that grow apart and then meet are joined. All couplings are checked; what does
 * not come out, or would put two rows into one cell, is left to the search. */
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

/* What is known when a row has its turn: the low neighbours, -1 where there is none, and the one that is along y or z.
 * Returns 0 if there are too many. */
INLINE int low_neighbours(const lattice_row *row, int32_t r, int32_t *low, int32_t *either) {
    int32_t other[2] = {-1, -1};
    low[0] = low[1] = low[2] = *either = -1;
    for (int q = 0; q < SIDES && row[r].beside[q] >= 0; q++) {
        const int32_t v = row[r].beside[q];
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

/* Whether row r, which has its place in its piece, is `step` above v; pieces that meet here are joined. */
INLINE int fits_above(search *s, pieces *p, int32_t r, int32_t v, int64_t step) {
    int64_t mine = 0, theirs = 0;
    const int64_t apart = s->row[r].place - s->row[v].place - step;
    if (s->level[r] == s->level[v]) return apart == 0;
    const int32_t a = root_of(p, s->level[r], &mine), b = root_of(p, s->level[v], &theirs);
    if (a == b) return apart + mine - theirs == 0;
    p->parent[b] = a, p->shift[b] = apart + mine - theirs;
    return 1;
}

/* Pairs of axes (x y, x z, y z) as bits: those of which a row has two low neighbours that share another. A plane in
 * another order may look like one that is folded: then there is no square across the fold. */
INLINE int squares_at(const search *s, int32_t r, const int32_t *low) {
    int found = 0;
    for (int pair = 0; pair < 3; pair++) {
        const int32_t a = low[pair == 2], b = low[pair == 0 ? 1 : 2];
        found |= (a >= 0 && b >= 0 && share_another(s, a, b, r)) << pair;
    }
    return found;
}

/* Of the squares that there should be by the axes (bits) that couplings lie along: whether all have been seen. */
static int all_squares(int axes, int squares) {
    const int expected = ((axes & 3) == 3) | ((axes & 5) == 5) << 1 | ((axes & 6) == 6) << 2;
    return squares == expected;
}

static int place_rows(search *s, pieces *p, int folded) {
    int axes = 0, squares = 0;
    int32_t last_y = -1; /* the greatest low neighbour along y so far */
    for (int32_t r = 0; r < s->given->rows; r++) {
        int32_t low[3], either;
        if (s->row[r].beside[0] < 0) continue;
        if (!low_neighbours(s->row, r, low, &either)) return 0;
        if (either >= 0) {
            int along = either > last_y ? 1 : 2;
            if (low[0] >= 0) { /* seen from the row before */
                int64_t mine, theirs;
                if (root_of(p, s->level[r - 1], &mine) == root_of(p, s->level[either], &theirs)) {
                    const int64_t step = s->row[r - 1].place + mine + STEP[0] - s->row[either].place - theirs;
                    along = step == STEP[1] ? 1 : 2;
                }
            }
            low[along] = either;
        }
        if (low[1] > last_y) last_y = low[1];
        axes |= (low[0] >= 0) | (low[1] >= 0) << 1 | (low[2] >= 0) << 2;
        if (squares != 7) squares |= squares_at(s, r, low);
        const int axis = low[0] >= 0 ? 0 : low[1] >= 0 ? 1 : 2;
        if (low[axis] < 0) {
            s->row[r].place = MIDDLE;
            if ((s->level[r] = new_piece(p)) < 0) return 0;
            continue;
        }
        const int64_t before = s->row[low[axis]].place;
        if (coordinate(before, axis) + 2 >= (int64_t)1 << BITS) return 0;
        s->row[r].place = before + STEP[axis], s->level[r] = s->level[low[axis]];
        for (int other = axis + 1; other < 3; other++)
            if (low[other] >= 0 && !fits_above(s, p, r, low[other], STEP[other])) return 0;
    }
    return folded || all_squares(axes, squares);
}

/* Rows component by component into the trail, with their places in these. */
static int sort_components(search *s, pieces *p) {
    int32_t *number = malloc((size_t)(p->count + 1) * sizeof *number);
    if (!number) return 0;
    int32_t count = 0;
    int64_t shift;
    for (int32_t k = 0; k < p->count; k++) number[k] = root_of(p, k, &shift) == k ? count++ : -1;
    for (int32_t k = 0; k < p->count; k++) number[k] = number[root_of(p, k, &shift)];
    s->components = calloc((size_t)count + 1, sizeof *s->components);
    if (!s->components) {
        free(number);
        return 0;
    }
    s->component_count = s->component_room = count;
    for (int64_t r = 0; r < s->given->rows; r++)
        if (s->row[r].beside[0] >= 0) s->components[number[s->level[r]]].end++;
    for (int32_t k = 0; k < count; k++) {
        s->components[k].begin = k ? s->components[k - 1].begin + s->components[k - 1].end : 0;
        s->tail += s->components[k].end;
    }
    for (int32_t k = 0; k < count; k++) s->components[k].end = s->components[k].begin;
    for (int64_t r = 0; r < s->given->rows; r++) {
        if (s->row[r].beside[0] < 0) continue;
        const int32_t piece = s->level[r];
        root_of(p, piece, &shift);
        s->row[r].place += shift;
        s->trail[s->components[number[piece]].end++] = (int32_t)r;
    }
    free(number);
    return 1;
}

/* As if nothing had been looked for. */
static void forget_all(search *s) {
    for (int64_t r = 0; r < s->given->rows; r++) s->row[r].place = UNTOUCHED, s->level[r] = 0;
    free(s->components);
    s->components = NULL, s->component_count = s->component_room = s->tail = 0;
}

/* Cells for rows in lexicographic order; 0 if they are in another, or may be if what is found may be `folded`. */
int sweep(search *s, int folded) {
    pieces p = {0};
    if (folded) forget_all(s);
    int found = place_rows(s, &p, folded) && sort_components(s, &p) && pack_components(s);
    free(p.parent), free(p.shift);
    if (found) return 1;
    forget_all(s);
    return 0;
}
