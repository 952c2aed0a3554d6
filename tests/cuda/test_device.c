// Opening a CUDA device and running out of its memory: what is wrong, what was found, what was expected. The emulated device
// plays the machines that these need.
#include "../policies/policy_test.h"
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"

static void expect_refusal(const char *name, int code, const char *where, const char *what) {
    Err err = {0};
    Device *d = NULL;
    bool ok = device_open(name, 1, &d, &err);
    if (ok) device_close(d);
    CHECK(!ok && !d);
    CHECK_INT(err.code, code);
    if (strcmp(err.where, where) != 0 || !strstr(err.msg, what)) FAIL("%s: got \"%s: %s\", want \"%s: ...%s...\"", name, err.where, err.msg, where, what);
}

static void refusals(void) {
    emulation_reset();
    expect_refusal("gpu", ERR_USAGE, "device", "found 'gpu', expected cpu, cuda or cuda:N");
    expect_refusal("cuda:", ERR_USAGE, "device", "expected cpu, cuda or cuda:N");
    expect_refusal("cuda:1x", ERR_USAGE, "device", "expected cpu, cuda or cuda:N");
    expect_refusal("cuda:3", ERR_UNAVAILABLE, "cuda:3", "found 1 device, expected 0 to 0");
    emulation_machine()->devices = 0;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "found no CUDA device");
    emulation_reset();
    emulation_machine()->driver_version = 0;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "no NVIDIA driver found");
    emulation_machine()->driver_version = 11040;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "the NVIDIA driver is for CUDA 11.4, this program needs 13.0 or newer");
    emulation_reset();
    emulation_machine()->major = 7, emulation_machine()->minor = 5;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "compute capability 7.5, expected 8.0 or newer");
    emulation_reset();
    emulation_machine()->major = 10, emulation_machine()->minor = 3, emulation_machine()->without_code = true;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "compute capability 10.3, for which this program was not built");
    emulation_reset();
    emulation_machine()->memory_bytes = 16 << 20;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "can't be opened: scratch");
    emulation_reset();
    setenv("RECKON_CUDA_SLAB", "1", 1);
    setenv("RECKON_CUDA_MEMORY", "lots", 1);
    expect_refusal("cuda", ERR_USAGE, "RECKON_CUDA_MEMORY", "found 'lots', expected MiB from 64 to 256");
    setenv("RECKON_CUDA_MEMORY", "250", 1);
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "RECKON_CUDA_MEMORY asks for 250 MiB");
    unsetenv("RECKON_CUDA_MEMORY"), unsetenv("RECKON_CUDA_SLAB");
}

static void the_environment_names_it(void) {
    Err err = {0};
    emulation_reset();
    setenv("RECKON_DEVICE", "cuda:0", 1);
    Device *d;
    OK(device_open(NULL, 1, &d, &err));
    CHECK(strncmp(d->variant, "sm_80, cuBLASLt ", 16) == 0);
    CHECK(!d->is_host);
    Device *shared = device_share(d);
    device_close(d);
    OK(shared->finish(shared, &err)); // open until its last owner closes it
    device_close(shared);
    CHECK_INT(emulation_allocations(), 0);
    emulation_take_away("cublasLt"); // own kernels do its work
    OK(device_open(NULL, 1, &d, &err));
    CHECK_STR(d->variant, "sm_80");
    device_close(d);
    emulation_take_away(NULL);
    setenv("RECKON_DEVICE", "cpu", 1);
    OK(device_open(NULL, 1, &d, &err));
    CHECK(d->is_host);
    device_close(d);
    unsetenv("RECKON_DEVICE");
}

static void the_second_device(void) {
    Err err = {0};
    emulation_reset();
    emulation_machine()->devices = 2;
    Device *d;
    OK(device_open("cuda:1", 1, &d, &err));
    float values[100], back[100] = {0};
    void *a, *b;
    for (int i = 0; i < 100; i++) values[i] = (float)i;
    OK(d->allocate(d, sizeof values, "values", &a, &err) && d->allocate(d, sizeof values, "rounded", &b, &err));
    d->upload(d, a, values, sizeof values);
    d->convert(d, &(ConvertArgs){.count = 100, .dtype = DTYPE_F32, .x = a, .y = b});
    d->download(d, back, b, sizeof back);
    OK(d->finish(d, &err));
    for (int i = 0; i < 100; i++) CHECK(back[i] == values[i]);
    d->release(d, a), d->release(d, b);
    device_close(d);
    CHECK_INT(emulation_allocations(), 0);
    expect_refusal("cuda:2", ERR_UNAVAILABLE, "cuda:2", "found 2 devices, expected 0 to 1");
    emulation_reset();
}

