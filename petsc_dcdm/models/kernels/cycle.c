/* One V-cycle of the network: the two legs, and parts of them for grids that are split over ranks.
 *
 * A leg is a handful of passes over the planes of a level. They run one behind the other, each a plane behind the one
 * before, so that a plane is fetched from memory once for the whole leg and what passes between them stays in the cache.
 */
#include "common.h"

/* The planes of a field: those in [own_begin, own_end) in memory, the others in a ring of slots (slots = 0: all are in memory).
 * Outside of [begin, end) a ring is zero. Pointers are to the first cell of a plane. */
typedef struct {
    float *memory, *ring;
    int64_t pitch, slot, slots, own_begin, own_end, begin, end;
} planes;

/* What one thread works with. */
typedef struct {
    planes r, x[MAX_STEPS + 1];
    const double *input; /* right-hand side and result of the finest level, else NULL */
    double *output;
    double scale_in, scale_out;
    float *source;       /* the field before pass `first`, if that is not 0; on the way up also what 0 corrects */
    float *target;       /* the field after the last smoothing */
    const float *coarse; /* the correction */
    float *rings, *row;
    const float *zero;   /* a plane of zeros, at its first cell */
} pass;

typedef struct {
    int64_t begin, end;
} row_range;

INLINE row_range range_at(const dcdm_level *l, int64_t k, int64_t j) {
    if (k < 0 || k >= l->n_w || j < 0 || j >= l->n_r) /* a halo row: another rank knows which cells are active */
        return (row_range){0, (l->n_x + ALIGN - 1) / ALIGN * ALIGN};
    const int32_t *p = l->range + 2 * (k * l->n_r + j);
    return (row_range){p[0], p[1]};
}

INLINE int in_ring(const planes *f, int64_t k) { return f->slots && (k < f->own_begin || k >= f->own_end); }

INLINE float *plane_to(const planes *f, int64_t k) {
    return in_ring(f, k) ? f->ring + (k + f->slots) % f->slots * f->slot : f->memory + k * f->pitch;
}

INLINE const float *plane_at(const planes *f, int64_t k, const float *zero) {
    return f->slots && (k < f->begin || k >= f->end) ? zero : plane_to(f, k);
}

/* A plane of a field and the ones below and above. */
typedef struct {
    const float *c, *w0, *w1;
} neighbours;

INLINE neighbours neighbours_of(const pass *p, const planes *f, int64_t k) {
    return (neighbours){plane_at(f, k, p->zero), plane_at(f, k - 1, p->zero), plane_at(f, k + 1, p->zero)};
}

/* A row of a ring holds what another plane left there. */
INLINE void clear_outside(const dcdm_level *l, float *row, row_range range) {
    if (range.begin >= range.end) range.begin = range.end = 0;
    memset(row, 0, (size_t)range.begin * sizeof *row);
    memset(row + range.end, 0, (size_t)(l->pitch_r - range.end) * sizeof *row);
}

/* Whether a pass that `ahead` others follow works on plane k for the part [begin, end), planes of the halo too if it can. */
INLINE int in_pass(const dcdm_level *l, int64_t begin, int64_t end, int64_t k, int ahead, int in_halo) {
    const int64_t extra = in_halo ? l->halo : 0;
    return k >= begin - ahead && k < end + ahead && k >= l->w_begin - extra && k < l->w_end + extra;
}

/* Where the fields of the passes first .. last live for the part [begin, end). The field of pass `kept` is wanted later, so
 * own planes of it go to memory even if another pass follows. Of the way up (kept < 0) pass 0 serves halos too. */
