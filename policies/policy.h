// A language model, opaque: load or create, sample, forward, backward, update, save. Everything above this line
// deals in token ids, logprobs and entropies; weights, caches and kernels stay below it.
//
// Invariant 1 lives here: the logprob recorded by policy_rollout for a token is bitwise the one policy_forward
// computes for it, at any batch size, with shared prompts or without, under the same temperature and kept set. A rollout in 8 bits
// gives that up, and nothing else: what it samples depends neither on the batch nor on threads.
#ifndef RECKON_POLICY_H
#define RECKON_POLICY_H
#include "config.h"
#include "tokenizer.h"

typedef struct Policy Policy;

typedef enum Precision { PRECISION_FP32, PRECISION_BF16 } Precision;

// A new low-rank adapter (Hu et al. 2021; rslora: Kalajdzievski 2023).
typedef struct LoraOptions {
    int32_t rank;               // 0: none
    double alpha;
    bool rslora;
    const char *const *targets; // NULL-terminated names of modules ("q_proj"); NULL: every product of the layers but routers
    uint64_t seed;
} LoraOptions;

typedef struct PolicyOptions {
    Precision precision; // of weights in use and stored activations; masters and sums are fp32
    int threads;         // 0: the cores this process may use
    const char *device;  // "cpu", "cuda", "cuda:N"; NULL: RECKON_DEVICE's, else the CPU
    const Policy *beside; // shares that policy's device (and threads) instead of opening one; either may be closed first
    bool trainable;      // allocates masters, gradients and AdamW moments; with an adapter, the adapter's only
    // Matrices of a frozen policy on the processor are used within the file until a rollout decodes: the first token comes sooner.
    // The file mustn't be written to until then. For who neither trains nor makes other policies of it.
    bool in_file;
    bool keep_blocks;    // weights that a GGUF file has in 8, 6, 5 or 4 bits stay so, and are decoded in the products
    bool int8;           // a copy of the matrices in 8 bits for rollouts that ask for it, made anew with every update; on the CPU only
    const char *adapter; // a PEFT folder, switched on; NULL: none
    LoraOptions lora;    // instead: a new one
} PolicyOptions;

// From a Hugging Face folder or a GGUF file. The tokenizer is opened too where there is one. A folder that holds an
// adapter alone is opened on the base that it names; where it names the base's hash, another base is an error.
bool policy_open(const char *path, const PolicyOptions *options, Policy **out, Err *err) MUST_CHECK;
// What policy_open would make of it, from headers alone.
bool policy_read_config(const char *path, ModelConfig *out, Err *err) MUST_CHECK;
// SHA-256 over its files of weights (an adapter's, and those of its base).
bool policy_files_hash(const char *path, char out[65], Err *err) MUST_CHECK;
// New weights: normal(0, initializer_range), norms 1, biases 0; a function of (config, seed). Takes the tokenizer.
bool policy_create(const ModelConfig *config, Tokenizer *tokenizer, uint64_t seed, const PolicyOptions *options,
                   Policy **out, Err *err) MUST_CHECK;
// A frozen copy of the weights as they are now (a reference policy): no masters, no gradients. Where an adapter is trained,
// a view with a copy of that adapter.
bool policy_freeze_copy(Policy *p, Policy **out, Err *err) MUST_CHECK;
void policy_close(Policy *p);
// Sets a trainable policy's weights to the sum of `shares` times those of models with the same tensors; fills the hash of each.
// An adapter's folder counts as its base with the adapter merged. Moments stay as they are.
bool policy_average(Policy *p, const char *const *paths, const double *shares, int count, char (*hashes)[65], Err *err) MUST_CHECK;

// ---- adapters --------------------------------------------------------------------------------------------
// One more adapter on the same base, from a PEFT folder; it is not switched on. Its index is the count before.
bool policy_add_adapter(Policy *p, const char *folder, Err *err) MUST_CHECK;
int policy_adapter_count(const Policy *p);
void policy_use_adapter(Policy *p, int index); // -1: the base alone
bool policy_trains_adapter(const Policy *p);
// The base of `p` with another adapter (a PEFT folder; NULL: none), sharing weights and buffers: for policy_forward without
// `keep` between passes of `p`. Closed before `p` is.
bool policy_view(Policy *p, const char *adapter, Policy **out, Err *err) MUST_CHECK;