// Which tensor-core instruction multiplies is told, since it fixes the bits: wgmma where there is one that stands its trial.
static void expect_variant(const char *want) {
    Err err = {0};
    Device *d;
    OK(device_open("cuda", 1, &d, &err));
    CHECK(strncmp(d->variant, want, strlen(want)) == 0);
    device_close(d);
}
static void products_by_wgmma(void) {
    emulation_reset();
    emulation_machine()->major = 9;
    expect_variant("sm_90, wgmma, cuBLASLt ");
    setenv("RECKON_CUDA_PRODUCTS", "mma", 1);
    expect_variant("sm_90, cuBLASLt ");
    setenv("RECKON_CUDA_PRODUCTS", "wgmma", 1);
    expect_variant("sm_90, wgmma, cuBLASLt ");
    emulation_machine()->wrong_wgmma = true;
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "compute capability 9.0 has it, but a trial came out wrong");
    unsetenv("RECKON_CUDA_PRODUCTS");
    expect_variant("sm_90, cuBLASLt ");
    emulation_machine()->wrong_wgmma = false;
    emulation_take_away("libcuda");
    expect_variant("sm_90, cuBLASLt ");
    emulation_reset();
    setenv("RECKON_CUDA_PRODUCTS", "wgmma", 1);
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "compute capability 8.0 has none, 9.0 does");
    setenv("RECKON_CUDA_PRODUCTS", "tensor", 1);
    expect_refusal("cuda", ERR_USAGE, "RECKON_CUDA_PRODUCTS", "found 'tensor', expected mma or wgmma");
    unsetenv("RECKON_CUDA_PRODUCTS");
    setenv("RECKON_CUDA_ALGORITHMS", "free", 1);
    expect_variant("sm_80, free algorithms, cuBLASLt ");
    emulation_take_away("cublasLt");
    expect_refusal("cuda", ERR_UNAVAILABLE, "cuda:0", "RECKON_CUDA_ALGORITHMS asks for cuBLASLt's choice, and it isn't there");
    emulation_take_away(NULL);
    setenv("RECKON_CUDA_ALGORITHMS", "fast", 1);
    expect_refusal("cuda", ERR_USAGE, "RECKON_CUDA_ALGORITHMS", "found 'fast', expected free");
    unsetenv("RECKON_CUDA_ALGORITHMS");
    CHECK_INT(emulation_allocations(), 0);
}

// Pieces of one allocation: moved data is what was sent, cleared memory is zero, and what doesn't fit is told with figures.
static void memory_of_one_allocation(void) {
    Err err = {0};
    emulation_reset();
    setenv("RECKON_CUDA_SLAB", "1", 1);
    setenv("RECKON_CUDA_MEMORY", "64", 1);
    Device *d;
    OK(device_open("cuda", 1, &d, &err));
    int before = emulation_allocations();
    enum { BYTES = 20 << 20 }; // several halves of the upload buffer
    void *a, *b, *c;
    OK(d->allocate(d, BYTES, "a", &a, &err));
    OK(d->allocate(d, BYTES, "b", &b, &err));
    CHECK_INT(emulation_allocations(), before);
    unsigned char *host = xmalloc(BYTES), *back = xmalloc(BYTES);
    for (int i = 0; i < BYTES; i++) host[i] = (unsigned char)(i * 7 + i / 251);
    d->upload(d, a, host, BYTES);
    d->copy(d, b, a, BYTES);
    d->download(d, back, b, BYTES);
    OK(d->finish(d, &err));
    CHECK(memcmp(host, back, BYTES) == 0);
    CHECK(!d->allocate(d, 40 << 20, "keys and values", &c, &err));
    CHECK_INT(err.code, ERR_UNAVAILABLE);
    if (!strstr(err.msg, "out of memory for keys and values: 40.0 MiB asked for, 24.0 MiB free")) FAIL("%s", err.msg);
    d->release(d, a);
    OK(d->allocate(d, BYTES, "c", &c, &err)); // cleared, though it held data
    d->download(d, back, c, BYTES);
    for (int i = 0; i < BYTES; i++)
        if (back[i]) FAIL("byte %d is %d", i, back[i]);
    free(host), free(back);
    device_close(d);
    unsetenv("RECKON_CUDA_MEMORY"), unsetenv("RECKON_CUDA_SLAB");
}

