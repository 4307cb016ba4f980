/* The levels of a hierarchy in one go: their memory, and on a grid that no other box adjoins all of their set-up. */
#include "levels.h"

int64_t dcdm_count_blocks(const dcdm_level *l, int threads);
int64_t dcdm_setup_bytes(const dcdm_level *l);
int64_t dcdm_work_floats(const dcdm_level *l);
int64_t dcdm_most_parts(const dcdm_level *l, int64_t threads);
void dcdm_set_up(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, char *memory, int threads);
void dcdm_join_shares(const dcdm_level *l, const dcdm_setup *s, int threads);
void dcdm_share_out(dcdm_level *l, int64_t first, int64_t stop, int64_t threads);
int64_t dcdm_active(const double *const array[4], const int64_t n[3], int64_t pitch_z, int64_t pitch_y,
                    const int64_t ring[3], const int64_t own[6], int64_t block, int32_t *range, int threads);

enum { COARSE_FIELDS = 7 }; /* conductances and s of a level, and shares of the high side, while it is made */

/* Elements of an array of a level. */
INLINE int64_t elements_of(const dcdm_level *l) { return (l->n_w + 2) * l->pitch_w + 2 * ALIGN; }

/* Where the next bytes of a kind are, NULL as long as only their number is wanted. */
static void *take(dcdm_levels *h, int kind, int64_t bytes) {
    char *at = h->memory[kind] ? h->memory[kind] + h->bytes[kind] : NULL;
    h->bytes[kind] += (bytes + 63) / 64 * 64;
    return at;
}

static void take_level(dcdm_levels *h, int64_t number) {
    dcdm_level *l = h->level + number;
    const int64_t rows = l->n_w * l->n_r, blocks = rows * ((l->n_x + ALIGN - 1) / ALIGN), elements = elements_of(l);
    const int finest = number == 0, coarsest = number == h->count;
    l->range = take(h, ZEROS, 2 * rows * (int64_t)sizeof *l->range);
    if (!coarsest) {
        l->block_count = dcdm_count_blocks(l, (int)h->threads);
        l->block_class = take(h, ZEROS, blocks);
        l->block_start = take(h, ZEROS, rows * (int64_t)sizeof *l->block_start);
        l->class_value = take(h, ZEROS, 256 * FIELDS * (int64_t)sizeof *l->class_value);
        /* Room for every block; those that turn out to have a class take none of it, and the rest is not touched. */
        l->blocks = take(h, ROOM, l->block_count * ALIGN * OMEGA * (int64_t)sizeof(coef));
        l->omegas = take(h, ROOM, l->block_count * ALIGN * l->steps * (int64_t)sizeof(coef));
        l->x = take(h, ZEROS, elements * (int64_t)sizeof *l->x);
    }
    if (l->halo || !finest || coarsest) {
        l->y = take(h, ZEROS, elements * (int64_t)sizeof *l->y);
        l->r = take(h, ZEROS, elements * (int64_t)sizeof *l->r);
    }
    if (coarsest && !finest) return;
    const int64_t parts = dcdm_most_parts(l, h->threads);
    l->part = take(h, ZEROS, (parts + 1) * (int64_t)sizeof *l->part);
    if (coarsest) return;
    const int64_t plane = (l->n_r + 2 * l->has_r) * l->pitch_r + 4 * ALIGN;
    h->work[number] = take(h, ZEROS, (parts * dcdm_work_floats(l) + plane) * (int64_t)sizeof **h->work);
}

/* How many bytes of each kind the levels take, of which cells, pitches, axes, rings, halos and steps are given. Those
 * of set-up are for dcdm_make_levels alone. */
