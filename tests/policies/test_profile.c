// A profile counts what a rollout does and changes none of its bits.
#include "policy_test.h"

static void rollout_counted(void) {
    ModelConfig c = shape_config(&shapes[0]);
    static const int32_t prompt[] = {4, 11, 2};
    RolloutRequest r = {.prompt = prompt, .prompt_length = COUNT(prompt), .samples = 3, .seed = 1,
                        .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 8, .ignore_eos = true}};
    Policy *plain = policy_make(&c, NULL, PRECISION_FP32, 1), *profiled = policy_make(&c, NULL, PRECISION_FP32, 1);
    Rollout a, b;
    Err err = {0};
    OK(policy_rollout(plain, &r, 1, NULL, &a, &err));
    OK(policy_profile(profiled, &err));
    double start = clock_seconds();
    OK(policy_rollout(profiled, &r, 1, NULL, &b, &err));
    double seconds = clock_seconds() - start, sum = 0;
    for (int i = 0; i < a.count; i++) CHECK(memcmp(a.completions[i].ids, b.completions[i].ids, 8 * 4) == 0);
    for (int i = 0; i < a.count; i++) CHECK(memcmp(a.completions[i].logprob, b.completions[i].logprob, 8 * 4) == 0);
    json_t *rows = policy_take_profile(profiled), *row, *again = policy_take_profile(profiled);
    int64_t attention = 0;
    bool shape = false;
    size_t i;
    json_array_foreach(rows, i, row) {
        sum += json_number_value(json_object_get(row, "seconds"));
        if (strcmp(json_string_value(json_object_get(row, "operation")), "attention") == 0) attention = json_integer_value(json_object_get(row, "calls"));
        shape |= json_object_get(row, "shape") && json_number_value(json_object_get(row, "flops_per_second")) > 0;
    }
    CHECK_INT(attention, 8 * c.layers); // the prompt, and a pass for each further token
    CHECK(shape);
    CHECK(sum > 0 && sum <= seconds);
    CHECK_INT(json_array_size(again), 0);
    json_decref(rows), json_decref(again);
    rollout_free(&a), rollout_free(&b);
    policy_close(plain), policy_close(profiled);
}

static const Test tests[] = {{"a rollout's operations are counted, its bits the same", rollout_counted}};
TEST_MAIN(tests)
