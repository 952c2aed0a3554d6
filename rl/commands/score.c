// reckon score: log-probabilities of token ids under a model, the likeliest next tokens, loss and gradient norms.
#include "command.h"
#include "ids.h"
#include "policy.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Batch {
    Ids tokens, row, target;
    PackedGroup *groups;
    PackedSequence *sequences;
    Packed packed;
} Batch;

// Every list is a group of its own: its first token the prompt, the rest one completion.
static void batch_build(const Ids *lists, int count, Batch *b) {
    b->groups = xcalloc((size_t)count, sizeof *b->groups);
    b->sequences = xcalloc((size_t)count, sizeof *b->sequences);
    for (int i = 0; i < count; i++) {
        int32_t start = b->tokens.count, n = lists[i].count;
        b->groups[i] = (PackedGroup){.prompt_start = start, .prompt_length = 1, .first_sequence = i, .sequence_count = 1};
        b->sequences[i] = (PackedSequence){.start = start + 1, .length = n - 1};
        ids_append(&b->tokens, lists[i].data, n);
        for (int32_t j = 1; j < n; j++) {
            ids_push(&b->row, start + j - 1);
            ids_push(&b->target, lists[i].data[j]);
        }
    }
    b->packed = (Packed){.token_count = b->tokens.count, .tokens = b->tokens.data, .group_count = count, .sequence_count = count,
                         .groups = b->groups, .sequences = b->sequences, .target_count = b->target.count, .row = b->row.data,
                         .target = b->target.data, .temperature = 1, .whole = true};
}
static void batch_free(Batch *b) {
    ids_free(&b->tokens), ids_free(&b->row), ids_free(&b->target);
    free(b->groups), free(b->sequences);
}

static bool add_top(Policy *p, const Ids *list, int top, json_t *sequence, Err *err) {
    if (top <= 0) return true;
    int32_t *ids = xcalloc((size_t)top, sizeof *ids);
    float *logprobs = xcalloc((size_t)top, sizeof *logprobs);
    bool ok = policy_top(p, list->data, list->count, top, ids, logprobs, err);
    json_t *out = json_array();
    for (int i = 0; ok && i < top && ids[i] >= 0; i++)
        json_array_append_new(out, json_pack("{s:i,s:o}", "id", ids[i], "logprob", json_number_or_name(logprobs[i])));
    json_object_set_new(sequence, "top", out);
    free(ids), free(logprobs);
    return ok;
}

static bool add_gradients(Policy *p, const Packed *batch, const float *logprob, json_t *out, Err *err) {
    int32_t n = batch->target_count;
    double loss = 0;
    float *dlogprob = xcalloc((size_t)n + 1, sizeof *dlogprob);
    for (int32_t i = 0; i < n; i++) {
        loss -= (double)logprob[i] / n;
        dlogprob[i] = -1.0f / (float)n;
    }
    policy_zero_gradients(p);
    bool ok = n == 0 || policy_backward(p, batch, dlogprob, NULL, err);
    json_t *norms = json_object();
    for (int i = 0; ok && i < policy_parameter_count(p); i++)
        json_object_set_new(norms, policy_parameter_name(p, i), json_number_or_name(policy_parameter_gradient_norm(p, i)));
    json_object_set_new(out, "loss", n ? json_number_or_name(loss) : json_null());
    json_object_set_new(out, "grad_norms", norms);
    free(dlogprob);
    return ok;
}

// Which experts each token of the lists went to: for each layer that has any, [tokens][chosen].
static bool add_experts(Policy *p, const Packed *batch, const Ids *lists, int count, float *logprob, json_t *sequences, Err *err) {
    const ModelConfig *c = policy_config(p);
    int layers = policy_expert_layers(p), chosen = c->experts.chosen;
    int32_t T = batch->token_count, *choice = xcalloc((size_t)layers * (size_t)T * (size_t)(chosen + 1) + 1, sizeof *choice);
    bool ok = policy_forward_experts(p, batch, logprob, choice, err);
    int64_t at = 0;
    for (int i = 0; ok && i < count; at += lists[i++].count) {
        json_t *experts = json_array();
        for (int layer = 0, n = 0; layer < c->layers; layer++) {
            if (!config_has_experts(c, layer)) continue;
            const int32_t *rows = choice + ((int64_t)n++ * T + at) * chosen;
            json_t *tokens = json_array();
            for (int32_t t = 0; t < lists[i].count; t++) {
                json_t *row = json_array();
                for (int j = 0; j < chosen; j++) json_array_append_new(row, json_integer(rows[t * chosen + j]));
                json_array_append_new(tokens, row);
            }
            json_array_append_new(experts, json_pack("{s:i,s:o}", "layer", layer, "choice", tokens));
        }
        json_object_set_new(json_array_get(sequences, (size_t)i), "experts", experts);
    }
    free(choice);
    return ok;
}

