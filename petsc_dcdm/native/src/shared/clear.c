/* Memory that is zeroed, and numbers that are scaled, by all parts. */
#include <string.h>

#include "shared/node_team.h"

typedef struct {
    char *begin;
    int64_t bytes;
    int parts;
} filling;

static void fill_part(void *arguments, int part) {
    const filling *f = arguments;
    const int64_t first = first_of(f->bytes, part, f->parts);
    memset(f->begin + first, 0, (size_t)(first_of(f->bytes, part + 1, f->parts) - first));
}

/* Zeros. */
void dcdm_clear(void *begin, int64_t bytes, int threads) {
    filling f = {begin, bytes, threads};
    dcdm_run(fill_part, &f, sizeof f, threads);
}

typedef struct {
    double *values, factor;
    int64_t count;
    int parts;
} scaling;

static void scale_part(void *arguments, int part) {
    const scaling *s = arguments;
    double *restrict const values = s->values;
    FOR_PART(i, s->count, part, s->parts) values[i] *= s->factor;
}

void dcdm_scale(double *values, int64_t count, double factor, int threads) {
    scaling s = {values, factor, count, threads};
    dcdm_run(scale_part, &s, sizeof s, threads);
}
