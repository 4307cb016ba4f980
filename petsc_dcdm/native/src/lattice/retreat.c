/* Rows get their places; where the rest does not fit, placements are taken back to the choice that is to blame, which
 * is made another way (conflict-directed backjumping; P. Prosser, Hybrid algorithms for the constraint satisfaction
 * problem, Computational Intelligence 9, 1993). */
#include "lattice/lattice.h"

void settle(search *s, int32_t u, int64_t place, int32_t level) {
    int32_t *slot = place_slot(&s->at, place, 1);
    if (!slot) {
        s->failed = 1;
        return;
    }
    *slot = u;
    s->row[u].place = place;
    s->trail[s->tail++] = u;
    if (level) s->level[u] = level;
}

/* What an unsettled row knows of its neighbours; whether there is any. */
static int touch_again(search *s, int32_t u) {
    s->row[u].place = UNTOUCHED;
    for (int q = 0; q < SIDES && s->row[u].beside[q] >= 0; q++) {
        const int64_t place = s->row[s->row[u].beside[q]].place;
        if (place < 0) continue;
        s->row[u].place = touched(place);
        return 1;
    }
    return 0;
}

/* The placements after the first `trail`, all of which have told their neighbours. */
void take_back(search *s, int64_t trail) {
    const int64_t tail = s->tail;
    for (int64_t i = trail; i < tail; i++) {
        const int32_t u = s->trail[i];
        int32_t *slot = place_slot(&s->at, s->row[u].place, 0);
        if (slot && *slot == u) *slot = EMPTY;
        s->row[u].place = UNTOUCHED;
        s->level[u] = 0;
    }
    s->head = s->tail = trail;
    for (int64_t i = trail; i < tail; i++) {
        const int32_t u = s->trail[i];
        if (touch_again(s, u) && !append(&s->first, u)) s->failed = 1;
        for (int q = 0; q < SIDES && s->row[u].beside[q] >= 0; q++)
            if (s->row[s->row[u].beside[q]].place < 0) touch_again(s, s->row[u].beside[q]);
    }
    s->given->undone += tail - trail;
    s->budget -= tail - trail;
}

static void blame(reasons *to, int32_t level) {
    int at = to->count;
    while (at > 0 && to->level[at - 1] < level) at--;
    if (level <= 0 || (at > 0 && to->level[at - 1] == level)) return;
    if (to->count == REASONS) to->more = 1;
    else to->count++;
    for (int k = to->count - 1; k > at; k--) to->level[k] = to->level[k - 1];
    if (at < REASONS) to->level[at] = level;
}

/* What keeps a row from its place: its neighbours, and who is where it could be or beside that. */
static void blame_around(search *s, int32_t u, reasons *to) {
    if (s->row[u].place >= 0) blame(to, s->level[u]);
    for (int q = 0; q < SIDES && s->row[u].beside[q] >= 0; q++) {
        const int32_t v = s->row[u].beside[q];
        if (s->row[v].place < 0) continue;
        blame(to, s->level[v]);
        for (int d = 0; d < SIDES && s->row[u].place < 0; d++) {
            const int64_t place = s->row[v].place + step_along(d);
            const int32_t w = who(s, place);
            if (w >= 0) blame(to, s->level[w]);
            for (int e = 0; e < SIDES && w < 0; e++) {
                const int32_t t = who(s, place + step_along(e));
                if (t >= 0) blame(to, s->level[t]);
            }
        }
    }
}

/* Another way for the latest choice that the clash is due to; 0 if there is none. */
int retreat(search *s) {
    reasons due = {.more = s->any_choice};
    if (s->any_choice) blame(&due, (int32_t)s->choice_count);
    for (int k = 0; k < 2; k++)
        if (s->clash[k] >= 0) blame_around(s, s->clash[k], &due);
    s->any_choice = 0;
    while (due.count && s->budget > 0 && !s->failed) {
        const int32_t latest = due.level[0];
        choice *c = &s->choices[latest - 1];
        take_back(s, c->trail);
        s->choice_count = latest, s->axes = c->axes;
        for (int k = 1; k < due.count; k++) blame(&c->before, due.level[k]);
        c->before.more |= due.more;
        if (c->tried < c->count) {
            const int side = c->side[c->tried++];
            if (side / 2 >= s->axes) s->axes = side / 2 + 1;
            settle(s, c->row, s->row[c->from].place + step_along(side), latest);
            return 1;
        }
        s->choice_count = latest - 1;
        due = c->before;
        blame_around(s, c->row, &due);
        if (due.more && !due.count) blame(&due, latest - 1);
    }
    return 0;
}