static bool score_lists(Policy *p, const Args *args, const Ids *lists, int count, json_t *out, Err *err) {
    Batch b = {0};
    batch_build(lists, count, &b);
    float *logprob = xcalloc((size_t)b.packed.target_count + 1, sizeof *logprob);
    bool grad = args_flag(args, "grad"), ok = count == 0 || policy_forward(p, &b.packed, grad, logprob, NULL, err);
    json_t *sequences = json_object_get(out, "sequences");
    if (ok && grad) ok = add_gradients(p, &b.packed, logprob, out, err);
    int32_t at = 0;
    for (int i = 0; ok && i < count; i++) {
        json_t *sequence = json_object(), *logprobs = json_array();
        for (int32_t j = 1; j < lists[i].count; j++) json_array_append_new(logprobs, json_number_or_name(logprob[at++]));
        json_object_set_new(sequence, "logprobs", logprobs);
        json_array_append_new(sequences, sequence);
        ok = add_top(p, &lists[i], (int)args_int(args, "top", 0), sequence, err);
    }
    if (ok && count && args_flag(args, "experts")) ok = add_experts(p, &b.packed, lists, count, logprob, sequences, err);
    free(logprob);
    batch_free(&b);
    return ok;
}

static void print_text(const json_t *out) {
    const json_t *sequence;
    size_t i;
    json_array_foreach(json_object_get(out, "sequences"), i, sequence) {
        double sum = 0;
        const json_t *lp, *logprobs = json_object_get(sequence, "logprobs");
        size_t j;
        json_array_foreach(logprobs, j, lp) sum += json_number_value(lp);
        printf("sequence %zu: %zu tokens predicted, log-probability %.6f\n", i, json_array_size(logprobs), sum);
    }
    if (json_object_get(out, "loss")) printf("loss %.6f\n", json_number_value(json_object_get(out, "loss")));
}

static bool run(const Args *args, Err *err) {
    Ids *lists = NULL;
    int count = 0;
    const char *path = args_text(args, "ids", NULL), *precision = args_text(args, "precision", "fp32");
    if (!path) return fail(err, ERR_USAGE, "score", "--ids FILE is missing: a JSON list of lists of token ids");
    PolicyOptions o = {.precision = strcmp(precision, "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32,
                       .threads = (int)args_int(args, "threads", 0), .device = args_text(args, "device", NULL), .trainable = args_flag(args, "grad"), .adapter = args_text(args, "adapter", NULL), .keep_blocks = args_flag(args, "keep-blocks")};
    Policy *p = NULL;
    json_t *out = json_pack("{s:s,s:[]}", "precision", precision, "sequences");
    bool ok = ids_read(path, &lists, &count, err) && policy_open(args->positional[0], &o, &p, err) &&
              score_lists(p, args, lists, count, out, err);
    if (ok && args_flag(args, "json"))
        ok = print_json(out, err);
    else if (ok)
        print_text(out);
    for (int i = 0; i < count; i++) ids_free(&lists[i]);
    free(lists);
    json_decref(out);
    policy_close(p);
    return ok;
}

static const Option options[] = {
    {.name = "ids", .kind = OPTION_TEXT, .value = "FILE", .help = "a JSON list of lists of token ids"},
    {.name = "adapter", .kind = OPTION_TEXT, .value = "DIR", .help = "a PEFT adapter on top of the model; --grad is then of the adapter"},
    {.name = "precision", .kind = OPTION_CHOICE, .value = "fp32|bf16", .help = "of weights and activations (fp32)"},
    {.name = "top", .kind = OPTION_INT, .value = "K", .help = "also the K likeliest tokens after the last", .low = 0, .high = 1e6},
    {.name = "grad", .kind = OPTION_FLAG, .help = "also the loss (mean over all predicted tokens) and each parameter's gradient norm"},
    {.name = "experts", .kind = OPTION_FLAG, .help = "also the experts that each token went to, layer by layer"},
    {.name = "threads", .kind = OPTION_INT, .value = "N", .help = "threads (all cores)", .low = 1, .high = 256},
    {.name = "keep-blocks", .kind = OPTION_FLAG, .help = "keep a GGUF's 8, 6, 5 and 4 bit weights as they are: less memory, slower"},
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};

const Command command_score = {
    .name = "score",
    .summary = "log-probabilities of token ids under a model",
    .usage = "MODEL --ids FILE [--adapter DIR] [--precision fp32|bf16] [--top K] [--experts] [--grad] --json",
    .detail = "MODEL is a Hugging Face folder or a .gguf file. Token i is scored given those before it, from the second on.",
    .example = "reckon score models/SmolLM2-135M-Instruct.Q4_1.gguf --ids ids.json --top 5 --json",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