static void set_planes(const dcdm_level *l, pass *p, int64_t begin, int64_t end, int first, int last, int kept) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    float *ring = p->rings + ALIGN + (l->has_r ? l->pitch_r : 0);
    planes in_memory = {.pitch = l->pitch_w};
    p->r = in_memory;
    if (p->input) {
        p->r = (planes){.ring = ring, .slot = slot, .slots = last + 1, .begin = l->w_begin, .end = l->w_end};
        ring += p->r.slots * slot;
    } else p->r.memory = l->r + l->origin;
    if (first > 0) {
        p->x[first - 1] = in_memory;
        p->x[first - 1].memory = p->source + l->origin;
    }
    for (int q = first; q <= last; q++) {
        planes *f = &p->x[q];
        *f = in_memory;
        if (q == last || q == kept) f->memory = p->target + l->origin;
        if (q == last) continue;
        const int64_t extra = q == 0 && kept < 0 ? l->halo : 0;
        f->ring = ring, f->slot = slot, f->slots = 3;
        f->begin = l->w_begin - extra, f->end = l->w_end + extra;
        if (q == kept) f->own_begin = begin, f->own_end = end;
        ring += f->slots * slot;
    }
}

/* Values of one row and of its neighbours. */
typedef struct {
    const float *c, *r0, *r1, *w0, *w1;
} row_values;

/* Of row j, in planes that neighbours_of gave. */
INLINE row_values values_at(const dcdm_level *l, const pass *p, const neighbours *n, int64_t j) {
    const int64_t o = j * l->pitch_r;
    const float *c = n->c + o;
    return (row_values){c, l->has_r ? c - l->pitch_r : p->zero, l->has_r ? c + l->pitch_r : p->zero, n->w0 + o, n->w1 + o};
}

/* r - A x in a block whose coefficients are all alike; low and high faces then are too. */
INLINE vf residual_alike(const float *c, const row_values *v, const float *r, int64_t i) {
    const vf x = load(v->c + i);
    vf y = load(r + i) - c[EXTRA] * x;
    y -= c[X_LOW] * ((x - load(v->c + i - 1)) + (x - load(v->c + i + 1)));
    y -= c[R_LOW] * ((x - load(v->r0 + i)) + (x - load(v->r1 + i)));
    y -= c[W_LOW] * ((x - load(v->w0 + i)) + (x - load(v->w1 + i)));
    return y;
}

/* One row of the right-hand side of the finest level. */
INLINE void convert_row(const dcdm_level *l, const pass *p, int64_t k, int64_t j, row_range range, float *r) {
    const double *in = p->input + k * l->full_w + j * l->full_r;
    const int64_t end = range.end < l->n_x ? range.end : l->n_x;
    for (int64_t i = range.begin; i < end; i++) r[i] = (float)(p->scale_in * in[i]);
    for (int64_t i = end; i < range.end; i++) r[i] = 0;
}

/* x + e(parent) over plane k. Not masked: an inactive cell couples to none, and the last smoothing clears it. */
static __attribute__((noinline)) void correct(const dcdm_level *l, const dcdm_level *c, const pass *p, int64_t k) {
    const float *from = p->source + l->origin + k * l->pitch_w;
    float *to = plane_to(&p->x[0], k), *r = plane_to(&p->r, k);
    const int clear = in_ring(&p->x[0], k);
    const int64_t edge = l->halo && l->has_r;
    for (int64_t j = -edge; j < l->n_r + edge; j++) {
        const row_range range = range_at(l, k, j);
        const int64_t o = j * l->pitch_r;
        if (p->input) convert_row(l, p, k, j, range, r + o);
        const float *e = p->coarse + c->origin + (k >> l->half_w) * c->pitch_w + (j >> l->half_r) * c->pitch_r;
        const float *restrict in = from + o;
        float *restrict out = to + o;
        if (l->half_x) {
            for (int64_t i = range.begin / 2; i < range.end / 2; i++) {
                out[2 * i] = in[2 * i] + e[i];
                out[2 * i + 1] = in[2 * i + 1] + e[i];
            }
        } else
            for (int64_t i = range.begin; i < range.end; i++) out[i] = in[i] + e[i];
        if (clear) clear_outside(l, out, range);
        if (l->halo) {
            out[-1] = in[-1] + e[-1];
            out[l->n_x] = in[l->n_x] + e[l->n_x >> l->half_x];
        }
    }
}

#define COEF float
#define GET load
#define NAME(x) x##_float
#include "cycle_body.h"
#undef COEF
#undef GET
#undef NAME
#define COEF uint16_t
#define GET load_half
#define NAME(x) x##_half
#include "cycle_body.h"

