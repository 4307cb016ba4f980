/* The passes of a leg, each over one plane of a level. Included by cycle.c. */
#ifndef DCDM_PASSES_H
#define DCDM_PASSES_H

#include "common.h"

/* The planes of a field: those in [own_begin, own_end) in memory, the others in a ring of slots (slots = 0: all are in
 * memory). Outside of [begin, end) a ring is zero. Pointers are to the first cell of a plane. Where the planes of the
 * level are wrapped a part goes on at either end, -1 being the last plane once more: in a ring that is a plane of its
 * own, in memory it is the same. */
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
    int64_t row_begin, row_end; /* of the plane that a pass works on now */
} pass;

typedef struct {
    int64_t begin, end;
} row_range;

INLINE row_range range_at(const dcdm_level *l, int64_t k, int64_t j) {
    const int32_t *p = l->range + 2 * (k * l->n_r + j);
    return (row_range){p[0], p[1]};
}

INLINE int in_ring(const planes *f, int64_t k) { return f->slots && (k < f->own_begin || k >= f->own_end); }

INLINE float *plane_to(const dcdm_level *l, const planes *f, int64_t k) {
    if (!in_ring(f, k)) return f->memory + plane_of(l, k) * f->pitch;
    return f->ring + (k + (MAX_STEPS + 2) * f->slots) % f->slots * f->slot;
}

INLINE const float *plane_at(const dcdm_level *l, const planes *f, int64_t k, const float *zero) {
    return f->slots && (k < f->begin || k >= f->end) ? zero : plane_to(l, f, k);
}

/* A plane of a field and the ones below and above. */
typedef struct {
    const float *c, *w0, *w1;
} neighbours;

INLINE neighbours neighbours_of(const dcdm_level *l, const pass *p, const planes *f, int64_t k) {
    return (neighbours){plane_at(l, f, k, p->zero), plane_at(l, f, k - 1, p->zero), plane_at(l, f, k + 1, p->zero)};
}

/* A row of a ring holds what another plane left there. Rows are short, and ranges whole vectors. */
INLINE void clear_outside(const dcdm_level *l, float *row, row_range range) {
    if (range.begin >= range.end) range.begin = range.end = 0;
    for (int64_t i = 0; i < range.begin; i += VL) store(row + i, (vf){0});
    for (int64_t i = range.end; i < l->pitch_r; i += VL) store(row + i, (vf){0});
}

/* Whether a pass that `ahead` others follow works on plane k for the part [begin, end). */
INLINE int in_pass(const dcdm_level *l, int64_t begin, int64_t end, int64_t k, int ahead) {
    return k >= begin - ahead && k < end + ahead && (l->wrap_w || (k >= l->w_begin && k < l->w_end));
}

/* The rows that a pass that `ahead` others follow works on for the strip from `row` on. */
INLINE void set_rows(const dcdm_level *l, pass *p, int64_t row, int ahead) {
    const int64_t end = l->strip ? row + l->strip : l->n_r;
    p->row_begin = most(0, row - ahead), p->row_end = least(l->n_r, end + ahead);
}

/* Where the fields of the passes live for the part [begin, end). The field of pass `kept` is wanted later, so own
 * planes of it go to memory even if another pass follows. */
