// Products in 8 bits (int8.c), for those that have rows to multiply: matmul.c, head.c.
#ifndef RECKON_CPU_INT8_H
#define RECKON_CPU_INT8_H
#include "simd.h"

void V(int8_pack)(const Team *team, const PackArgs *a);
// This thread's share of the rows of x into a->scratch. The others' are there after team_wait.
void V(int8_rows)(const Team *team, const MatmulArgs *a);
// The products of the rows in a->scratch; x isn't read.
void V(int8_product)(const Team *team, const MatmulArgs *a);

#endif
