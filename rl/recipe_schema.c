// Every key a recipe may hold: type, range, default, place and meaning, in one set of tables. Validation, defaults,
// recipe.resolved.json and --set all follow from the rows here, so a new key is a new row. Defaults are those of TRL
// where it has the same option. What needs two keys at once (a share that must sum to 1) is checked in recipe.c.
#include "recipe_parts.h"
#include <stdio.h>
#include <string.h>

#define AT(type, member) .placed = true, .offset = offsetof(type, member)
#define AT_COUNTED(type, member, counter)                                                                    \
    .placed = true, .offset = offsetof(type, member), .count_offset = offsetof(type, counter)
#define RANGE(from, to) .low = (from), .high = (to)
#define ABOVE(from, to) .low = (from), .high = (to), .above = true

// ---- the model -------------------------------------------------------------------------------------------
const Preset recipe_presets[] = {
    {"mini", 2, 64, 2, 2, 192},   // about 0.1 M parameters: tests
    {"tiny", 4, 128, 4, 4, 384},  // about 0.9 M: minutes on two cores
    {"small", 6, 256, 8, 4, 768}, // about 4.7 M
    {0},
};
static const Field lora_fields[] = {
    {"rank", FIELD_INT, "train a low-rank adapter of this rank and leave the model as it is; out: train the model", RANGE(1, 4096),
     AT(Recipe, lora.rank)},
    {"alpha", FIELD_NUMBER, "its product counts alpha / rank (default: twice the rank)", ABOVE(0, 1e6), AT(Recipe, lora.alpha)},
    {"targets", FIELD_TEXTS, "names of modules, such as \"q_proj\" (default: every product of the layers but routers)", RANGE(1, 96), AT(Recipe, lora.targets)},
    {"rs", FIELD_BOOL, "count alpha / sqrt(rank) instead (rsLoRA)", .otherwise = "false", AT(Recipe, lora.rslora)},
    FIELD_END,
};
static const Field experts_fields[] = {
    {"count", FIELD_INT, "experts a layer; out: one feed-forward a layer. The model is then a DeepSeek-V3 in small", RANGE(2, 1024),
     AT(Recipe, config.experts.count)},
    {"chosen", FIELD_INT, "experts that a token goes to (default: 2)", RANGE(1, 64), AT(Recipe, config.experts.chosen)},
    {"feed_forward", FIELD_INT, "width of one expert (default: the model's, shared out to those that a token goes to)", RANGE(1, 1 << 20),
     AT(Recipe, config.experts.feed_forward)},
    {"shared", FIELD_INT, "experts that every token goes to (default: 1)", RANGE(0, 64), AT(Recipe, config.experts.shared)},
    {"groups", FIELD_INT, "groups of experts; divides count (default: 1)", RANGE(1, 512), AT(Recipe, config.experts.groups)},
    {"chosen_groups", FIELD_INT, "groups that a token's experts come from (default: 1)", RANGE(1, 512), AT(Recipe, config.experts.chosen_groups)},
    {"dense_layers", FIELD_INT, "first layers without experts (default: 1)", RANGE(0, 512)},
    {"scale", FIELD_NUMBER, "factor of what the experts give (default: 1)", ABOVE(0, 1000), AT(Recipe, config.experts.scale)},
    {"latent", FIELD_INT, "width of the latent that keys and values come from (default: half the model's)", RANGE(1, 512),
     AT(Recipe, config.latent.R)},
    FIELD_END,
};
static const Field model_fields[] = {
    {"path", FIELD_TEXT, "a model to start from: a folder or a .gguf file", RANGE(1, 4096), AT(Recipe, model_path)},
    {"preset", FIELD_CHOICE, "shape of a model from scratch; other keys change single sizes", .choices = "mini|tiny|small"},
    {"layers", FIELD_INT, "transformer layers", RANGE(1, 512), AT(Recipe, config.layers)},
    {"width", FIELD_INT, "width of the model", RANGE(2, 65536), AT(Recipe, config.width)},
    {"heads", FIELD_INT, "attention heads", RANGE(1, 1024), AT(Recipe, config.heads)},
    {"kv_heads", FIELD_INT, "heads of keys and values; divides heads", RANGE(1, 1024), AT(Recipe, config.kv_heads)},
    {"head_width", FIELD_INT, "width of one head, even", RANGE(2, 1024), AT(Recipe, config.head_width)},
    {"feed_forward", FIELD_INT, "width of the feed-forward part", RANGE(1, 1 << 20), AT(Recipe, config.feed_forward)},
    {"max_positions", FIELD_INT, "longest sequence of a model from scratch", RANGE(8, 1 << 20),
     AT(Recipe, config.max_positions)},
    {"precision", FIELD_CHOICE, "storage of weights in use and activations", .choices = "fp32|bf16",
     .otherwise = "\"bf16\"", AT(Recipe, precision)},
    {"experts", FIELD_SECTION, "a mixture of experts from scratch, with latent attention", .fields = experts_fields},
    {"keep_blocks", FIELD_BOOL, "under an adapter: a GGUF's 8, 6, 5 and 4 bit weights stay as they are; less memory, slower", .otherwise = "false",
     AT(Recipe, keep_blocks)},
    {"lora", FIELD_SECTION, "a low-rank adapter on a model from 'path'", .fields = lora_fields},
    FIELD_END,
};

// ---- how questions are asked -----------------------------------------------------------------------------
#define STYLE_FIELDS(mode, default_prefix)                                                                   \
    {                                                                                                        \
        {"system", FIELD_TEXT, "system message", RANGE(1, 65536), AT(Recipe, style[mode].system)},           \
            {"instruction", FIELD_TEXT, "put after the question", RANGE(1, 65536),                           \
             AT(Recipe, style[mode].instruction)},                                                           \
            {"prefix", FIELD_TEXT, "what every completion begins with, unless a chat template wrote it", RANGE(0, 4096), \
             .otherwise = default_prefix, AT(Recipe, style[mode].prefix)},                                   \
            FIELD_END,                                                                                       \
    }
