/* A graph as a part of the lattice of cells: which cell is each row?
 *
 * Rows get their places one after the other, beside those that have one. A row with two neighbours in place has two
 * places at most, one of which the fourth of their square mostly has: this settles nearly all rows at the price of a
 * look at their couplings. A row with one neighbour lies on none of the axes of those others with which it shares
 * another neighbour. Where there still is a choice it is put off; then the numbers of the rows and of their
 * neighbours tell what is likely, and what does not come out is taken back (retreat.c). */
#include "lattice/lattice.h"

enum { AHEAD = 12 };

/* The places that are next to both of two; returns how many, 2 at most. */
INLINE int beside_both(int64_t here, int64_t other, int64_t *place) {
    int count = 0, distance = 0;
    for (int axis = 0; axis < 3; axis++) {
        const int apart = (int)(coordinate(other, axis) - coordinate(here, axis));
        const int far = apart < 0 ? -apart : apart;
        distance += far;
        if (far && count < 2) place[count++] = apart < 0 ? here - STEP[axis] : here + STEP[axis];
    }
    return distance == 2 ? count : 0;
}

/* Rows that have been settled tell their neighbours. Returns 0 where one of these does not fit. */
static int spread(search *s) {
    lattice_row *row = s->row;
    for (; s->head < s->tail; s->head++) {
        if (s->head + 2 * AHEAD < s->tail) __builtin_prefetch(&row[s->trail[s->head + 2 * AHEAD]]);
        if (s->head + AHEAD < s->tail) {
            const lattice_row *later = &row[s->trail[s->head + AHEAD]];
            for (int q = 0; q < SIDES; q++)
                if (later->beside[q] >= 0) __builtin_prefetch(&row[later->beside[q]], 1);
        }
        const int32_t v = s->trail[s->head];
        const int64_t here = row[v].place;
        const int counted = s->head - s->begin < 64 || !(s->head & 15);
        for (int q = 0; q < SIDES && row[v].beside[q] >= 0; q++) {
            const int32_t u = row[v].beside[q];
            const int64_t there = row[u].place;
            if (there == UNTOUCHED) {
                row[u].place = touched(here);
                if (!append(&s->first, u)) s->failed = 1;
                continue;
            }
            s->clash[0] = u, s->clash[1] = v;
            if (there >= 0) {
                const int side = direction_of(there - here);
                if (side < 0) return 0;
                if (counted) s->seen[side][kind_of(v, u)]++;
                continue;
            }
            const int64_t other = touched(there);
            int64_t place = NOWHERE, between_them[2];
            int32_t level = 0, between = EMPTY;
            int count = 0;
            const int places = beside_both(here, other, between_them);
            for (int k = 0; k < places; k++) {
                const int32_t w = who(s, between_them[k]);
                if (w >= 0) between = w;
                else place = between_them[k], count++;
            }
            if (count == 0) {
                s->clash[1] = EMPTY;
                return 0;
            }
            if (count > 1) continue;
            if (s->choice_count) {
                const int32_t first = who(s, other);
                level = s->level[v] > s->level[first] ? s->level[v] : s->level[first];
                if (between >= 0 && s->level[between] > level) level = s->level[between];
                int room;
                if (s->strict && strangers(s, u, place, &room, &level)) {
                    s->clash[1] = EMPTY;
                    return 0;
                }
            }
            settle(s, u, place, level);
        }
        if (s->failed) return 0;
    }
    return 1;
}

enum { FITS, CHOICE, CLASH };

static void settle_beside(search *s, int32_t u, int32_t v, int side, int32_t level) {
    if (side / 2 >= s->axes) s->axes = side / 2 + 1;
    settle(s, u, s->row[v].place + step_along(side), level);
}

/* Settle a row if it has one place, or CHOICE. */
static int look(search *s, int32_t u, int32_t *from, int *sides) {
    int32_t level;
    if (s->row[u].place >= 0) return FITS;
    *sides = possible_sides(s, u, from, &level);
    if (*from < 0) return FITS; /* it comes again when a neighbour is settled */
    if (!*sides) {
        s->clash[0] = u, s->clash[1] = EMPTY;
        return CLASH;
    }
    if (*sides & (*sides - 1)) return CHOICE;
    settle_beside(s, u, *from, __builtin_ctz((unsigned)*sides), level);
    return FITS;
}

