// A configuration file of another program as JSON values (config_file.c).
#ifndef RECKON_CONFIG_FILE_H
#define RECKON_CONFIG_FILE_H
#include "json.h"

// A file in JSON (it begins with '{') or YAML that holds one table. The caller owns *out.
bool config_read(const char *path, json_t **out, Err *err) MUST_CHECK;

#endif