static const Field think_fields[] = STYLE_FIELDS(MODE_THINK, "\"<think>\"");
static const Field direct_fields[] = STYLE_FIELDS(MODE_DIRECT, "\"<think></think>\"");
static const Field prompt_fields[] = {
    {"think", FIELD_SECTION, "prompts that ask for a chain of thought (a chat template's enable_thinking is then true)", .fields = think_fields},
    {"direct", FIELD_SECTION, "prompts that ask for the answer alone (enable_thinking is then false)", .fields = direct_fields},
    FIELD_END,
};

// ---- stages ----------------------------------------------------------------------------------------------
static const Field mode_fields[] = {
    {"think", FIELD_NUMBER, "share of prompts asked in think mode", RANGE(0, 1), .otherwise = "0",
     AT(Stage, mode_share[MODE_THINK])},
    {"direct", FIELD_NUMBER, "share of prompts asked in direct mode", RANGE(0, 1), .otherwise = "0",
     AT(Stage, mode_share[MODE_DIRECT])},
    FIELD_END,
};

#define SAMPLING_FIELDS(type, member)                                                                        \
    {                                                                                                        \
        {"temperature", FIELD_NUMBER, "divides the logits", ABOVE(0, 10), .otherwise = "1.0",                \
         AT(type, member.temperature)},                                                                      \
            {"top_k", FIELD_INT, "sample from the k likeliest tokens; 0: off", RANGE(0, 1 << 20),            \
             .otherwise = "0", AT(type, member.top_k)},                                                      \
            {"top_p", FIELD_NUMBER, "sample from the likeliest tokens of this mass; 1: off", ABOVE(0, 1),    \
             .otherwise = "1.0", AT(type, member.top_p)},                                                    \
            {"min_p", FIELD_NUMBER, "least probability relative to the likeliest token; 0: off",             \
             RANGE(0, 1), .otherwise = "0.0", AT(type, member.min_p)},                                       \
            {"max_tokens", FIELD_INT, "longest completion", RANGE(1, 1 << 20), .otherwise = "256",           \
             AT(type, member.max_tokens)},                                                                   \
            {"stop", FIELD_TEXTS, "texts that end a completion", RANGE(1, 256), .otherwise = "[]",           \
             AT(type, member.stop)},                                                                         \
            {"think_tokens", FIELD_INT, "open thinking is closed after so many tokens; 0: never",            \
             RANGE(0, 1 << 20), .otherwise = "0", AT(type, member.think_tokens)},                            \
            {"turn_tokens", FIELD_INT, "longest turn in an environment; 0: max_tokens alone",                \
             RANGE(0, 1 << 20), .otherwise = "0", AT(type, member.turn_tokens)},                             \
            FIELD_END,                                                                                       \
    }
static const Field sampling_fields[] = SAMPLING_FIELDS(Stage, sampling);

static const Field curriculum_fields[] = {
    {"by", FIELD_CHOICE, "level: the next one opens when the open ones are passed; pass_rate: what is solved or out of reach is asked less",
     .choices = "none|level|pass_rate", .otherwise = "\"none\"", AT(Stage, curriculum.by)},
    {"threshold", FIELD_NUMBER, "level: pass rate beyond which the next level opens", RANGE(0, 1), .otherwise = "0.8",
     AT(Stage, curriculum.threshold)},
    {"floor", FIELD_NUMBER, "pass_rate: least weight of a level; one passed half of the time has weight 1", RANGE(0, 1), .otherwise = "0.1",
     AT(Stage, curriculum.floor)},
    {"window", FIELD_INT, "steps that pass rates are taken over", RANGE(1, 1000), .otherwise = "10", AT(Stage, curriculum.window)},
    FIELD_END,
};

static const Field rollout_fields[] = {
    {"precision", FIELD_CHOICE, "of the products that sample: the model's, or int8, on the CPU only: faster where the processor has VNNI, other numbers than the "
     "trainer's, which algo.correction makes up for (docs/algorithms.md says what it brings and costs)",
     .choices = "same|int8", .otherwise = "\"same\"", AT(Stage, rollout_precision)},
    {"activations", FIELD_CHOICE, "what rollouts compute of every token, for training: kept, it spares the forward pass and takes memory, on the CPU only; auto: "
     "kept where it takes at most a quarter of the memory of weights, gradients and moments",
     .choices = "drop|auto|keep", .otherwise = "\"auto\"", AT(Stage, activations)},
    {"staleness", FIELD_INT, "steps that sampling is ahead of training, so that rewards are scored meanwhile; 0: none", RANGE(0, 64),
     .otherwise = "0", AT(Stage, staleness)},
    {"partial", FIELD_INT, "groups in flight beside a step's own: it ends when enough are complete, and others go on in the next; 0: none",
     RANGE(0, 65536), .otherwise = "0", AT(Stage, partial)},
    {"carry", FIELD_INT, "steps after which such a group is waited for", RANGE(1, 64), .otherwise = "4", AT(Stage, carry)},
    FIELD_END,
};

