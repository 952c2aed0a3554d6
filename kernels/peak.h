// Arguments of the two loops that measure a processor's peaks (cpu/peak.c), run by every variant on the pool.
#ifndef RECKON_PEAK_H
#define RECKON_PEAK_H
#include "ops.h"
#include "threads.h"

typedef struct PeakProducts {
    int64_t rounds;
    Dtype dtype;
    double *flops; // [threads] out
    float *sink;   // [threads]
} PeakProducts;
typedef struct PeakReading {
    const float *memory; // [count]
    int64_t count;
    float *sink; // [threads]
} PeakReading;

#endif
