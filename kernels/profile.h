// Where time goes: seconds, calls and FLOPs by operation of the table (products by their shape too). A profiled device stands
// before another one: it has the other's memory, and slots that look at the clock before and after the other's. So a device
// that isn't profiled pays nothing. Only for devices whose calls are done when they return: the CPU.
#ifndef RECKON_PROFILE_H
#define RECKON_PROFILE_H
#include "device.h"

typedef struct ProfileRow {
    const char *operation; // of the table, or "copy", "zero"
    int64_t N, K;          // of the matrix of a product or of the head; else 0
    int64_t calls;
    double seconds;
    double flops;          // of products and the head, multiply-adds as two; 0: not counted
} ProfileRow;

// Takes `plain` over: closing the new device closes it. ERR_UNAVAILABLE, and nothing taken, where calls are queued.
bool profile_open(Device *plain, Device **out, Err *err) MUST_CHECK;
// Of a device that profile_open made: the rows since it was opened or since the last forget, by seconds, most first.
int profile_rows(Device *profiled, const ProfileRow **out);
void profile_forget(Device *profiled);

#endif
