// reckon bench: what this machine reaches on a model: decoding, training, a whole GRPO step, matrix products. Runs on
// random token ids, so that any model with or without a tokenizer can be measured; rewards of `step` are drawn so that
// every group has variance, or all but some.
#include "command.h"
#include "files.h"
#include "stages.h"
#include "tokenizer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Bench {
    const Args *args;
    Policy *p;
    int batch, prompt_tokens, new_tokens, prompts, group, flat;
    int64_t tokens;        // that count for tokens_per_second
    double seconds, bytes; // bytes: weights and cache read, at least
    double flops;
    bool int8;             // rollouts in 8 bits
    double sampler_gap;    // of `step` then
    json_t *stages;        // seconds by stage, or NULL
    json_t *profile;       // seconds by operation, or NULL
} Bench;

static int32_t *random_ids(const Policy *p, int count, uint64_t seed) {
    Random r = random_start(seed, STREAM_TEST, 0);
    int32_t *ids = xmalloc((size_t)(count + 1) * sizeof *ids);
    for (int i = 0; i < count; i++) ids[i] = (int32_t)random_below(&r, (uint32_t)policy_config(p)->vocabulary);
    return ids;
}

// Requests of `count` prompts with `samples` completions each, all of them to the end.
static RolloutRequest *make_requests(const Bench *b, int count, int samples, const int32_t *ids) {
    RolloutRequest *requests = xcalloc((size_t)count, sizeof *requests);
    for (int i = 0; i < count; i++)
        requests[i] = (RolloutRequest){.prompt = ids + (int64_t)i * b->prompt_tokens, .prompt_length = b->prompt_tokens, .samples = samples,
                                       .sampling = {.temperature = 1, .top_p = 1, .max_tokens = b->new_tokens, .ignore_eos = true},
                                       .seed = 1, .step = 1, .prompt_index = (uint32_t)i};
    return requests;
}

static bool bench_decode(Bench *b, Err *err) {
    int count = b->batch / b->group;
    int32_t *ids = random_ids(b->p, count * b->prompt_tokens, 1);
    RolloutRequest *requests = make_requests(b, count, b->group, ids);
    Rollout r;
    double flops = policy_flops(b->p);
    bool ok = policy_rollout(b->p, requests, count, &(RolloutOptions){.int8 = b->int8}, &r, err);
    free(requests), free(ids);
    TRY(ok);
    b->tokens = r.new_tokens;
    b->seconds = r.prefill_seconds + r.decode_seconds;
    b->flops = policy_flops(b->p) - flops;
    const ModelConfig *c = policy_config(b->p);
    double act = policy_precision(b->p) == PRECISION_BF16 ? 2 : 4, position = c->layers * 2.0 * c->kv_heads * c->head_width * act;
    double positions = (double)count * b->prompt_tokens + b->batch * (b->new_tokens / 2.0); // a shared prompt is read once
    double weight = b->int8 ? 1 + 4.0 / 64 : act; // in 8 bits 64 share a scale
    b->bytes = b->new_tokens * ((double)config_parameters(c) * weight + positions * position);
    b->stages = json_pack("{s:f,s:f}", "prefill", r.prefill_seconds, "decode", r.decode_seconds);
    rollout_free(&r);
    return true;
}

// One microbatch: the passes over what is packed.
static bool train_microbatch(Bench *b, Packing *packing, float weight, Err *err) {
    const Packed *batch = packing_view(packing);
    float *logprob = xcalloc((size_t)batch->target_count, 4), *dlogprob = xcalloc((size_t)batch->target_count, 4);
    for (int32_t i = 0; i < batch->target_count; i++) dlogprob[i] = weight;
    bool ok = policy_forward_backward(b->p, batch, dlogprob, NULL, logprob, NULL, err);
    free(logprob), free(dlogprob);
    packing_reset(packing, 1.0);
    return ok;
}

