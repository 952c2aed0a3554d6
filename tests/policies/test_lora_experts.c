// Adapters on the experts of mixtures: what is written, merged on the way out, gives the same numbers; the gradients of the
// factors are those that the merged weights' gradients say (dA = s B^T dW, dB = s dW A^T); the sampler and the trainer agree,
// microbatches leave no trace, and factors of experts that are no target don't exist.
#include "export.h"
#include "files.h"
#include "test_folder.h"
#include "mixture_test.h"
#include <math.h>

enum { RANK = 3 };
// Every product of the layers, routers too.
static const char *const every[KINDS][12] = {
    {"gate", "q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"},
    {"gate", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    {"gate", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    {"gate", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
};
// Named rows at random, what is padding stays zero.
static void move_adapter(Policy *p, const Adapter *a) {
    Err err = {0};
    Random r = random_start(5, STREAM_TEST, 2);
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        float *values = xcalloc((size_t)(q->N * q->K), sizeof *values);
        for (int k = 0; k < q->part_count; k++)
            for (int64_t row = 0; row < q->parts[k].rows; row++)
                for (int64_t j = 0, n = q->scale != 0 ? q->rank : q->K; j < n; j++)
                    values[(q->parts[k].row + row) * q->K + j] = (float)(0.2 * random_normal(&r));
        OK(parameter_set(p, q, values, &err));
        free(values);
    }
}
// A base in the folder, made once, and on it a new adapter that isn't zero.
static Policy *adapted(int kind, Precision precision, int threads, const char *const *targets, bool moved) {
    Err err = {0};
    ModelConfig c = mixture_config(kind);
    Policy *p;
    if (!file_exists(inside(c.model_type))) {
        p = policy_make(&c, NULL, PRECISION_FP32, 1);
        OK(policy_save(p, inside(c.model_type), "F32", &err));
        policy_close(p);
    }
    PolicyOptions o = {.precision = precision, .threads = threads, .device = "cpu", .trainable = true,
                       .lora = {.rank = RANK, .alpha = 6, .rslora = kind % 2, .seed = 3, .targets = targets}};
    OK(policy_open(inside(c.model_type), &o, &p, &err));
    if (moved) move_adapter(p, p->active);
    return p;
}
static Policy *merged(const Policy *adapter, bool trainable) {
    Err err = {0};
    Weights *w;
    Merge *m;
    Policy *p;
    OK(policy_save(adapter, inside("adapter"), "F32", &err));
    OK(weights_open(adapter->base_path, false, &w, &err));
    OK(merge_open(inside("adapter"), w, &m, &err));
    OK(export_hf(w, inside("merged"), &(ExportOptions){.type = "F32", .add = merge_add, .adds = merge_adds, .context = m}, &err));
    merge_close(m), weights_close(w);
    OK(policy_open(inside("merged"), &(PolicyOptions){.threads = 1, .device = "cpu", .trainable = trainable}, &p, &err));
    return p;
}

static const int32_t groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 5, 4}, {33, 2, 11}, {7, 4, 3}};
static void check_logprobs(Policy *a, Policy *b) {
    enum { T = 60 };
    Err err = {0};
    Batch batch = {0};
    Random r = random_start(9, STREAM_TEST, 0);
    int32_t ids[T];
    float x[T], y[T];
    random_ids(&r, policy_config(a)->vocabulary, T, ids);
    batch_prompt(&batch, ids, 1);
    batch_completion(&batch, ids + 1, T - 1, NULL, NULL);
    const Packed *v = batch_view(&batch, 1);
    OK(policy_forward(a, v, false, x, NULL, &err) && policy_forward(b, v, false, y, NULL, &err));
    for (int i = 0; i < v->target_count; i++) CHECK_NEAR(x[i], y[i], 1e-4);
    batch_free(&batch);
}

