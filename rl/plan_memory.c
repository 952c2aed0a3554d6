// The memory of a run, before it starts: what its own code will ask for (plan_policy counts it), for the batches that the
// recipe makes of items like its first ones. Completions are taken to be as long as they may be.
#include "plan_memory.h"
#include "stages.h"
#include <stdlib.h>

enum { LOOKED_AT = 16 };

// ---- lengths ---------------------------------------------------------------------------------------------
static bool open_tokenizer(const Recipe *r, Tokenizer **out, Err *err) {
    return r->model_path ? tokenizer_open(r->model_path, out, err) : tokenizer_from_characters(r->characters, out, err);
}
// What is sampled is as long as it may be, and so are rows that were sampled; other examples are measured.
static int64_t sampled_tokens(const Recipe *r, const Stage *s) {
    return stage_row(s)->samples ? s->sampling.max_tokens : s->data ? r->evaluate_sampling.max_tokens : 0;
}
static bool measure_stage(const Recipe *r, const Tasks *tasks, const Tokenizer *t, const Stage *s, PlanLength *out, Err *err) {
    Arena arena = {0};
    int64_t prompt = 0, answer = 0;
    bool ok = true;
    for (int i = 0; ok && i < LOOKED_AT; i++) {
        Item item;
        Ids ids = {0}, target = {0};
        Mode mode = s->mode_share[MODE_THINK] > 0 ? MODE_THINK : MODE_DIRECT;
        ok = tasks_train_item(tasks, s, (uint64_t)i, &arena, &item, err) && prompt_render(r, t, &item, mode, &ids, err) &&
             (sampled_tokens(r, s) || demonstration_render(r, t, &item, mode, &target, err));
        if (ids.count > prompt) prompt = ids.count;
        answer += target.count;
        ids_free(&ids), ids_free(&target);
    }
    arena_reset(&arena);
    if (ok) *out = (PlanLength){.prompt = prompt, .answer = sampled_tokens(r, s) ? sampled_tokens(r, s) : answer / LOOKED_AT + 1};
    return ok;
}
// What can't be measured (rows that an earlier stage will make) keeps a guess.
static void measure_stages(const Recipe *r, const Tasks *tasks, const Tokenizer *t, PlanLength *out) {
    Err ignored = {0};
    for (int i = 0; i < r->stage_count; i++)
        out[i] = (PlanLength){.prompt = r->chat ? 64 : 16, .answer = sampled_tokens(r, &r->stages[i]) ? sampled_tokens(r, &r->stages[i]) : 32};
    for (int i = 0; tasks && t && i < r->stage_count; i++)
        if (!measure_stage(r, tasks, t, &r->stages[i], &out[i], &ignored)) break;
}
void plan_lengths(const Recipe *r, PlanLength *out) {
    Err ignored = {0};
    Tokenizer *t = NULL;
    Tasks *tasks = NULL;
    bool ok = open_tokenizer(r, &t, &ignored) && tasks_open(r, &tasks, &ignored);
    measure_stages(r, ok ? tasks : NULL, t, out);
    if (tasks) tasks_close(tasks);
    if (t) tokenizer_close(t);
}

// ---- batches ---------------------------------------------------------------------------------------------
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t pages_of(int64_t tokens) { return (tokens + 31) / 32; }

// As many tokens as a microbatch may hold, or a minibatch has.
static void pass_shape(const Stage *s, const PlanLength *l, const PlanChoice *choice, PlanShape *out) {
    int64_t samples = stage_row(s)->samples ? s->group_size : 1, minibatches = larger(1, s->algo.minibatches), groups = (s->batch + minibatches - 1) / minibatches;
    int64_t group = l->prompt + samples * l->answer, part = larger(smaller(group, packing_part_limit(l->prompt)), l->prompt + l->answer);
    int64_t tokens = smaller(groups * group, larger(part, smaller(choice->limit, microbatch_limit(s, choice->on_host))));
    if (tokens > out->tokens) {
        out->tokens = tokens;
        out->groups = larger(1, tokens / group);
        out->sequences = larger(1, tokens / (l->prompt / samples + l->answer));
        out->targets = smaller(tokens, out->sequences * l->answer);
    }
    out->positions = larger(out->positions, l->prompt + l->answer);
}
static void rollout_shape(int64_t requests, int64_t samples, int64_t prompt, int64_t answer, const PlanChoice *choice, PlanShape *out) {
    int64_t places = smaller(policy_places(choice->on_host), requests * samples), shared = prompt / 32;
    int64_t pages = smaller(places * pages_of(prompt + answer), requests * (shared + samples * (pages_of(prompt + answer) - shared)));
    out->places = larger(out->places, larger(places, samples));
    out->rollout_pages = larger(out->rollout_pages, pages);
    out->rollout_rows = larger(out->rollout_rows, larger(places, prompt) + policy_prefill_rows(choice->on_host));
}