// A step as `reckon train` makes it, in microbatches of the size that it takes.
static bool bench_train(Bench *b, Err *err) {
    int n = b->new_tokens;
    int64_t limit = microbatch_limit(&(Stage){0}, policy_on_host(b->p));
    int32_t *ids = random_ids(b->p, b->batch * n, 2);
    float weight = -1.0f / (float)((int64_t)b->batch * (n - 1));
    Packing packing = {0};
    packing_reset(&packing, 1.0);
    double start = clock_seconds(), flops = policy_flops(b->p), passed;
    policy_zero_gradients(b->p);
    bool ok = true;
    for (int i = 0; ok && i < b->batch; i++) {
        if (packing_is_full(&packing, n - 1, limit)) ok = train_microbatch(b, &packing, weight, err);
        packing_prompt(&packing, ids + i * n, 1);
        packing_completion(&packing, &(Completion){.ids = ids + i * n + 1, .length = n - 1});
    }
    ok = ok && train_microbatch(b, &packing, weight, err);
    passed = clock_seconds();
    if (ok) {
        double norm = policy_gradient_norm(b->p);
        ok = policy_update(b->p, &(AdamW){.learning_rate = 1e-6, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .scale = norm > 1 ? 1 / norm : 1}, err);
    }
    double end = clock_seconds();
    b->tokens = (int64_t)b->batch * n;
    b->seconds = end - start;
    b->flops = policy_flops(b->p) - flops;
    b->bytes = (double)policy_bytes(b->p);
    b->stages = json_pack("{s:f,s:f}", "passes", passed - start, "optimizer", end - passed);
    free(ids);
    packing_free(&packing);
    return ok;
}

static bool bench_step(Bench *b, Err *err) {
    Stage stage = {.kind = STAGE_GRPO, .steps = 1, .batch = b->prompts, .group_size = b->group,
                   .sampling = {.temperature = 1, .top_p = 1, .max_tokens = b->new_tokens, .ignore_eos = true},
                   .algo = algo_default(),
                   .optimizer = {.learning_rate = 1e-6, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_gradient_norm = 1, .schedule = SCHEDULE_CONSTANT}};
    Batch batch = {.step = 1, .stage = &stage, .stage_step = 1, .prompt_count = b->prompts, .group_size = b->group,
                   .episode_count = b->prompts * b->group};
    batch.prompts = ARENA_NEW(&batch.arena, Prompt, batch.prompt_count);
    batch.episodes = ARENA_NEW(&batch.arena, Episode, batch.episode_count);
    if (b->int8) stage.rollout_precision = ROLLOUT_INT8, stage.algo.correction.level = CORRECTION_TOKEN;
    int32_t *ids = random_ids(b->p, b->prompts * b->prompt_tokens, 3);
    for (int i = 0; i < b->prompts; i++) batch.prompts[i].ids = (Ids){.data = ids + i * b->prompt_tokens, .count = b->prompt_tokens};
    RolloutRequest *requests = make_requests(b, b->prompts, b->group, ids);
    StepReport report = {0};
    Trainer t = {.policy = b->p};
    double start = clock_seconds(), flops = policy_flops(b->p);
    bool ok = policy_rollout(b->p, requests, b->prompts, &(RolloutOptions){.int8 = b->int8, .retain = RETAIN_AUTO}, &batch.rollout, err);
    double sampled = clock_seconds();
    for (int i = 0; ok && i < batch.episode_count; i++)
        batch.episodes[i] = (Episode){.prompt = i / b->group, .sample = i % b->group, .completion = batch.rollout.completions[i],
                                      .verdict = {.state = VERDICT_SCORED, .score = i / b->group < b->flat ? 1 : i % 2}};
    if (ok) advantages_assign(NULL, &stage, &batch, &report);
    ok = ok && update_batch(&t, &batch, &report, err);
    b->seconds = clock_seconds() - start;
    b->sampler_gap = report.sampler_gap;
    b->tokens = batch.rollout.new_tokens;
    b->flops = policy_flops(b->p) - flops;
    b->bytes = (double)policy_bytes(b->p);
    b->stages = json_pack("{s:f,s:f,s:f}", "rollout", sampled - start, "train", report.measured.train, "optimizer", report.measured.optimizer);
    batch_free(&batch);
    free(requests), free(ids);
    return ok;
}

