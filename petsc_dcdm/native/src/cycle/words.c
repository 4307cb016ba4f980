/* A packed stencil as the outer loop reads it: a word for 8 cells (operator.h). */
#include "common.h"
#include "operator.h"
#include "shared/node_team.h"

/* Bit b of byte f of the result is bit f of byte b. */
INLINE uint64_t transposed(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AA;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCC;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0;
    return x ^ t ^ (t << 28);
}

typedef struct {
    dcdm_level l;
    const uint8_t *cells;
    int64_t pitch_w, pitch_r;
    uint64_t *words;
    int parts;
} packing;

static void words_part(void *arguments, int part) {
    const packing *w = arguments;
    const dcdm_level *l = &w->l;
    const int64_t blocks = (l->n_x + BLOCK - 1) / BLOCK, all = l->n_w * l->n_r;
    for (int64_t row = first_of(all, part, w->parts); row < first_of(all, part + 1, w->parts); row++) {
        const uint8_t *from = w->cells + row / l->n_r * w->pitch_w + row % l->n_r * w->pitch_r;
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t n = l->n_x - b * BLOCK < BLOCK ? l->n_x - b * BLOCK : BLOCK;
            uint8_t byte[BLOCK] = {0};
            if (n == BLOCK) memcpy(byte, from + b * BLOCK, BLOCK);
            else memcpy(byte, from + b * BLOCK, (size_t)n);
            uint64_t word = 0;
            for (int i = 0; i < BLOCK; i++) word |= (uint64_t)byte[i] << 8 * i;
            word = transposed(word);
            if (!l->has_r) { /* y has the bits of r, which is not there: its differences are 0, so any bits will do */
                word = (word & 0x00FF00000000FFFF) | (word & 0x00000000FFFF0000) << 16 | 0x00000000FFFF0000;
            }
            w->words[row * blocks + b] = word;
        }
    }
}

/* The words of a stencil that is packed already, from its cells (packed.h). */
void dcdm_words(const dcdm_level *l, const uint8_t *cells, int64_t pitch_w, int64_t pitch_r, uint64_t *words,
                int threads) {
    /* some cells are done before another thread has come */
    const int parts = l->n_w * l->n_r * l->n_x < 1 << 17 ? 1 : threads;
    packing w = {*l, cells, pitch_w, pitch_r, words, parts};
    dcdm_run(words_part, &w, sizeof w, parts);
}
