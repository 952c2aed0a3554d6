// What the options of TRL, verl, OpenRLHF and prime-rl are called in a recipe, for `recipe convert` and for `calc`. A row whose option only says where or how
// fast something runs has a note instead; what has no row has no equal here and is listed as such.
#include "programs.h"
#include "base.h"
#include <stdio.h>
#include <string.h>

static const json_t *seen(const Conversion *c, const char *name) { return json_object_get(c->seen, name); }
static double number(const Conversion *c, const char *name, double otherwise) {
    return json_is_number(seen(c, name)) ? json_number_value(seen(c, name)) : otherwise;
}
static bool is_on(const Conversion *c, const char *name) { return json_is_true(seen(c, name)); }
static void put(Conversion *c, const char *section, const char *key, json_t *value) {
    if (!json_object_get(c->recipe, section)) json_object_set_new(c->recipe, section, json_object());
    json_object_set_new(json_object_get(c->recipe, section), key, value);
}
static void put_count(Conversion *c, const char *section, const char *key, double value) {
    if (value >= 1) put(c, section, key, json_integer((json_int_t)value));
}
static void take_out(Conversion *c, const char *section, const char *key) { json_object_del(json_object_get(c->recipe, section), key); }
static void note(Conversion *c, const char *text) { json_array_append_new(c->notes, json_string(text)); }

#define PLACE "where and how fast it runs is not the recipe's"
#define SCHEDULES "constant=constant|constant_with_warmup=constant|linear=linear|cosine=cosine|cosine_with_min_lr=cosine|" \
                  "cosine_with_restarts=cosine_restarts|polynomial=polynomial|inverse_sqrt=inverse_sqrt|warmup_stable_decay=wsd"

