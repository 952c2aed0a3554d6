// Presets: what another program does where its user says nothing, as defaults for a grpo stage. Keys that the recipe gives
// win. Sizes of batches and completions stay the recipe's own, except a group's where the paper names it.
#include "recipe_parts.h"
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *stage; // JSON: sections and keys of a grpo stage
} presets[] = {
    // TRL 1.x, GRPOConfig.
    {"trl", "{\"group_size\":8,"
            "\"algo\":{\"advantage\":\"group\",\"advantage_eps\":0.0001,\"loss\":\"dapo\",\"epsilon_low\":0.2,\"epsilon_high\":0.2,"
            "\"kl\":0.0,\"kl_times_ratio\":true},"
            "\"optimizer\":{\"learning_rate\":1e-6,\"schedule\":\"linear\",\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999,\"eps\":1e-8,"
            "\"max_gradient_norm\":1.0,\"warmup\":0},"
            "\"sampling\":{\"temperature\":1.0,\"top_p\":1.0,\"top_k\":0}}"},
    // verl 0.9, ppo_trainer.yaml with adv_estimator=grpo (its own default, GAE, has a critic).
    {"verl", "{\"algo\":{\"advantage\":\"group\",\"advantage_eps\":1e-6,\"loss\":\"dapo\",\"aggregate\":\"step_tokens\",\"epsilon_low\":0.2,"
             "\"epsilon_high\":0.2,\"dual_clip\":3.0,\"log_ratio_bound\":20.0,\"kl\":0.0,\"kl_estimator\":\"k3\",\"kl_bound\":10.0,"
             "\"kl_log_bound\":20.0,\"entropy\":0.0,\"entropy_as_loss\":true,\"cov_kl\":0.1,\"ratio_cap\":3.0},"
             "\"optimizer\":{\"learning_rate\":1e-6,\"schedule\":\"constant\",\"weight_decay\":0.01,\"beta1\":0.9,\"beta2\":0.999,\"eps\":1e-8,"
             "\"max_gradient_norm\":1.0,\"warmup\":0},"
             "\"sampling\":{\"temperature\":1.0,\"top_p\":1.0,\"top_k\":0}}"},
    // DAPO (arXiv 2503.14476) and verl's recipe of it; the buffer of 4096 of 20480 tokens is completed in recipe.c.
    {"dapo", "{\"group_size\":16,"
             "\"algo\":{\"advantage\":\"group\",\"advantage_eps\":1e-6,\"loss\":\"dapo\",\"aggregate\":\"step_tokens\",\"epsilon_low\":0.2,"
             "\"epsilon_high\":0.28,\"dual_clip\":10.0,\"log_ratio_bound\":20.0,\"kl\":0.0,\"entropy\":0.0,\"entropy_as_loss\":true,"
             "\"overlong_penalty\":1.0,\"refills\":10,\"minibatches\":1},"
             "\"optimizer\":{\"learning_rate\":1e-6,\"schedule\":\"constant\",\"weight_decay\":0.1,\"beta1\":0.9,\"beta2\":0.999,\"eps\":1e-8,"
             "\"max_gradient_norm\":1.0},"
             "\"sampling\":{\"temperature\":1.0,\"top_p\":1.0,\"top_k\":0}}"},
    // DeepSeek-R1's published settings of GRPO (Nature 645, 2025).
    {"r1", "{\"prompts\":32,\"group_size\":16,"
           "\"algo\":{\"advantage\":\"group\",\"loss\":\"grpo\",\"epsilon_low\":10.0,\"epsilon_high\":10.0,\"kl\":0.001,\"kl_estimator\":\"k3\","
           "\"reference_every\":400},"
           "\"optimizer\":{\"learning_rate\":3e-6,\"schedule\":\"constant\"},"
           "\"sampling\":{\"temperature\":1.0}}"},
    // prime-rl 0.8: DefaultLossConfig, the grpo algorithm, AdamWConfig.
    {"prime", "{\"algo\":{\"advantage\":\"none\",\"loss\":\"prime\",\"epsilon_low\":0.2,\"epsilon_high\":0.2,\"prime_advantage\":1.0,"
              "\"prime_drift\":0.001,\"kl\":0.0},"
              "\"optimizer\":{\"learning_rate\":1e-6,\"schedule\":\"constant\",\"weight_decay\":0.01,\"beta1\":0.9,\"beta2\":0.999,\"eps\":1e-8,"
              "\"max_gradient_norm\":1.0},"
              "\"sampling\":{\"temperature\":1.0}}"},
};

static void fill_in(json_t *into, const json_t *from) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from, key, value) {
        json_t *own = json_object_get(into, key);
        if (json_is_object(value) && (!own || (json_is_array(own) && json_array_size(own) == 0)))
            json_object_set_new(into, key, own = json_object());
        if (json_is_object(value) && json_is_object(own) && !json_object_get(own, "$set")) fill_in(own, value);
        else if (!own) json_object_set(into, key, value);
    }
}

// A whole number of a raw section; overrides of the command line still are text.
static bool is_positive(const json_t *section, const char *key) {
    const json_t *value = json_object_get(section, key), *set = json_object_get(value, "$set");
    return set ? atof(json_string_value(set)) > 0 : json_number_value(value) > 0;
}

static bool is_word(const json_t *section, const char *key, const char *word) {
    const json_t *value = json_object_get(section, key), *set = json_object_get(value, "$set");
    const char *found = json_string_value(set ? set : value);
    return found && strcmp(found, word) == 0;
}

void preset_apply(json_t *stage) {
    const json_t *rollout = json_object_get(stage, "rollout");
    // Samples of other weights or of rounded ones are corrected, unless the recipe says otherwise.
    if (is_positive(rollout, "staleness") || is_positive(rollout, "partial") || is_word(rollout, "precision", "int8")) {
        json_t *correction = json_loads("{\"algo\":{\"correction\":{\"level\":\"token\"}}}", 0, NULL);
        fill_in(stage, correction);
        json_decref(correction);
    }
    const json_t *named = json_object_get(json_object_get(stage, "algo"), "preset"), *set = json_object_get(named, "$set");
    const char *name = json_string_value(set ? set : named);
    for (int i = 0; name && i < COUNT(presets); i++) {
        if (strcmp(presets[i].name, name) != 0) continue;
        json_t *defaults = json_loads(presets[i].stage, 0, NULL);
        fill_in(stage, defaults);
        json_decref(defaults);
    }
}