static const Field correction_fields[] = {
    {"level", FIELD_CHOICE, "what the weight exp(old - sampler) is taken of", .choices = "off|token|sequence",
     .otherwise = "\"off\"", AT(Stage, algo.correction.level)},
    {"mode", FIELD_CHOICE, "weights outside the bounds are cut back (TIS) or 0 (IcePop)", .choices = "truncate|mask",
     .otherwise = "\"truncate\"", AT(Stage, algo.correction.mode)},
    {"low", FIELD_NUMBER, "least weight; 0: none", RANGE(0, 1e6), .otherwise = "0.0", AT(Stage, algo.correction.low)},
    {"high", FIELD_NUMBER, "largest weight; 0: none", RANGE(0, 1e6), .otherwise = "2.0", AT(Stage, algo.correction.high)},
    {"normalize", FIELD_BOOL, "divide the weights by their mean", .otherwise = "false", AT(Stage, algo.correction.normalize)},
    {"reject", FIELD_CHOICE, "statistic of the log ratio that leaves tokens or sequences out",
     .choices = "none|token_k1|token_k2|token_k3|seq_sum_k1|seq_sum_k2|seq_sum_k3|seq_mean_k1|seq_mean_k2|seq_mean_k3|seq_max_k2|seq_max_k3",
     .otherwise = "\"none\"", AT(Stage, reject)},
    {"reject_low", FIELD_NUMBER, "least ratio sampler/old of the k1 statistics (default: 1 / reject_high)", RANGE(0, 1e6), .otherwise = "0.0",
     AT(Stage, reject_low)},
    {"reject_high", FIELD_NUMBER, "largest ratio of k1, largest value of k2 and k3", RANGE(0, 1e6), .otherwise = "2.0",
     AT(Stage, reject_high)},
    FIELD_END,
};
static const Field algo_fields[] = {
    {"preset", FIELD_CHOICE, "defaults of another program, for all keys that are not given", .choices = "none|trl|verl|dapo|r1|prime",
     .otherwise = "\"none\""},
    // the advantage
    {"advantage", FIELD_CHOICE, "whose deviation divides the centred reward, or another estimator",
     .choices = "group|batch|none|gdpo|rloo|reinforce_plus_plus|reinforce_plus_plus_baseline|opo|maxrl|passk|gpg|batch_mean",
     .otherwise = "\"group\"", AT(Stage, algo.advantage)},
    {"advantage_eps", FIELD_NUMBER, "added to that deviation", RANGE(0, 1), .otherwise = "0.0001",
     AT(Stage, algo.advantage_eps)},
    {"advantage_whiten", FIELD_BOOL, "rloo: centred and scaled over the batch afterwards", .otherwise = "false",
     AT(Stage, algo.advantage_whiten)},
    {"gamma", FIELD_NUMBER, "reinforce_plus_plus: discount by token", RANGE(0, 1), .otherwise = "1.0", AT(Stage, algo.gamma)},
    {"overlong_buffer", FIELD_NUMBER, "last tokens before max_tokens in which the reward falls by 1; 0: none", RANGE(0, 1 << 20),
     .otherwise = "0.0", AT(Stage, algo.overlong_buffer)},
    {"overlong_penalty", FIELD_NUMBER, "factor of that fall", RANGE(0, 1000), .otherwise = "1.0", AT(Stage, algo.overlong_penalty)},
    {"mask_truncated", FIELD_BOOL, "leave samples cut off at max_tokens out of the loss", .otherwise = "false",
     AT(Stage, algo.mask_truncated)},
    {"refills", FIELD_INT, "dynamic sampling: times that groups without variance are replaced by new prompts", RANGE(0, 64),
     .otherwise = "0", AT(Stage, algo.refills)},
    // the loss
    {"loss", FIELD_CHOICE, "the policy loss",
     .choices = "grpo|bnpo|dr_grpo|dapo|luspo|gspo|gspo_token|cispo|cispo_cap|sapo|vespo|gmpo|gpg|dro|dppo_tv|dppo_kl|clip_cov|kl_cov|prime|prime_ipo",
     .otherwise = "\"dapo\"", AT(Stage, algo.loss)},
    {"objective", FIELD_TEXT, "a Lua file that replaces the loss", RANGE(1, 4096), AT(Stage, algo.objective)},
    {"ratio", FIELD_CHOICE, "what the importance ratio is taken of; loss: as its paper", .choices = "loss|token|sequence|sequence_token",
     .otherwise = "\"loss\"", AT(Stage, algo.ratio)},
    {"aggregate", FIELD_CHOICE, "which mean over tokens the loss is; loss: as its paper",
     .choices = "loss|sequence_mean|step_tokens|rollout_tokens|constant|sequence_sum|sum", .otherwise = "\"loss\"",
     AT(Stage, algo.aggregate)},
    {"epsilon_low", FIELD_NUMBER, "the ratio is clipped below 1 - epsilon_low (default: the loss's paper)", RANGE(0, 1000),
     AT(Stage, algo.epsilon_low)},
    {"epsilon_high", FIELD_NUMBER, "the ratio is clipped above 1 + epsilon_high (default: epsilon_low)", RANGE(0, 1000),
     AT(Stage, algo.epsilon_high)},
    {"delta", FIELD_NUMBER, "upper bound of the unclipped ratio; 0: none", RANGE(0, 1000), .otherwise = "0.0",
     AT(Stage, algo.delta)},
    {"dual_clip", FIELD_NUMBER, "bound of the loss where the advantage is negative, in advantages; 0: none", RANGE(0, 1000),
     .otherwise = "0.0", AT(Stage, algo.dual_clip)},
    {"log_ratio_bound", FIELD_NUMBER, "token log ratios stay within this; 0: unbounded", RANGE(0, 700), .otherwise = "0.0",
     AT(Stage, algo.log_ratio_bound)},
    {"sapo_positive", FIELD_NUMBER, "sapo: temperature where the advantage is positive", ABOVE(0, 1000), .otherwise = "1.0",
     AT(Stage, algo.sapo_positive)},
    {"sapo_negative", FIELD_NUMBER, "sapo: temperature elsewhere", ABOVE(0, 1000), .otherwise = "1.05", AT(Stage, algo.sapo_negative)},
    {"vespo_k_positive", FIELD_NUMBER, "vespo: k where the advantage is not negative", RANGE(0, 100), .otherwise = "2.0",
     AT(Stage, algo.vespo_k_positive)},
    {"vespo_lambda_positive", FIELD_NUMBER, "vespo: lambda there", RANGE(0, 100), .otherwise = "3.0", AT(Stage, algo.vespo_lambda_positive)},
    {"vespo_k_negative", FIELD_NUMBER, "vespo: k where it is negative", RANGE(0, 100), .otherwise = "3.0", AT(Stage, algo.vespo_k_negative)},
    {"vespo_lambda_negative", FIELD_NUMBER, "vespo: lambda there", RANGE(0, 100), .otherwise = "2.0", AT(Stage, algo.vespo_lambda_negative)},
    {"dro_beta", FIELD_NUMBER, "dro: weight of the squared log ratio", ABOVE(0, 1000), .otherwise = "0.1", AT(Stage, algo.dro_beta)},
    {"ratio_cap", FIELD_NUMBER, "dppo: upper bound of the ratio; 0: none", RANGE(0, 1e6), .otherwise = "20.0", AT(Stage, algo.ratio_cap)},
    {"cov_share", FIELD_NUMBER, "clip_cov, kl_cov: share of the tokens", ABOVE(0, 1), .otherwise = "0.0002", AT(Stage, algo.cov_share)},
    {"cov_low", FIELD_NUMBER, "clip_cov: covariances above this", RANGE(-1e6, 1e6), .otherwise = "1.0", AT(Stage, algo.cov_low)},
    {"cov_high", FIELD_NUMBER, "clip_cov: and below this", RANGE(-1e6, 1e6), .otherwise = "5.0", AT(Stage, algo.cov_high)},
    {"cov_kl", FIELD_NUMBER, "kl_cov: weight of the divergence", RANGE(0, 1000), .otherwise = "1.0", AT(Stage, algo.cov_kl)},
    {"prime_advantage", FIELD_NUMBER, "prime: factor of the advantage", RANGE(0, 1000), .otherwise = "1.0", AT(Stage, algo.prime_advantage)},
    {"prime_drift", FIELD_NUMBER, "prime: weight of the squared log ratio", RANGE(0, 1000), .otherwise = "0.001", AT(Stage, algo.prime_drift)},
    // the divergence from the reference
    {"kl", FIELD_NUMBER, "weight of the divergence from the reference; 0: no reference is held", RANGE(0, 100),
     .otherwise = "0.0", AT(Stage, algo.kl)},
    {"kl_estimator", FIELD_CHOICE, "of the divergence from one token; +: with the gradient of k2", .choices = "k3|k1|k2|abs|k3+|k1+|k2+|abs+",
     .otherwise = "\"k3\"", AT(Stage, algo.kl_form.estimator)},
    {"kl_bound", FIELD_NUMBER, "its value stays within this; 0: unbounded", RANGE(0, 1e6), .otherwise = "0.0",
     AT(Stage, algo.kl_form.value_bound)},
    {"kl_log_bound", FIELD_NUMBER, "k3: its log ratio stays within this; 0: unbounded", RANGE(0, 700), .otherwise = "0.0",
     AT(Stage, algo.kl_form.log_bound)},
    {"kl_times_ratio", FIELD_BOOL, "multiply the divergence by the ratio, unbiased off policy", .otherwise = "false",
     AT(Stage, algo.kl_times_ratio)},
    {"kl_in_reward", FIELD_BOOL, "take the divergence from the reward instead of adding it to the loss", .otherwise = "false",
     AT(Stage, algo.kl_in_reward)},
    {"kl_target", FIELD_NUMBER, "the weight is moved to hold the divergence here; 0: it stays", RANGE(0, 100), .otherwise = "0.0",
     AT(Stage, algo.kl_target)},
    {"kl_horizon", FIELD_NUMBER, "samples over which it moves", ABOVE(0, 1e9), .otherwise = "10000.0", AT(Stage, algo.kl_horizon)},
    {"reference_every", FIELD_INT, "steps after which the reference becomes the policy of then; 0: never", RANGE(0, 1e7),
     .otherwise = "0", AT(Stage, algo.reference_every)},
    // entropy
    {"entropy", FIELD_NUMBER, "weight of the entropy bonus", RANGE(-10, 10), .otherwise = "0.0",
     AT(Stage, algo.entropy)},
    {"entropy_as_loss", FIELD_BOOL, "average the bonus as the loss is, not over tokens", .otherwise = "false",
     AT(Stage, algo.entropy_as_loss)},
    {"entropy_target", FIELD_NUMBER, "the bonus acts below this entropy and its weight is stepped; 0: it stays", RANGE(0, 20),
     .otherwise = "0.0", AT(Stage, algo.entropy_target)},
    {"entropy_step", FIELD_NUMBER, "of that weight", RANGE(0, 10), .otherwise = "0.005", AT(Stage, algo.entropy_step)},
    {"entropy_low", FIELD_NUMBER, "its least value", RANGE(0, 10), .otherwise = "0.0", AT(Stage, algo.entropy_low)},
    {"entropy_high", FIELD_NUMBER, "its largest value", RANGE(0, 10), .otherwise = "1.0", AT(Stage, algo.entropy_high)},
    {"top_entropy", FIELD_NUMBER, "share of the tokens, those of highest entropy, that the loss acts on", RANGE(0, 1), .otherwise = "1.0",
     AT(Stage, algo.top_entropy)},
    // samples from another policy
    {"off_policy_threshold", FIELD_NUMBER, "sequences with a negative advantage that moved further are left out; 0: none", RANGE(0, 100),
     .otherwise = "0.0", AT(Stage, algo.off_policy_threshold)},
    {"correction", FIELD_SECTION, "weights for samples of a stale or quantised policy", .fields = correction_fields},
    {"minibatches", FIELD_INT, "optimizer steps a pass over a rollout; divides prompts", RANGE(1, 4096),
     .otherwise = "1", AT(Stage, algo.minibatches)},
    {"epochs", FIELD_INT, "passes over a rollout", RANGE(1, 100), .otherwise = "1", AT(Stage, algo.epochs)},
    FIELD_END,
};

