/* The passes of the cycle for one coefficient format. Included by cycle.c with COEF (type), GET(pointer) -> vf and NAME(x). */

/* The streams at the first block of row (k, j) that has no class. */
INLINE const COEF *NAME(blocks_at)(const dcdm_level *l, int64_t k, int64_t j) {
    return (const COEF *)l->blocks + l->block_start[k * l->n_r + j] * ALIGN * OMEGA;
}

INLINE const COEF *NAME(omegas_at)(const dcdm_level *l, int m, int64_t k, int64_t j) {
    return (const COEF *)l->omegas + (l->room * m + l->block_start[k * l->n_r + j]) * ALIGN;
}

/* r - A x at cells i .. i + VL - 1, the coefficients of which are at `a`. With differences across faces rather than d x - sum w x: no
 * cancellation where x is smooth. */
INLINE vf NAME(residual)(const COEF *a, const row_values *v, const float *r, int64_t i) {
    const vf x = load(v->c + i);
    vf y = load(r + i) - GET(a + ALIGN * EXTRA) * x;
    y -= GET(a + ALIGN * X_LOW) * (x - load(v->c + i - 1));
    y -= GET(a + ALIGN * X_HIGH) * (x - load(v->c + i + 1));
    y -= GET(a + ALIGN * R_LOW) * (x - load(v->r0 + i));
    y -= GET(a + ALIGN * R_HIGH) * (x - load(v->r1 + i));
    y -= GET(a + ALIGN * W_LOW) * (x - load(v->w0 + i));
    y -= GET(a + ALIGN * W_HIGH) * (x - load(v->w1 + i));
    return y;
}

/* Runs `alike` or `general` for the vectors of every block of a row: i is the first cell, `c` the values of its class, `a` its
 * coefficients and `omega` its smoothing weight m. */
#define EACH_BLOCK(m, alike, general)                                                           \
    do {                                                                                        \
        const uint8_t *class = classes_at(l, k, j);                                             \
        const COEF *block = NAME(blocks_at)(l, k, j), *weight = NAME(omegas_at)(l, m, k, j);    \
        for (int64_t b = range.begin; b < range.end; b += ALIGN) {                              \
            const uint8_t q = class[b / ALIGN];                                                 \
            if (q) {                                                                            \
                const float *c = l->class_value + FIELDS * q;                                   \
                for (int64_t i = b; i < b + ALIGN; i += VL) { alike; }                          \
                continue;                                                                       \
            }                                                                                   \
            for (int64_t i = b; i < b + ALIGN; i += VL) {                                       \
                const COEF *a = block + (i - b);                                                \
                const vf omega = GET(weight + (i - b));                                         \
                (void)a;                                                                        \
                general;                                                                        \
            }                                                                                   \
            block += ALIGN * OMEGA, weight += ALIGN;                                            \
        }                                                                                       \
    } while (0)

/* x = omega_1 r over plane k; r is converted on the way if it comes in as double. */
static __attribute__((noinline)) void NAME(first)(const dcdm_level *l, const pass *p, int64_t k) {
    float *to = plane_to(&p->x[0], k), *rp = plane_to(&p->r, k);
    const int clear = in_ring(&p->x[0], k);
    for (int64_t j = 0; j < l->n_r; j++) {
        const row_range range = range_at(l, k, j);
        float *x = to + j * l->pitch_r, *r = rp + j * l->pitch_r;
        if (p->input) convert_row(l, p, k, j, range, r);
        EACH_BLOCK(0, store(x + i, c[OMEGA] * load(r + i)), store(x + i, omega * load(r + i)));
        if (clear) clear_outside(l, x, range);
    }
}

/* x + omega_m (r - A x) over plane k. */
static __attribute__((noinline)) void NAME(smooth)(const dcdm_level *l, const pass *p, const planes *from, const planes *to, int m,
                                                   int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    float *xp = plane_to(to, k);
    const int clear = in_ring(to, k);
    for (int64_t j = 0; j < l->n_r; j++) {
        const row_range range = range_at(l, k, j);
        const row_values v = values_at(l, p, &near, j);
        const float *r = rp + j * l->pitch_r;
        float *x = xp + j * l->pitch_r;
        EACH_BLOCK(m, store(x + i, load(v.c + i) + c[OMEGA + m] * residual_alike(c, &v, r, i)),
                   store(x + i, load(v.c + i) + omega * NAME(residual)(a, &v, r, i)));
        if (clear) clear_outside(l, x, range);
    }
}

