/* Two levels are set up, and some steps of the outer loop taken. */
#include "driver.h"

int64_t dcdm_work_floats(const dcdm_level *l);
int64_t dcdm_setup_bytes(const dcdm_level *l);
int64_t dcdm_prepared_bytes(void);
void dcdm_prepare(const dcdm_network *net, int half_x, int half_r, int half_w, int has_r, void *to);
int64_t dcdm_count_blocks(const dcdm_level *l, int threads);
void dcdm_set_up(const dcdm_level *l, const dcdm_network *net, dcdm_setup *s, char *memory, int threads);
void dcdm_join_shares(const dcdm_level *l, const dcdm_setup *s, int threads);
void dcdm_down(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input,
               double scale, int again);
void dcdm_up(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, const double *input,
             double scale_in, double *output, double scale_out, float *direction);
void dcdm_dots(const dcdm_level *l, const dcdm_operator *a, const float *d, const double *const *p, int history,
               const double *r, double *out);
void dcdm_step(const dcdm_level *l, const dcdm_operator *a, double *next, const float *d, const double *const *p,
               const double *beta, int history, double alpha, int from_zero, double *x, const double *r, double *to,
               double *work, double *out);
void dcdm_residual(const dcdm_level *l, const dcdm_operator *a, const double *x, const double *b, double *r,
                   double *work, double *out);
void dcdm_words(const dcdm_level *l, const uint8_t *cells, int64_t pitch_w, int64_t pitch_r, uint64_t *words,
                int threads);

enum { STEPS = 3, ROUNDS = 4 };

/* A level of n cells along x, y, z in the layout of common.h, `ring`: periodic; `size` is that of its arrays. */
static dcdm_level shape_level(const int64_t n[3], int ring, int64_t *size) {
    const int flat = n[2] == 1, wrap_x = ring && n[0] > 1;
    const int64_t pitch = (n[0] + (wrap_x ? ALIGN : 2) + ALIGN - 1) / ALIGN * ALIGN;
    *size = (n[2] + 2) * (n[1] + 2) * pitch + 2 * ALIGN;
    return (dcdm_level){.n_w = flat ? n[1] : n[2], .n_r = flat ? 1 : n[1], .n_x = n[0], .pitch_r = pitch,
                        .pitch_w = flat ? pitch : (n[1] + 2) * pitch, .origin = ALIGN + (n[1] + 3) * pitch,
                        .full_w = flat ? n[0] : n[0] * n[1], .full_r = n[0], .has_r = !flat, .steps = STEPS,
                        .wrap_w = ring && n[flat ? 1 : 2] > 1, .wrap_r = ring && !flat && n[1] > 1, .wrap_x = wrap_x,
                        .stop_r = flat ? 1 : n[1], .stop_x = n[0]};
}

/* The axis (0 .. 2: x, y, z) that is swept as x, r, w. */
static int axis_of(const dcdm_level *l, int role) { return l->has_r || role == 0 ? role : 3 - role; }

static dcdm_network *make_network(void) {
    dcdm_network *net = zeros(1, sizeof *net);
    float *numbers = (float *)net;
    for (size_t i = 0; i < sizeof *net / sizeof *numbers; i++) numbers[i] = (float)(0.2 * uniform() - 0.1);
    for (int m = 0; m < STEPS; m++) net->base[m] = 0.6f;
    for (int m = STEPS; m < STEPS + 4; m++) net->base[m] = 1;
    return net;
}

/* Both levels, from the arrays of the system or its packed cells; everything that is allocated is in `kept`. */
typedef struct {
    dcdm_level level[2];
    int64_t size[2];
    float *work;
    void *kept[32];
    int count;
} levels;

static void *keep(levels *v, int64_t count, int64_t size) {
    CHECK(v->count < 32);
    return v->kept[v->count++] = zeros(count, size);
}

