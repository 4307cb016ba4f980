/* The passes of the cycle for one coefficient format. Included by cycle.c with COEF (type), GET(pointer) -> vf and NAME(x). */

/* Coefficients of one row, at its first cell; 0 and 1 are the low and high face. */
typedef struct {
    const COEF *x, *r0, *r1, *w0, *w1, *s;
} NAME(row_coef);

INLINE NAME(row_coef) NAME(coef)(const dcdm_level *l, int64_t k, int64_t j, const void *zero) {
    const int64_t o = l->origin + k * l->pitch_w + j * l->pitch_r;
    const COEF *r = l->has_r ? (const COEF *)l->w_r + o : zero, *w = (const COEF *)l->w_w + o;
    return (NAME(row_coef)){(const COEF *)l->w_x + o, r, l->has_r ? r + l->pitch_r : zero, w, w + l->pitch_w,
                            (const COEF *)l->s + o};
}

/* r - A x at cells i .. i + VL - 1. With differences across faces rather than d x - sum w x: no cancellation where x is smooth. */
INLINE vf NAME(residual)(const NAME(row_coef) *a, const row_values *v, const float *r, int64_t i) {
    const vf x = load(v->c + i);
    vf y = load(r + i) - GET(a->s + i) * x;
    y -= GET(a->x + i) * (x - load(v->c + i - 1));
    y -= GET(a->x + i + 1) * (x - load(v->c + i + 1));
    y -= GET(a->r0 + i) * (x - load(v->r0 + i));
    y -= GET(a->r1 + i) * (x - load(v->r1 + i));
    y -= GET(a->w0 + i) * (x - load(v->w0 + i));
    y -= GET(a->w1 + i) * (x - load(v->w1 + i));
    return y;
}

/* x = omega_1 r over plane k; r is converted on the way if it comes in as double. */
static __attribute__((noinline)) void NAME(first)(const dcdm_level *l, const pass *p, int64_t k) {
    float *to = plane_to(&p->x[0], k), *r = plane_to(&p->r, k);
    const COEF *omega = (const COEF *)l->omega[0] + l->origin + k * l->pitch_w;
    const int clear = in_ring(&p->x[0], k);
    const int64_t edge = l->halo && l->has_r;
    for (int64_t j = -edge; j < l->n_r + edge; j++) {
        const row_range range = range_at(l, k, j);
        const int64_t o = j * l->pitch_r;
        if (p->input) convert_row(l, p, k, j, range, r + o);
        const uint8_t *class = k >= 0 && k < l->n_w && j >= 0 && j < l->n_r ? classes_at(l, k, j) : NULL;
        for (int64_t b = range.begin; b < range.end; b += ALIGN) {
            const float *c = class ? shared_by(l, class[b / ALIGN]) : NULL;
            for (int64_t i = b; c && i < b + ALIGN; i += VL) store(to + o + i, c[4] * load(r + o + i));
            for (int64_t i = b; !c && i < b + ALIGN; i += VL) store(to + o + i, GET(omega + o + i) * load(r + o + i));
        }
        if (clear) clear_outside(l, to + o, range);
        if (l->halo) {
            vf low = GET(omega + o - 1), high = GET(omega + o + l->n_x);
            to[o - 1] = low[0] * r[o - 1];
            to[o + l->n_x] = high[0] * r[o + l->n_x];
        }
    }
}

/* x + omega_m (r - A x) over plane k. */
static __attribute__((noinline)) void NAME(smooth)(const dcdm_level *l, const pass *p, const planes *from, const planes *to, int m, int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    float *xp = plane_to(to, k);
    const int clear = in_ring(to, k);
    for (int64_t j = 0; j < l->n_r; j++) {
        const row_range range = range_at(l, k, j);
        const int64_t o = j * l->pitch_r;
        if (range.begin < range.end) {
            const NAME(row_coef) a = NAME(coef)(l, k, j, p->zero);
            const row_values v = values_at(l, p, &near, j);
            const COEF *omega = (const COEF *)l->omega[m] + l->origin + k * l->pitch_w + o;
            const float *r = rp + o;
            float *x = xp + o;
            const uint8_t *class = classes_at(l, k, j);
            for (int64_t b = range.begin; b < range.end; b += ALIGN) {
                const float *c = shared_by(l, class[b / ALIGN]);
                for (int64_t i = b; c && i < b + ALIGN; i += VL)
                    store(x + i, load(v.c + i) + c[4 + m] * residual_alike(c, &v, r, i));
                for (int64_t i = b; !c && i < b + ALIGN; i += VL)
                    store(x + i, load(v.c + i) + GET(omega + i) * NAME(residual)(&a, &v, r, i));
            }
        }
        if (clear) clear_outside(l, xp + o, range);
    }
}

