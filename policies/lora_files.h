// What a PEFT configuration says, for those who read one: a policy's adapter, and the exporter that merges one.
#ifndef RECKON_LORA_FILES_H
#define RECKON_LORA_FILES_H
#include "json.h"
#include <math.h>

typedef struct LoraConfig {
    int32_t rank;
    double alpha;
    bool rslora;      // alpha / sqrt(rank) instead of alpha / rank
    char **targets;   // [target_count] names of modules; none: all
    int target_count;
} LoraConfig;
static inline double lora_scale(const LoraConfig *c) { return c->alpha / (c->rslora ? sqrt(c->rank) : c->rank); }

// Reads adapter_config.json; an option that would change the numbers and isn't done is an error, dropout where it is
// `trained`. *out is to be freed after a failure too.
bool lora_config_read(const char *path, bool trained, LoraConfig *out, Err *err) MUST_CHECK;
void lora_config_free(LoraConfig *c);
// What a folder with an adapter says about its base; the caller frees *base. `hash` is empty where it doesn't say.
bool adapter_base(const char *folder, char **base, char hash[65], Err *err) MUST_CHECK;
bool folder_is_adapter(const char *folder);

#endif
