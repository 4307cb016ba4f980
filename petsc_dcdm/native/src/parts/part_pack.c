/* Levels made ready for the cycle: rows of like lengths next to each other, in slices. */
#include "common.h"
#include "parts/part_cycle.h"
#include "parts/part_grid.h"
#include "parts/parts.h"
#include "shared/node_team.h"

enum { LONG = 64, NEAR = 1 << 16 }; /* lengths up to which rows are sorted by them; how far columns are near */

/* How many couplings of each row of a slice go into it, the first ones: what makes the least work if one of the
 * rest is as much as REST places. length: of its rows */
enum { REST = 6 };
static int64_t width_of(const int64_t length[SLICE], int64_t longest) {
    int64_t best = longest, least = SLICE * longest;
    for (int64_t width = longest - 1; width >= 0; width--) {
        int64_t work = SLICE * width;
        for (int k = 0; k < SLICE; k++) work += length[k] > width ? REST * (length[k] - width) : 0;
        if (work < least) least = work, best = width;
    }
    return best;
}

INLINE int64_t length_of(const parts_level *l, int64_t i) { return l->row[i + 1] - l->row[i]; }

/* What the parts of the first two kernels get. */
typedef struct {
    parts_level l;
    parts_stage to; /* of the second */
    int32_t *place, *base;
    int64_t *slice, *rest;
    int parts;
} packing;

INLINE int64_t windows(const parts_level *l) { return (l->n + WINDOW - 1) / WINDOW; }

/* The first of the columns of the window [from, end), itself included, wherever in their windows their places are; -1
 * if they are far apart. */
static int32_t base_of(const parts_level *l, int64_t from, int64_t end) {
    int32_t first = (int32_t)from, last = (int32_t)from;
    for (int64_t e = l->row[from]; e < l->row[end]; e++) {
        first = l->column[e] < first ? l->column[e] : first;
        last = l->column[e] > last ? l->column[e] : last;
    }
    first -= first % WINDOW;
    return last - last % WINDOW + WINDOW - first <= NEAR ? first : -1;
}

static void order_part(void *arguments, int part) {
    const packing *w = arguments;
    const parts_level *l = &w->l;
    int32_t *const place = w->place;
    int64_t *const slice = w->slice, *const rest = w->rest;
    FOR_PART(window, windows(l), part, w->parts) {
        const int64_t from = window * WINDOW, to = from + WINDOW < l->n ? from + WINDOW : l->n;
        const int32_t base = w->base[window] = base_of(l, from, to);
        int64_t next[LONG + 2] = {0}, length[WINDOW];
        for (int64_t i = from; i < to; i++) next[LONG - (length_of(l, i) < LONG ? length_of(l, i) : LONG) + 1]++;
        for (int k = 0; k < LONG; k++) next[k + 1] += next[k];
        for (int64_t i = from; i < to; i++) {
            const int64_t here = length_of(l, i), at = next[LONG - (here < LONG ? here : LONG)]++;
            place[i] = (int32_t)(from + at);
            length[at] = here;
        }
        for (int64_t k = to - from; k < WINDOW; k++) length[k] = 0;
        for (int64_t at = 0; at < to - from; at += SLICE) {
            int64_t longest = 0, left = 0;
            for (int64_t k = at; k < at + SLICE; k++) longest = length[k] > longest ? length[k] : longest;
            const int64_t width = width_of(length + at, longest);
            for (int64_t k = at; k < at + SLICE; k++) left += length[k] > width ? length[k] - width : 0;
            slice[(from + at) / SLICE + 1] = SLICE * width * (base < 0 ? 2 : 1);
            rest[(from + at) / SLICE + 1] = left;
        }
    }
}

/* Numbers of the unknowns in the cycle, place[n], the base of each window, and where slices and rests begin,
 * slice[slices + 1], rest[slices + 1]. */
void dcdm_parts_order(const parts_level *l, int32_t *place, int32_t *base, int64_t *slice, int64_t *rest,
                      int threads) {
    const int64_t count = (l->n + SLICE - 1) / SLICE;
    packing w = {.l = *l, .place = place, .base = base, .slice = slice, .rest = rest, .parts = threads};
    dcdm_run(order_part, &w, sizeof w, threads);
    slice[0] = rest[0] = 0;
    for (int64_t k = 0; k < count; k++) slice[k + 1] += slice[k], rest[k + 1] += rest[k];
}