/* Memory of one thread in floats: the rings of the longer leg, and a row. */
int64_t dcdm_work_floats(const dcdm_level *l) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    return (4 * l->steps + 1) * slot + l->pitch_r + 2 * ALIGN;
}

/* Passes first .. last of one leg of one level, all parts; see down_ and up_ in cycle_body.h. `c` is the next level. `work` holds
 * dcdm_work_floats for each part, zero before the first call, then one plane of zeros. */
static void run(const dcdm_level *l, const dcdm_level *c, const pass *model, float *work, int up, int first, int last) {
    const int64_t each = dcdm_work_floats(l), row = l->pitch_r + 2 * ALIGN;
#pragma omp parallel for num_threads((int)l->parts) schedule(static, 1)
    for (int part = 0; part < (int)l->parts; part++) {
        pass p = *model;
        p.rings = work + part * each;
        p.row = p.rings + each - row;
        p.zero = work + l->parts * each + ALIGN + (l->has_r ? l->pitch_r : 0);
        if (up && l->half) up_half(l, c, &p, part, first, last);
        else if (up) up_float(l, c, &p, part, first, last);
        else if (l->half) down_half(l, c, &p, part, first, last);
        else down_float(l, c, &p, part, first, last);
    }
}

/* All levels but the coarsest, one rank: from the finest right-hand side (n_w, n_r, n_x) to that of the coarsest level. */
void dcdm_down(const dcdm_level *levels, float *const *work, int count, const double *input, double scale) {
    for (int i = 0; i < count; i++) {
        const dcdm_level *l = levels + i;
        const pass p = {.input = i ? NULL : input, .scale_in = scale, .target = l->x};
        run(l, l + 1, &p, work[i], 0, 0, (int)l->steps);
    }
}

/* Planes of the result that no part works on. */
static void clear_planes(const dcdm_level *l, double *output) {
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r && (k < l->w_begin || k >= l->w_end); j++)
            memset(output + k * l->full_w + j * l->full_r, 0, (size_t)l->n_x * sizeof *output);
}

/* Back up, from the solution in y of the coarsest level to `output`, or if that is NULL to `direction`, which is padded. */
void dcdm_up(const dcdm_level *levels, float *const *work, int count, const double *input, double scale_in, double *output,
             double scale_out, float *direction) {
    for (int i = count - 1; i >= 0; i--) {
        const dcdm_level *l = levels + i;
        pass p = {.scale_in = scale_in, .scale_out = scale_out, .source = l->x, .target = l->y, .coarse = l[1].y};
        if (i == 0) p.input = input, p.output = output, p.target = direction;
        run(l, l + 1, &p, work[i], 1, 0, (int)l->steps);
    }
    if (output) clear_planes(levels, output);
}

/* Passes of the down leg of one level whose halos are filled: 0 .. 1, or a single one; see down_ in cycle_body.h. */
void dcdm_down_passes(const dcdm_level *l, float *work, int first, int last, float *source, float *target) {
    const pass p = {.source = source, .target = target};
    run(l, l + 1, &p, work, 0, first, last);
}

/* The same for the up leg; `output` is NULL but for the last pass of the finest level, `coarse` is the correction. */
void dcdm_up_passes(const dcdm_level *l, float *work, int first, int last, float *source, float *target, const float *coarse,
                    double *output, double scale_out) {
    const pass p = {.source = source, .target = target, .coarse = coarse, .output = output, .scale_out = scale_out};
    run(l, l + 1, &p, work, 1, first, last);
    if (output) clear_planes(l, output);
}

/* The right-hand side of the finest level into its padded array. */
void dcdm_load(const dcdm_level *l, const double *input, double scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const double *in = input + k * l->full_w + j * l->full_r;
            float *r = l->r + l->origin + k * l->pitch_w + j * l->pitch_r;
            for (int64_t i = 0; i < l->n_x; i++) r[i] = (float)(scale * in[i]);
        }
}