void dcdm_size_levels(dcdm_levels *h) {
    int64_t workspace = 0;
    memset(h->memory, 0, sizeof h->memory);
    memset(h->bytes, 0, sizeof h->bytes);
    for (int64_t i = 0; i <= h->count; i++) take_level(h, i);
    for (int64_t i = 0; i < h->count && h->level[i].n_x; i++) {
        workspace = most(workspace, dcdm_setup_bytes(h->level + i));
        take(h, PASSING_ZEROS, COARSE_FIELDS * elements_of(h->level + i + 1) * (int64_t)sizeof(float));
    }
    take(h, PASSING_ROOM, h->threads * workspace);
}

/* Shares the memory out among the levels. */
void dcdm_place_levels(dcdm_levels *h) {
    memset(h->bytes, 0, sizeof h->bytes);
    for (int64_t i = 0; i <= h->count; i++) take_level(h, i);
}

/* From the conductances of the last level, as set-up of the one before left them, to those in double precision. */
static void write_coarse(const dcdm_levels *h, const dcdm_setup *s) {
    const dcdm_level *l = h->level + h->count;
    const float *from[4] = {s->c_x, l->has_r ? s->c_r : s->c_w, l->has_r ? s->c_w : s->c_r, s->c_s};
    const int64_t pitch_w = l->has_r ? h->coarse_pitch_z : h->coarse_pitch_y;
    for (int a = 0; a < 4; a++)
        for (int64_t k = 0; k < l->n_w; k++)
            for (int64_t j = 0; j < l->n_r; j++) {
                const float *row = from[a] + l->origin + k * l->pitch_w + j * l->pitch_r;
                double *to = h->coarse[a] + k * pitch_w + j * h->coarse_pitch_y;
                for (int64_t i = 0; i < l->n_x; i++) to[i] = row[i];
            }
}

/* All levels in their memory: coefficients, the division of their planes, the coarsest operator. */
void dcdm_make_levels(dcdm_levels *h) {
    dcdm_setup *s = h->setup;
    const int threads = (int)h->threads;
    float *fields = (float *)h->memory[PASSING_ZEROS];
    for (int64_t i = 0; i < h->count; i++) {
        dcdm_level *l = h->level + i;
        const dcdm_level *next = l + 1;
        float **const field[COARSE_FIELDS] = {&s->c_x, &s->c_r,     &s->c_w,     &s->c_s,
                                              &s->share_x, &s->share_r, &s->share_w};
        for (int f = 0; f < COARSE_FIELDS; f++, fields += elements_of(next)) *field[f] = fields;
        s->c_pitch_w = next->pitch_w, s->c_pitch_r = next->pitch_r, s->c_origin = next->origin;
        s->prepared = h->prepared[i], s->range = (int32_t *)l->range;
        const int64_t n[3] = {l->n_x, l->n_r, l->n_w};
        for (int a = 0; a < 3; a++) s->own[a][0] = 0, s->own[a][1] = n[a];
        dcdm_set_up(l, h->network[i], s, h->memory[PASSING_ROOM], threads);
        dcdm_join_shares(next, s, threads);
        dcdm_share_out(l, 0, l->n_w, threads);
        h->active[i] = s->active;
        s->format = SINGLE, s->w_x = s->c_x, s->w_r = s->c_r, s->w_w = s->c_w, s->s = s->c_s;
        s->pitch_w = s->c_pitch_w, s->pitch_r = s->c_pitch_r, s->origin = s->c_origin;
    }
    dcdm_level *last = h->level + h->count;
    if (h->count) write_coarse(h, s);
    const int64_t n[3] = {last->has_r ? last->n_w : 1, last->has_r ? last->n_r : last->n_w, last->n_x};
    const int64_t ring[3] = {last->has_r && last->wrap_w, last->has_r ? last->wrap_r : last->wrap_w, last->wrap_x};
    const int64_t own[6] = {0, n[0], 0, n[1], 0, n[2]};
    h->active[h->count] =
        dcdm_active((const double *const *)h->coarse, n, h->coarse_pitch_z, h->coarse_pitch_y, ring, own, ALIGN,
                    (int32_t *)last->range, (int)h->coarse_threads);
    if (!h->count) dcdm_share_out(last, 0, last->n_w, threads);
}