static void set_up(const grid_system *g, const dcdm_network *net, int threads, levels *v) {
    int64_t coarse[3];
    for (int a = 0; a < 3; a++) coarse[a] = g->n[a] > 1 ? (g->n[a] + 1) / 2 : 1;
    v->level[0] = shape_level(g->n, g->ring, &v->size[0]), v->level[1] = shape_level(coarse, g->ring, &v->size[1]);
    dcdm_level *l = &v->level[0], *next = &v->level[1];
    l->half_x = l->half_w = 1, l->half_r = l->has_r;
    l->block_count = dcdm_count_blocks(l, threads);
    const int64_t rows = l->n_w * l->n_r, blocks = (l->n_x + ALIGN - 1) / ALIGN;
    l->block_class = keep(v, rows * blocks, 1);
    l->block_start = keep(v, rows, sizeof(int64_t));
    l->class_value = keep(v, 256 * FIELDS, sizeof(float));
    l->blocks = keep(v, l->block_count * ALIGN * OMEGA, sizeof(coef));
    l->omegas = keep(v, l->block_count * ALIGN * STEPS, sizeof(coef));
    for (int i = 0; i < 2; i++) {
        dcdm_level *each = &v->level[i];
        each->x = keep(v, v->size[i], sizeof(float));
        each->y = keep(v, v->size[i], sizeof(float));
        each->r = keep(v, v->size[i], sizeof(float));
        each->range = keep(v, 2 * each->n_w * each->n_r, sizeof(int32_t));
        each->w_end = each->n_w;
    }
    dcdm_setup s = {.format = g->varying ? DOUBLE : PACKED, .s = g->s, .cells = g->cells, .s_index = g->s_index,
                    .s_value = g->s_value, .pitch_r = g->pitch_y, .pitch_w = l->has_r ? g->pitch_z : g->pitch_y,
                    .origin = g->first, .c_pitch_w = next->pitch_w, .c_pitch_r = next->pitch_r,
                    .c_origin = next->origin, .range = (int32_t *)l->range};
    const double *w[3];
    float *to[7];
    for (int q = 0; q < 7; q++) to[q] = keep(v, v->size[1], sizeof(float));
    const int64_t own[3] = {l->n_x, l->n_r, l->n_w};
    for (int role = 0; role < 3; role++) {
        w[role] = g->w[axis_of(l, role)];
        s.c[role] = g->c[axis_of(l, role)], s.face[role] = 2 * axis_of(l, role), s.own[role][1] = own[role];
    }
    s.w_x = w[0], s.w_r = w[1], s.w_w = w[2];
    s.c_x = to[0], s.c_r = to[1], s.c_w = to[2], s.c_s = to[3];
    s.share_x = to[4], s.share_r = to[5], s.share_w = to[6];
    char *memory = zeros(threads, dcdm_setup_bytes(l)), *prepared = zeros(1, dcdm_prepared_bytes());
    dcdm_prepare(net, (int)l->half_x, (int)l->half_r, (int)l->half_w, (int)l->has_r, prepared);
    s.prepared = prepared;
    dcdm_set_up(l, net, &s, memory, threads);
    free(memory);
    free(prepared);
    dcdm_join_shares(next, &s, threads);
    CHECK(s.active > 0 && s.taken <= l->block_count && (g->varying || l->n_x < 64 || s.classes > 1));
    for (int64_t q = 0; q < next->n_w * next->n_r; q++)
        ((int32_t *)next->range)[2 * q + 1] = (int32_t)((next->n_x + ALIGN - 1) / ALIGN * ALIGN);
    int64_t *part = keep(v, threads + 1, sizeof *part);
    l->parts = l->n_w >= 2 * threads ? threads : 1, l->part = part;
    for (int64_t q = 0; q <= l->parts; q++) part[q] = q < l->parts ? l->n_w * q / l->parts / 2 * 2 : l->n_w;
    v->work = keep(v, l->parts * dcdm_work_floats(l) + (l->n_r + 2) * l->pitch_r + 4 * ALIGN, sizeof(float));
}

/* d = cycle(scale r), with a scaled copy in place of the coarse solver. */
static void apply(const levels *v, const double *r, double scale, float *d) {
    const dcdm_level *l = &v->level[0], *next = &v->level[1];
    dcdm_down(l, next, &v->work, 1, r, scale, 0);
    for (int64_t q = 0; q < v->size[1]; q++) next->y[q] = 0.7f * next->r[q];
    dcdm_up(l, next, &v->work, 1, r, scale, NULL, 0, d);
}

static double sum_of(const double *out, int64_t parts, int count, int which) {
    double sum = 0;
    for (int64_t q = 0; q < parts; q++) sum += out[q * count + which];
    return sum;
}

/* The same but for the rounding of what the network says: which of some equal cells it is asked about first is a matter
 * of threads where a grid goes on at its ends. */
