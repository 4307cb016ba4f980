/* One V-cycle of the network: its two legs.
 *
 * A leg is a handful of passes over the planes of a level. They run one behind the other, each a plane behind the one
 * before, so that a plane is fetched from memory once for the whole leg and what passes between them stays in the
 * cache.
 *
 * Where a grid is split over ranks a level covers a box and `steps` or more cells of the boxes around it. What is
 * there when a leg begins comes from the other ranks. Each pass then spoils one more cell from the outer edge inwards,
 * and the last one arrives at the box: one exchange serves a leg, for work on the cells around that is done on two
 * ranks.
 */
#include "../coarse/band.h"
#include "passes.h"
#include "shared/node_team.h"

/* The way down over one part of the planes, the strip of their rows that begins with `row`: pass 0 is x = omega_0 r, on
 * a visit after the first x = y + omega_0 (r - A y), 1 .. steps - 1 smooth, steps restricts. Pass q lags q planes
 * behind pass 0, so that all work out of the cache; what a part needs of its neighbours' planes, and a strip of its
 * neighbours' rows, it computes again. */
static void down_part(const dcdm_level *l, const dcdm_level *next, pass *p, int part, int64_t row) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    const int last = (int)l->steps;
    const planes result = {.memory = p->again ? l->y + l->origin : NULL, .pitch = l->pitch_w};
    set_planes(l, p, begin, end, last - 1);
    for (int64_t t = begin - last; t < end + last; t++)
        for (int q = 0; q <= last; q++) {
            const int64_t k = t - q;
            if (!in_pass(l, begin, end, k, last - q)) continue;
            set_rows(l, p, row, last - q);
            if (q == 0 && !p->again) first(l, p, k);
            else if (q < last) smooth(l, p, q ? &p->x[q - 1] : &result, &p->x[q], q, k);
            else restrict_plane(l, next, p, &p->x[q - 1], k);
        }
}

/* The same on the way up: 0 adds the coarse correction, 1 .. steps smooth with the weights in reverse order. */
static void up_part(const dcdm_level *l, const dcdm_level *next, pass *p, int part, int64_t row) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    const int last = (int)l->steps;
    set_planes(l, p, begin, end, -1);
    for (int64_t t = begin - last; t < end + last; t++)
        for (int q = 0; q <= last; q++) {
            const int64_t k = t - q;
            if (!in_pass(l, begin, end, k, last - q)) continue;
            set_rows(l, p, row, last - q);
            if (q == 0) correct(l, next, p, k);
            else if (q < last) smooth(l, p, &p->x[q - 1], &p->x[q], last - q, k);
            else finish(l, p, &p->x[q - 1], k);
        }
}

/* Memory of one thread in floats: the rings of the longer leg, and a row. */
int64_t dcdm_work_floats(const dcdm_level *l) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    return (4 * l->steps + 1) * slot + l->pitch_r + 2 * ALIGN;
}

/* One leg of one level, all parts; see down_part and up_part. `c` is the next level as this one sees it: its cell (0,
 * 0, 0) is the parent of ours. `work` holds dcdm_work_floats for each part, zero before the first call, then one plane
 * of zeros. */
typedef struct {
    dcdm_level l, c;
    pass model;
    float *work;
    int up;
} leg;

static void leg_part(void *arguments, int part) {
    const leg *g = arguments;
    const dcdm_level *l = &g->l;
    const int64_t each = dcdm_work_floats(l), row = l->pitch_r + 2 * ALIGN;
    pass p = g->model;
    p.rings = g->work + part * each;
    p.row = p.rings + each - row;
    p.zero = g->work + l->parts * each + ALIGN + (l->has_r ? l->pitch_r : 0);
    for (int64_t first_row = 0; first_row < l->n_r; first_row += l->strip ? l->strip : l->n_r) {
        if (g->up) up_part(l, &g->c, &p, part, first_row);
        else down_part(l, &g->c, &p, part, first_row);
    }
}

static void run(const dcdm_level *l, const dcdm_level *c, const pass *model, float *work, int up) {
    leg g = {*l, *c, *model, work, up};
    dcdm_run(leg_part, &g, sizeof g, (int)l->parts);
}

/* The cells before and after every row of the result, also of rows that came from other ranks. */
static void wrap_result(const dcdm_level *l) {
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            float *row = l->y + l->origin + k * l->pitch_w + j * l->pitch_r;
            WRAP_ROW(l, row);
        }
}