// ---- gradients -------------------------------------------------------------------------------------------
// A tensor by name, and its rows in `gradient` or, read back, in `values` of its parameter.
static const ParameterPart *find(const Parameter *list, int count, const char *name, const Parameter **q) {
    for (int i = 0; i < count; i++)
        for (int k = 0; k < list[i].part_count; k++)
            if (strcmp(list[i].parts[k].name, name) == 0) {
                *q = &list[i];
                return &list[i].parts[k];
            }
    FAIL("there is no %s", name);
}
static void check_near(const char *name, const double *got, const double *want, int64_t count) {
    double norm = 0, off = 0;
    for (int64_t i = 0; i < count; i++) norm += want[i] * want[i], off += (got[i] - want[i]) * (got[i] - want[i]);
    if (!(norm > 0 && sqrt(off) <= 1e-3 * sqrt(norm))) FAIL("%s: %s is off by %.3g of %.3g", context, name, sqrt(off), sqrt(norm));
}
// The factors of one module against the gradient of its merged weight.
static void check_module(const Policy *p, const Policy *m, const ParameterPart *a, const Parameter *A) {
    char name[128], module[128];
    const Parameter *B, *W;
    size_t n = strlen(a->name) - strlen("base_model.model.") - strlen(".lora_A.weight");
    snprintf(module, sizeof module, "%.*s", (int)n, a->name + strlen("base_model.model."));
    snprintf(name, sizeof name, "base_model.model.%.90s.lora_B.weight", module);
    const ParameterPart *b = find(p->trained->parameters, p->trained->count, name, &B);
    snprintf(name, sizeof name, "%.90s.weight", module);
    const ParameterPart *w = find(m->parameters, m->parameter_count, name, &W);
    int64_t N = w->rows, K = W->K;
    const float *dW = W->gradient + w->row * K, *av = A->values + a->row * K, *bv = B->values + b->row * B->K, *dB = B->gradient + b->row * B->K;
    double s = (double)B->scale, *got = xcalloc((size_t)(RANK * (N + K)), sizeof *got), *want = xcalloc((size_t)(RANK * (N + K)), sizeof *want);
    for (int64_t r = 0; r < RANK; r++)
        for (int64_t k = 0; k < K; k++) {
            int64_t at = (a->row + r) * K + k;
            got[r * K + k] = (double)A->gradient[at] + (A->gradient2 ? (double)A->gradient2[at] : 0);
            for (int64_t i = 0; i < N; i++) want[r * K + k] += s * (double)bv[i * B->K + r] * (double)dW[i * K + k];
        }
    check_near(a->name, got, want, RANK * K);
    for (int64_t i = 0; i < N; i++)
        for (int64_t r = 0; r < RANK; r++) {
            got[i * RANK + r] = s * (double)dB[i * B->K + r];
            want[i * RANK + r] = 0;
            for (int64_t k = 0; k < K; k++) want[i * RANK + r] += s * (double)dW[i * K + k] * (double)av[r * K + k];
        }
    check_near(b->name, got, want, RANK * N);
    free(got), free(want);
}
static void merged_is_the_same(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        folder_start();
        Policy *p = adapted(kind, PRECISION_FP32, 1, every[kind], true), *m = merged(p, true);
        Data *d = xcalloc(1, sizeof *d);
        int modules = 0, experts = 0;
        snprintf(context, sizeof context, "%s", p->config.model_type);
        check_logprobs(p, m);
        data_make(d, p->config.vocabulary, groups, COUNT(groups), 21);
        policy_zero_gradients(p), policy_zero_gradients(m);
        train_microbatch(p, d, 0, d->group_count, 0), train_microbatch(m, d, 0, d->group_count, 0);
        for (int i = 0; i < p->trained->count; i++) {
            const Parameter *q = &p->trained->parameters[i];
            for (int k = 0; q->scale == 0 && k < q->part_count; k++, modules++) {
                check_module(p, m, &q->parts[k], q);
                experts += strstr(q->parts[k].name, ".experts.") != NULL;
            }
        }
        CHECK_INT(experts, policy_expert_layers(p) * p->config.experts.count * 3);
        CHECK_INT(policy_parameter_count(p), 2 * modules);
        int products = 0;
        for (int i = 0; i < m->parameter_count; i++)
            if (m->parameters[i].matrix && m->parameters[i].layer >= 0) products += m->parameters[i].part_count;
        CHECK_INT(modules, products);
        free(d);
        policy_close(p), policy_close(m);
        folder_end();
    }
}