static json_t *result(const Bench *b, const char *kind) {
    const ModelConfig *c = policy_config(b->p);
    json_t *configuration = json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:i,s:i,s:i,s:i,s:i,s:i}", "kind", kind, "model", args_text(b->args, "model", ""),
                                      "precision", policy_precision(b->p) == PRECISION_BF16 ? "bf16" : "fp32", "variant", policy_variant(b->p),
                                      "threads", policy_threads(b->p), "parameters", (json_int_t)config_parameters(c), "batch", b->batch,
                                      "prompt_tokens", b->prompt_tokens, "new_tokens", b->new_tokens, "prompts", b->prompts, "group", b->group, "flat_groups", b->flat);
    if (b->int8) json_object_set_new(configuration, "rollouts", json_string("int8"));
    if (b->sampler_gap > 0) json_object_set_new(configuration, "sampler_gap", json_real(b->sampler_gap));
    json_t *out = json_pack("{s:o,s:f,s:f,s:f,s:f,s:I,s:O}", "configuration", configuration, "tokens_per_second", (double)b->tokens / b->seconds,
                     "flops_per_second", b->flops / b->seconds, "bytes_per_second", b->bytes / b->seconds, "total_seconds", b->seconds,
                     "peak_bytes", (json_int_t)memory_peak_bytes(), "seconds", b->stages);
    if (b->profile) json_object_set(out, "profile", b->profile);
    if (policy_peak_device_bytes(b->p)) json_object_set_new(out, "peak_device_bytes", json_integer((json_int_t)policy_peak_device_bytes(b->p)));
    return out;
}

