/* The couplings of a compact 9- or 27-point stencil by place: 9 (dz + 1) + 3 (dy + 1) + (dx + 1), the cell itself in
 * the middle. Symmetric matrices are kept from there on: the cell, then half of its neighbours. */
#ifndef DCDM_COMPACT_H
#define DCDM_COMPACT_H

enum { PLACES = 27, CENTRE = 13, PLACES_2D = 5, PLACES_3D = 14 };

#endif