// ---- TRL -------------------------------------------------------------------------------------------------------
static const OptionMap trl_options[] = {
    {"model_name_or_path", "model.path", NULL, NULL},
    {"max_steps", "stage.steps", NULL, NULL},
    {"seed", "recipe.seed", NULL, NULL},
    {"eval_steps", "stage.evaluate_every", NULL, NULL},
    {"save_steps", "stage.checkpoint_every", NULL, NULL},
    {"num_generations", "stage.group_size", NULL, NULL},
    {"max_completion_length", "sampling.max_tokens", NULL, NULL},
    {"temperature", "sampling.temperature", NULL, NULL},
    {"top_p", "sampling.top_p", NULL, NULL},
    {"top_k", "sampling.top_k", NULL, NULL},
    {"min_p", "sampling.min_p", NULL, NULL},
    {"learning_rate", "optimizer.learning_rate", NULL, NULL},
    {"lr_scheduler_type", "optimizer.schedule", SCHEDULES, NULL},
    {"warmup_steps", "optimizer.warmup", NULL, NULL},
    {"weight_decay", "optimizer.weight_decay", NULL, NULL},
    {"adam_beta1", "optimizer.beta1", NULL, NULL},
    {"adam_beta2", "optimizer.beta2", NULL, NULL},
    {"adam_epsilon", "optimizer.eps", NULL, NULL},
    {"max_grad_norm", "optimizer.max_gradient_norm", NULL, NULL},
    {"beta", "algo.kl", NULL, NULL},
    {"epsilon", "algo.epsilon_low", NULL, NULL},
    {"epsilon_high", "algo.epsilon_high", NULL, NULL},
    {"delta", "algo.delta", NULL, NULL},
    {"num_iterations", "algo.epochs", NULL, NULL},
    {"scale_rewards", "algo.advantage", "group=group|batch=batch|none=none|true=group|false=none", NULL},
    {"multi_objective_aggregation", NULL, NULL, "read beside scale_rewards"},
    {"loss_type", "algo.loss", "grpo=grpo|bnpo=bnpo|dr_grpo=dr_grpo|dapo=dapo|luspo=luspo|cispo=cispo_cap|sapo=sapo|vespo=vespo|gmpo=gmpo", NULL},
    {"importance_sampling_level", "algo.ratio", "token=token|sequence=sequence|sequence_token=sequence_token", NULL},
    {"mask_truncated_completions", "algo.mask_truncated", NULL, NULL},
    {"sync_ref_model", NULL, NULL, "read beside ref_model_sync_steps"},
    {"ref_model_sync_steps", NULL, NULL, "read beside sync_ref_model"},
    {"top_entropy_quantile", "algo.top_entropy", NULL, NULL},
    {"entropy_coef", "algo.entropy", NULL, NULL},
    {"use_adaptive_entropy", NULL, NULL, "read beside entropy_target"},
    {"entropy_coef_min", "algo.entropy_low", NULL, NULL},
    {"entropy_coef_max", "algo.entropy_high", NULL, NULL},
    {"entropy_coef_delta", "algo.entropy_step", NULL, NULL},
    {"entropy_target", NULL, NULL, "read beside use_adaptive_entropy"},
    {"sapo_temperature_pos", "algo.sapo_positive", NULL, NULL},
    {"sapo_temperature_neg", "algo.sapo_negative", NULL, NULL},
    {"vespo_k_pos", "algo.vespo_k_positive", NULL, NULL},
    {"vespo_lambda_pos", "algo.vespo_lambda_positive", NULL, NULL},
    {"vespo_k_neg", "algo.vespo_k_negative", NULL, NULL},
    {"vespo_lambda_neg", "algo.vespo_lambda_negative", NULL, NULL},
    {"off_policy_mask_threshold", "algo.off_policy_threshold", NULL, NULL},
    {"use_bias_correction_kl", "algo.kl_times_ratio", NULL, NULL},
    {"use_vllm", NULL, NULL, "reckon samples itself, with the trainer's own bits"},
    {"vllm_importance_sampling_correction", NULL, NULL, "sampler and trainer are the same bits: the ratio is exactly 1"},
    {"vllm_importance_sampling_mode", NULL, NULL, "sampler and trainer are the same bits: the ratio is exactly 1"},
    {"vllm_importance_sampling_clip_min", NULL, NULL, "sampler and trainer are the same bits: the ratio is exactly 1"},
    {"vllm_importance_sampling_clip_max", NULL, NULL, "sampler and trainer are the same bits: the ratio is exactly 1"},
    {"per_device_train_batch_size", NULL, NULL, "read beside gradient_accumulation_steps and num_generations"},
    {"gradient_accumulation_steps", NULL, NULL, "microbatches change no gradient here"},
    {"steps_per_generation", NULL, NULL, "read beside gradient_accumulation_steps"},
    {"generation_batch_size", NULL, NULL, "read beside num_generations"},
    {"output_dir", "recipe.run", NULL, NULL},
    {"bf16", NULL, NULL, "precision is model.precision; bf16 is its default"},
    {"fp16", NULL, NULL, "precision is model.precision; bf16 is its default"},
    {"gradient_checkpointing", NULL, NULL, PLACE},
    {"logging_steps", NULL, NULL, "every step is on the ledger"},
    {"report_to", NULL, NULL, "every step is on the ledger"},
    {0},
};
static void trl_finish(Conversion *c) {
    double group = number(c, "num_generations", 8), device = number(c, "per_device_train_batch_size", 8);
    double accumulation = number(c, "gradient_accumulation_steps", 1), generation = number(c, "steps_per_generation", accumulation);
    double samples = number(c, "generation_batch_size", device * generation);
    bool sized = seen(c, "per_device_train_batch_size") || seen(c, "generation_batch_size");
    if (sized && samples >= group) put_count(c, "stage", "prompts", samples / group);
    if (sized && generation > accumulation) put_count(c, "algo", "minibatches", generation / accumulation);
    if (is_on(c, "sync_ref_model")) put_count(c, "algo", "reference_every", number(c, "ref_model_sync_steps", 512));
    if (is_on(c, "sync_ref_model")) note(c, "ref_model_mixup_alpha: the reference is replaced, not mixed");
    if (is_on(c, "use_adaptive_entropy")) put(c, "algo", "entropy_target", json_real(number(c, "entropy_target", 0.2)));
    const char *sum = json_string_value(seen(c, "multi_objective_aggregation"));
    if (sum && !strcmp(sum, "normalize_then_sum")) put(c, "algo", "advantage", json_string("gdpo"));
}