#define OPTIMIZER_FIELDS(rate)                                                                               \
    {                                                                                                        \
        {"learning_rate", FIELD_NUMBER, "step size of AdamW", ABOVE(0, 1), .otherwise = rate,                \
         AT(Stage, optimizer.learning_rate)},                                                                \
            {"beta1", FIELD_NUMBER, "decay of the first moment", RANGE(0, 0.9999), .otherwise = "0.9",       \
             AT(Stage, optimizer.beta1)},                                                                    \
            {"beta2", FIELD_NUMBER, "decay of the second moment", RANGE(0, 0.999999), .otherwise = "0.999",  \
             AT(Stage, optimizer.beta2)},                                                                    \
            {"eps", FIELD_NUMBER, "added to the root of the second moment", ABOVE(0, 1),                     \
             .otherwise = "1e-8", AT(Stage, optimizer.eps)},                                                 \
            {"weight_decay", FIELD_NUMBER, "of matrices", RANGE(0, 10), .otherwise = "0.0",                  \
             AT(Stage, optimizer.weight_decay)},                                                             \
            {"max_gradient_norm", FIELD_NUMBER, "gradients are scaled down to this norm; 0: never",          \
             RANGE(0, 1e6), .otherwise = "1.0", AT(Stage, optimizer.max_gradient_norm)},                     \
            {"schedule", FIELD_CHOICE, "of the learning rate after the warm-up",                             \
             .choices = "constant|linear|cosine|cosine_restarts|polynomial|inverse_sqrt|wsd", .otherwise = "\"linear\"",         \
             AT(Stage, optimizer.schedule)},                                                                 \
            {"warmup", FIELD_INT, "steps of a linear rise at the start", RANGE(0, 1e7), .otherwise = "0",    \
             AT(Stage, optimizer.warmup)},                                                                   \
            {"final_share", FIELD_NUMBER, "share of the learning rate where the schedule ends",              \
             RANGE(0, 1), .otherwise = "0.0", AT(Stage, optimizer.final_share)},                             \
            {"cycles", FIELD_NUMBER, "cosine: waves, 0: half a one; cosine_restarts: starts", RANGE(0, 1000), \
             .otherwise = "0.0", AT(Stage, optimizer.cycles)},                                               \
            {"power", FIELD_NUMBER, "polynomial: exponent", ABOVE(0, 100), .otherwise = "1.0",               \
             AT(Stage, optimizer.power)},                                                                    \
            {"timescale", FIELD_INT, "inverse_sqrt: steps; 0: the warm-up, else 10000", RANGE(0, 1e7),       \
             .otherwise = "0", AT(Stage, optimizer.timescale)},                                              \
            {"decay_steps", FIELD_INT, "wsd: steps of its last part", RANGE(0, 1e7), .otherwise = "0",       \
             AT(Stage, optimizer.decay_steps)},                                                              \
            {"expert_bias_rate", FIELD_NUMBER,                                                               \
             "how far an expert's correction bias moves a step, against its load (DeepSeek-V3)",             \
             RANGE(0, 1), .otherwise = "0.0", AT(Stage, optimizer.expert_bias_rate)},                        \
            {"router_balance", FIELD_NUMBER, "coefficient of the loss that evens out the experts' load",     \
             RANGE(0, 1000), .otherwise = "0.0", AT(Stage, optimizer.router_balance)},                       \
            {"router_z", FIELD_NUMBER, "coefficient of the squared log-sum-exp of routers' logits",          \
             RANGE(0, 1000), .otherwise = "0.0", AT(Stage, optimizer.router_z)},                             \
            FIELD_END,                                                                                       \
    }
