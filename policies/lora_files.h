// What a PEFT configuration says, for those who read one: a policy's adapter, and the exporter that merges one.
#ifndef RECKON_LORA_FILES_H
#define RECKON_LORA_FILES_H
#include "json.h"
#include <math.h>

typedef struct LoraConfig {
    int32_t rank;
    double alpha;
    bool rslora;       // alpha / sqrt(rank) instead of alpha / rank
    json_t *selection; // which products, by the keys of adapter_config.json; NULL: every one of the layers but routers
    bool routers;      // routers too, where the selection is "all-linear"
    bool from_file;    // as PEFT, a listed name may name nothing as long as another one does
} LoraConfig;
static inline double lora_scale(const LoraConfig *c, double alpha, int32_t rank) { return alpha / (c->rslora ? sqrt(rank) : rank); }

// Reads adapter_config.json; an option that would change the numbers and isn't done is an error, dropout where it is
// `trained`. *out is to be freed after a failure too.
bool lora_config_read(const char *path, bool trained, LoraConfig *out, Err *err) MUST_CHECK;
// Of a new adapter. `targets` are names, NULL-terminated; NULL: every product of the layers but routers.
LoraConfig lora_config_make(int32_t rank, double alpha, bool rslora, const char *const *targets);
void lora_config_free(LoraConfig *c);
// A name of a tensor or module as newer releases of transformers have it; false where it is the same.
bool lora_other_name(const char *name, char *out, size_t size);
// What a folder with an adapter says about its base; the caller frees *base. `hash` is empty where it doesn't say.
bool adapter_base(const char *folder, char **base, char hash[65], Err *err) MUST_CHECK;
bool folder_is_adapter(const char *folder);

#endif
