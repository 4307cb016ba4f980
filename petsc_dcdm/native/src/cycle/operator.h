/* The matrix as the outer loop multiplies by it; mirrored by petsc_dcdm/native/binding.py. */
#ifndef DCDM_OPERATOR_H
#define DCDM_OPERATOR_H

#include <stdint.h>

/* Where the low faces along an axis have FEW different values and s FEW_EXTRA, as in two phases, a cell is one code:
 * CODE_BITS each for which of them the faces along x, r and w have, and above these which s it has. */
enum { CODE_BITS = 3, FEW = 1 << CODE_BITS, FEW_EXTRA = 1 << (16 - 3 * CODE_BITS) };

/* The matrix, exactly. Packed: every conductance along an axis is 0 or the same, and s has few different values; then
 * BLOCK cells are one word: bytes 0 .. 5 hold a bit for each cell and face (low x, high x, low r, ...), byte 6 whether
 * any of them has an s. */
enum { BLOCK = 8 };

typedef struct {
    int64_t packed;
    const uint64_t *words;   /* [n_w][n_r][ceil(n_x / 8)] */
    const uint8_t *s_index;  /* into s_value, at s_origin + k s_pitch_w + j s_pitch_r + i */
    int64_t s_pitch_w, s_pitch_r, s_origin;
    const double *s_value;   /* 256 */
    double c[3];             /* x, r, w */
    const double *w_x, *w_r, *w_w, *s; /* else: at origin + k pitch_w + j pitch_r + i, halo on the high side valid */
    int64_t pitch_w, pitch_r, origin;
    const uint16_t *codes;   /* at the same elements, in place of these four; NULL without. Values of s in s_value: */
    double few[3][FEW];      /* of w_x, w_r, w_w */
    double factor;           /* the matrix is factor times all this */
} dcdm_operator;

#endif