// ---- the invariants ----------------------------------------------------------------------------------------
static void sampler_is_trainer(void) {
    folder_start();
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            Err err = {0};
            Policy *p = adapted(kind, (Precision)precision, 1, every[kind], true), *two = adapted(kind, (Precision)precision, 2, every[kind], true);
            Requests *q = xcalloc(1, sizeof *q);
            Rollout rollout;
            snprintf(context, sizeof context, "adapter, %s, %s", p->config.model_type, precision_names[precision]);
            requests_stream(q, p->config.vocabulary, kind, &samplings[(2 * kind + precision) % COUNT(samplings)]);
            q->count = 4;
            OK(policy_rollout(p, q->list, q->count, &(RolloutOptions){.max_sequences = 4}, &rollout, &err));
            check_forward(p, q, &rollout, false, INT32_MAX, true);
            check_forward(two, q, &rollout, true, 1, false);
            check_alone(p, q, &rollout, 5);
            rollout_free(&rollout);
            policy_close(p), policy_close(two);
            free(q);
        }
    folder_end();
}
static void splits_leave_no_trace(void) {
    folder_start();
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            char want[65] = "", got[65];
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, mixture_config(kind).vocabulary, groups, COUNT(groups), 21);
            for (int k = 0, last = 1 + (precision == kind % 2); k <= last; k++) {
                Err err = {0};
                Policy *p = adapted(kind, (Precision)precision, 1 + k % 2, every[kind], false), *again;
                for (int step = 0; step < 2; step++) train_step(p, d, splits[k], step);
                OK(policy_hash(p, got, &err));
                if (k == 0) memcpy(want, got, sizeof want);
                if (strcmp(got, want) != 0) FAIL("%s, %s: split %d gives another adapter", p->config.model_type, precision_names[precision], k);
                if (k == last) { // saved, opened, gone on with
                    PolicyOptions o = {.precision = (Precision)precision, .threads = 1, .device = "cpu", .trainable = true};
                    OK(policy_save(p, inside("saved"), "F32", &err) && policy_save_optimizer(p, inside("saved/optimizer.safetensors"), &err));
                    OK(policy_open(inside("saved"), &o, &again, &err) && policy_load_optimizer(again, inside("saved/optimizer.safetensors"), &err));
                    train_step(p, d, splits[0], 2), train_step(again, d, splits[1], 2);
                    OK(policy_hash(p, want, &err) && policy_hash(again, got, &err));
                    CHECK_STR(got, want);
                    policy_close(again);
                }
                policy_close(p);
            }
            free(d);
        }
    folder_end();
}

