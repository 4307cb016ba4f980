/* One V-cycle of the network: its two legs.
 *
 * A leg is a handful of passes over the planes of a level. They run one behind the other, each a plane behind the one
 * before, so that a plane is fetched from memory once for the whole leg and what passes between them stays in the cache.
 *
 * Where a grid is split over ranks a level covers a box and `steps` or more cells of the boxes around it. What is there when a leg
 * begins comes from the other ranks. Each pass then spoils one more cell from the outer edge inwards, and the last one arrives at the
 * box: one exchange serves a leg, for work on the cells around that is done on two ranks.
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
    float *source;       /* on the way up: what is corrected */
    float *target;       /* the field after the last smoothing */
    const float *coarse; /* the correction */
    int again;           /* on the way down: from the result of the visit before, not from zero */
    float *rings, *row;
    const float *zero;   /* a plane of zeros, at its first cell */
} pass;

typedef struct {
    int64_t begin, end;
} row_range;

INLINE row_range range_at(const dcdm_level *l, int64_t k, int64_t j) {
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

/* Whether a pass that `ahead` others follow works on plane k for the part [begin, end). */
INLINE int in_pass(const dcdm_level *l, int64_t begin, int64_t end, int64_t k, int ahead) {
    return k >= begin - ahead && k < end + ahead && k >= l->w_begin && k < l->w_end;
}

/* Where the fields of the passes live for the part [begin, end). The field of pass `kept` is wanted later, so own planes of it go to
 * memory even if another pass follows. */
static void set_planes(const dcdm_level *l, pass *p, int64_t begin, int64_t end, int kept) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    float *ring = p->rings + ALIGN + (l->has_r ? l->pitch_r : 0);
    const int last = (int)l->steps;
    planes in_memory = {.pitch = l->pitch_w};
    p->r = in_memory;
    if (p->input) {
        p->r = (planes){.ring = ring, .slot = slot, .slots = last + 1, .begin = l->w_begin, .end = l->w_end};
        ring += p->r.slots * slot;
    } else p->r.memory = l->r + l->origin;
    for (int q = 0; q <= last; q++) {
        planes *f = &p->x[q];
        *f = in_memory;
        if ((q == last || q == kept) && p->target) f->memory = p->target + l->origin;
        if (q == last) continue;
        f->ring = ring, f->slot = slot, f->slots = 3;
        f->begin = l->w_begin, f->end = l->w_end;
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
    for (int64_t j = 0; j < l->n_r; j++) {
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
    }
}

#if HALF
#define COEF uint16_t
#define GET load_half
#else
#define COEF float
#define GET load
#endif
#define NAME(x) x##_pass
#include "cycle_body.h"

/* Memory of one thread in floats: the rings of the longer leg, and a row. */
int64_t dcdm_work_floats(const dcdm_level *l) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    return (4 * l->steps + 1) * slot + l->pitch_r + 2 * ALIGN;
}

/* One leg of one level, all parts; see down_ and up_ in cycle_body.h. `c` is the next level as this one sees it: its cell (0, 0, 0) is the
 * parent of ours. `work` holds dcdm_work_floats for each part, zero before the first call, then one plane of zeros. */
static void run(const dcdm_level *l, const dcdm_level *c, const pass *model, float *work, int up) {
    const int64_t each = dcdm_work_floats(l), row = l->pitch_r + 2 * ALIGN;
#pragma omp parallel for num_threads((int)l->parts) schedule(static, 1)
    for (int part = 0; part < (int)l->parts; part++) {
        pass p = *model;
        p.rings = work + part * each;
        p.row = p.rings + each - row;
        p.zero = work + l->parts * each + ALIGN + (l->has_r ? l->pitch_r : 0);
        if (up) up_pass(l, c, &p, part);
        else down_pass(l, c, &p, part);
    }
}

/* Down `count` levels, to the right-hand side of the level after them; of the first one it is `input`, (n_w, n_r, n_x) doubles, or if
 * that is NULL in r. parents[i] is level i + 1 as level i sees it. `again`: the first one has a result in y, to go on from; it is not the
 * finest, and if it has a halo, y holds one cell more of the boxes around than r. */
void dcdm_down(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input, double scale,
               int again) {
    for (int i = 0; i < count; i++) {
        const dcdm_level *l = levels + i;
        const pass p = {.input = i ? NULL : input, .scale_in = scale, .target = l->x, .again = again && !i};
        run(l, parents + i, &p, work[i], 0);
    }
}

/* Planes of the result that no part works on. */
static void clear_planes(const dcdm_level *l, double *output) {
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r && (k < l->w_begin || k >= l->w_end); j++)
            memset(output + k * l->full_w + j * l->full_r, 0, (size_t)l->n_x * sizeof *output);
}

/* Back up, from the solution in y of the level after them to `output`, or if that is NULL to `direction`, which is padded. */
void dcdm_up(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input, double scale_in,
             double *output, double scale_out, float *direction) {
    for (int i = count - 1; i >= 0; i--) {
        const dcdm_level *l = levels + i;
        pass p = {.scale_in = scale_in, .scale_out = scale_out, .source = l->x, .target = l->y, .coarse = parents[i].y};
        if (i == 0) p.input = input, p.output = output, p.target = direction;
        run(l, parents + i, &p, work[i], 1);
    }
    if (output) clear_planes(levels, output);
}

/* The right-hand side of the finest level to its padded array; `l` covers the cells that `input` has. */
void dcdm_load(const dcdm_level *l, const double *input, double scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const double *in = input + k * l->full_w + j * l->full_r;
            float *r = l->r + l->origin + k * l->pitch_w + j * l->pitch_r;
            for (int64_t i = 0; i < l->n_x; i++) r[i] = (float)(scale * in[i]);
        }
}

/* The result in y of the finest level to doubles; `l` as above. */
void dcdm_unload(const dcdm_level *l, double *output, double scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < l->n_w; k++)
        for (int64_t j = 0; j < l->n_r; j++) {
            const float *y = l->y + l->origin + k * l->pitch_w + j * l->pitch_r;
            double *out = output + k * l->full_w + j * l->full_r;
            for (int64_t i = 0; i < l->n_x; i++) out[i] = scale * y[i];
        }
}