const ModelConfig *policy_config(const Policy *p);
const Tokenizer *policy_tokenizer(const Policy *p); // NULL if none
Precision policy_precision(const Policy *p);
int policy_threads(const Policy *p);
bool policy_on_host(const Policy *p); // on the processor, not on a GPU
// The variant that a policy opened now on this device (NULL: the default) would get.
bool policy_machine_variant(const char *device, char out[64], Err *err) MUST_CHECK;
const char *policy_variant(const Policy *p);    // "avx512bf16", "sm_90", ...: part of what fixes the bits
bool policy_failed(const Policy *p);            // its device has failed: nothing that it holds can be read any more
// The meter of the device that this policy is on; false where it has none (the CPU: see rl/energy.c). Joules since it was opened,
// NaN: not counted. `held` tells why its clock was held down since the call before, empty where it wasn't.
bool policy_energy(const Policy *p, double *joules, char held[128]);
size_t policy_peak_device_bytes(const Policy *p); // bytes of a GPU's memory that were held at the same time, at most so far; 0 on the CPU
size_t policy_bytes(const Policy *p);           // memory held by weights, gradients, moments and packs
double policy_flops(const Policy *p);           // FLOPs done so far by this policy, multiply-adds as two
void policy_forget_flops(Policy *p);            // from here on they are counted from 0: a sum's last bits depend on where it began
// SHA-256 over the weights in order.
bool policy_hash(const Policy *p, char out[65], Err *err) MUST_CHECK;

// A Hugging Face folder: config.json, generation_config.json, model.safetensors (`dtype` "F32" or "BF16"), tokenizer. Where
// an adapter is trained, a PEFT folder with the path and the hash of its base.
bool policy_save(const Policy *p, const char *folder, const char *dtype, Err *err) MUST_CHECK;
// AdamW's moments and step count, bit for bit, as one safetensors file.
bool policy_save_optimizer(const Policy *p, const char *path, Err *err) MUST_CHECK;
bool policy_load_optimizer(Policy *p, const char *path, Err *err) MUST_CHECK;

// ---- sampling --------------------------------------------------------------------------------------------
typedef struct Sampling {
    double temperature; // 0: greedy (logprobs are then those of temperature 1)
    int32_t top_k;      // 0: off
    double top_p;       // 1: off
    double min_p;       // 0: off
    int32_t max_tokens; // of the completion
    const char *const *stop; // stop strings, NULL-terminated; may be NULL. Matched on the decoded text.
    bool ignore_eos;
    // 0: off. Thinking that is still open after so many tokens of the completion is closed by given ones, "</think>".
    int32_t think_tokens;
    int32_t turn_tokens; // 0: off. Sampled in one turn, where the caller goes on with samples (RolloutOptions)
} Sampling;
// Whether it draws from a part of the vocabulary, which is then kept with the token.
static inline bool is_truncated(const Sampling *s) { return s->temperature > 0 && (s->top_k > 0 || s->top_p < 1 || s->min_p > 0); }

// Paused: neither; a later rollout goes on with it (RolloutOptions.complete, RolloutRequest.carried).
typedef enum Finish { FINISH_STOP, FINISH_LENGTH, FINISH_PAUSED } Finish;

// One sampled completion; the arrays belong to the Rollout. The end-of-sequence token, where sampled, is part of it.
// Its own arrays hold what was sampled, and nothing else: tokens that were given to it in between (a closed thinking
// part, the words of an environment) have no logprob, take no part in a loss, and count as a prompt's.
typedef struct Completion {
    int32_t length;    // sampled tokens
    int32_t *ids;      // [length]
    float *logprob;    // [length] under the transform that sampled
    float *entropy;    // [length] of that distribution, nats
    int64_t *kept_start; // [length + 1] into kept_ids; NULL if no truncation was asked for
    int32_t *kept_ids; // the kept set of each token, ascending
    Finish finish;
    uint64_t activations; // under which its policy keeps them (RolloutOptions.retain); 0: nowhere
    uint8_t *given;    // [total] of each token in its place: 1 if it was given; NULL where nothing was
    int32_t *all;      // [total] sampled and given ones in their order, the last one sampled; where `given` isn't NULL
    int32_t total;
} Completion;
// The whole course, given tokens included.
static inline int32_t completion_total(const Completion *c) { return c->given ? c->total : c->length; }
static inline const int32_t *completion_all(const Completion *c) { return c->given ? c->all : c->ids; }