/* The last smoothing: zero at inactive cells, and out as double on the finest level. */
static __attribute__((noinline)) void NAME(finish)(const dcdm_level *l, const pass *p, const planes *from, int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    for (int64_t j = 0; j < l->n_r; j++) {
        const row_range range = range_at(l, k, j);
        const int64_t o = l->origin + k * l->pitch_w + j * l->pitch_r;
        const NAME(row_coef) a = NAME(coef)(l, k, j, p->zero);
        const row_values v = values_at(l, p, &near, j);
        const COEF *omega = (const COEF *)l->omega[0] + o;
        const float *r = rp + j * l->pitch_r;
        float *x = p->output ? p->row : p->target + o;
        const uint8_t *class = classes_at(l, k, j);
        for (int64_t b = range.begin; b < range.end; b += ALIGN) {
            const float *c = shared_by(l, class[b / ALIGN]);
            for (int64_t i = b; c && i < b + ALIGN; i += VL) store(x + i, load(v.c + i) + c[4] * residual_alike(c, &v, r, i));
            for (int64_t i = b; !c && i < b + ALIGN; i += VL) {
                const vf w = GET(omega + i);
                store(x + i, masked(load(v.c + i) + w * NAME(residual)(&a, &v, r, i), w > 0));
            }
        }
        if (!p->output) continue;
        double *out = p->output + k * l->full_w + j * l->full_r;
        const int64_t end = range.end < l->n_x ? range.end : l->n_x, begin = range.begin < end ? range.begin : end;
        memset(out, 0, (size_t)begin * sizeof *out);
        for (int64_t i = begin; i < end; i++) out[i] = p->scale_out * x[i];
        memset(out + end, 0, (size_t)(l->n_x - end) * sizeof *out);
    }
}

/* The residual of plane k at active cells, summed over the children of every coarse cell. */
static __attribute__((noinline)) void NAME(restrict_plane)(const dcdm_level *l, const dcdm_level *c, const pass *p, const planes *from, int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    const int add = l->half_w && (k & 1);
    for (int64_t jc = 0; jc < c->n_r; jc++) {
        const row_range coarse = range_at(c, k >> l->half_w, jc);
        if (coarse.begin >= coarse.end) continue;
        float *sum = p->row, *to = c->r + c->origin + (k >> l->half_w) * c->pitch_w + jc * c->pitch_r;
        memset(sum + (coarse.begin << l->half_x), 0, (size_t)((coarse.end - coarse.begin) << l->half_x) * sizeof *sum);
        for (int64_t j = jc << l->half_r; j < l->n_r && j >> l->half_r == jc; j++) {
            const row_range range = range_at(l, k, j);
            const NAME(row_coef) a = NAME(coef)(l, k, j, p->zero);
            const row_values v = values_at(l, p, &near, j);
            const COEF *omega = (const COEF *)l->omega[0] + l->origin + k * l->pitch_w + j * l->pitch_r;
            const float *r = rp + j * l->pitch_r;
            const uint8_t *class = classes_at(l, k, j);
            for (int64_t b = range.begin; b < range.end; b += ALIGN) {
                const float *shared = shared_by(l, class[b / ALIGN]);
                for (int64_t i = b; shared && i < b + ALIGN; i += VL)
                    store(sum + i, load(sum + i) + residual_alike(shared, &v, r, i));
                for (int64_t i = b; !shared && i < b + ALIGN; i += VL)
                    store(sum + i, load(sum + i) + masked(NAME(residual)(&a, &v, r, i), GET(omega + i) > 0));
            }
        }
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

/* Passes first .. last of the way down over one part of the planes: 0 is x = omega_1 r, 1 .. steps - 1 smooth, steps restricts.
 * Pass q lags q planes behind pass 0, so that all work out of the cache; what a part needs of its neighbours' planes it
 * computes again. */
static __attribute__((noinline)) void NAME(down)(const dcdm_level *l, const dcdm_level *c, pass *p, int part, int first, int last) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    set_planes(l, p, begin, end, first, last, (int)l->steps - 1);
    for (int64_t t = begin - (last - first); t < end + (last - first); t++)
        for (int q = first; q <= last; q++) {
            const int64_t k = t - (q - first);
            if (!in_pass(l, begin, end, k, last - q, q == 0)) continue;
            if (q == 0) NAME(first)(l, p, k);
            else if (q < l->steps) NAME(smooth)(l, p, &p->x[q - 1], &p->x[q], q, k);
            else NAME(restrict_plane)(l, c, p, &p->x[q - 1], k);
        }
}

/* The same on the way up: 0 adds the coarse correction, 1 .. steps smooth with the weights in reverse order. */
static __attribute__((noinline)) void NAME(up)(const dcdm_level *l, const dcdm_level *c, pass *p, int part, int first, int last) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    set_planes(l, p, begin, end, first, last, -1);
    for (int64_t t = begin - (last - first); t < end + (last - first); t++)
        for (int q = first; q <= last; q++) {
            const int64_t k = t - (q - first);
            if (!in_pass(l, begin, end, k, last - q, q == 0)) continue;
            if (q == 0) correct(l, c, p, k);
            else if (q < l->steps) NAME(smooth)(l, p, &p->x[q - 1], &p->x[q], (int)l->steps - q, k);
            else NAME(finish)(l, p, &p->x[q - 1], k);
        }
}
