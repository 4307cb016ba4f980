/* Who works on which planes of a level. */
#include "common.h"

static int64_t work_of(const dcdm_level *l, int64_t k) {
    int64_t cells = 0;
    for (const int32_t *range = l->range + 2 * k * l->n_r, *end = range + 2 * l->n_r; range < end; range += 2)
        cells += most(range[1] - range[0], 0);
    return cells;
}

/* Cells that are worth a part of their own: a leg takes some 4 microseconds on them, two threads meet in one or two. A
 * part of few planes would mostly repeat what its neighbours do. */
enum { FEWEST = 1500 };

static int64_t parts_for(const dcdm_level *l, int64_t planes, int64_t cells, int64_t threads) {
    return most(1, least(least(threads, planes / (2 * l->steps)), cells / FEWEST));
}

/* Parts that a level is divided into, at most. */
int64_t dcdm_most_parts(const dcdm_level *l, int64_t threads) {
    return parts_for(l, l->n_w, l->n_w * l->n_r * ((l->n_x + ALIGN - 1) / ALIGN * ALIGN), threads);
}

/* The planes with active cells, and those of them from `first` to `stop`, which are this rank's, in parts for at most
 * so many threads, to `part` of the level. */
void dcdm_share_out(dcdm_level *l, int64_t first, int64_t stop, int64_t threads) {
    int64_t *part = (int64_t *)l->part;
    const int64_t unit = l->half_w ? 2 : 1;
    int64_t begin = 0, end = 0, all = 0;
    for (int64_t k = l->n_w; k-- > 0;) {
        if (!work_of(l, k)) continue;
        begin = k;
        if (!end) end = k + 1;
    }
    l->w_begin = begin / unit * unit, l->w_end = least((end + unit - 1) / unit * unit, l->n_w);
    l->wrap_w &= l->w_begin == 0 && l->w_end == l->n_w; /* where one end is empty nothing couples to it */
    begin = least(most(l->w_begin, first), stop), end = most(least(l->w_end, stop), begin);
    for (int64_t k = begin; k < end; k++) all += work_of(l, k);
    l->parts = parts_for(l, end - begin, all, threads);
    int64_t k = begin, before = 0;
    part[0] = begin, part[l->parts] = end;
    for (int64_t q = 1; q < l->parts; q++) {
        const double until = (double)(all * q) / (double)l->parts;
        for (; k < end && (double)before < until; k++) before += work_of(l, k);
        part[q] = begin + (k - begin) / unit * unit;
    }
}
