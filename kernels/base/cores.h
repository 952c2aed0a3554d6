// How many cores this process may keep busy: those the scheduler lets it run on (affinity, cpusets), and no more than its control
// groups give it time for. A container that is limited to 2.0 cores on a machine of 64 sees all 64 of them; 64 threads in it would
// stand still most of the time.
#ifndef RECKON_CORES_H
#define RECKON_CORES_H
#include "base.h"

typedef struct Cores {
    int allowed;     // by affinity
    double limit;    // cores' worth of time that control groups allow; INFINITY: as much as there is
    char where[256]; // the file that says so; empty: none does
    int usable;      // threads worth starting, at least 1
} Cores;
Cores cores_find(void);

// The smallest limit of the groups that the process is in, version 1 or 2 and both side by side. `root` is put before every path: ""
// for this system. What can't be read sets no limit.
double cores_limit(const char *root, char where[256]);
// Part of a core counts as a whole one.
int cores_usable(int allowed, double limit);

#endif