static const Field sft_optimizer_fields[] = OPTIMIZER_FIELDS("2e-5");
static const Field grpo_optimizer_fields[] = OPTIMIZER_FIELDS("1e-6");

#define STAGE_FIELDS(default_modes, needs_steps)                                                             \
    {"name", FIELD_TEXT, "names the stage on the ledger (default: its kind)", RANGE(1, 64), AT(Stage, name)}, \
        {"from", FIELD_TEXT, "start with the weights of this earlier stage's end, or of the \"start\"", RANGE(1, 64), AT(Stage, from)}, \
        {"steps", FIELD_INT, "optimizer or rollout steps of the stage", RANGE(1, 1e7), .required = needs_steps, \
         AT(Stage, steps)},                                                                                  \
        {"modes", FIELD_SECTION, "how prompts are shared among the modes; sums to 1",                        \
         .otherwise = default_modes, .fields = mode_fields},                                                 \
        {"levels", FIELD_INTS, "only these levels of procedural tasks", RANGE(1, 1000),                      \
         AT_COUNTED(Stage, levels, level_count)},                                                            \
        {"evaluate_every", FIELD_INT, "steps between evaluations; 0: at the end only", RANGE(0, 1e7),        \
         .otherwise = "0", AT(Stage, evaluate_every)},                                                       \
    {                                                                                                        \
        "checkpoint_every", FIELD_INT, "steps between checkpoints; 0: at the end only", RANGE(0, 1e7),       \
            .otherwise = "0", AT(Stage, checkpoint_every)                                                    \
    }
const Field sft_fields[] = {
    STAGE_FIELDS("{\"think\":0.5,\"direct\":0.5}", false),
    {"data", FIELD_TEXTS, "learn from these rows instead of the tasks' demonstrations: names of earlier reject stages, JSONL files", RANGE(1, 4096),
     AT(Stage, data)},
    {"epochs", FIELD_INT, "passes over data, each in an order of its own; instead of steps", RANGE(1, 10000), AT(Stage, epochs)},
    {"tasks_share", FIELD_NUMBER, "beside data: share of a step's examples that the tasks demonstrate", RANGE(0, 0.99), .otherwise = "0.0",
     AT(Stage, tasks_share)},
    {"batch", FIELD_INT, "examples a step", RANGE(1, 65536), .otherwise = "32", AT(Stage, batch)},
    {"learn_prompts", FIELD_BOOL, "the loss is over prompts too, not over completions only", .otherwise = "false", AT(Stage, learn_prompts)},
    {"learn_turns", FIELD_CHOICE, "of rows with messages alone: which of the assistant's turns the loss is over", .choices = "all|last",
     .otherwise = "\"all\"", AT(Stage, last_turn)},
    {"max_length", FIELD_INT, "longest example in tokens, prompt included; 0: as long as the model takes", RANGE(0, 1 << 20), .otherwise = "0",
     AT(Stage, max_length)},
    {"too_long", FIELD_CHOICE, "what becomes of longer ones", .choices = "error|cut", .otherwise = "\"error\"", AT(Stage, cut_long)},
    {"validation", FIELD_TEXTS, "JSONL files of rows that are never learned: their loss is measured with each evaluation", RANGE(1, 4096),
     AT(Stage, validation)},
    {"validation_items", FIELD_INT, "the same for so many held-out items of each task and level, as the tasks demonstrate them", RANGE(0, 1e6),
     .otherwise = "0", AT(Stage, validation_items)},
    {"optimizer", FIELD_SECTION, "AdamW and its schedule", .fields = sft_optimizer_fields},
    FIELD_END,
};
const Field grpo_fields[] = {
    STAGE_FIELDS("{\"think\":1.0}", true),
    {"prompts", FIELD_INT, "prompts a step", RANGE(1, 65536), .otherwise = "8", AT(Stage, batch)},
    {"group_size", FIELD_INT, "samples a prompt", RANGE(1, 4096), .otherwise = "8", AT(Stage, group_size)},
    {"curriculum", FIELD_SECTION, "which of the levels are asked, and how often", .fields = curriculum_fields},
    {"probe", FIELD_INT, "samples of a trained model drawn before step 1, to see whether they end; 0: none", RANGE(0, 4096),
     .otherwise = "32", AT(Stage, probe)},
    {"max_truncated", FIELD_NUMBER, "share of these that max_tokens may cut off; with more the stage doesn't start", RANGE(0, 1),
     .otherwise = "0.5", AT(Stage, max_truncated)},
    {"sampling", FIELD_SECTION, "how completions are sampled", .fields = sampling_fields},
    {"rollout", FIELD_SECTION, "sampling ahead of training, and over its steps", .fields = rollout_fields},
    {"algo", FIELD_SECTION, "advantage and loss", .fields = algo_fields},
    {"optimizer", FIELD_SECTION, "AdamW and its schedule", .fields = grpo_optimizer_fields},
    FIELD_END,
};

