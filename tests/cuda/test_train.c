// Whole runs on a CUDA device: supervised steps and GRPO with a reference, beside the same recipe on the CPU; the same bits
// twice, and across microbatches; a resumed run; a device that fails.
#include "../rl/train_test.h"
#include <math.h>
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"
#endif

#define MODEL "model={preset='mini', max_positions=48}, characters='0123456789+-*/=,()', threads=1, "
#define RECIPE_OF(examples)                                                                                  \
    "return {" MODEL "tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, evaluate={items=2}, "       \
    "stages={sft{steps=1, batch=" examples ", optimizer={learning_rate=1e-3}}, "                              \
    "grpo{steps=2, prompts=2, group_size=4, checkpoint_every=1, optimizer={learning_rate=1e-3}, "             \
    "algo={kl=0.05, entropy=0.01, epochs=2}, sampling={max_tokens=8}}}}"
#define RECIPE RECIPE_OF("3")

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n / (1 + #s.completion)\nend";

// Under sanitizers these runs take minutes; what they would see is in the runs of the device that fails as well.
static void compares_numbers(void) {
#ifdef RECKON_SANITIZED
    SKIP("compares numbers: in the build without sanitizers");
#endif
}

static void need_device(void) {
    Err err = {0};
    char variant[64];
#ifdef RECKON_CUDA_EMULATION
    emulation_set_host_guard(false); // closing memory to the host at every call costs more than all else; test_policy.c has it
#endif
    if (policy_machine_variant("cuda", variant, &err)) return;
    if (err.code == ERR_UNAVAILABLE) SKIP("%s: %s", err.where, err.msg);
    FAIL("%s: %s", err.where, err.msg);
}

// In fp32 the device's sums differ from the CPU's in their order only; sampled tokens are the same ones unless a draw falls
// on a border, which this seed's don't. Losses and divergences agree to a hundredth: AdamW's first steps are nearly
// the sign of a gradient, so that where it is almost nothing its last bits decide.
static void beside_the_cpu(void) {
    compares_numbers();
    need_device();
    scratch_file("ones.lua", ones);
    TrainedRun host = train_run("host", RECIPE, (const char *[]){"device=cpu", "model.precision=fp32", NULL}, 3),
               device = train_run("device", RECIPE, (const char *[]){"device=cuda", "model.precision=fp32", NULL}, 3);
    TRAINED(host);
    TRAINED(device);
    static const char *const exact[] = {"SELECT sum(reward) FROM samples", "SELECT count(*) FROM samples", "SELECT sum(new_tokens) FROM steps"};
    for (int i = 0; i < COUNT(exact); i++) CHECK_NEAR(ask(&device, exact[i]), ask(&host, exact[i]), 1e-9);
    static const char *const close[] = {"SELECT sum(gradient_norm) FROM steps", "SELECT sum(entropy) FROM steps",
                                        "SELECT sum(loss) FROM steps", "SELECT max(kl) FROM steps"};
    for (int i = 0; i < COUNT(close); i++) {
        double want = ask(&host, close[i]);
        CHECK_NEAR(ask(&device, close[i]), want, 1e-2 * (fabs(want) + 1e-3));
    }
    CHECK(ask(&device, "SELECT max(kl) FROM steps") > 0);
    scratch_remove();
}

static void the_same_bits(void) {
    compares_numbers();
    need_device();
    scratch_file("ones.lua", ones);
    TrainedRun a = train_run("a", RECIPE, (const char *[]){"device=cuda", "model.precision=bf16", NULL}, 3),
               b = train_run("b", RECIPE, (const char *[]){"device=cuda", "model.precision=bf16", "microbatch_tokens=1", NULL}, 3);
    TRAINED(a);
    TRAINED(b);
    CHECK_STR(b.weights, a.weights);
    CHECK_STR(b.head, a.head);
    // As after a kill: the last checkpoint is gone, the run goes on from the one before.
    Err err = {0};
    char *path = xasprintf("%s/checkpoints/step-3", a.folder);
    bool ok = folder_remove(path, &err);
    free(path);
    OK(ok);
    TrainedRun resumed = train_from(true, "a", RECIPE, (const char *[]){"device=cuda", "model.precision=bf16", NULL}, 3);
    TRAINED(resumed);
    CHECK_STR(resumed.weights, b.weights);
    CHECK_STR(resumed.head, b.head);
    scratch_remove();
}

// Samples of weights in 8 bits are for the CPU: the plan says so, and so nothing is begun.
static void no_8_bits(void) {
    need_device();
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("rounded", RECIPE, (const char *[]){"device=cuda", "stages.2.rollout.precision=int8", NULL}, 3);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_UNAVAILABLE);
    CHECK(strstr(run.err.msg, "for the CPU only"));
    Err err = {0};
    Recipe *r;
    json_t *plan = NULL;
    char *path = path_join(scratch_folder(), "plan.lua");
    scratch_file("plan.lua", RECIPE);
    OK(recipe_read(path, (const char *[]){"device=cuda", "stages.2.rollout.precision=int8", NULL}, &r, &err));
    free(path);
    CHECK(!plan_make(r, &plan, &err));
    CHECK_STR(err.where, "rollout.precision");
    CHECK_INT(err.code, ERR_UNAVAILABLE);
    recipe_free(r);
    scratch_remove();
}

