/* Where a row can be, as its neighbours and theirs tell, and where it had best be if that is more than one place. */
#include "lattice/lattice.h"

/* Whether two neighbours of a row have another one in common: then they lie on perpendicular axes from it, for on one
 * axis there is none between them. */
int share_another(const search *s, int32_t a, int32_t b, int32_t but) {
    const int32_t *of_a = s->row[a].beside, *of_b = s->row[b].beside;
    int found = 0;
    for (int p = 0; p < SIDES; p++)
        for (int q = 0; q < SIDES; q++) found |= of_a[p] == of_b[q] && of_a[p] >= 0 && of_a[p] != but;
    return found;
}

static int inside(int64_t place) {
    const int64_t most = ((int64_t)1 << BITS) - 2;
    int found = 1;
    for (int axis = 0; axis < 3; axis++) found &= coordinate(place, axis) > 1 && coordinate(place, axis) < most;
    return found;
}

/* The sides (bits) without those that lie on the axis of a neighbour of v that shares another with u. */
static int without_squares(search *s, int32_t u, int32_t v, int32_t from, int sides, int *crossed, int32_t *level) {
    const int64_t here = s->row[v].place, origin = s->row[from].place;
    for (int q = 0; q < SIDES && s->row[v].beside[q] >= 0; q++) {
        const int32_t w = s->row[v].beside[q];
        if (w == u || s->row[w].place < 0) continue;
        if (s->choice_count && s->level[w] > *level) *level = s->level[w];
        const int side = direction_of(s->row[w].place - here);
        if (side < 0 || !share_another(s, u, w, v)) continue;
        if (v == from) *crossed |= 1 << side / 2;
        for (int d = 0; d < SIDES; d++) {
            const int along = direction_of(origin + step_along(d) - here);
            if (along >= 0 && along / 2 == side / 2) sides &= ~(1 << d);
        }
    }
    return sides;
}

/* How many rows are beside a place for row u that it is not coupled to, and how many free places. level: at least that
 * of those rows. */
int strangers(search *s, int32_t u, int64_t place, int *room, int32_t *level) {
    int found = 0;
    *room = 0;
    for (int d = 0; d < SIDES; d++) {
        const int32_t w = who(s, place + step_along(d));
        if (w < 0) {
            *room += d < 2 * s->axes;
            continue;
        }
        int coupled = 0;
        for (int q = 0; q < SIDES; q++) coupled |= s->row[u].beside[q] == w;
        if (!coupled && s->level[w] > *level) *level = s->level[w];
        found += !coupled;
    }
    return found;
}

/* The sides (bits) of its neighbour `from` where row u can be; 0 with from = -1 if no neighbour has a place. level: of
 * the latest choice that this depends on. */
int possible_sides(search *s, int32_t u, int32_t *from, int32_t *level) {
    int32_t known[SIDES];
    int count = 0, sides = 0, crossed = 0, own = 0;
    *level = 0, *from = -1;
    for (int q = 0; q < SIDES && s->row[u].beside[q] >= 0; q++) {
        const int32_t v = s->row[u].beside[q];
        if (s->row[v].place < 0) continue;
        known[count++] = v;
        if (s->choice_count && s->level[v] > *level) *level = s->level[v];
    }
    if (!count) return 0;
    const int32_t v = *from = known[0];
    for (int d = 0; d < SIDES; d++) {
        const int64_t place = s->row[v].place + step_along(d);
        int fits = inside(place);
        for (int k = 1; k < count; k++) fits &= direction_of(s->row[known[k]].place - place) >= 0;
        if (!fits) continue;
        const int32_t other = who(s, place);
        int room;
        if (other < 0) sides |= (!s->strict || !s->choice_count || !strangers(s, u, place, &room, level)) << d;
        else if (s->choice_count && s->level[other] > *level) *level = s->level[other];
        for (int q = 0; q < SIDES && other >= 0; q++) own += s->row[v].beside[q] == other;
    }
    if (sides & (sides - 1))
        for (int k = 0; k < count; k++) sides = without_squares(s, u, known[k], v, sides, &crossed, level);
    const int plane = (1 << 2 * s->axes) - 1, rise = s->axes < 3 ? 1 << (2 * s->axes + 1) : 0;
    if (s->may_rise) return sides & (plane | rise); /* which side of the plane is all the same */
    if (sides & plane) return sides & plane;
    return s->axes < 2 || crossed == (1 << s->axes) - 1 || own == 2 * s->axes ? sides & rise : 0;
}