enum { SAMPLE = 10000 };

/* Whether cells that touch are coupled, by a sample of what is certain. */
static int all_coupled(search *s) {
    const int64_t stride = 1 + (s->tail - s->begin) / SAMPLE;
    int room;
    int32_t level = 0;
    for (int64_t i = s->begin; i < s->tail; i += stride)
        if (strangers(s, s->trail[i], s->row[s->trail[i]].place, &room, &level)) return 0;
    return 1;
}

/* Settle a row in the best of its places, to come back to if need be; only where that is clear, if `sure`. */
static int choose(search *s, int32_t u, int32_t from, int sides, int only_sure) {
    if (!s->choice_count && s->strict) s->strict = all_coupled(s);
    choice c = {.row = u, .from = from, .trail = s->tail, .axes = s->axes, .tried = 1};
    int sure;
    c.count = rank_sides(s, u, from, sides, c.side, &sure);
    if (!c.count) {
        s->clash[0] = u, s->clash[1] = EMPTY;
        return CLASH;
    }
    if (only_sure && !sure) return CHOICE;
    if (s->choice_count == s->choice_room) {
        const int64_t room = s->choice_room ? 2 * s->choice_room : 256;
        choice *more = realloc(s->choices, (size_t)room * sizeof *more);
        if (!more) return s->failed = 1, CLASH;
        s->choices = more, s->choice_room = room;
    }
    s->choices[s->choice_count++] = c;
    s->given->guesses++;
    settle_beside(s, u, from, c.side[0], (int32_t)s->choice_count);
    return FITS;
}

/* How much a choice for this row tells: rows with many neighbours and few places fit nowhere else. */
static int weight_of(const search *s, int32_t u, int sides) {
    int neighbours = 0;
    while (neighbours < SIDES && s->row[u].beside[neighbours] >= 0) neighbours++;
    return SIDES * neighbours - __builtin_popcount((unsigned)sides);
}

/* One round through the rows that have a choice: settle those that have none any more; with `most` > 0 choose for so
 * many others, of at least this weight, or only where it is sure. Returns how many were settled, -1 for a clash. */
static int64_t go_round(search *s, int64_t most, int only_sure, int least, int *heaviest) {
    int64_t kept = 0, settled = 0, i = 0;
    int fits = 1;
    for (; i < s->open.count && fits; i++) {
        const int32_t u = s->open.row[i];
        int32_t from;
        int sides, found = look(s, u, &from, &sides);
        const int weight = found == CHOICE ? weight_of(s, u, sides) : 0;
        if (weight > *heaviest) *heaviest = weight;
        if (found == CHOICE && most > 0 && weight >= least) {
            found = choose(s, u, from, sides, only_sure);
            most -= found == FITS;
        }
        if (found != FITS) s->open.row[kept++] = u;
        settled += found == FITS;
        fits = found != CLASH && spread(s);
    }
    for (; i < s->open.count; i++) s->open.row[kept++] = s->open.row[i];
    s->budget -= s->choice_count ? s->open.count / 8 : 0;
    s->open.count = kept;
    return fits ? settled : -1;
}