// What a stage's rollout would keep for training.
static void retained_shape(const Stage *s, const PlanLength *l, PlanShape *out) {
    int64_t shared = l->prompt / 32, attempts = 1 + s->algo.refills;
    int64_t pages = attempts * s->batch * (shared + s->group_size * (pages_of(l->prompt + l->answer) - shared));
    if (s->activations == RETAIN_NEVER || s->staleness > 0 || s->partial > 0 || s->rollout_precision != ROLLOUT_SAME) return;
    if (pages > out->retained_pages) out->retained_pages = pages, out->retain = s->activations;
}

// The largest of the stages' teachers, as only one is there at a time: its weights, its forward pass, its samples.
static bool teacher_memory(const Recipe *r, const PlanShape *shape, Precision precision, PlanMemory *out, Err *err) {
    PlanBytes most = {0};
    for (int i = 0; i < r->stage_count; i++) {
        const Stage *s = &r->stages[i];
        PlanBytes bytes;
        char *model = NULL;
        if (!s->teacher || teacher_is_endpoint(s)) continue;
        bool samples = s->kind == STAGE_REJECT || s->off_policy == OFF_POLICY_TEACHER, learned = s->kind == STAGE_DISTILL;
        PlanShape own = *shape;
        if (!learned) own.tokens = own.targets = own.groups = own.sequences = 0;
        if (!samples) own.rollout_rows = own.rollout_pages = own.places = 0;
        PolicyOptions o = {.precision = precision, .threads = r->threads, .keep_blocks = true};
        bool ok = model_find(s->teacher, &model, err) && plan_policy(model, NULL, &o, &own, &bytes, err);
        free(model);
        TRY(ok);
        if (bytes.weights + bytes.pass + bytes.rollout > most.weights + most.pass + most.rollout) most = bytes;
    }
    out->weights += most.weights, out->pass += most.pass, out->cache += most.rollout;
    return true;
}

// The largest batches of a run.
static void plan_shape(const Recipe *r, const PlanLength *lengths, const PlanChoice *choice, PlanShape *out) {
    *out = (PlanShape){.on_device = !choice->on_host, .truncates = is_truncated(&r->evaluate_sampling)};
    for (int i = 0; i < r->stage_count; i++) {
        const Stage *s = &r->stages[i];
        out->truncates |= stage_row(s)->samples && is_truncated(&s->sampling);
        if (stage_row(s)->trains) pass_shape(s, &lengths[i], choice, out);
        if (s->kind == STAGE_GRPO) retained_shape(s, &lengths[i], out);
        if (stage_row(s)->samples && !teacher_is_endpoint(s)) rollout_shape(s->batch, s->group_size, lengths[i].prompt, lengths[i].answer, choice, out);
    }
    int64_t items = larger(r->evaluate_items, r->compare_items); // of a level, which is a rollout of its own
    if (items > 0 && r->stage_count > 0) rollout_shape(items, 1, lengths[r->stage_count - 1].prompt, r->evaluate_sampling.max_tokens, choice, out);
}

bool plan_reserve(const Recipe *r, const Tasks *tasks, Policy *policy, Err *err) {
    PlanShape shape;
    PlanLength *lengths = xcalloc((size_t)r->stage_count + 1, sizeof *lengths);
    PlanChoice choice = {.precision = r->precision, .on_host = policy_on_host(policy), .limit = INT64_MAX};
    measure_stages(r, tasks, policy_tokenizer(policy), lengths);
    plan_shape(r, lengths, &choice, &shape);
    free(lengths);
    return policy_reserve(policy, &shape, err);
}

bool plan_memory(const ModelConfig *c, const Recipe *r, const PlanLength *lengths, const PlanChoice *choice, PlanMemory *out, Err *err) {
    PlanShape shape;
    PlanBytes bytes;
    bool reference = false;
    int64_t group = 0;
    Precision precision = choice->precision;
    plan_shape(r, lengths, choice, &shape);
    for (int i = 0; i < r->stage_count; i++) {
        const Stage *s = &r->stages[i];
        if (!stage_row(s)->samples) continue;
        reference |= s->algo.kl > 0;
        group = larger(group, lengths[i].prompt + s->group_size * (lengths[i].answer + 32));
    }
    PolicyOptions o = {.precision = precision, .threads = r->threads, .trainable = true, .lora = r->lora, .keep_blocks = r->keep_blocks,
                       .int8 = recipe_samples_int8(r)};
    TRY(plan_policy(r->model_path, c, &o, &shape, &bytes, err));
    *out = (PlanMemory){.weights = bytes.weights, .pass = bytes.pass, .cache = bytes.rollout, .largest = bytes.largest,
                        .one_group = plan_cache_bytes(c, precision, group)};
    TRY(teacher_memory(r, &shape, precision, out, err));
    if (!reference || r->lora.rank > 0) return true; // an adapter's reference is the base that is there anyway
    PolicyOptions frozen = {.precision = precision, .threads = r->threads};
    PlanShape forward = {.tokens = shape.tokens, .targets = shape.targets, .groups = shape.groups, .sequences = shape.sequences, .positions = shape.positions, .on_device = shape.on_device};
    TRY(plan_policy(r->model_path, c, &frozen, &forward, &bytes, err));
    out->weights += bytes.weights;
    out->pass += plan_cache_bytes(c, precision, shape.tokens);
    return true;
}
