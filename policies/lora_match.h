// Which products an adapter joins, with which rank and alpha, by the keys of PEFT's adapter_config.json.
#ifndef RECKON_LORA_MATCH_H
#define RECKON_LORA_MATCH_H
#include "lora_files.h"

typedef struct LoraMatch LoraMatch;
// A product as PEFT knows it: a module ("model.layers.0.self_attn.q_proj"), and its parameter; experts that are one parameter
// have no module.
typedef struct LoraPlace {
    const char *module;    // NULL: only the parameter counts
    const char *parameter; // "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.experts.gate_up_proj"
    int32_t layer;
    bool usual;            // "all-linear" means it too
} LoraPlace;
typedef struct LoraChoice {
    bool chosen;
    int32_t rank;
    double alpha;
} LoraChoice;
// ERR_DATA where a key doesn't say what it should; `where` names the file.
bool lora_match_open(const LoraConfig *c, const char *where, LoraMatch **out, Err *err) MUST_CHECK;
void lora_match_close(LoraMatch *m);
bool lora_match(LoraMatch *m, const LoraPlace *place, LoraChoice *out, Err *err) MUST_CHECK;
// Of the names that were listed, one that no product bore so far; NULL: none.
const char *lora_match_unused(const LoraMatch *m);

#endif