// ---- some of the experts -----------------------------------------------------------------------------------
static void some_experts(void) {
    static const char *const targets[] = {"experts.3.down_proj", "experts.1.up_proj", "layers.2.mlp.experts.0.gate_proj", NULL};
    static const char *const names[] = {
        "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_A.weight",   "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_B.weight",
        "base_model.model.model.layers.0.mlp.experts.3.down_proj.lora_A.weight", "base_model.model.model.layers.0.mlp.experts.3.down_proj.lora_B.weight",
        "base_model.model.model.layers.2.mlp.experts.0.gate_proj.lora_A.weight", "base_model.model.model.layers.2.mlp.experts.0.gate_proj.lora_B.weight",
        "base_model.model.model.layers.2.mlp.experts.1.up_proj.lora_A.weight",   "base_model.model.model.layers.2.mlp.experts.1.up_proj.lora_B.weight",
        "base_model.model.model.layers.2.mlp.experts.3.down_proj.lora_A.weight", "base_model.model.model.layers.2.mlp.experts.3.down_proj.lora_B.weight"};
    Err err = {0};
    Safetensors *s;
    char a[65], b[65];
    folder_start();
    Policy *p = adapted(1, PRECISION_FP32, 1, targets, true), *m, *again, *copy;
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, p->config.vocabulary, groups, COUNT(groups), 21);
    for (int step = 0; step < 2; step++) train_step(p, d, splits[0], step);
    m = merged(p, false);
    check_logprobs(p, m);
    OK(safetensors_open(inside("adapter/adapter_model.safetensors"), &s, &err));
    CHECK_INT(safetensors_count(s), COUNT(names));
    for (int i = 0; i < COUNT(names); i++) CHECK(safetensors_bytes(s, names[i]));
    safetensors_close(s);
    // What has no name is not in the file, and was zero.
    OK(policy_open(inside("adapter"), &(PolicyOptions){.threads = 1, .device = "cpu", .trainable = true}, &again, &err));
    OK(policy_freeze_copy(again, &copy, &err));
    OK(policy_hash(p, a, &err) && policy_hash(again, b, &err));
    CHECK_STR(a, b);
    check_logprobs(copy, m);
    policy_close(p), policy_close(m), policy_close(again), policy_close(copy);
    free(d);
    folder_end();
}

// ---- in the form of newer releases of PEFT ------------------------------------------------------------------
// All experts of a layer as one parameter: the same numbers, and a form that is read and written as it is.
static void exported(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        Err err = {0};
        Safetensors *s, *again;
        Policy *other;
        folder_start();
        Policy *p = adapted(kind, PRECISION_FP32, 1, every[kind], true);
        snprintf(context, sizeof context, "%s", p->config.model_type);
        OK(policy_save(p, inside("adapter"), "F32", &err));
        OK(export_peft(inside("adapter"), NULL, inside("exported"), &(ExportOptions){0}, &err));
        OK(policy_open(p->base_path, &(PolicyOptions){.threads = 1, .device = "cpu", .trainable = true, .adapter = inside("exported")}, &other, &err));
        check_logprobs(p, other);
        int fused = 0;
        for (int i = 0; i < policy_parameter_count(other); i++) {
            const char *name = policy_parameter_name(other, i);
            fused += strstr(name, ".mlp.experts.lora_") != NULL || strstr(name, ".mlp.experts.base_layer.lora_") != NULL;
            CHECK(!strstr(name, ".experts.0."));
        }
        CHECK_INT(fused, 4 * policy_expert_layers(p));
        OK(policy_save(other, inside("again"), "F32", &err));
        OK(safetensors_open(inside("exported/adapter_model.safetensors"), &s, &err) && safetensors_open(inside("again/adapter_model.safetensors"), &again, &err));
        CHECK_INT(safetensors_count(s), safetensors_count(again));
        for (int i = 0; i < safetensors_count(s); i++) {
            TensorInfo t;
            safetensors_at(s, i, &t);
            const void *same = safetensors_bytes(again, t.name);
            CHECK(same && memcmp(same, safetensors_bytes(s, t.name), t.bytes) == 0);
        }
        safetensors_close(s), safetensors_close(again);
        policy_close(p), policy_close(other);
        folder_end();
    }
}

static const Test tests[] = {
    {"merged weights give the same numbers and gradients", merged_is_the_same},
    {"sampler and trainer are the same numbers", sampler_is_trainer},
    {"microbatches leave no trace; saved, gone on with", splits_leave_no_trace},
    {"some of the experts", some_experts},
    {"exported as newer releases of PEFT read them", exported},
};
TEST_MAIN(tests)
