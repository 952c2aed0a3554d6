// FLOPs that are told (policy_flops, from the configuration and the lengths of contexts) against a count of what the table of
// operations is asked to do: every product's rows, columns and depth, every position that attention looks at. They agree
// within 1 %, in rollouts and in forward passes, for dense models, windows, mixtures of experts and latent attention.
#include "invariants.h"

// The table's own slots, and what went through them. One device at a time.
static Device table;
static double counted;

static void count_matmul(const Device *d, const MatmulArgs *a) {
    double rows = (double)a->M;
    const Products *p = &a->products;
    if (p->count) rows *= p->count;
    if (p->count && p->start) {
        rows = 0;
        for (int i = 0; i < p->count; i++) rows += p->start[(i + 1) * p->every] - p->start[i * p->every];
    }
    counted += 2 * rows * (double)a->N * (double)a->K;
    table.matmul(d, a);
}
static void count_head(const Device *d, const HeadArgs *a) {
    counted += 2.0 * (double)a->M * (double)a->V * (double)a->C;
    table.head(d, a);
}
static double seen(int64_t T, const int32_t *position, int32_t window) {
    double sum = 0;
    for (int64_t t = 0; t < T; t++) sum += window && position[t] >= window ? window : position[t] + 1;
    return sum;
}
static void count_attention(const Device *d, const AttentionArgs *a) {
    counted += 4.0 * a->heads * a->D * seen(a->T, a->position, a->window);
    table.attention(d, a);
}
static void count_latent(const Device *d, const LatentAttentionArgs *a) {
    counted += 2.0 * a->heads * (a->W + a->R) * seen(a->T, a->position, 0);
    table.latent_attention(d, a);
}

static void check_count(Policy *p, const char *what) {
    Err err = {0};
    Requests *q = xcalloc(1, sizeof *q);
    Sampling sampling = {.temperature = 1, .top_p = 1, .ignore_eos = true};
    requests_stream(q, p->config.vocabulary, 3, &sampling);
    table = *p->device;
    p->device->matmul = count_matmul, p->device->head = count_head;
    p->device->attention = count_attention, p->device->latent_attention = count_latent;
    counted = 0;
    double told = policy_flops(p);
    Rollout rollout;
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    told = policy_flops(p) - told;
    CHECK(counted > 0);
    if (!(fabs(told / counted - 1) <= 0.01)) FAIL("%s, rollout: told %.6g FLOPs, counted %.6g (%+.2f %%)", what, told, counted, 100 * (told / counted - 1));
    counted = 0;
    told = policy_flops(p);
    check_forward(p, q, &rollout, false, INT32_MAX, false);
    told = policy_flops(p) - told;
    if (!(fabs(told / counted - 1) <= 0.01)) FAIL("%s, forward: told %.6g FLOPs, counted %.6g (%+.2f %%)", what, told, counted, 100 * (told / counted - 1));
    p->device->matmul = table.matmul, p->device->head = table.head;
    p->device->attention = table.attention, p->device->latent_attention = table.latent_attention;
    rollout_free(&rollout);
    free(q);
}

static void made_models(void) {
    for (int i = 0; i < COUNT(shapes); i++) {
        ModelConfig c = shape_config(&shapes[i]);
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 2);
        check_count(p, shapes[i].name);
        policy_close(p);
    }
}

static void every_family(void) {
    static const char *const names[] = {"llama-tied", "mistral-window", "gemma3", "phi3", "olmo2", "qwen3", "mixtral", "qwen3-moe", "deepseek-v2-lite", "deepseek-v3"};
    for (int i = 0; i < COUNT(names); i++) {
        Err err = {0};
        Policy *p;
        PolicyOptions o = {.precision = PRECISION_FP32, .threads = 1};
        char *path = xasprintf(TEST_DATA "/models/%s", names[i]);
        OK(policy_open(path, &o, &p, &err));
        check_count(p, names[i]);
        policy_close(p);
        free(path);
    }
}

static const Test tests[] = {{"models made up", made_models}, {"every family", every_family}};
TEST_MAIN(tests)
