/* Memory that is zeroed by all parts. */
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