// What the machine could do at best, beside what was reached.
static bool add_peaks(const Args *args, json_t *out, Err *err) {
    Precision precision = strcmp(args_text(args, "precision", "bf16"), "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32;
    double flops, bytes;
    TRY(probe_peaks(args_text(args, "device", NULL), precision, (int)args_int(args, "threads", 0), &flops, &bytes, err));
    json_object_set_new(out, "machine_flops_per_second", json_number_or_name(flops));
    json_object_set_new(out, "machine_bytes_per_second", json_number_or_name(bytes));
    return true;
}

static double number(const json_t *out, const char *key) { return json_number_value(json_object_get(out, key)); }
static void print_share(const json_t *out, const char *key, const char *machine, double unit, int digits, const char *name) {
    printf(", %.*f %s", digits, number(out, key) / unit, name);
    if (number(out, machine) > 0) printf(" (%.0f %% of the machine's %.*f)", 100 * number(out, key) / number(out, machine), digits, number(out, machine) / unit);
}

// What is left over is what lies between the operations: the host's own work.
static void print_profile(const json_t *out) {
    const json_t *row;
    size_t i;
    double total = number(out, "total_seconds"), rest = total;
    json_array_foreach(json_object_get(out, "profile"), i, row) {
        const char *shape = json_string_value(json_object_get(row, "shape"));
        printf("%5.1f %%  %-14s %-16s %8.0f calls", 100 * number(row, "seconds") / total, json_string_value(json_object_get(row, "operation")),
               shape ? shape : "", number(row, "calls"));
        if (number(row, "flops_per_second") > 0) printf("  %6.1f GFLOP/s", number(row, "flops_per_second") / 1e9);
        putchar('\n');
        rest -= number(row, "seconds");
    }
    printf("%5.1f %%  between them\n", 100 * rest / total);
}

static bool print_result(const Args *args, json_t *out, Err *err) {
    bool ok = true;
    if (args_flag(args, "json")) {
        ok = print_json(out, err);
    } else {
        printf("%.1f tokens/s", number(out, "tokens_per_second"));
        print_share(out, "flops_per_second", "machine_flops_per_second", 1e9, 1, "GFLOP/s");
        print_share(out, "bytes_per_second", "machine_bytes_per_second", 1e9, 2, "GB/s");
        printf(", %.2f s, peak memory %.0f MiB\n", number(out, "total_seconds"), number(out, "peak_bytes") / 1048576);
        if (json_object_get(out, "profile")) print_profile(out);
    }
    json_decref(out);
    return ok;
}

static bool bench_machine(const Args *args, Err *err) {
    json_t *out = json_object();
    TRY(add_peaks(args, out, err));
    json_object_set_new(out, "precision", json_string(args_text(args, "precision", "bf16")));
    bool ok = true;
    if (args_flag(args, "json")) ok = print_json(out, err);
    else if (number(out, "machine_flops_per_second") > 0)
        printf("%s products in registers: %.1f GFLOP/s; memory read: %.2f GB/s\n", args_text(args, "precision", "bf16"),
               number(out, "machine_flops_per_second") / 1e9, number(out, "machine_bytes_per_second") / 1e9);
    else printf("the peaks of this device aren't measured\n");
    json_decref(out);
    return ok;
}

static bool bench_gemm(const Args *args, Precision precision, Err *err) {
    int64_t M = args_int(args, "batch", 64), N = args_int(args, "columns", 1536), K = args_int(args, "depth", 576);
    double flops;
    TRY(probe_flops(args_text(args, "device", NULL), precision, (int)args_int(args, "threads", 0), M, N, K, 1.0, &flops, NULL, err));
    double bytes = (double)(N * K) * (precision == PRECISION_BF16 ? 2 : 4) * flops / (2.0 * (double)(M * N * K));
    json_t *out = json_pack("{s:{s:s,s:I,s:I,s:I,s:s},s:f,s:f,s:f,s:f,s:I}", "configuration", "kind", "gemm", "rows", (json_int_t)M,
                                        "columns", (json_int_t)N, "depth", (json_int_t)K, "precision", precision == PRECISION_BF16 ? "bf16" : "fp32",
                                        "tokens_per_second", flops / (2.0 * (double)(N * K)), "flops_per_second", flops, "bytes_per_second", bytes,
                                        "total_seconds", 1.0, "peak_bytes", (json_int_t)memory_peak_bytes());
    TRY(add_peaks(args, out, err));
    return print_result(args, out, err);
}

// Text in pieces of 4 KiB, cut between characters, on one thread: what a data set costs.
static bool encode_pieces(const Tokenizer *t, const Buf *text, int64_t *tokens, double *seconds, Err *err) {
    Ids ids = {0};
    bool ok = true;
    double start = clock_cpu_seconds();
    *tokens = 0;
    for (size_t at = 0, end; ok && at < text->size; at = end) {
        end = at + 4096 < text->size ? at + 4096 : text->size;
        while (end < text->size && ((unsigned char)text->data[end] & 0xC0) == 0x80) end++;
        ids.count = 0;
        ok = tokenizer_encode(t, text->data + at, end - at, false, &ids, err);
        *tokens += ids.count;
    }
    *seconds = clock_cpu_seconds() - start;
    ids_free(&ids);
    return ok;
}
static bool bench_tokenize(const Args *args, Err *err) {
    enum { TEXT_LIMIT = 1 << 30 };
    const char *path = args_text(args, "text", NULL);
    if (!path || !args_given(args, "model")) return fail(err, ERR_USAGE, "bench tokenize", "--model MODEL and --text FILE are needed");
    Tokenizer *t;
    Buf text = {0};
    TRY(tokenizer_open(args_text(args, "model", NULL), &t, err));
    bool ok = file_read(path, TEXT_LIMIT, &text, err);
    int64_t tokens = 0;
    double seconds = 0;
    for (int i = 0, runs = 1 + (int)args_int(args, "warm-up", 1); ok && i < runs; i++) ok = encode_pieces(t, &text, &tokens, &seconds, err);
    double per_second = seconds > 0 ? 1 / seconds : 0;
    ok = ok && print_result(args, json_pack("{s:{s:s,s:I,s:I},s:f,s:f,s:f,s:f,s:I}", "configuration", "kind", "tokenize", "bytes",
                                            (json_int_t)text.size, "tokens", (json_int_t)tokens, "tokens_per_second", (double)tokens * per_second,
                                            "flops_per_second", 0.0, "bytes_per_second", (double)text.size * per_second, "total_seconds", seconds,
                                            "peak_bytes", (json_int_t)memory_peak_bytes()), err);
    buf_free(&text);
    tokenizer_close(t);
    return ok;
}

static bool check_shape(const Bench *b, const char *kind, Err *err) {
    if (!strcmp(kind, "train") && b->new_tokens < 2) return fail(err, ERR_USAGE, "bench --new-tokens", "found %d, expected at least 2 to train on", b->new_tokens);
    if (!strcmp(kind, "decode") && b->batch % b->group) return fail(err, ERR_USAGE, "bench --group", "found %d, expected a divisor of the batch, %d", b->group, b->batch);
    if (!strcmp(kind, "step") && b->group < 2) return fail(err, ERR_USAGE, "bench --group", "found %d, expected at least 2 for a step", b->group);
    if (b->flat >= b->prompts && b->flat) return fail(err, ERR_USAGE, "bench --flat-groups", "found %d, expected less than the prompts, %d", b->flat, b->prompts);
    return true;
}

static int by_seconds(const void *a, const void *b) {
    const Bench *x = a, *y = b;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}
static void forget(Bench *b) {
    json_decref(b->stages);
    json_decref(b->profile);
    b->stages = b->profile = NULL;
}

static bool run(const Args *args, Err *err) {
    const char *kind = args->positional[0];
    bool decode = !strcmp(kind, "decode"), train_kind = !strcmp(kind, "train"), step = !strcmp(kind, "step"), gemm = !strcmp(kind, "gemm");
    if (!strcmp(kind, "tokenize")) return bench_tokenize(args, err);
    if (!strcmp(kind, "machine")) return bench_machine(args, err);
    if (!decode && !train_kind && !step && !gemm)
        return fail(err, ERR_USAGE, "bench", "found '%.40s', expected decode, train, step, gemm, tokenize or machine", kind);
    Precision precision = strcmp(args_text(args, "precision", "bf16"), "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32;
    if (gemm) return bench_gemm(args, precision, err);
    if (!args_given(args, "model")) return fail(err, ERR_USAGE, "bench", "--model MODEL is missing");
    Bench b = {.args = args, .batch = (int)args_int(args, "batch", train_kind ? 8 : 64), .prompt_tokens = (int)args_int(args, "prompt-tokens", 32),
               .new_tokens = (int)args_int(args, "new-tokens", train_kind ? 256 : 64), .prompts = (int)args_int(args, "prompts", 2),
               .flat = (int)args_int(args, "flat-groups", 0), .int8 = !strcmp(args_text(args, "rollouts", "same"), "int8")};
    if (b.int8 && train_kind) return fail(err, ERR_USAGE, "bench --rollouts", "training samples nothing, expected decode or step");
    b.group = (int)args_int(args, "group", decode ? b.batch : 8);
    TRY(check_shape(&b, kind, err));
    PolicyOptions o = {.precision = precision, .threads = (int)args_int(args, "threads", 0),
                       .device = args_text(args, "device", NULL), .trainable = !decode, .int8 = b.int8};
    bool ok = policy_open(args_text(args, "model", NULL), &o, &b.p, err), profile = args_flag(args, "profile");
    if (ok && profile) ok = policy_profile(b.p, err);
    int warm_up = (int)args_int(args, "warm-up", 1), runs = (int)args_int(args, "runs", 1), done = 0;
    Bench *counted = xcalloc((size_t)runs, sizeof *counted);
    for (; ok && done < warm_up + runs; done++) {
        Bench *one = &counted[done < warm_up ? 0 : done - warm_up];
        forget(one);
        *one = b;
        ok = decode ? bench_decode(one, err) : train_kind ? bench_train(one, err) : bench_step(one, err);
        if (ok && profile) one->profile = policy_take_profile(b.p);
    }
    qsort(counted, (size_t)runs, sizeof *counted, by_seconds);
    json_t *out = ok ? result(&counted[runs / 2], kind) : NULL;
    for (int i = 0; i < runs; i++) forget(&counted[i]);
    free(counted);
    policy_close(b.p);
    ok = ok && add_peaks(args, out, err);
    return ok && print_result(args, out, err);
}

static const Option options[] = {
    {.name = "model", .kind = OPTION_TEXT, .value = "MODEL", .help = "a Hugging Face folder or a .gguf file"},
    {.name = "batch", .kind = OPTION_INT, .value = "B", .help = "sequences (decode 64, train 8); gemm: rows", .low = 1, .high = 65536},
    {.name = "prompt-tokens", .kind = OPTION_INT, .value = "P", .help = "tokens of the shared prompt (32)", .low = 1, .high = 1e6},
    {.name = "new-tokens", .kind = OPTION_INT, .value = "N", .help = "new tokens a sequence (64); train: its tokens (256)", .low = 1, .high = 1e6},
    {.name = "prompts", .kind = OPTION_INT, .value = "Q", .help = "step: prompts (2)", .low = 1, .high = 65536},
    {.name = "group", .kind = OPTION_INT, .value = "G", .help = "samples a prompt (step 8, decode all of the batch)", .low = 1, .high = 65536},
    {.name = "flat-groups", .kind = OPTION_INT, .value = "F", .help = "step: groups whose rewards are all equal (0)", .low = 0, .high = 65535},
    {.name = "text", .kind = OPTION_TEXT, .value = "FILE", .help = "tokenize: UTF-8 text to encode"},
    {.name = "columns", .kind = OPTION_INT, .value = "N", .help = "gemm: columns (1536)", .low = 1, .high = 1e6},
    {.name = "depth", .kind = OPTION_INT, .value = "K", .help = "gemm: depth (576)", .low = 1, .high = 1e6},
    {.name = "precision", .kind = OPTION_CHOICE, .value = "fp32|bf16", .help = "of weights and activations (bf16)"},
    {.name = "rollouts", .kind = OPTION_CHOICE, .value = "same|int8", .help = "decode, step: products that sample (same); int8: on the CPU, with weights in 8 bits"},
    {.name = "threads", .kind = OPTION_INT, .value = "T", .help = "threads (all cores)", .low = 1, .high = 256},
    OPTION_DEVICE,
    {.name = "warm-up", .kind = OPTION_INT, .value = "R", .help = "runs before those that count (1)", .low = 0, .high = 100},
    {.name = "runs", .kind = OPTION_INT, .value = "R", .help = "decode, train, step: runs that count, of which the median is told (1)", .low = 1, .high = 100},
    {.name = "profile", .kind = OPTION_FLAG, .help = "decode, train, step: where the time goes, by operation (CPU)"},
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};

const Command command_bench = {
    .name = "bench",
    .summary = "measure decoding, training, a GRPO step, matrix products, tokenizing, and what this machine could do at best",
    .usage = "decode|train|step|gemm|tokenize|machine --model MODEL [--batch B] [--prompt-tokens P] [--new-tokens N] [--threads T] --json",
    .detail = "decode: B sequences share a prompt of P tokens, N new tokens each, sampling and log-probabilities counted. train: forward, "
              "backward and optimizer on B sequences of N tokens, in microbatches as training has them. step: rollout and update of Q prompts with "
              "G samples each. tokenize: FILE in pieces of 4 KiB on one thread, CPU time. machine: the processor's peaks, which stand "
              "beside every other figure: products that never leave the registers, and memory read from one end to the other.",
    .example = "reckon bench decode --model models/SmolLM2-135M-Instruct.Q4_1.gguf --batch 64 --json",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