#define VERL_KL "kl=k1|k1=k1|abs=abs|mse=k2|k2=k2|low_var_kl=k3|k3=k3|kl+=k1+|k1+=k1+|abs+=abs+|mse+=k2+|k2+=k2+|low_var_kl+=k3+|k3+=k3+"

// ---- verl ------------------------------------------------------------------------------------------------------
static const OptionMap verl_options[] = {
    {"model.path", "model.path", NULL, NULL},
    {"trainer.total_training_steps", "stage.steps", NULL, NULL},
    {"trainer.test_freq", "stage.evaluate_every", NULL, NULL},
    {"trainer.save_freq", "stage.checkpoint_every", NULL, NULL},
    {"data.train_batch_size", "stage.prompts", NULL, NULL},
    {"data.max_response_length", "sampling.max_tokens", NULL, NULL},
    {"rollout.n", "stage.group_size", NULL, NULL},
    {"rollout.temperature", "sampling.temperature", NULL, NULL},
    {"rollout.top_p", "sampling.top_p", NULL, NULL},
    {"rollout.top_k", NULL, NULL, "-1 is 0 here"},
    {"optim.lr", "optimizer.learning_rate", NULL, NULL},
    {"optim.weight_decay", "optimizer.weight_decay", NULL, NULL},
    {"optim.lr_warmup_steps", NULL, NULL, "-1 is 0 here"},
    {"optim.lr_scheduler_type", "optimizer.schedule", "constant=constant|cosine=cosine", NULL},
    {"optim.warmup_style", "optimizer.schedule", "constant=constant|cosine=cosine", NULL},
    {"optim.min_lr_ratio", "optimizer.final_share", NULL, NULL},
    {"optim.clip_grad", "optimizer.max_gradient_norm", NULL, NULL},
    {"actor.grad_clip", "optimizer.max_gradient_norm", NULL, NULL},
    {"actor.ppo_mini_batch_size", NULL, NULL, "read beside train_batch_size"},
    {"actor.ppo_epochs", "algo.epochs", NULL, NULL},
    {"actor.clip_ratio", "algo.epsilon_low", NULL, NULL},
    {"actor.clip_ratio_low", "algo.epsilon_low", NULL, NULL},
    {"actor.clip_ratio_high", "algo.epsilon_high", NULL, NULL},
    {"actor.clip_ratio_c", "algo.dual_clip", NULL, NULL},
    {"actor.tau_pos", "algo.sapo_positive", NULL, NULL},
    {"actor.tau_neg", "algo.sapo_negative", NULL, NULL},
    {"actor.entropy_coeff", "algo.entropy", NULL, NULL},
    {"actor.use_kl_loss", NULL, NULL, "read beside kl_loss_coef"},
    {"actor.kl_loss_coef", NULL, NULL, "read beside use_kl_loss"},
    {"actor.kl_loss_type", NULL, VERL_KL, "read beside use_kl_loss"},
    {"actor.loss_agg_mode", "algo.aggregate",
     "token-mean=step_tokens|token-sum=sum|seq-mean-token-sum=sequence_sum|seq-mean-token-mean=sequence_mean|seq-mean-token-sum-norm=constant", NULL},
    {"policy_loss.loss_mode", "algo.loss",
     "vanilla=dapo|gspo=gspo_token|sapo=sapo|gpg=gpg|cispo=cispo|geo_mean=gmpo|dro=dro|dppo_tv=dppo_tv|dppo_kl=dppo_kl|clip_cov=clip_cov|kl_cov=kl_cov", NULL},
    {"policy_loss.clip_cov_ratio", NULL, NULL, "read beside loss_mode"},
    {"policy_loss.clip_cov_lb", "algo.cov_low", NULL, NULL},
    {"policy_loss.clip_cov_ub", "algo.cov_high", NULL, NULL},
    {"policy_loss.kl_cov_ratio", NULL, NULL, "read beside loss_mode"},
    {"policy_loss.ppo_kl_coef", "algo.cov_kl", NULL, NULL},
    {"policy_loss.dro_beta", "algo.dro_beta", NULL, NULL},
    {"algorithm.adv_estimator", "algo.advantage",
     "grpo=group|grpo_vectorized=group|rloo=rloo|rloo_vectorized=rloo|reinforce_plus_plus=reinforce_plus_plus|"
     "reinforce_plus_plus_baseline=reinforce_plus_plus_baseline|opo=opo|grpo_passk=passk|gpg=gpg|gdpo=gdpo", NULL},
    {"algorithm.norm_adv_by_std_in_grpo", NULL, NULL, "read beside adv_estimator"},
    {"algorithm.gamma", "algo.gamma", NULL, NULL},
    {"algorithm.use_kl_in_reward", NULL, NULL, "read beside kl_ctrl"},
    {"algorithm.kl_penalty", NULL, VERL_KL, "read beside use_kl_in_reward"},
    {"kl_ctrl.type", NULL, NULL, "read beside use_kl_in_reward"},
    {"kl_ctrl.kl_coef", NULL, NULL, "read beside use_kl_in_reward"},
    {"kl_ctrl.horizon", NULL, NULL, "read beside use_kl_in_reward"},
    {"kl_ctrl.target_kl", NULL, NULL, "read beside use_kl_in_reward"},
    {"filter_groups.enable", NULL, NULL, "read beside max_num_gen_batches"},
    {"filter_groups.max_num_gen_batches", NULL, NULL, "read beside filter_groups.enable"},
    {"overlong_buffer.enable", NULL, NULL, "read beside overlong_buffer.len"},
    {"overlong_buffer.len", NULL, NULL, "read beside overlong_buffer.enable"},
    {"overlong_buffer.penalty_factor", "algo.overlong_penalty", NULL, NULL},
    {"actor.ppo_micro_batch_size_per_gpu", NULL, NULL, PLACE},
    {"trainer.n_gpus_per_node", NULL, NULL, PLACE},
    {"trainer.nnodes", NULL, NULL, PLACE},
    {"rollout.name", NULL, NULL, "reckon samples itself, with the trainer's own bits"},
    {"rollout.gpu_memory_utilization", NULL, NULL, PLACE},
    {"rollout.tensor_model_parallel_size", NULL, NULL, PLACE},
    {0},
};
static void put_word(Conversion *c, const char *key, const char *option, const char *otherwise) {
    json_t *word = program_word(program_row(program_named("verl"), option), seen(c, option));
    put(c, "algo", key, word ? word : json_string(otherwise));
}
static void verl_finish(Conversion *c) {
    double prompts = number(c, "data.train_batch_size", 1024), mini = number(c, "actor.ppo_mini_batch_size", 256);
    if (seen(c, "actor.ppo_mini_batch_size") && prompts > mini) put_count(c, "algo", "minibatches", prompts / mini);
    put_count(c, "sampling", "top_k", number(c, "rollout.top_k", -1));
    put_count(c, "optimizer", "warmup", number(c, "optim.lr_warmup_steps", -1));
    const char *mode = json_string_value(seen(c, "policy_loss.loss_mode")), *estimator = json_string_value(seen(c, "algorithm.adv_estimator"));
    bool kl_cov = mode && !strcmp(mode, "kl_cov"), clip_cov = mode && !strcmp(mode, "clip_cov");
    if (kl_cov || clip_cov) put(c, "algo", "cov_share", json_real(number(c, kl_cov ? "policy_loss.kl_cov_ratio" : "policy_loss.clip_cov_ratio", 2e-4)));
    if (mode && !strcmp(mode, "vanilla")) take_out(c, "algo", "loss");
    if (json_is_false(seen(c, "algorithm.norm_adv_by_std_in_grpo")) && estimator && !strncmp(estimator, "grpo", 4))
        put(c, "algo", "advantage", json_string("none"));
    if (is_on(c, "actor.use_kl_loss")) {
        put(c, "algo", "kl", json_real(number(c, "actor.kl_loss_coef", 0.001)));
        put_word(c, "kl_estimator", "actor.kl_loss_type", "k3");
    }
    if (is_on(c, "algorithm.use_kl_in_reward")) {
        const char *type = json_string_value(seen(c, "kl_ctrl.type"));
        put(c, "algo", "kl_in_reward", json_true());
        put(c, "algo", "kl", json_real(number(c, "kl_ctrl.kl_coef", 0.001)));
        put_word(c, "kl_estimator", "algorithm.kl_penalty", seen(c, "algorithm.kl_penalty") ? "k3" : "k1");
        if (type && !strcmp(type, "adaptive")) {
            put(c, "algo", "kl_target", json_real(number(c, "kl_ctrl.target_kl", 0.1)));
            put(c, "algo", "kl_horizon", json_real(number(c, "kl_ctrl.horizon", 10000)));
        }
        if (is_on(c, "actor.use_kl_loss")) note(c, "use_kl_loss beside use_kl_in_reward: one divergence here, the reward's was taken");
    }
    if (is_on(c, "filter_groups.enable")) put_count(c, "algo", "refills", number(c, "filter_groups.max_num_gen_batches", 10));
    if (is_on(c, "overlong_buffer.enable")) put(c, "algo", "overlong_buffer", json_real(number(c, "overlong_buffer.len", 0)));
}

