// Token ids from a file, for the commands that take --ids.
#ifndef RECKON_COMMANDS_IDS_H
#define RECKON_COMMANDS_IDS_H
#include "json.h"

// A JSON list of lists of token ids, or one flat list. The caller frees each list and the array, also on failure.
bool ids_read(const char *path, Ids **lists, int *count, Err *err) MUST_CHECK;

#endif