// What is fetched is what was there when it was asked for, not before and not after.
static void fetched_beside_the_kernels(void) {
    enum { COUNT_OF = 3000 };
    Err err = {0};
    emulation_reset();
    Device *d;
    OK(device_open("cuda", 1, &d, &err));
    float *x, *y, sent[COUNT_OF], got[FETCHES][COUNT_OF];
    OK(d->allocate(d, sizeof sent, "x", (void **)&x, &err));
    OK(d->allocate(d, sizeof sent, "y", (void **)&y, &err));
    for (int turn = 0; turn < 5; turn++) {
        size_t bytes = turn ? sizeof sent : sizeof sent / 3; // pinned memory grows
        int slot = turn % FETCHES;
        for (int i = 0; i < COUNT_OF; i++) sent[i] = (float)(i + 10000 * turn);
        d->upload(d, x, sent, sizeof sent);
        d->convert(d, &(ConvertArgs){.count = COUNT_OF, .dtype = DTYPE_F32, .x = x, .y = y});
        memset(got[slot], 0, sizeof sent);
        d->fetch(d, slot, got[slot], y, bytes);
        d->zero(d, x, sizeof sent); // goes on
        if (turn % 2) d->copy(d, x, y, sizeof sent);
        OK(d->fetched(d, slot, &err));
        CHECK(memcmp(got[slot], sent, bytes) == 0);
        if (!turn) CHECK(got[slot][COUNT_OF / 3] == 0);
    }
    emulation_fail_launch(1, 700);
    d->convert(d, &(ConvertArgs){.count = COUNT_OF, .dtype = DTYPE_BF16, .x = x, .y = y});
    d->fetch(d, 0, got[0], y, sizeof sent);
    CHECK(!d->fetched(d, 0, &err));
    CHECK_INT(err.code, ERR_IO);
    CHECK(got[0][7] == 0);
    d->release(d, x), d->release(d, y);
    device_close(d);
    emulation_reset();
    CHECK_INT(emulation_allocations(), 0);
}

static void a_policy_that_does_not_fit(void) {
    Err err = {0};
    emulation_reset();
    setenv("RECKON_CUDA_SLAB", "1", 1);
    setenv("RECKON_CUDA_MEMORY", "64", 1);
    ModelConfig c = shape_config(&shapes[0]);
    c.max_positions = 1 << 20;
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1);
    static const int32_t prompt[] = {1, 2, 3};
    RolloutRequest request = {.prompt = prompt, .prompt_length = 3, .samples = 64, .seed = 1,
                              .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 1 << 19}};
    Rollout out;
    CHECK(!policy_rollout(p, &request, 1, NULL, &out, &err));
    CHECK_INT(err.code, ERR_UNAVAILABLE);
    CHECK(strstr(err.msg, "out of memory for keys and values"));
    CHECK(!policy_failed(p));
    request.sampling.max_tokens = 2; // and goes on with what fits
    OK(policy_rollout(p, &request, 1, NULL, &out, &err));
    rollout_free(&out);
    policy_close(p);
    CHECK_INT(emulation_allocations(), 0);
    unsetenv("RECKON_CUDA_MEMORY"), unsetenv("RECKON_CUDA_SLAB");
}

// The first error stays, and nothing that is read afterwards passes for a result.
static void an_error_stays(void) {
    Err err = {0};
    emulation_reset();
    ModelConfig c = shape_config(&shapes[0]);
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1);
    static const int32_t prompt[] = {1, 2, 3};
    RolloutRequest request = {.prompt = prompt, .prompt_length = 3, .samples = 2, .seed = 1,
                              .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 4}};
    Rollout out;
    emulation_fail_launch(10, 719);
    CHECK(!policy_rollout(p, &request, 1, NULL, &out, &err));
    CHECK_INT(err.code, ERR_IO);
    CHECK(policy_failed(p));
    CHECK(!policy_rollout(p, &request, 1, NULL, &out, &err));
    CHECK_INT(err.code, ERR_IO);
    char hash[65];
    CHECK(!policy_hash(p, hash, &err));
    policy_close(p);
    emulation_reset();
}

static const Test tests[] = {
    {"refusals", refusals},
    {"the environment names it", the_environment_names_it},
    {"the second device", the_second_device},
    {"products by wgmma", products_by_wgmma},
    {"memory of one allocation", memory_of_one_allocation},
    {"fetched beside the kernels", fetched_beside_the_kernels},
    {"a policy that doesn't fit", a_policy_that_does_not_fit},
    {"an error stays", an_error_stays},
};
#else
static void opens(void) {
    Err err = {0};
    Device *d;
    if (!device_open("cuda", 1, &d, &err)) SKIP("%s: %s", err.where, err.msg);
    CHECK(!d->is_host);
    OK(d->finish(d, &err));
    device_close(d);
}
static const Test tests[] = {{"opens", opens}};
#endif
TEST_MAIN(tests)