/* A place for a row with one neighbour: a free one, or that of another such row, which then gets another. */
static int seat(search *s, int32_t u, int32_t *moved, int *count, int most) {
    const int32_t v = s->row[u].beside[0];
    int32_t from, level;
    const int sides = possible_sides(s, u, &from, &level);
    uint8_t order[SIDES];
    int sure;
    if (sides && rank_sides(s, u, v, sides, order, &sure)) {
        const int64_t place = s->row[v].place + step_along(order[0]);
        if (s->row[u].place < 0) settle_beside(s, u, v, order[0], level);
        else {
            int32_t *slot = place_slot(&s->at, place, 1);
            if (!slot) return s->failed = 1, 0;
            *slot = u, s->row[u].place = place;
        }
        return 1;
    }
    for (int d = 0; d < 2 * s->axes && *count < most; d++) {
        const int64_t place = s->row[v].place + step_along(d);
        const int32_t other = who(s, place);
        if (other < 0 || other == u || other == s->trail[s->begin] || s->row[other].beside[1] >= 0) continue;
        int known = 0;
        for (int k = 0; k < *count; k++) known |= moved[k] == other;
        if (known) continue;
        moved[(*count)++] = other;
        int32_t *slot = place_slot(&s->at, place, 0);
        *slot = u; /* so that it is not free */
        if (seat(s, other, moved, count, most)) {
            const int fresh = s->row[u].place < 0;
            slot = place_slot(&s->at, place, 0);
            *slot = u, s->row[u].place = place;
            if (fresh) s->trail[s->tail++] = u, s->level[u] = (int32_t)s->choice_count;
            return 1;
        }
        slot = place_slot(&s->at, place, 0);
        *slot = other;
    }
    return 0;
}

static int seat_leaves(search *s) {
    for (int64_t i = 0; i < s->leaves.count; i++) {
        const int32_t u = s->leaves.row[i];
        int32_t moved[64];
        int count = 0;
        if (s->row[u].place >= 0 || s->row[s->row[u].beside[0]].place < 0) continue;
        if (!seat(s, u, moved, &count, 64)) {
            s->clash[0] = u, s->clash[1] = EMPTY;
            s->any_choice = 1; /* those that were moved depend on others */
            return 0;
        }
    }
    s->leaves.count = 0;
    return spread(s);
}

/* Settle all that can be reached. Returns 0 for a clash. */
static int settle_all(search *s) {
    for (;;) {
        if (!spread(s)) return 0;
        if (s->first_head < s->first.count) {
            const int32_t u = s->first.row[s->first_head++];
            int32_t from;
            int sides;
            if (s->row[u].beside[1] < 0) {
                if (s->row[u].place < 0 && !append(&s->leaves, u)) s->failed = 1;
                continue;
            }
            const int found = look(s, u, &from, &sides);
            if (found != FITS && !append(&s->open, u)) s->failed = 1;
            if (found == CLASH || s->failed) return 0;
            continue;
        }
        s->first.count = s->first_head = 0;
        if (!s->open.count) return seat_leaves(s);
        int heaviest = 0;
        int64_t settled = go_round(s, 0, 0, 0, &heaviest);
        if (!settled) settled = go_round(s, s->open.count, 1, 0, &heaviest);
        if (!settled) settled = go_round(s, 1 + s->open.count / 64, 0, heaviest, &heaviest);
        if (settled < 0) return 0;
    }
}

/* Settle the component of a row from there and from a corner of its neighbours, if one is known. */
static int try_component(search *s, int32_t seed, const int32_t *corner, int corners) {
    s->choice_count = 0, s->axes = corners;
    s->begin = s->head = s->boxed = s->tail;
    s->first.count = s->open.count = s->leaves.count = s->first_head = 0;
    memset(s->seen, 0, sizeof s->seen);
    for (int axis = 0; axis < 3; axis++) s->low[axis] = s->high[axis] = coordinate(MIDDLE, axis);
    settle(s, seed, MIDDLE, 0);
    for (int axis = 0; axis < corners; axis++) settle(s, corner[axis], MIDDLE + STEP[axis], 0);
    while (!s->failed) {
        if (settle_all(s)) return 1;
        if (s->failed || !retreat(s)) break;
    }
    const int32_t clash[2] = {s->clash[0], s->clash[1]};
    take_back(s, s->begin);
    s->clash[0] = clash[0], s->clash[1] = clash[1];
    return 0;
}

/* The same, with what mostly holds and without it. Returns 0 if there is no way that was found. */
int embed_component(search *s, int32_t seed, const int32_t *corner, int corners) {
    const int64_t budget = s->budget;
    for (int strict = 1; strict >= 0; strict--)
        for (s->may_rise = s->solid; s->may_rise < 2 && !s->failed; s->may_rise++) {
            s->strict = strict, s->budget = budget;
            if (try_component(s, seed, corner, corners)) return 1;
        }
    return 0;
}