typedef struct RolloutRequest {
    const int32_t *prompt; // [prompt_length], at least one token
    int32_t prompt_length;
    int32_t samples; // G; they share the prompt's keys and values
    Sampling sampling;
    uint64_t seed;   // a token's random number is a function of (seed, step, prompt, sample, position)
    uint32_t step, prompt_index;
    // [samples] what earlier rollouts have sampled of each, copied to the new completions; NULL: nothing. Those that are paused go on:
    // their tokens are computed again under the weights of now, and keep the logprobs of the weights that drew them.
    const Completion *carried;
    bool due; // with RolloutOptions.complete: this one has to be complete too
} RolloutRequest;

// How a sample whose turn has ended goes on.
typedef struct NextTurn {
    int32_t request, sample; // request -1: none is ready
    const int32_t *ids;      // [count] given to it, copied at once; may be none
    int32_t count;
    bool done;               // it does not go on. So it is too where max_tokens leaves no room for one more token
} NextTurn;

// Keys and values of a prompt and its completion that serve the next prompt as far as it begins with the same ids: the same bits,
// sooner. For rollouts of one sample, between which weights and adapter stay as they are. Closed before the policy is.
typedef struct PromptCache PromptCache;
PromptCache *prompt_cache_open(Policy *p);
void prompt_cache_close(PromptCache *c);

// Whether a rollout keeps what its passes computed of every token, so that a training pass over its samples needs no forward pass of its own:
// sampler and trainer compute the same numbers. They are kept until the weights change or another rollout keeps its own. AUTO: where they take no
// more memory than a quarter of the weights with their gradients and moments. On the CPU, of dense models without latent attention, where
// nothing is truncated, carried over or sampled in 8 bits; elsewhere nothing is kept.
typedef enum Retain { RETAIN_NEVER, RETAIN_AUTO, RETAIN_ALWAYS } Retain;

typedef struct RolloutOptions {
    Retain retain;
    PromptCache *cache; // NULL: none
    int32_t max_sequences; // decoded at once; 0: chosen from memory
    bool int8;             // products with weights in 8 bits (PolicyOptions.int8): invariant 1 doesn't hold for what they sample; not beside a cache
    // Called when a sample stops, or reaches turn_tokens or max_tokens (its `finish` says which); may be NULL: it is finished
    // then. True: it waits for next_turn to name it, while others decode. max_tokens bounds all of a sample's tokens.
    bool (*turn_ended)(void *context, int32_t request, int32_t sample, const Completion *completion);
    // A sample that can go on; with `wait`, nothing else is left to do: it waits for one.
    bool (*next_turn)(void *context, bool wait, NextTurn *out, Err *err);
    // 0: all. Otherwise the rollout ends when so many requests, and those that are due, are complete, and pauses the others. Time is
    // counted as if all samples decoded side by side, a token each at a time: so the end, and every sample's tokens, depend neither
    // on how many are decoded at once nor on any clock. `finished` may name samples that are paused in the end.
    int32_t complete;
    // Further requests while others decode, at most `more_requests`; NULL: none. With `wait` there is nothing else to do. *there false:
    // none is ready; with `wait`: there won't be any. None has more samples or a larger max_tokens than the first ones.
    int32_t more_requests;
    int32_t longest_prompt; // of these; 0: as the first ones'
    bool (*next_request)(void *context, bool wait, RolloutRequest *out, bool *there, Err *err);
    // Called when a sample is finished, in an order that may vary; may be NULL. Not from another thread.
    void (*finished)(void *context, int32_t request, int32_t sample, const Completion *completion);
    // Called about ten times a second with tokens so far; may be NULL. Returning false stops with ERR_INTERRUPTED.
    bool (*progress)(void *context, int64_t tokens, int32_t finished);
    void *context;
} RolloutOptions;

typedef struct Rollout {
    Completion *completions; // request after request, [sum of samples]
    int32_t count;
    int64_t prompt_tokens, new_tokens; // given tokens count as a prompt's
    int64_t kept_tokens;               // of prompt_tokens, those whose keys and values a cache had
    double prefill_seconds, decode_seconds;
    struct RolloutMemory *memory;
} Rollout;

