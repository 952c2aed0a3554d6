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
    int nodes;       // of memory, to which the allowed cores belong, at least 1
} Cores;
Cores cores_find(void);

// The smallest limit of the groups that the process is in, version 1 or 2 and both side by side. `root` is put before every path: ""
// for this system. What can't be read sets no limit.
double cores_limit(const char *root, char where[256]);
// Part of a core counts as a whole one.
int cores_usable(int allowed, double limit);
// The nodes of memory to which cores belong; allowed[i] of core i of `count`.
int cores_nodes(const char *root, const bool *allowed, int count);

// Large memory is what all threads read. Where they are too many for the cores of one node, its pages are laid over the nodes by
// turns before they are first touched, so that no node serves everybody; elsewhere nothing is done. A refusal costs speed only.
void memory_spread(void *p, size_t bytes);
bool cores_spread(const Cores *c);
bool memory_interleave(void *p, size_t bytes); // whatever the cores; false where the system refuses

#endif