static int near(const float *a, const float *b, int64_t size) {
    float most = 0, apart = 0;
    for (int64_t q = 0; q < size; q++) most = fmaxf(most, fabsf(a[q])), apart = fmaxf(apart, fabsf(a[q] - b[q]));
    return apart < 1e-3f * most;
}

int64_t direction_size(const grid_system *g) {
    int64_t size;
    shape_level(g->n, g->ring, &size);
    return ROUNDS * size;
}

void check_cycle(const grid_system *g, int threads, const char *name, float *expected) {
    static dcdm_network *net;
    if (!net) net = make_network();
    levels v = {.count = 0};
    set_up(g, net, threads, &v);
    const dcdm_level *l = &v.level[0];
    const int64_t cells = g->n[0] * g->n[1] * g->n[2];
    dcdm_operator a = {.packed = !g->varying, .s_value = g->s_value, .s = g->s, .factor = 2, .s_index = g->s_index};
    a.pitch_w = a.s_pitch_w = l->has_r ? g->pitch_z : g->pitch_y, a.pitch_r = a.s_pitch_r = g->pitch_y;
    a.origin = a.s_origin = g->first;
    for (int role = 0; role < 3; role++) a.c[role] = g->c[axis_of(l, role)];
    a.w_x = g->w[axis_of(l, 0)], a.w_r = g->w[axis_of(l, 1)], a.w_w = g->w[axis_of(l, 2)];
    uint64_t *words = keep(&v, l->n_w * l->n_r * ((l->n_x + 7) / 8), sizeof *words);
    dcdm_words(l, g->cells + g->first, a.pitch_w, a.pitch_r, words, threads);
    a.words = words;
    double *x = keep(&v, cells, sizeof *x), *b = keep(&v, cells, sizeof *b), *r = keep(&v, cells, sizeof *r);
    for (int64_t q = 0; q < cells; q++) b[q] = sin((double)(q % 97));
    double *p[2] = {keep(&v, v.size[0], sizeof(double)), keep(&v, v.size[0], sizeof(double))};
    double *work = keep(&v, 3 * l->parts * ((l->n_r + 2) * l->pitch_r + 2 * ALIGN), sizeof *work);
    double *out = keep(&v, 8 * l->parts, sizeof *out), energy[2] = {0}, norm = 0;
    float *d = keep(&v, v.size[0], sizeof *d);
    dcdm_residual(l, &a, x, b, r, work, out);
    const double first = norm = sqrt(sum_of(out, l->parts, 1, 0));
    for (int step = 0; step < ROUNDS; step++) {
        const int history = step < 2 ? step : 2;
        apply(&v, r, 1 / norm, d);
        float *same = expected + step * v.size[0];
        if (threads == 1) memcpy(same, d, (size_t)v.size[0] * sizeof *d);
        else if (step == 0) CHECK(g->ring ? near(same, d, v.size[0]) : !memcmp(same, d, (size_t)v.size[0] * sizeof *d));
        const double *before[2] = {p[(step - history) % 2], p[(step + 1) % 2]};
        dcdm_dots(l, &a, d, before, history, r, out);
        const int count = 4 + 2 * history;
        double e = sum_of(out, l->parts, count, 0), slope = sum_of(out, l->parts, count, 1), beta[2];
        for (int h = 0; h < history; h++) {
            const int64_t of = (step - history + h) % 2;
            beta[h] = sum_of(out, l->parts, count, 4 + 2 * h) / energy[of];
            e -= beta[h] * sum_of(out, l->parts, count, 4 + 2 * h);
            slope -= beta[h] * sum_of(out, l->parts, count, 5 + 2 * h);
        }
        CHECK(e > 0 && slope > 0);
        dcdm_step(l, &a, p[step % 2], d, before, beta, history, slope / e, step == 0, x, r, r, work, out);
        norm = sqrt(sum_of(out, l->parts, 2, 0)), energy[step % 2] = sum_of(out, l->parts, 2, 1);
        if (name) printf("%-12s %d  %.6e  %.6e\n", name, step, slope / e, norm / first);
    }
    CHECK(norm < 0.5 * first);
    double *exact = keep(&v, cells, sizeof *exact), apart = 0;
    dcdm_residual(l, &a, x, b, exact, work, out);
    for (int64_t q = 0; q < cells; q++) apart = fmax(apart, fabs(exact[q] - r[q]));
    CHECK(apart < 1e-12 * first);
    for (int q = 0; q < v.count; q++) free(v.kept[q]);
}