/* The last smoothing: zero at inactive cells, and out as double on the finest level. */
static __attribute__((noinline)) void NAME(finish)(const dcdm_level *l, const pass *p, const planes *from, int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    for (int64_t j = 0; j < l->n_r; j++) {
        const row_range range = range_at(l, k, j);
        const row_values v = values_at(l, p, &near, j);
        const float *r = rp + j * l->pitch_r;
        float *x = p->output ? p->row : p->target + l->origin + k * l->pitch_w + j * l->pitch_r;
        EACH_BLOCK(0, store(x + i, load(v.c + i) + c[OMEGA] * residual_alike(c, &v, r, i)),
                   store(x + i, masked(load(v.c + i) + omega * NAME(residual)(a, &v, r, i), omega > 0)));
        if (!p->output) continue;
        double *out = p->output + k * l->full_w + j * l->full_r;
        const int64_t end = range.end < l->n_x ? range.end : l->n_x, begin = range.begin < end ? range.begin : end;
        memset(out, 0, (size_t)begin * sizeof *out);
        for (int64_t i = begin; i < end; i++) out[i] = p->scale_out * x[i];
        memset(out + end, 0, (size_t)(l->n_x - end) * sizeof *out);
    }
}

/* The residual of plane k at active cells, summed over the children of every coarse cell. */
static __attribute__((noinline)) void NAME(restrict_plane)(const dcdm_level *l, const dcdm_level *next, const pass *p,
                                                           const planes *from, int64_t k) {
    const neighbours near = neighbours_of(p, from, k);
    const float *rp = plane_at(&p->r, k, p->zero);
    const int add = l->half_w && (k & 1);
    for (int64_t jc = 0; jc < next->n_r; jc++) {
        const row_range coarse = range_at(next, k >> l->half_w, jc);
        if (coarse.begin >= coarse.end) continue;
        float *sum = p->row, *to = next->r + next->origin + (k >> l->half_w) * next->pitch_w + jc * next->pitch_r;
        memset(sum + (coarse.begin << l->half_x), 0, (size_t)((coarse.end - coarse.begin) << l->half_x) * sizeof *sum);
        for (int64_t j = jc << l->half_r; j < l->n_r && j >> l->half_r == jc; j++) {
            const row_range range = range_at(l, k, j);
            const row_values v = values_at(l, p, &near, j);
            const float *r = rp + j * l->pitch_r;
            EACH_BLOCK(0, store(sum + i, load(sum + i) + residual_alike(c, &v, r, i)),
                       store(sum + i, load(sum + i) + masked(NAME(residual)(a, &v, r, i), omega > 0)));
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
#undef EACH_BLOCK

/* The way down over one part of the planes: pass 0 is x = omega_1 r, on a visit after the first x = y + omega_1 (r - A y), 1 .. steps - 1
 * smooth, steps restricts. Pass q lags q planes behind pass 0, so that all work out of the cache; what a part needs of its neighbours'
 * planes it computes again. */
static void NAME(down)(const dcdm_level *l, const dcdm_level *next, pass *p, int part) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    const int last = (int)l->steps;
    const planes result = {.memory = p->again ? l->y + l->origin : NULL, .pitch = l->pitch_w};
    set_planes(l, p, begin, end, last - 1);
    for (int64_t t = begin - last; t < end + last; t++)
        for (int q = 0; q <= last; q++) {
            const int64_t k = t - q;
            if (!in_pass(l, begin, end, k, last - q)) continue;
            if (q == 0 && !p->again) NAME(first)(l, p, k);
            else if (q < last) NAME(smooth)(l, p, q ? &p->x[q - 1] : &result, &p->x[q], q, k);
            else NAME(restrict_plane)(l, next, p, &p->x[q - 1], k);
        }
}

/* The same on the way up: 0 adds the coarse correction, 1 .. steps smooth with the weights in reverse order. */
static void NAME(up)(const dcdm_level *l, const dcdm_level *next, pass *p, int part) {
    const int64_t begin = l->part[part], end = l->part[part + 1];
    const int last = (int)l->steps;
    set_planes(l, p, begin, end, -1);
    for (int64_t t = begin - last; t < end + last; t++)
        for (int q = 0; q <= last; q++) {
            const int64_t k = t - q;
            if (!in_pass(l, begin, end, k, last - q)) continue;
            if (q == 0) correct(l, next, p, k);
            else if (q < last) NAME(smooth)(l, p, &p->x[q - 1], &p->x[q], last - q, k);
            else NAME(finish)(l, p, &p->x[q - 1], k);
        }
}
