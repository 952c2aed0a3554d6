// Memory of one Lua state. Small blocks lie in one region that is a pure function of the requests made so far, so
// that copying its used part away and back resets a state completely, down to the collector's debts; large blocks
// come from malloc and are dropped at a reset. Every byte counts against a limit.
#ifndef RECKON_SCRIPT_MEMORY_H
#define RECKON_SCRIPT_MEMORY_H
#include "base.h"

typedef struct SandboxMemory SandboxMemory;
bool memory_open(size_t limit, SandboxMemory **out, Err *err) MUST_CHECK;
void memory_close(SandboxMemory *m);
// For tests: large blocks are limited by the process alone, small ones by the region.
void memory_unlimit(SandboxMemory *m);
// As lua_Alloc, without its type argument. NULL over the limit; shrinking never fails.
void *memory_realloc(SandboxMemory *m, void *block, size_t old_size, size_t new_size);
// The used part of the region, which the caller frees. Large blocks are apart from now on; before, they aren't.
void *memory_snapshot(SandboxMemory *m, size_t *size);
void memory_restore(SandboxMemory *m, const void *snapshot, size_t size);

#endif
