/* What set-up counts on a level: where cells are active, and who works on which planes. */
#include "common.h"
#include "packed.h"

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t work_of(const dcdm_level *l, int64_t k) {
    int64_t cells = 0;
    for (const int32_t *range = l->range + 2 * k * l->n_r, *end = range + 2 * l->n_r; range < end; range += 2)
        cells += most(range[1] - range[0], 0);
    return cells;
}

/* The planes with active cells, and those of them from `first` to `stop`, which are this rank's, in parts for at most
 * so many threads; `part` has room for threads + 1 numbers. A part of few planes would mostly repeat what its
 * neighbours do; one of fewer cells than `fewest` is done before others begin. */
void dcdm_share_out(dcdm_level *l, int64_t first, int64_t stop, int64_t threads, int64_t fewest, int64_t *part) {
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
    l->parts = most(1, least(least(threads, (end - begin) / (2 * l->steps)), all / fewest));
    l->part = part;
    int64_t k = begin, before = 0;
    part[0] = begin, part[l->parts] = end;
    for (int64_t q = 1; q < l->parts; q++) {
        const double until = (double)(all * q) / (double)l->parts;
        for (; k < end && (double)before < until; k++) before += work_of(l, k);
        part[q] = begin + (k - begin) / unit * unit;
    }
}

/* Where packed cells are not 0: found = first z, y, x, or 1 if there are none, then one past the last. */
void dcdm_packed_bounds(const uint8_t *cells, int64_t n_z, int64_t n_y, int64_t n_x, int64_t pitch_z, int64_t pitch_y,
                        int64_t *found) {
    int64_t box[6] = {n_z, n_y, n_x, 0, 0, 0};
    for (int64_t k = 0; k < n_z; k++)
        for (int64_t j = 0; j < n_y; j++) {
            const uint8_t *row = cells + k * pitch_z + j * pitch_y;
            uint8_t some = 0;
            for (int64_t i = 0; i < n_x; i++) some |= row[i];
            if (!some) continue;
            box[0] = least(box[0], k), box[3] = k + 1;
            box[1] = least(box[1], j), box[4] = most(box[4], j + 1);
            int64_t i = 0;
            while (i < box[2] && !row[i]) i++;
            box[2] = least(box[2], i);
            for (i = n_x; i > box[5] && !row[i - 1];) i--;
            box[5] = most(box[5], i);
        }
    for (int a = 0; a < 3; a++) found[a] = box[3] ? box[a] : 1, found[3 + a] = box[3 + a];
}