bool policy_rollout(Policy *p, const RolloutRequest *requests, int32_t count, const RolloutOptions *options, Rollout *out,
                    Err *err) MUST_CHECK;
void rollout_free(Rollout *r);

// ---- training passes -------------------------------------------------------------------------------------
// ---- experts ---------------------------------------------------------------------------------------------
// Layers with experts (ModelConfig.experts says how many each has, and how many a token goes to).
int policy_expert_layers(const Policy *p);
// How many rows each expert had in the backward passes since this was last called, [policy_expert_layers][experts]. With a rate
// above 0, correction biases move by it against that load (DeepSeek-V3), where the model has them.
bool policy_take_expert_load(Policy *p, double rate, int64_t *load, Err *err) MUST_CHECK;

// Ragged groups in one packed array: a group's prompt once, then its completions; each completion continues the
// positions of its prompt. The order of groups fixes the order of every sum.
typedef struct PackedSequence {
    int32_t start, length; // tokens of the completion in `tokens`
    int32_t first_target;  // its targets begin there; read only beside `activations`
    uint64_t activations;  // Completion.activations; 0: they are computed
} PackedSequence;
typedef struct PackedGroup {
    int32_t prompt_start, prompt_length; // at least one token
    int32_t first_sequence, sequence_count;
} PackedGroup;

typedef struct Packed {
    int32_t token_count; // T
    const int32_t *tokens; // [T]
    int32_t group_count, sequence_count;
    const PackedGroup *groups;
    const PackedSequence *sequences;
    // What is scored: target[r] is predicted from the hidden state of token row[r].
    int32_t target_count;  // R
    const int32_t *row;    // [R]
    const int32_t *target; // [R]
    double temperature;    // > 0
    // Sequences as such, not as a sampler makes them token by token: only where rotary positions are "dynamic" and beyond the
    // original length is there a difference (rotary.c).
    bool whole;
    const int64_t *kept_start; // [R + 1] or NULL: renormalise over kept_ids only
    const int32_t *kept_ids;
    int32_t vocabulary; // distributions are over the ids below it; 0: over all that the model has
    // Coefficients of losses on the routers of experts, divided by the number of tokens that they are means over; 0: none. The
    // balancing loss is taken over each group (a prompt and its completions).
    double router_balance, router_z;
} Packed;

// Whether a pass that keeps activations would take those of this batch from the rollout (RolloutOptions.retain), all of them.
bool policy_has_activations(Policy *p, const Packed *batch);
// Logprob [R] and entropy [R] of the targets. With `keep`, activations stay for policy_backward of the same batch; where the rollout kept
// them, nothing is computed, and logprobs and entropies are those that it recorded.
bool policy_forward(Policy *p, const Packed *batch, bool keep, float *logprob, float *entropy, Err *err) MUST_CHECK;
// Logprobs, and the experts that each token went to: choice [policy_expert_layers][T][chosen], ascending for each token.
bool policy_forward_experts(Policy *p, const Packed *batch, float *logprob, int32_t *choice, Err *err) MUST_CHECK;
// Adds to the gradients: dlogprob [R] and dentropy [R] (may be NULL) are dLoss/dlogprob and dLoss/dentropy.
bool policy_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) MUST_CHECK;
// Both in one go, for coefficients that are known beforehand: nothing is waited for between the passes.
bool policy_forward_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, float *logprob,
                             float *entropy, Err *err) MUST_CHECK;
// Whether `teacher` can teach `p`: both have one tokenizer (the same token behind every id), one precision and one device.
// ERR_DATA names `where` and the first id that differs.
bool policy_check_teacher(const Policy *p, const Policy *teacher, const char *where, Err *err) MUST_CHECK;
// Learns a teacher's distributions instead of given tokens: divergence [R] between the two at each target's place (beta 0:
// KL(teacher|p), 1: KL(p|teacher), between: the generalised Jensen-Shannon divergence of Agarwal et al. 2024), over all
// ids that both have. With `weight` [R], dLoss/ddivergence, adds to the gradients of `p`; the teacher stays as it is. logprob and
// entropy [R] are of `p`. Kept sets are not looked at.
bool policy_distill(Policy *p, Policy *teacher, const Packed *batch, double beta, const float *weight, float *divergence,
                    float *logprob, float *entropy, Err *err) MUST_CHECK;