static void set_planes(const dcdm_level *l, pass *p, int64_t begin, int64_t end, int kept) {
    const int64_t slot = l->has_r ? (l->n_r + 2) * l->pitch_r + ALIGN : l->pitch_r + 2 * ALIGN;
    float *ring = p->rings + ALIGN + (l->has_r ? l->pitch_r : 0);
    const int last = (int)l->steps;
    const int64_t first = l->wrap_w ? begin - last - 1 : l->w_begin, stop = l->wrap_w ? end + last + 1 : l->w_end;
    planes in_memory = {.pitch = l->pitch_w};
    p->r = in_memory;
    if (p->input) {
        p->r = (planes){.ring = ring, .slot = slot, .slots = last + 1, .begin = first, .end = stop};
        ring += p->r.slots * slot;
    } else p->r.memory = l->r + l->origin;
    for (int q = 0; q <= last; q++) {
        planes *f = &p->x[q];
        *f = in_memory;
        if ((q == last || q == kept) && p->target) f->memory = p->target + l->origin;
        if (q == last) continue;
        f->ring = ring, f->slot = slot, f->slots = 3;
        f->begin = first, f->end = stop;
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
    return (row_values){c, l->has_r ? c + row_below(l, j) : p->zero, l->has_r ? c + row_above(l, j) : p->zero,
                        n->w0 + o, n->w1 + o};
}

/* One row of the right-hand side of the finest level. */
INLINE void convert_row(const dcdm_level *l, const pass *p, int64_t k, int64_t j, row_range range, float *r) {
    const double *in = p->input + k * l->full_w + j * l->full_r;
    const int64_t end = range.end < l->n_x ? range.end : l->n_x;
    for (int64_t i = range.begin; i < end; i++) r[i] = (float)(p->scale_in * in[i]);
    for (int64_t i = end; i < range.end; i++) r[i] = 0;
}

/* x + e(parent) over plane k. Not masked: an inactive cell couples to none, and the last smoothing clears it. */
static NOINLINE void correct(const dcdm_level *l, const dcdm_level *c, const pass *p, int64_t k) {
    float *to = plane_to(l, &p->x[0], k), *r = plane_to(l, &p->r, k);
    const int clear = in_ring(&p->x[0], k);
    k = plane_of(l, k);
    const float *from = p->source + l->origin + k * l->pitch_w;
    const float *coarse = p->coarse + c->origin + (place_of(l->place_w, k) >> l->half_w) * c->pitch_w;
    for (int64_t j = p->row_begin; j < p->row_end; j++) {
        const row_range range = range_at(l, k, j);
        const int64_t o = j * l->pitch_r;
        if (p->input) convert_row(l, p, k, j, range, r + o);
        const float *e = coarse + (place_of(l->place_r, j) >> l->half_r) * c->pitch_r;
        const float *restrict in = from + o;
        float *restrict out = to + o;
        if (l->place_x)
            for (int64_t i = range.begin; i < range.end; i++)
                out[i] = in[i] + e[l->place_x[i < l->n_x ? i : l->n_x - 1] >> 1];
        else if (l->half_x) {
            for (int64_t i = range.begin / 2; i < range.end / 2; i++) {
                out[2 * i] = in[2 * i] + e[i];
                out[2 * i + 1] = in[2 * i + 1] + e[i];
            }
        } else
            for (int64_t i = range.begin; i < range.end; i++) out[i] = in[i] + e[i];
        if (clear) clear_outside(l, out, range);
        WRAP_ROW(l, out);
    }
}

/* A block of ALIGN cells of a row. Its numbers are those of a class, if it has one; else NULL, and its own
 * coefficients, field after field, and its weights of one smoothing step. */
typedef struct {
    const float *class_value;
    const coef *own, *omega;
} block;

/* What is left of the blocks of a row: classes of all, and the streams at the next one that has none. */
typedef struct {
    const uint8_t *class;
    const coef *own, *omega;
} row_blocks;

/* The blocks of row (k, j) with the weights of smoothing step m. */
INLINE row_blocks blocks_at(const dcdm_level *l, int m, int64_t k, int64_t j) {
    const int64_t start = l->block_start[k * l->n_r + j];
    return (row_blocks){classes_at(l, k, j), (const coef *)l->blocks + start * ALIGN * OMEGA,
                        (const coef *)l->omegas + (l->block_count * m + start) * ALIGN};
}

/* The block that begins at cell i. Blocks of a row are asked for in their order. */
INLINE block next_block(const dcdm_level *l, row_blocks *row, int64_t i) {
    const uint8_t q = row->class[i / ALIGN];
    if (q) return (block){.class_value = l->class_value + FIELDS * q};
    const block b = {.own = row->own, .omega = row->omega};
    row->own += ALIGN * OMEGA, row->omega += ALIGN;
    return b;
}

/* r - A x at cells i .. i + VL - 1 of a block that has a class: low and high faces are alike. */
INLINE vf residual_of_class(const float *c, const row_values *v, const float *r, int64_t i) {
    const vf x = load(v->c + i);
    vf y = load(r + i) - c[EXTRA] * x;
    y = add_product(y, splat(c[X_LOW]), (load(v->c + i - 1) - x) + (load(v->c + i + 1) - x));
    y = add_product(y, splat(c[R_LOW]), (load(v->r0 + i) - x) + (load(v->r1 + i) - x));
    return add_product(y, splat(c[W_LOW]), (load(v->w0 + i) - x) + (load(v->w1 + i) - x));
}

/* r - A x at cells i .. i + VL - 1, whose coefficients are at `a`. With differences across faces rather than
 * d x - sum w x: no cancellation where x is smooth. */
INLINE vf residual(const coef *a, const row_values *v, const float *r, int64_t i) {
    const vf x = load(v->c + i);
    vf y = load(r + i) - load_coef(a + ALIGN * EXTRA) * x;
    y = add_product(y, load_coef(a + ALIGN * X_LOW), load(v->c + i - 1) - x);
    y = add_product(y, load_coef(a + ALIGN * X_HIGH), load(v->c + i + 1) - x);
    y = add_product(y, load_coef(a + ALIGN * R_LOW), load(v->r0 + i) - x);
    y = add_product(y, load_coef(a + ALIGN * R_HIGH), load(v->r1 + i) - x);
    y = add_product(y, load_coef(a + ALIGN * W_LOW), load(v->w0 + i) - x);
    return add_product(y, load_coef(a + ALIGN * W_HIGH), load(v->w1 + i) - x);
}

/* x = omega_0 r in the block at cell `begin`. */
INLINE void scale_block(block b, float *x, const float *r, int64_t begin) {
    if (b.class_value) {
        for (int64_t i = begin; i < begin + ALIGN; i += VL) store(x + i, b.class_value[OMEGA] * load(r + i));
        return;
    }
    for (int64_t t = 0; t < ALIGN; t += VL) store(x + begin + t, load_coef(b.omega + t) * load(r + begin + t));
}

/* x = v + omega_m (r - A v) in the block at cell `begin`. */
INLINE void smooth_block(block b, int m, const row_values *v, const float *r, float *x, int64_t begin) {
    if (b.class_value) {
        const float omega = b.class_value[OMEGA + m];
        for (int64_t i = begin; i < begin + ALIGN; i += VL)
            store(x + i, add_product(load(v->c + i), splat(omega), residual_of_class(b.class_value, v, r, i)));
        return;
    }
    for (int64_t t = 0; t < ALIGN; t += VL) {
        const int64_t i = begin + t;
        store(x + i, add_product(load(v->c + i), load_coef(b.omega + t), residual(b.own + t, v, r, i)));
    }
}

/* x = v + omega_0 (r - A v) in the block at cell `begin`, 0 at inactive cells. */
INLINE void finish_block(block b, const row_values *v, const float *r, float *x, int64_t begin) {
    if (b.class_value) { /* all are active */
        smooth_block(b, 0, v, r, x, begin);
        return;
    }
    for (int64_t t = 0; t < ALIGN; t += VL) {
        const int64_t i = begin + t;
        const vf omega = load_coef(b.omega + t);
        store(x + i, masked(add_product(load(v->c + i), omega, residual(b.own + t, v, r, i)), omega > 0));
    }
}

/* sum += r - A v at the active cells of the block at cell `begin`. */
INLINE void add_residual_block(block b, const row_values *v, const float *r, float *sum, int64_t begin) {
    if (b.class_value) {
        for (int64_t i = begin; i < begin + ALIGN; i += VL)
            store(sum + i, load(sum + i) + residual_of_class(b.class_value, v, r, i));
        return;
    }
    for (int64_t t = 0; t < ALIGN; t += VL) {
        const int64_t i = begin + t;
        store(sum + i, load(sum + i) + masked(residual(b.own + t, v, r, i), load_coef(b.omega + t) > 0));
    }
}

/* x = omega_0 r over plane k; r is converted on the way if it comes in as double. */
static NOINLINE void first(const dcdm_level *l, const pass *p, int64_t k) {
    float *to = plane_to(l, &p->x[0], k), *rp = plane_to(l, &p->r, k);
    const int clear = in_ring(&p->x[0], k);
    k = plane_of(l, k);
    for (int64_t j = p->row_begin; j < p->row_end; j++) {
        const row_range range = range_at(l, k, j);
        float *x = to + j * l->pitch_r, *r = rp + j * l->pitch_r;
        if (p->input) convert_row(l, p, k, j, range, r);
        row_blocks blocks = blocks_at(l, 0, k, j);
        for (int64_t i = range.begin; i < range.end; i += ALIGN) scale_block(next_block(l, &blocks, i), x, r, i);
        if (clear) clear_outside(l, x, range);
        WRAP_ROW(l, x);
    }
}

/* x + omega_m (r - A x) over plane k. */
static NOINLINE void smooth(const dcdm_level *l, const pass *p, const planes *from, const planes *to, int m,
                            int64_t k) {
    const neighbours near = neighbours_of(l, p, from, k);
    const float *rp = plane_at(l, &p->r, k, p->zero);
    float *xp = plane_to(l, to, k);
    const int clear = in_ring(to, k);
    k = plane_of(l, k);
    for (int64_t j = p->row_begin; j < p->row_end; j++) {
        const row_range range = range_at(l, k, j);
        const row_values v = values_at(l, p, &near, j);
        const float *r = rp + j * l->pitch_r;
        float *x = xp + j * l->pitch_r;
        row_blocks blocks = blocks_at(l, m, k, j);
        for (int64_t i = range.begin; i < range.end; i += ALIGN)
            smooth_block(next_block(l, &blocks, i), m, &v, r, x, i);
        if (clear) clear_outside(l, x, range);
        WRAP_ROW(l, x);
    }
}

/* The last smoothing: zero at inactive cells, and out as double on the finest level. */
static NOINLINE void finish(const dcdm_level *l, const pass *p, const planes *from, int64_t k) {
    const neighbours near = neighbours_of(l, p, from, k);
    const float *rp = plane_at(l, &p->r, k, p->zero);
    for (int64_t j = p->row_begin; j < p->row_end; j++) {
        const row_range range = range_at(l, k, j);
        const row_values v = values_at(l, p, &near, j);
        const float *r = rp + j * l->pitch_r;
        float *x = p->output ? p->row : p->target + l->origin + k * l->pitch_w + j * l->pitch_r;
        row_blocks blocks = blocks_at(l, 0, k, j);
        for (int64_t i = range.begin; i < range.end; i += ALIGN) finish_block(next_block(l, &blocks, i), &v, r, x, i);
        if (!p->output) {
            WRAP_ROW(l, x);
            continue;
        }
        double *out = p->output + k * l->full_w + j * l->full_r;
        const int64_t end = range.end < l->n_x ? range.end : l->n_x, begin = range.begin < end ? range.begin : end;
        memset(out, 0, (size_t)begin * sizeof *out);
        for (int64_t i = begin; i < end; i++) out[i] = p->scale_out * x[i];
        memset(out + end, 0, (size_t)(l->n_x - end) * sizeof *out);
    }
}

/* The residual of plane k at active cells, summed over the children of every coarse cell. */
static NOINLINE void restrict_plane(const dcdm_level *l, const dcdm_level *next, const pass *p, const planes *from,
                                    int64_t k) {
    const neighbours near = neighbours_of(l, p, from, k);
    const float *rp = plane_at(l, &p->r, k, p->zero);
    const int add = l->half_w && (k & 1);
    for (int64_t jc = p->row_begin >> l->half_r; jc << l->half_r < p->row_end && jc < next->n_r; jc++) {
        const row_range coarse = range_at(next, k >> l->half_w, jc);
        if (coarse.begin >= coarse.end) continue;
        float *sum = p->row, *to = next->r + next->origin + (k >> l->half_w) * next->pitch_w + jc * next->pitch_r;
        memset(sum + (coarse.begin << l->half_x), 0, (size_t)((coarse.end - coarse.begin) << l->half_x) * sizeof *sum);
        for (int64_t j = jc << l->half_r; j < l->stop_r && j >> l->half_r == jc; j++) {
            const row_range range = range_at(l, k, j);
            const row_values v = values_at(l, p, &near, j);
            const float *r = rp + j * l->pitch_r;
            row_blocks blocks = blocks_at(l, 0, k, j);
            for (int64_t i = range.begin; i < range.end; i += ALIGN)
                add_residual_block(next_block(l, &blocks, i), &v, r, sum, i);
        }
        sum[l->stop_x] = 0; /* no sibling of the last cell of our box, if that has none */
        if (l->half_x && add)
            for (int64_t i = coarse.begin; i < coarse.end; i++) to[i] += sum[2 * i] + sum[2 * i + 1];
        else if (l->half_x)
            for (int64_t i = coarse.begin; i < coarse.end; i++) to[i] = sum[2 * i] + sum[2 * i + 1];
        else if (add)
            for (int64_t i = coarse.begin; i < coarse.end; i++) to[i] += sum[i];
        else
            for (int64_t i = coarse.begin; i < coarse.end; i++) to[i] = sum[i];
    }
}

#endif