// ---- OpenRLHF ----------------------------------------------------------------------------------------------------
static const OptionMap openrlhf_options[] = {
    {"actor.model_name_or_path", "model.path", NULL, NULL},
    {"pretrain", "model.path", NULL, NULL},
    {"rollout.n_samples_per_prompt", "stage.group_size", NULL, NULL},
    {"rollout.batch_size", "stage.prompts", NULL, NULL},
    {"rollout.max_new_tokens", "sampling.max_tokens", NULL, NULL},
    {"rollout.temperature", "sampling.temperature", NULL, NULL},
    {"rollout.top_p", "sampling.top_p", NULL, NULL},
    {"train.batch_size", NULL, NULL, "read beside rollout.batch_size"},
    {"train.max_epochs", "algo.epochs", NULL, NULL},
    {"train.seed", "recipe.seed", NULL, NULL},
    {"train.micro_batch_size", NULL, NULL, PLACE},
    {"actor.adam.lr", "optimizer.learning_rate", NULL, NULL},
    {"actor.adam.weight_decay", "optimizer.weight_decay", NULL, NULL},
    {"actor.max_norm", "optimizer.max_gradient_norm", NULL, NULL},
    {"actor.lr_scheduler", "optimizer.schedule", SCHEDULES, NULL},
    {"actor.min_lr_ratio", "optimizer.final_share", NULL, NULL},
    {"actor.eps_clip", "algo.epsilon_low", NULL, NULL},
    {"clip_eps_low", "algo.epsilon_low", NULL, NULL}, // as its loss calls the two numbers
    {"clip_eps_high", "algo.epsilon_high", NULL, NULL},
    {"actor.eps_clip_low_high", NULL, NULL, "two numbers: epsilon_low and epsilon_high"},
    {"actor.dual_clip", "algo.dual_clip", NULL, NULL},
    {"actor.entropy_coef", "algo.entropy", NULL, NULL},
    {"actor.policy_loss_type", "algo.loss", "ppo=dapo|gspo=gspo|reinforce=gpg", NULL},
    {"actor.loss_agg_mode", "algo.aggregate", "token-mean=step_tokens|seq-mean-token-mean=sequence_mean", NULL},
    {"algo.advantage.estimator", "algo.advantage",
     "rloo=rloo|reinforce=reinforce_plus_plus|reinforce_baseline=reinforce_plus_plus_baseline|group_norm=group|dr_grpo=none|flash_reinforce=batch_mean",
     NULL},
    {"algo.advantage.gamma", "algo.gamma", NULL, NULL},
    {"algo.advantage.is_correction_level", "algo.correction.level", "off=off|token=token|seq=sequence", NULL},
    {"algo.advantage.is_correction_mode", "algo.correction.mode", "mask=mask|clip=truncate", NULL},
    {"algo.advantage.is_correction_threshold", NULL, NULL, "two numbers: correction.low and correction.high"},
    {"algo.kl.init_coef", "algo.kl", NULL, NULL},
    {"algo.kl.use_loss", NULL, NULL, "read beside algo.kl.init_coef"},
    {"algo.kl.estimator", "algo.kl_estimator", "k1=k1|k2=k2|k3=k3", NULL},
    {"algo.kl.target", "algo.kl_target", NULL, NULL},
    {"algo.kl.horizon", "algo.kl_horizon", NULL, NULL},
    {"reward.overlong_buffer_len", "algo.overlong_buffer", NULL, NULL},
    {"reward.overlong_penalty_factor", "algo.overlong_penalty", NULL, NULL},
    {"algo.dynamic_filtering_enable", NULL, NULL, "refills: 10 rounds at most"},
    {0},
};
static void two_numbers(Conversion *c, const char *option, const char *section, const char *low, const char *high) {
    const json_t *list = seen(c, option);
    if (json_array_size(list) != 2) return;
    put(c, section, low, json_incref(json_array_get(list, 0)));
    put(c, section, high, json_incref(json_array_get(list, 1)));
}
static void openrlhf_finish(Conversion *c) {
    double rollout = number(c, "rollout.batch_size", 0), train = number(c, "train.batch_size", 0), group = number(c, "rollout.n_samples_per_prompt", 1);
    if (train >= group && rollout * group > train) put_count(c, "algo", "minibatches", rollout * group / train);
    two_numbers(c, "actor.eps_clip_low_high", "algo", "epsilon_low", "epsilon_high");
    if (json_object_get(json_object_get(c->recipe, "algo"), "correction.level"))
        two_numbers(c, "algo.advantage.is_correction_threshold", "algo", "correction.low", "correction.high");
    if (number(c, "algo.kl.init_coef", 0) > 0 && !is_on(c, "algo.kl.use_loss")) put(c, "algo", "kl_in_reward", json_true());
    if (is_on(c, "algo.dynamic_filtering_enable")) put_count(c, "algo", "refills", 10);
    put(c, "algo", "advantage_eps", json_real(1e-9));
}