const Field reject_fields[] = {
    STAGE_FIELDS("{\"think\":1.0}", true),
    {"prompts", FIELD_INT, "prompts a step", RANGE(1, 65536), .otherwise = "32", AT(Stage, batch)},
    {"group_size", FIELD_INT, "samples a prompt", RANGE(1, 4096), .otherwise = "8", AT(Stage, group_size)},
    {"sampling", FIELD_SECTION, "how completions are sampled", .fields = sampling_fields},
    {"teacher", FIELD_TEXT, "a model, a run or an endpoint (https://host/v1#MODEL) that samples instead of the policy", RANGE(1, 4096), AT(Stage, teacher)},
    {"teacher_key_env", FIELD_TEXT, "of an endpoint: the environment variable with its key", RANGE(1, 200), AT(Stage, teacher_key_env)},
    {"teacher_requests", FIELD_INT, "of an endpoint: requests at once", RANGE(1, 1024), .otherwise = "4", AT(Stage, teacher_requests)},
    {"threshold", FIELD_NUMBER, "least score of what is kept", RANGE(-1e9, 1e9), .otherwise = "1.0", AT(Stage, threshold)},
    {"keep", FIELD_INT, "samples of a prompt that are kept at most, best score first", RANGE(1, 4096), .otherwise = "1", AT(Stage, keep)},
    {"choose", FIELD_CHOICE, "which one first where scores are equal", .choices = "shortest|longest|random", .otherwise = "\"shortest\"",
     AT(Stage, choose)},
    {"similarity", FIELD_NUMBER, "rows whose question and completion are at least so similar (Jaccard, of n-grams) are near-duplicates", ABOVE(0, 1),
     .otherwise = "0.9", AT(Stage, similarity)},
    {"ngram", FIELD_INT, "characters of these n-grams", RANGE(1, 100), .otherwise = "5", AT(Stage, ngram)},
    FIELD_END,
};

const Field distill_fields[] = {
    STAGE_FIELDS("{\"think\":1.0}", true),
    {"teacher", FIELD_TEXT, "a model or a run with the same tokenizer, whose distributions are learned; or an endpoint (https://host/v1#MODEL), whose samples are",
     RANGE(1, 4096), .required = true, AT(Stage, teacher)},
    {"teacher_key_env", FIELD_TEXT, "of an endpoint: the environment variable with its key", RANGE(1, 200), AT(Stage, teacher_key_env)},
    {"teacher_requests", FIELD_INT, "of an endpoint: requests at once", RANGE(1, 1024), .otherwise = "4", AT(Stage, teacher_requests)},
    {"beta", FIELD_NUMBER, "0: KL(teacher|policy), 1: KL(policy|teacher), between: the generalised Jensen-Shannon divergence", RANGE(0, 1),
     .otherwise = "0.5", AT(Stage, beta)},
    {"on_policy", FIELD_NUMBER, "share of steps whose completions the policy samples", RANGE(0, 1), .otherwise = "0.5", AT(Stage, on_policy)},
    {"off_policy", FIELD_CHOICE, "completions of the other steps: of data, or else the tasks' demonstrations; or the teacher's samples",
     .choices = "examples|teacher", .otherwise = "\"examples\"", AT(Stage, off_policy)},
    {"data", FIELD_TEXTS, "names of earlier reject stages, JSONL files", RANGE(1, 4096), AT(Stage, data)},
    {"temperature", FIELD_NUMBER, "divides the logits of teacher and policy in the divergence", ABOVE(0, 100), .otherwise = "1.0", AT(Stage, temperature)},
    {"prompts", FIELD_INT, "prompts, or examples, a step", RANGE(1, 65536), .otherwise = "32", AT(Stage, batch)},
    {"group_size", FIELD_INT, "samples a prompt", RANGE(1, 4096), .otherwise = "1", AT(Stage, group_size)},
    {"sampling", FIELD_SECTION, "how completions are sampled", .fields = sampling_fields},
    {"optimizer", FIELD_SECTION, "AdamW and its schedule", .fields = sft_optimizer_fields},
    FIELD_END,
};
const Field merge_fields[] = {
    STAGE_FIELDS("{\"think\":0.5,\"direct\":0.5}", false),
    {"models", FIELD_TEXTS, "what is averaged: names of earlier stages, \"start\", models, runs, or adapters (each merged into its base)", RANGE(1, 4096), .required = true, AT(Stage, models)},
    {"shares", FIELD_NUMBERS, "of each model, relative to the others' (default: all the same)", RANGE(0, 1e6),
     AT_COUNTED(Stage, shares, share_count)},
    FIELD_END,
};

// ---- tasks and rewards -----------------------------------------------------------------------------------
#define TASK_WEIGHT                                                                                          \
    {                                                                                                        \
        "weight", FIELD_NUMBER, "share among the tasks, relative to the others'", RANGE(0, 1e6),             \
            .otherwise = "1.0", AT(TaskSpec, weight)                                                         \
    }
#define TASK_STYLE                                                                                           \
    {                                                                                                        \
        "style", FIELD_CHOICE, "a formula, or a sentence (the default in a chat)", .choices = "plain|words"  \
    }