// A device with 64 MiB. What the refusal advises is what the plan then takes.
static void too_little_memory(void) {
    need_device();
    setenv("RECKON_CUDA_SLAB", "1", 1), setenv("RECKON_CUDA_MEMORY", "64", 1);
    scratch_file("ones.lua", ones), scratch_file("plan.lua", RECIPE_OF("2000"));
    char *path = path_join(scratch_folder(), "plan.lua");
    const struct {
        const char *set, *advice;
    } cases[] = {{"microbatch_tokens=16384", "microbatch_tokens = "}, {"microbatch_tokens=2048", ""}, {"model.feed_forward=30000", "neither bf16 nor"}};
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Recipe *r;
        json_t *plan = NULL;
        OK(recipe_read(path, (const char *[]){"device=cuda", cases[i].set, NULL}, &r, &err));
        bool ok = plan_make(r, &plan, &err);
        CHECK_INT(ok, !*cases[i].advice);
        if (!ok) {
            printf("     %s: %s\n", err.where, err.msg);
            CHECK_INT(err.code, ERR_UNAVAILABLE);
            CHECK(strstr(err.msg, " MiB short; ") && strstr(err.msg, cases[i].advice));
        }
        json_decref(plan);
        recipe_free(r);
    }
    free(path);
    unsetenv("RECKON_CUDA_SLAB"), unsetenv("RECKON_CUDA_MEMORY");
    scratch_remove();
}

// The plan of a policy on a GPU is what its device is then asked for, each piece rounded up.
static void the_plan_is_what_is_taken(void) {
    need_device();
    setenv("RECKON_CUDA_SLAB", "1", 1), setenv("RECKON_CUDA_MEMORY", "64", 1);
    static const char path[] = TEST_DATA "/models/llama-tied";
    static const struct {
        Precision precision;
        bool trainable;
        int64_t tokens;
    } cases[] = {{PRECISION_BF16, true, 2000}, {PRECISION_FP32, true, 300}, {PRECISION_BF16, false, 0}};
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Policy *p;
        PlanBytes planned, host;
        PolicyOptions o = {.precision = cases[i].precision, .trainable = cases[i].trainable, .threads = 1, .device = "cuda"};
        PlanShape shape = {.tokens = cases[i].tokens, .targets = cases[i].tokens / 2, .groups = cases[i].tokens ? 4 : 0, .sequences = cases[i].tokens ? 8 : 0,
                           .positions = 64, .rollout_rows = 700, .on_device = true};
        OK(plan_policy(path, NULL, &o, &shape, &planned, &err));
        OK(policy_open(path, &o, &p, &err));
        OK(policy_reserve(p, &shape, &err));
        size_t taken = policy_peak_device_bytes(p), expected = planned.weights + planned.pass;
        printf("     %zu bytes planned, %zu taken\n", expected, taken);
        CHECK(taken >= expected && taken - expected < 512 * 256);
        policy_close(p);
        shape.on_device = false;
        OK(plan_policy(path, NULL, &o, &shape, &host, &err));
        CHECK(host.weights + host.pass != expected); // the CPU's would be another
    }
    unsetenv("RECKON_CUDA_SLAB"), unsetenv("RECKON_CUDA_MEMORY");
}

#ifdef RECKON_CUDA_EMULATION
// The device fails in the middle of the run, at launch after launch until a checkpoint is there to be named.
static void a_device_that_fails(void) {
    scratch_file("ones.lua", ones);
    bool named = false;
    for (int nth = 40; !named && nth < 100000; nth *= 3) {
        emulation_fail_launch(nth, 700);
        TrainedRun run = train_run("run", RECIPE, (const char *[]){"device=cuda", NULL}, 3);
        emulation_reset();
        CHECK(!run.ok);
        CHECK_INT(run.err.code, ERR_IO);
        CHECK(strstr(run.err.msg, "the device failed"));
        const char *saved = strstr(run.err.msg, " is saved, go on with --resume");
        named = saved && strstr(run.err.msg, "; step ");
        if (!named) continue;
        TrainedRun resumed = train_from(true, "run", RECIPE, (const char *[]){"device=cuda", NULL}, 3);
        TRAINED(resumed);
        CHECK_INT(ask(&resumed, "SELECT count(*) FROM events WHERE kind = 'clock held down'"), 0);
        TrainedRun whole = train_run("whole", RECIPE, (const char *[]){"device=cuda", NULL}, 3);
        TRAINED(whole);
        CHECK_STR(resumed.weights, whole.weights);
        CHECK_STR(resumed.head, whole.head);
    }
    CHECK(named);
    scratch_remove();
}

// A clock that was held down is noted on the ledger, at the step in which it was, with why.
static void a_clock_held_down(void) {
    static const char held[] = "SELECT count(*) FROM events WHERE kind = 'clock held down'";
    scratch_file("ones.lua", ones);
    emulation_nvml()->throttle_reasons = 0x40; // heat, by the hardware
    TrainedRun run = train_run("hot", RECIPE, (const char *[]){"device=cuda", NULL}, 3);
    emulation_reset();
    TRAINED(run);
    CHECK_INT(ask(&run, held), ask(&run, "SELECT count(*) FROM steps"));
    CHECK(ask(&run, held) > 0);
    CHECK_INT(ask(&run, "SELECT count(*) FROM events WHERE kind = 'clock held down' AND detail LIKE '%heat, by the hardware%' AND "
                        "json_extract(detail, '$.step') IN (SELECT step FROM steps)"), ask(&run, held));
    scratch_remove();
}
#endif

static const Test tests[] = {
    {"8 bits are refused", no_8_bits},
    {"beside the CPU", beside_the_cpu},
    {"the same bits", the_same_bits},
    {"too little memory", too_little_memory},
    {"the plan is what is taken", the_plan_is_what_is_taken},
#ifdef RECKON_CUDA_EMULATION
    {"a device that fails", a_device_that_fails},
    {"a clock held down", a_clock_held_down},
#endif
};
TEST_MAIN(tests)