void policy_zero_gradients(Policy *p);
// L2 norm over all gradients, and by parameter for `score --grad`. NaN or Inf where a gradient is. More may be added to gradients
// that were read; where the embedding is the head too, sums are in another order then.
double policy_gradient_norm(Policy *p);
int policy_parameter_count(const Policy *p); // tensors that training changes
const char *policy_parameter_name(const Policy *p, int index); // Hugging Face name
double policy_parameter_gradient_norm(Policy *p, int index);

// AdamW (Loshchilov and Hutter 2019), gradients scaled by `scale` first (clipping), decay on matrices only.
typedef struct AdamW {
    double learning_rate, beta1, beta2, eps, weight_decay, scale;
} AdamW;
bool policy_update(Policy *p, const AdamW *a, Err *err) MUST_CHECK; // done when it returns
void policy_reset_optimizer(Policy *p); // moments and step count to zero: a new stage begins

// Matrix products of this machine (device as in PolicyOptions), [M, K] x [N, K]^T repeated for about `seconds`: FLOP/s; and
// the bytes its device can give (SIZE_MAX: not known; may be NULL). For plans and `bench gemm`.
bool probe_flops(const char *device, Precision precision, int threads, int64_t M, int64_t N, int64_t K, double seconds, double *out,
                 size_t *available, Err *err) MUST_CHECK;
// From here on the time of every operation is counted. ERR_UNAVAILABLE where a device queues calls (CUDA).
bool policy_profile(Policy *p, Err *err) MUST_CHECK;
// What was counted since then or since the last call: an array of {"operation", "shape" (of a product's matrix), "calls",
// "seconds", "flops_per_second"}, most seconds first.
json_t *policy_take_profile(Policy *p);
// What a device could do at best: products in registers in FLOP/s, memory read in bytes/s; NaN: not measured there.
bool probe_peaks(const char *device, Precision precision, int threads, double *flops, double *bytes, Err *err) MUST_CHECK;
// Rows of prompts in a pass of sampling, beside the sequences in flight.
static inline int64_t policy_prefill_rows(bool on_host) { return on_host ? 1024 : 8192; }
// Sequences in flight at most, where neither memory nor RolloutOptions says less.
static inline int64_t policy_places(bool on_host) { return on_host ? 512 : 1024; }
// Whether rollouts of such a model can keep their activations (RolloutOptions.retain), on the CPU.
bool config_can_retain(const ModelConfig *c);
// Of the cache of `tokens` positions.
size_t plan_cache_bytes(const ModelConfig *c, Precision precision, int64_t tokens);
// What a policy will ask for, counted by its own code on a device that gives no memory.
typedef struct PlanShape {
    int64_t tokens, targets, groups, sequences; // of the largest training pass; 0 tokens: none
    int64_t positions;                          // longest sequence
    int64_t rollout_rows, rollout_pages, places; // of sampling: rows of a pass, pages, sequences in flight
    Retain retain;                              // of the rollout with most pages in all
    int64_t retained_pages;
    bool truncates; // some samples are drawn from a part of the vocabulary
    bool on_device; // a GPU, whose memory holds other forms and scratch than the CPU's
} PlanShape;
// Takes the memory of passes of this shape; larger ones still grow it.
bool policy_reserve(Policy *p, const PlanShape *shape, Err *err) MUST_CHECK;
typedef struct PlanBytes {
    size_t weights; // with masters, gradients and moments of what is trained
    size_t pass;    // what a pass holds on to
    size_t rollout; // while sampling
    size_t largest; // parameter in fp32
} PlanBytes;
// `path` as policy_open takes it; NULL: a model of `config` from scratch.
bool plan_policy(const char *path, const ModelConfig *config, const PolicyOptions *o, const PlanShape *shape, PlanBytes *out, Err *err) MUST_CHECK;

// The `top` likeliest next tokens after a list of ids (`score --top`), log-probabilities at temperature 1.
bool policy_top(Policy *p, const int32_t *ids, int32_t count, int32_t top, int32_t *top_ids, float *top_logprobs,
                Err *err) MUST_CHECK;

#endif