/* How often rows numbered near v and u are found in each direction: they are as near in a piece of an orderly
 * numbering. */
static void neighbours_say(search *s, int32_t u, int32_t v, float *votes) {
    static const int32_t near[4] = {-1, 1, -2, 2};
    const int64_t distance = (int64_t)u - v, slack = llabs(distance) > 8 ? 3 : 0;
    float all = 0.5f;
    for (int k = 0; k < 4; k++) {
        const int64_t w = (int64_t)v + near[k];
        if (w < 0 || w >= s->given->rows || s->row[w].place < 0 || who(s, s->row[w].place) != w) continue;
        for (int q = 0; q < SIDES && s->row[w].beside[q] >= 0; q++) {
            const int32_t t = s->row[w].beside[q];
            if (s->row[t].place < 0 || llabs(t - w - distance) > slack) continue;
            const int side = direction_of(s->row[t].place - s->row[w].place);
            if (side >= 0) votes[side] += 1, all += 1;
        }
    }
    for (int d = 0; d < SIDES; d++) votes[d] /= all;
}

static void extend_box(search *s) {
    if (s->boxed > s->tail) s->boxed = s->tail;
    for (; s->boxed < s->tail; s->boxed++)
        for (int axis = 0; axis < 3; axis++) {
            const int64_t at = coordinate(s->row[s->trail[s->boxed]].place, axis);
            if (at < s->low[axis]) s->low[axis] = at;
            if (at > s->high[axis]) s->high[axis] = at;
        }
}

/* The sides (bits) of v in the order in which row u had best be tried there, without those where its other neighbours
 * have no room; returns how many. sure: the first is far better than the next. */
int rank_sides(search *s, int32_t u, int32_t v, int sides, uint8_t *order, int *sure) {
    float votes[SIDES] = {0}, score[SIDES];
    int count = 0, first_strangers = 0;
    const int64_t here = s->row[v].place;
    int32_t all = 16, waiting = 0;
    const int kind = kind_of(v, u);
    for (int d = 0; d < SIDES; d++) all += s->seen[d][kind];
    for (int q = 0; q < SIDES && s->row[u].beside[q] >= 0; q++) waiting += s->row[s->row[u].beside[q]].place < 0;
    neighbours_say(s, u, v, votes);
    extend_box(s);
    for (int d = 0; d < SIDES; d++) {
        if (!(sides >> d & 1)) continue;
        const int64_t place = here + step_along(d), at = coordinate(place, d / 2);
        int room;
        int32_t level = 0;
        const int others = strangers(s, u, place, &room, &level);
        if (room < waiting && d / 2 < s->axes && s->axes == 3) continue;
        const int32_t opposite = who(s, here - step_along(d));
        int straight = 0;
        for (int q = 0; q < SIDES; q++) straight |= opposite >= 0 && s->row[v].beside[q] == opposite;
        const float value = 8 * votes[d] + 6 * (float)s->seen[d][kind] / (float)all - 4 * (float)others +
                            (float)straight + 2 * (float)(at >= s->low[d / 2] && at <= s->high[d / 2]) -
                            (float)(d / 2 >= s->axes);
        int to = count++;
        for (; to > 0 && score[to - 1] < value; to--) score[to] = score[to - 1], order[to] = order[to - 1];
        score[to] = value, order[to] = (uint8_t)d;
        if (!to) first_strangers = others;
    }
    *sure = count == 1 || (count > 1 && !first_strangers && score[0] - score[1] >= 3);
    return count;
}