/* Down `count` levels, to the right-hand side of the level after them; of the first one it is `input`, (n_w, n_r, n_x)
 * doubles, or if that is NULL in r. parents[i] is level i + 1 as level i sees it. `again`: the first one has a result
 * in y, to go on from; it is not the finest, and if it has a halo, y holds one cell more of the boxes around than r.
 */
void dcdm_down(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input,
               double scale, int again) {
    for (int i = 0; i < count; i++) {
        const dcdm_level *l = levels + i;
        const pass p = {.input = i ? NULL : input, .scale_in = scale, .target = l->x, .again = again && !i};
        if (p.again && l->halo && l->wrap_x) wrap_result(l);
        run(l, parents + i, &p, work[i], 0);
    }
}

/* Planes of the result that no part works on. */
static void clear_planes(const dcdm_level *l, double *output) {
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r && (k < l->w_begin || k >= l->w_end); j++)
            memset(output + k * l->full_w + j * l->full_r, 0, (size_t)l->n_x * sizeof *output);
}

/* Back up, from the solution in y of the level after them to `output`, or if that is NULL to `direction`, which is
 * padded. */
void dcdm_up(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input,
             double scale_in, double *output, double scale_out, float *direction) {
    for (int i = count - 1; i >= 0; i--) {
        const dcdm_level *l = levels + i;
        pass p = {.scale_in = scale_in, .scale_out = scale_out};
        p.source = l->x, p.target = l->y, p.coarse = parents[i].y;
        if (i == 0) p.input = input, p.output = output, p.target = direction;
        run(l, parents + i, &p, work[i], 1);
    }
    if (output) clear_planes(levels, output);
}

/* All of a cycle on a grid that is on one rank: down to the level after `count` others, of which `coarse` has the
 * factors, up again, with `visits` to the second level. Arguments as those of the legs. */
void dcdm_cycle(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, int visits,
                const dcdm_band *coarse, const double *input, double scale_in, double *output, double scale_out,
                float *direction) {
    const dcdm_level *last = levels + count;
    dcdm_down(levels, parents, work, count, input, scale_in, 0);
    dcdm_band_solve(coarse, last->r, last->y);
    for (int visit = 1; visit < visits; visit++) {
        dcdm_up(levels + 1, parents + 1, work + 1, count - 1, NULL, 0, NULL, 0, levels[1].y);
        dcdm_down(levels + 1, parents + 1, work + 1, count - 1, NULL, 0, 1);
        dcdm_band_solve(coarse, last->r, last->y);
    }
    dcdm_up(levels, parents, work, count, input, scale_in, output, scale_out, direction);
}

/* Between the padded arrays of the finest level and those of the loop around the cycle, at the planes of a part. */
typedef struct {
    dcdm_level l;
    const double *input;
    double *output, scale;
    int parts;
} ends;

static void load_part(void *arguments, int part) {
    const ends *e = arguments;
    const dcdm_level *l = &e->l;
    const double *input = e->input, scale = e->scale;
    for (int64_t k = first_of(l->n_w, part, e->parts); k < first_of(l->n_w, part + 1, e->parts); k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const double *in = input + k * l->full_w + j * l->full_r;
            float *r = l->r + l->origin + k * l->pitch_w + j * l->pitch_r;
            for (int64_t i = 0; i < l->n_x; i++) r[i] = (float)(scale * in[i]);
        }
}

/* The right-hand side of the finest level to its padded array; `l` covers the cells that `input` has. */
void dcdm_load(const dcdm_level *l, const double *input, double scale, int threads) {
    ends e = {.l = *l, .input = input, .scale = scale, .parts = threads};
    dcdm_run(load_part, &e, sizeof e, threads);
}

static void unload_part(void *arguments, int part) {
    const ends *e = arguments;
    const dcdm_level *l = &e->l;
    double *output = e->output, scale = e->scale;
    for (int64_t k = first_of(l->n_w, part, e->parts); k < first_of(l->n_w, part + 1, e->parts); k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const float *y = l->y + l->origin + k * l->pitch_w + j * l->pitch_r;
            double *out = output + k * l->full_w + j * l->full_r;
            for (int64_t i = 0; i < l->n_x; i++) out[i] = scale * y[i];
        }
}

/* The result in y of the finest level to doubles; `l` as above. */
void dcdm_unload(const dcdm_level *l, double *output, double scale, int threads) {
    ends e = {.l = *l, .output = output, .scale = scale, .parts = threads};
    dcdm_run(unload_part, &e, sizeof e, threads);
}