static const Field arithmetic_fields[] = {
    {"levels", FIELD_INTS, "levels of difficulty", RANGE(1, 6), .otherwise = "[1,2,3,4,5,6]",
     AT_COUNTED(TaskSpec, levels, level_count)},
    TASK_STYLE,
    TASK_WEIGHT,
    FIELD_END,
};
static const Field countdown_fields[] = {
    {"levels", FIELD_INTS, "levels of difficulty", RANGE(1, 3), .otherwise = "[1,2,3]",
     AT_COUNTED(TaskSpec, levels, level_count)},
    TASK_STYLE,
    TASK_WEIGHT,
    FIELD_END,
};
static const Field jsonl_fields[] = {
    {"file", FIELD_TEXT, "JSON lines with prompt or messages, and answer", RANGE(1, 4096), .required = true,
     AT(TaskSpec, file)},
    TASK_WEIGHT,
    FIELD_END,
};
const Field script_task_fields[] = {
    {"levels", FIELD_INTS, "levels of difficulty (default: all that the script has)", RANGE(1, 100),
     AT_COUNTED(TaskSpec, levels, level_count)},
    TASK_WEIGHT,
    FIELD_END,
};
static const Field environment_fields[] = {
    {"levels", FIELD_INTS, "levels that the environment sees as row.level", RANGE(1, 64), .otherwise = "[1]",
     AT_COUNTED(TaskSpec, levels, level_count)},
    TASK_WEIGHT,
    FIELD_END,
};
const Variant task_variants[] = {{"arithmetic", arithmetic_fields}, {"countdown", countdown_fields},
                                 {"environment", environment_fields}, {"jsonl", jsonl_fields}, {0}};

const Field reward_fields[] = {
    {"weight", FIELD_NUMBER, "the script's share of the score", RANGE(-1e6, 1e6), .otherwise = "1.0",
     AT(RewardSpec, weight)},
    FIELD_END,
};