// ---- prime-rl ------------------------------------------------------------------------------------------------------
static const OptionMap prime_options[] = {
    {"model.name", "model.path", NULL, NULL},
    {"max_steps", "stage.steps", NULL, NULL},
    {"seed", "recipe.seed", NULL, NULL},
    {"output_dir", "recipe.run", NULL, NULL},
    {"orchestrator.batch_size", NULL, NULL, "read beside group_size"},
    {"orchestrator.group_size", "stage.group_size", NULL, NULL},
    {"group_size", "stage.group_size", NULL, NULL},
    {"rollouts_per_example", "stage.group_size", NULL, NULL},
    {"sampling.max_tokens", "sampling.max_tokens", NULL, NULL},
    {"sampling.max_completion_tokens", "sampling.max_tokens", NULL, NULL},
    {"sampling.temperature", "sampling.temperature", NULL, NULL},
    {"orchestrator.eval.sampling.max_completion_tokens", "evaluate.max_tokens", NULL, NULL},
    {"orchestrator.eval.sampling.temperature", "evaluate.temperature", NULL, NULL},
    {"orchestrator.eval.sampling.top_p", "evaluate.top_p", NULL, NULL},
    {"orchestrator.eval.sampling.top_k", "evaluate.top_k", NULL, NULL},
    {"orchestrator.eval.sampling.min_p", "evaluate.min_p", NULL, NULL},
    {"orchestrator.eval.interval", "stage.evaluate_every", NULL, NULL},
    {"orchestrator.eval.num_examples", "evaluate.items", NULL, NULL},
    {"orchestrator.eval.group_size", "evaluate.samples", NULL, NULL},
    {"ckpt.interval", "stage.checkpoint_every", NULL, NULL},
    {"ckpt.keep_last", "recipe.keep_checkpoints", NULL, NULL},
    {"ckpt", NULL, NULL, "a checkpoint stands at the end of every stage"},
    {"optim.type", NULL, NULL, "the optimizer is AdamW"},
    {"optim.lr", "optimizer.learning_rate", NULL, NULL},
    {"optim.weight_decay", "optimizer.weight_decay", NULL, NULL},
    {"optim.max_norm", "optimizer.max_gradient_norm", NULL, NULL},
    {"optim.betas1", "optimizer.beta1", NULL, NULL},
    {"optim.betas2", "optimizer.beta2", NULL, NULL},
    {"scheduler.type", "optimizer.schedule", "constant=constant|linear=wsd|cosine=cosine", NULL},
    {"scheduler.warmup_steps", "optimizer.warmup", NULL, NULL},
    {"scheduler.decay_steps", "optimizer.decay_steps", NULL, NULL},
    {"loss.type", "algo.loss", "default=prime|ipo=prime_ipo", NULL},
    {"loss.dppo_mask_low", "algo.epsilon_low", NULL, NULL},
    {"loss.dppo_mask_high", "algo.epsilon_high", NULL, NULL},
    {"loss.ipo_threshold", "algo.epsilon_high", NULL, NULL},
    {"loss.adv_tau", "algo.prime_advantage", NULL, NULL},
    {"loss.kl_tau", "algo.prime_drift", NULL, NULL},
    {"algo.type", "algo.advantage", "grpo=none|max_rl=maxrl", NULL},
    {"lora.rank", "model.lora.rank", NULL, NULL},
    {"lora.alpha", "model.lora.alpha", NULL, NULL},
    {"filter_zero_advantages", NULL, NULL, "groups without variance cost no training pass here"},
    {"train.source", NULL, NULL, "environments and data are the recipe's tasks and rewards"},
    {"eval.source", NULL, NULL, "environments and data are the recipe's tasks and rewards"},
    {"deployment.num_train_gpus", NULL, NULL, PLACE},
    {"deployment.num_infer_gpus", NULL, NULL, PLACE},
    {"deployment.gpus_per_node", NULL, NULL, PLACE},
    {"inference", NULL, NULL, "reckon samples itself, with the trainer's own bits"},
    {"inference.vllm.gpu_memory_utilization", NULL, NULL, "reckon samples itself, with the trainer's own bits"},
    {"inference.vllm.max_model_len", NULL, NULL, "reckon samples itself, with the trainer's own bits"},
    {0},
};
static void prime_finish(Conversion *c) {
    double samples = number(c, "orchestrator.batch_size", 0);
    const json_t *size = json_object_get(json_object_get(c->recipe, "stage"), "group_size"), *items = seen(c, "orchestrator.eval.num_examples");
    double group = json_is_number(size) ? json_number_value(size) : 1;
    if (samples >= group) put_count(c, "stage", "prompts", samples / group);
    if (json_is_number(items) && json_number_value(items) < 0) take_out(c, "evaluate", "items"); // -1: all of them
    if (number(c, "orchestrator.eval.group_size", 0) == 1) take_out(c, "evaluate", "samples");
}

