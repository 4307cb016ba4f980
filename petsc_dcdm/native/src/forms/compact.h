/* The couplings of a compact 9- or 27-point stencil by place: 9 (dz + 1) + 3 (dy + 1) + (dx + 1), the cell itself in
 * the middle. Symmetric matrices are kept from there on: the cell, then half of its neighbours. */
#ifndef DCDM_COMPACT_H
#define DCDM_COMPACT_H

#include <stdint.h>

#include "compiler.h"

enum { PLACES = 27, CENTRE = 13, PLACES_2D = 5, PLACES_3D = 14 };

/* The axes (bits) along which a place is a step away, and how many axes there are among them. */
INLINE int across(int place) { return (place % 3 != 1) | (place / 3 % 3 != 1) << 1 | (place / 9 != 1) << 2; }
INLINE int bits_of(int axes) { return (axes & 1) + (axes >> 1 & 1) + (axes >> 2); }

/* How a coupling turns that goes round the ends of some axes (bits): for each of these and each other axis a bit of
 * three, by the step along the other one, -1, 0 or 1, for a step of 1 round the ends. The first three bits are free. */
INLINE int64_t twist_of(int place, int axes) {
    const int step[3] = {place % 3 - 1, place / 3 % 3 - 1, place / 9 - 1};
    int64_t bits = 0;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            if (axes >> a & 1 && a != b) bits |= (int64_t)1 << (3 + 9 * a + 3 * b + step[a] * step[b] + 1);
    return bits;
}

/* The place with the other step along some axes (bits). */
INLINE int mirrored(int place, int axes) {
    const int step[3] = {place % 3 - 1, place / 3 % 3 - 1, place / 9 - 1};
    return place - 2 * ((axes & 1 ? step[0] : 0) + 3 * (axes & 2 ? step[1] : 0) + 9 * (axes & 4 ? step[2] : 0));
}

#endif
