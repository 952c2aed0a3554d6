// The pipe protocol: what is written reads back, and no bytes whatever make a reader go wrong.
#include "../test.h"
#include "message.h"

static Verdict a_verdict(void) {
    Verdict v = {.state = VERDICT_SCORED, .score = 1.5, .fuel = 77, .part_count = 2};
    snprintf(v.parts[0].name, sizeof v.parts[0].name, "a");
    snprintf(v.parts[1].name, sizeof v.parts[1].name, "b.c");
    v.parts[0].value = 1.5;
    v.parts[1].value = NAN;
    return v;
}

static void verdicts_round_trip(void) {
    Verdict v = a_verdict(), back;
    Buf b = {0};
    write_verdict(&b, &v);
    Reader r = {.at = b.data, .end = b.data + b.size};
    CHECK(read_verdict(&r, &back) && r.at == r.end);
    CHECK(back.state == v.state && back.score == v.score && back.fuel == v.fuel && back.part_count == 2);
    CHECK_STR(back.parts[1].name, "b.c");
    CHECK(isnan(back.parts[1].value) && back.parts[0].value == 1.5);
    buf_free(&b);
}

static void samples_round_trip(void) {
    json_t *row = json_pack("{s:[i,s]}", "k", 1, "x");
    RewardSample s = {.completion = "a\0b", .completion_size = 3, .truth = "t", .row = row, .tokens = 5, .step = 6,
                      .seed = 7, .mode = "direct", .task = "gcd", .finish = "length"}, back;
    Buf b = {0};
    write_sample(&b, &s);
    Reader r = {.at = b.data, .end = b.data + b.size};
    CHECK(read_sample(&r, &back) && r.at == r.end);
    CHECK(back.completion_size == 3 && memcmp(back.completion, "a\0b", 3) == 0 && !back.prompt && !back.messages);
    CHECK_STR(back.truth, "t");
    CHECK_STR(back.mode, "direct");
    CHECK_STR(back.task, "gcd");
    CHECK(json_equal(back.row, row) && back.tokens == 5 && back.step == 6 && back.seed == 7);
    sample_free(&back);
    // Every truncation is found.
    for (size_t n = 0; n < b.size; n++) {
        char *cut = xmalloc(n + 1); // so that a sanitizer sees reading beyond
        memcpy(cut, b.data, n);
        r = (Reader){.at = cut, .end = cut + n};
        CHECK(!read_sample(&r, &back));
        sample_free(&back);
        free(cut);
    }
    buf_free(&b);
    json_decref(row);
}

static void what_a_worker_may_not_say(void) {
    Verdict back;
    for (int i = 0; i < 4; i++) {
        Verdict v = a_verdict();
        if (i == 0) v.state = VERDICT_KILLED; // only the pool says so
        if (i == 1) v.score = NAN;
        if (i == 2) v.parts[0].value = INFINITY;
        if (i == 3) v.state = (VerdictState)99;
        Buf b = {0};
        write_verdict(&b, &v);
        Reader r = {.at = b.data, .end = b.data + b.size};
        CHECK(!read_verdict(&r, &back));
        buf_free(&b);
    }
}

static void any_bytes_are_survived(void) {
    Random random = random_start(3, STREAM_TEST, 0);
    Buf verdict = {0}, sample = {0};
    Verdict v = a_verdict();
    json_t *row = json_pack("{s:i}", "k", 1);
    RewardSample s = {.completion = "abc", .completion_size = 3, .truth = "t", .row = row};
    write_verdict(&verdict, &v);
    write_sample(&sample, &s);
    for (int i = 0; i < 20000; i++) {
        const Buf *from = i % 2 ? &verdict : &sample;
        char *bytes = xmalloc(from->size);
        memcpy(bytes, from->data, from->size);
        int changes = 1 + (int)random_below(&random, 6);
        for (int c = 0; c < changes; c++) bytes[random_below(&random, (uint32_t)from->size)] = (char)random_next(&random);
        Reader r = {.at = bytes, .end = bytes + from->size};
        Verdict verdict_back;
        RewardSample sample_back;
        if (from == &verdict) {
            if (read_verdict(&r, &verdict_back)) CHECK(verdict_back.part_count <= MAX_REWARD_PARTS);
        } else {
            (void)!read_sample(&r, &sample_back);
            sample_free(&sample_back);
        }
        free(bytes);
    }
    buf_free(&verdict), buf_free(&sample);
    json_decref(row);
}

static const Test tests[] = {
    {"verdicts_round_trip", verdicts_round_trip},
    {"samples_round_trip", samples_round_trip},
    {"what_a_worker_may_not_say", what_a_worker_may_not_say},
    {"any_bytes_are_survived", any_bytes_are_survived},
};
TEST_MAIN(tests)
