// What tests may see of a pool beyond reward.h.
#ifndef RECKON_POOL_H
#define RECKON_POOL_H
#include "reward.h"
#include <sys/types.h>

// The worker processes that are known to live; returns how many of `max` were filled in.
int reward_pool_pids(const RewardPool *pool, pid_t *out, int max);

#endif