INLINE float rounded(float value) { return lower(to_half(value)); }

INLINE uint32_t bits_of(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

static void pack_part(void *arguments, int part) {
    const packing *w = arguments;
    const parts_level *l = &w->l;
    const parts_stage *to = &w->to;
    const int32_t *const place = w->place;
    FOR_PART(window, windows(l), part, w->parts) {
        const int64_t from = window * WINDOW, end = from + WINDOW < l->n ? from + WINDOW : l->n;
        int32_t unknown[WINDOW];
        for (int64_t i = from; i < end; i++) unknown[place[i] - from] = (int32_t)i;
        for (int64_t begin = from; begin < end; begin += SLICE) {
            const int32_t base = to->base[window];
            const int64_t words = base < 0 ? 2 * SLICE : SLICE; /* of a coupling */
            const int64_t slice = begin / SLICE, width = (to->slice[slice + 1] - to->slice[slice]) / words;
            uint32_t *const word = to->word + to->slice[slice];
            int64_t rest = to->rest[slice];
            for (int64_t lane = 0; lane < SLICE; lane++) {
                const int64_t p = begin + lane, i = p < end ? unknown[p - from] : 0;
                const int64_t length = p < end ? length_of(l, i) : 0;
                const int32_t *const from_column = l->column + l->row[i];
                const float *const from_value = l->value + l->row[i];
                double sum = 0.0;
                for (int64_t e = 0; e < width; e++) {
                    uint32_t *const one = word + e * words + lane;
                    const uint32_t value = e < length ? bits_of(rounded(from_value[e])) : 0;
                    const int32_t column = e < length ? place[from_column[e]] : (int32_t)p;
                    if (base < 0) one[0] = (uint32_t)column, one[SLICE] = value;
                    else one[0] = value | (uint32_t)(column - base);
                }
                for (int64_t e = width; e < length; e++, rest++) {
                    to->rest_column[rest] = place[from_column[e]];
                    to->rest_value[rest] = rounded(from_value[e]);
                    to->rest_lane[rest] = (uint8_t)lane;
                }
                for (int64_t e = 0; e < length; e++) sum += rounded(from_value[e]);
                to->s[p] = p < end ? l->s[i] : 0.0f;
                sum += to->s[p];
                to->inverse[p] = sum > 0.0 ? (float)(1.0 / sum) : 0.0f;
            }
        }
    }
}

/* The rows of a level in their places, and the diagonal. */
void dcdm_parts_pack(const parts_level *l, int32_t *place, const parts_stage *to, int threads) {
    packing w = {.l = *l, .to = *to, .place = place, .parts = threads};
    dcdm_run(pack_part, &w, sizeof w, threads);
}

typedef struct {
    int64_t n;
    const int32_t *place, *part, *next;
    int32_t *to;
    int parts;
} leading;

static void lead_part(void *arguments, int part) {
    const leading *w = arguments;
    const int32_t *const place = w->place;
    FOR_PART(i, w->n, part, w->parts) w->to[place ? place[i] : i] = w->part[i] < 0 ? -1 : w->next[w->part[i]];
}

/* The unknown that each of n leads to: `next` of its part, at its place. place NULL: its number; may be in place then.
 */
void dcdm_parts_lead(int64_t n, const int32_t *place, const int32_t *part, const int32_t *next, int32_t *to,
                     int threads) {
    leading w = {n, place, part, next, to, threads};
    dcdm_run(lead_part, &w, sizeof w, threads);
}

/* Which of n unknowns lead to each of `count`: child, from first[count + 1] on, in their order. */
void dcdm_parts_collect(int64_t n, const int32_t *part, int64_t count, int32_t *first, int32_t *child) {
    memset(first, 0, (size_t)(count + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++)
        if (part[i] >= 0) first[part[i] + 1]++;
    for (int64_t p = 0; p < count; p++) first[p + 1] += first[p];
    for (int64_t i = 0; i < n; i++)
        if (part[i] >= 0) child[first[part[i]]++] = (int32_t)i;
    for (int64_t p = count; p > 0; p--) first[p] = first[p - 1];
    first[0] = 0;
}
