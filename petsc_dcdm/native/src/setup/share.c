/* Who works on which planes of a level, and on how many of their rows at a time. */
#include <unistd.h>

#include "common.h"

/* Fewest rows of a strip, as its passes repeat some rows of its neighbours; planes from one that is looked at to the
 * next one. */
enum { FEWEST_ROWS = 16, APART = 4 };

/* Bytes of the second-level cache of a core. */
static int64_t second_level(void) {
    static int64_t found;
    if (!found) {
        long size = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
        size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        found = size > 0 ? size : 1 << 20;
    }
    return found;
}

/* Bytes of a row that the passes of a leg come back to, plane after plane: their fields, and the coefficients of those
 * blocks that have no class, as many as there are in a row of some planes. */
static int64_t bytes_of_row(const dcdm_level *l) {
    int64_t rows = 0, own = 0;
    for (int64_t k = l->w_begin; k < l->w_end; k += APART)
        for (int64_t j = 0; j < l->n_r; j++, rows++) {
            const int32_t *range = l->range + 2 * (k * l->n_r + j);
            const uint8_t *class = classes_at(l, k, j);
            for (int64_t b = range[0] / ALIGN; b < range[1] / ALIGN; b++) own += !class[b];
        }
    const int64_t block = ALIGN * (OMEGA + 1) * (int64_t)sizeof(coef);
    return (4 * l->steps + 1) * l->pitch_r * (int64_t)sizeof(float) + (l->steps + 1) * block * own / most(rows, 1);
}

/* Rows of a strip. Somewhat less than half of the cache: what goes by is there, too. */
static int64_t rows_of_strip(const dcdm_level *l) {
    if (!l->n_r || !l->block_class || l->wrap_r || l->place_r) return l->n_r;
    const int64_t fit = most(FEWEST_ROWS, second_level() * 7 / 16 / bytes_of_row(l));
    const int64_t strips = (l->n_r + fit - 1) / fit, rows = (l->n_r + strips - 1) / strips;
    return strips > 1 ? rows + rows % 2 : l->n_r;
}

/* Cells of plane k in ranges. */
static int64_t cells_of(const dcdm_level *l, int64_t k) {
    int64_t cells = 0;
    for (const int32_t *range = l->range + 2 * k * l->n_r, *end = range + 2 * l->n_r; range < end; range += 2)
        cells += most(range[1] - range[0], 0);
    return cells;
}

/* What a pass has to do on plane k, in times of a block that has a class: about twice that for one that has none, and
 * for each row. */
static int64_t work_of(const dcdm_level *l, int64_t k) {
    int64_t work = 0;
    for (int64_t j = 0; j < l->n_r; j++) {
        const int32_t *range = l->range + 2 * (k * l->n_r + j);
        const int64_t begin = range[0] / ALIGN, end = range[1] / ALIGN;
        if (begin >= end) continue;
        work += 2 + end - begin;
        const uint8_t *class = l->block_class ? classes_at(l, k, j) : NULL;
        for (int64_t b = begin; b < end && class; b++) work += !class[b];
    }
    return work;
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
 * so many threads, to `part` of the level: as even as whole planes are. Of a level that is set up. */
void dcdm_share_out(dcdm_level *l, int64_t first, int64_t stop, int64_t threads) {
    int64_t *part = (int64_t *)l->part;
    const int64_t unit = l->half_w ? 2 : 1;
    int64_t begin = 0, end = 0, cells = 0, all = 0;
    for (int64_t k = l->n_w; k-- > 0;) {
        if (!cells_of(l, k)) continue;
        begin = k;
        if (!end) end = k + 1;
    }
    l->w_begin = begin / unit * unit, l->w_end = least((end + unit - 1) / unit * unit, l->n_w);
    l->wrap_w &= l->w_begin == 0 && l->w_end == l->n_w; /* where one end is empty nothing couples to it */
    begin = least(most(l->w_begin, first), stop), end = most(least(l->w_end, stop), begin);
    for (int64_t k = begin; k < end; k++) cells += cells_of(l, k);
    l->parts = parts_for(l, end - begin, cells, threads), l->strip = rows_of_strip(l);
    for (int64_t k = begin; k < end && l->parts > 1; k++) all += work_of(l, k);
    int64_t k = begin, before = 0;
    part[0] = begin, part[l->parts] = end;
    for (int64_t q = 1; q < l->parts; q++) {
        /* the cut nearest to where the work would be even */
        for (; k < end; k += unit) {
            const int64_t here = work_of(l, k) + (unit > 1 && k + 1 < end ? work_of(l, k + 1) : 0);
            if (2 * l->parts * before + l->parts * here > 2 * all * q) break;
            before += here;
        }
        part[q] = least(k, end);
    }
}