// ---- measuring and the rest ------------------------------------------------------------------------------
static const Field evaluate_fields[] = {
    {"items", FIELD_INT, "held-out items of each task and level; 0: none", RANGE(0, 1e6), .otherwise = "100",
     AT(Recipe, evaluate_items)},
    {"samples", FIELD_INT, "samples an item, besides the greedy answer; 0: greedy only", RANGE(0, 1024),
     .otherwise = "0", AT(Recipe, evaluate_samples)},
    {"temperature", FIELD_NUMBER, "divides the logits of sampled answers", ABOVE(0, 10), .otherwise = "1.0",
     AT(Recipe, evaluate_sampling.temperature)},
    {"top_k", FIELD_INT, "sample from the k likeliest tokens; 0: off", RANGE(0, 1 << 20), .otherwise = "0",
     AT(Recipe, evaluate_sampling.top_k)},
    {"top_p", FIELD_NUMBER, "sample from the likeliest tokens of this mass; 1: off", ABOVE(0, 1), .otherwise = "1.0",
     AT(Recipe, evaluate_sampling.top_p)},
    {"min_p", FIELD_NUMBER, "least probability relative to the likeliest token; 0: off", RANGE(0, 1),
     .otherwise = "0.0", AT(Recipe, evaluate_sampling.min_p)},
    {"max_tokens", FIELD_INT, "longest answer (default: the longest max_tokens of the stages)", RANGE(1, 1 << 20),
     AT(Recipe, evaluate_sampling.max_tokens)},
    {"stop", FIELD_TEXTS, "texts that end an answer", RANGE(1, 256), .otherwise = "[]",
     AT(Recipe, evaluate_sampling.stop)},
    {"think_tokens", FIELD_INT, "open thinking is closed after so many tokens; 0: never", RANGE(0, 1 << 20),
     .otherwise = "0", AT(Recipe, evaluate_sampling.think_tokens)},
    {"turn_tokens", FIELD_INT, "longest turn in an environment; 0: max_tokens alone", RANGE(0, 1 << 20),
     .otherwise = "0", AT(Recipe, evaluate_sampling.turn_tokens)},
    FIELD_END,
};
static const Field compare_fields[] = {
    {"items", FIELD_INT, "held-out items of each task and level; 0: no comparison", RANGE(0, 1e6), .otherwise = "400",
     AT(Recipe, compare_items)},
    {"arms", FIELD_TEXTS, "what is compared, as 'compare --arm' takes it (default: think and direct)", RANGE(1, 400), .otherwise = "[]",
     AT(Recipe, compare_arms)},
    {"margin", FIELD_NUMBER, "a share of right answers that makes no difference", RANGE(0, 0.5), .otherwise = "0.02",
     AT(Recipe, compare_margin)},
    {"worth", FIELD_NUMBER, "of a correct answer, in the currency of cost; 0: not stated", RANGE(0, 1e9), .otherwise = "0.0", .outside = true,
     AT(Recipe, compare_worth)},
    {"seeds", FIELD_INT, "of arms that sample", RANGE(1, 64), .otherwise = "3", AT(Recipe, compare_seeds)},
    {"latency", FIELD_INT, "items answered one at a time, to time them; 0: none", RANGE(0, 10000), .otherwise = "10", .outside = true,
     AT(Recipe, compare_latency)},
    FIELD_END,
};
static const Field cost_fields[] = {
    {"watts", FIELD_NUMBER, "power drawn while computing; 0: not stated", RANGE(0, 1e7), .otherwise = "0.0",
     AT(Recipe, watts)},
    {"price_per_hour", FIELD_NUMBER, "of the machine; 0: not stated", RANGE(0, 1e9), .otherwise = "0.0",
     AT(Recipe, price_per_hour)},
    {"price_per_kwh", FIELD_NUMBER, "of energy; 0: not stated", RANGE(0, 1e9), .otherwise = "0.0", AT(Recipe, price_per_kwh)},
    {"co2_per_kwh", FIELD_NUMBER, "grams of CO2 for a kilowatt-hour; 0: not stated", RANGE(0, 1e5), .otherwise = "0.0", AT(Recipe, co2_per_kwh)},
    {"million_tokens_in", FIELD_NUMBER, "price of a million tokens of prompts; 0: not stated", RANGE(0, 1e9), .otherwise = "0.0",
     AT(Recipe, million_tokens_in)},
    {"million_tokens_out", FIELD_NUMBER, "price of a million new tokens; 0: not stated", RANGE(0, 1e9), .otherwise = "0.0",
     AT(Recipe, million_tokens_out)},
    {"currency", FIELD_TEXT, "of the prices", RANGE(1, 16), .otherwise = "\"EUR\"", AT(Recipe, currency)},
    {"source", FIELD_TEXT, "whose prices these are, and of when", RANGE(1, 200), AT(Recipe, price_source)},
    FIELD_END,
};
static const Field limit_fields[] = {
    {"fuel", FIELD_INT64, "Lua instructions a sample and script", RANGE(1000, 1e12), AT(Recipe, reward_limits.fuel)},
    {"memory_mib", FIELD_INT, "memory of a worker's scripts", RANGE(1, 65536)},
    {"seconds", FIELD_NUMBER, "processor time a sample", ABOVE(0, 3600), AT(Recipe, reward_limits.seconds)},
    FIELD_END,
};
const Field recipe_fields[] = {
    {"name", FIELD_TEXT, "names the run (default: the file's name)", RANGE(1, 100), AT(Recipe, name)},
    {"seed", FIELD_INT64, "of weights, tasks and sampling", RANGE(0, 9007199254740991.0), .otherwise = "1",
     AT(Recipe, seed)},
    {"model", FIELD_SECTION, "the model to train", .fields = model_fields},
    {"characters", FIELD_TEXT, "vocabulary of a model from scratch, a token for each", RANGE(1, 65536),
     AT(Recipe, characters)},
    {"tasks", FIELD_LIST, "what is asked: {\"arithmetic\", levels={1,2}}, {\"jsonl\", file=\"data.jsonl\"}", .required = true},
    {"held_out", FIELD_NUMBER, "share of problems kept for evaluation", RANGE(0.001, 0.9), .otherwise = "0.1",
     AT(Recipe, held_out)},
    {"prompts", FIELD_SECTION, "how questions are put in each mode", .fields = prompt_fields},
    {"chat", FIELD_BOOL, "put questions through the chat template (default: if the model has a path)",
     AT(Recipe, chat)},
    {"rewards", FIELD_LIST, "what scores completions: {\"correct\"}, {\"./mine.lua\", weight=0.5}",
     .otherwise = "[{\"$kind\":\"correct\"}]"},
    {"reward_limits", FIELD_SECTION, "budget of reward scripts", .fields = limit_fields},
    {"reward_workers", FIELD_INT, "processes that score; 0: one a core", RANGE(0, 1024), .otherwise = "0",
     .outside = true, AT(Recipe, reward_workers)},
    {"max_failed_share", FIELD_NUMBER, "share of failed verdicts beyond which the run stops", RANGE(0, 1),
     .otherwise = "0.1", AT(Recipe, max_failed_share)},
    {"stages", FIELD_LIST, "what is done in turn: sft{...}, grpo{...}", .required = true},
    {"sampling", FIELD_SECTION, "for every grpo stage that doesn't say otherwise", .shared = true,
     .fields = sampling_fields},
    {"rollout", FIELD_SECTION, "for every grpo stage that doesn't say otherwise", .shared = true, .fields = rollout_fields},
    {"algo", FIELD_SECTION, "for every grpo stage that doesn't say otherwise", .shared = true, .fields = algo_fields},
    {"optimizer", FIELD_SECTION, "for every stage that doesn't say otherwise", .shared = true,
     .fields = grpo_optimizer_fields},
    {"evaluate", FIELD_SECTION, "evaluations during training", .fields = evaluate_fields},
    {"compare", FIELD_SECTION, "the comparison of think and direct", .fields = compare_fields},
    {"cost", FIELD_SECTION, "what the machine costs", .outside = true, .fields = cost_fields},
    {"threads", FIELD_INT, "of computation; 0: as many as this process may keep busy", RANGE(0, 1024), .otherwise = "0", .outside = true,
     AT(Recipe, threads)},
    {"device", FIELD_TEXT, "cpu, cuda or cuda:N; empty: RECKON_DEVICE's, else the CPU", RANGE(0, 16), .otherwise = "\"\"",
     .outside = true, AT(Recipe, device)},
    {"microbatch_tokens", FIELD_INT, "upper bound of tokens in one forward and backward pass; 0: 1024 on the processor, 8192 on a GPU", RANGE(0, 1 << 24),
     .otherwise = "0", .outside = true},
    {"run", FIELD_TEXT, "folder of the run (default: runs/NAME)", RANGE(1, 4096), .outside = true,
     AT(Recipe, run_folder)},
    {"keep_checkpoints", FIELD_INT, "newest checkpoints kept besides the stages' last", RANGE(1, 1e6),
     .otherwise = "2", .outside = true, AT(Recipe, keep_checkpoints)},
    {"tensorboard", FIELD_BOOL, "also write TensorBoard's event files, RUN/tensorboard", .otherwise = "false", .outside = true,
     AT(Recipe, tensorboard)},
    FIELD_END,
};

const Field *field_find(const Field *fields, const char *key) {
    for (; fields->key; fields++)
        if (strcmp(fields->key, key) == 0) return fields;
    return NULL;
}

static void put_range(const Field *f, Buf *out) {
    if (f->above)
        buf_printf(out, " above %.15g and at most %.15g", f->low, f->high);
    else
        buf_printf(out, " from %.15g to %.15g", f->low, f->high);
}
void field_expected(const Field *f, Buf *out) {
    switch (f->kind) {
    case FIELD_INT:
    case FIELD_INT64: buf_puts(out, "an integer"), put_range(f, out); break;
    case FIELD_NUMBER: buf_puts(out, "a number"), put_range(f, out); break;
    case FIELD_BOOL: buf_puts(out, "true or false"); break;
    case FIELD_TEXT: buf_printf(out, "a text of %.15g to %.15g bytes", f->low, f->high); break;
    case FIELD_CHOICE:
        buf_puts(out, "one of ");
        for (const char *p = f->choices; *p; p++) buf_append(out, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
        break;
    case FIELD_INTS: buf_puts(out, "a list of integers"), put_range(f, out); break;
    case FIELD_NUMBERS: buf_puts(out, "a list of numbers"), put_range(f, out); break;
    case FIELD_TEXTS: buf_printf(out, "a list of texts of %.15g to %.15g bytes", f->low, f->high); break;
    case FIELD_SECTION: buf_puts(out, "a table with named keys"); break;
    case FIELD_LIST: buf_puts(out, "a list of tables"); break;
    }
}