const Program programs[] = {
    {"trl", "TRL", "trl", trl_options, trl_finish},
    {"verl", "verl", "verl", verl_options, verl_finish},
    {"openrlhf", "OpenRLHF", NULL, openrlhf_options, openrlhf_finish},
    {"prime", "prime-rl", "prime", prime_options, prime_finish},
    {0},
};

const Program *program_named(const char *name) {
    for (const Program *p = programs; p->name; p++)
        if (!strcmp(p->name, name)) return p;
    return NULL;
}

const OptionMap *program_row(const Program *p, const char *path) {
    const OptionMap *best = NULL;
    for (const OptionMap *o = p->options; o->theirs; o++) {
        size_t n = strlen(o->theirs), all = strlen(path);
        bool ends = all >= n && !strcmp(path + all - n, o->theirs) && (all == n || path[all - n - 1] == '.');
        if (ends && (!best || n > strlen(best->theirs))) best = o;
    }
    return best;
}

json_t *program_word(const OptionMap *row, const json_t *value) {
    char text[64];
    if (json_is_boolean(value)) snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
    else if (json_is_string(value)) snprintf(text, sizeof text, "%s", json_string_value(value));
    else return NULL;
    for (const char *w = row->words; *w;) {
        size_t key = strcspn(w, "="), end = strcspn(w, "|");
        if (strlen(text) == key && !strncmp(w, text, key)) return json_stringn(w + key + 1, end - key - 1);
        w += end + (w[end] == '|');
    }
    return NULL;
}
