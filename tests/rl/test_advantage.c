// Advantages: what the trainer relies on: exact zeros, no leak from samples without a score.
#include "../test.h"
#include "calc_cases.h"
#include "rl.h"

// Groups of `size` consecutive samples.
static void of_groups(AdvantageKind kind, int groups, int size, const double *reward, const bool *scorable, double *advantage, bool *variance) {
    int group[16];
    double length[16], part[16];
    for (int i = 0; i < groups * size; i++) group[i] = i / size, length[i] = 3 + i, part[i] = reward[i];
    AdvantageInput in = {.kind = kind, .eps = 1e-4, .scale = true, .count = groups * size, .group = group, .groups = groups, .reward = reward,
                         .scorable = scorable, .length = length, .parts = 1, .part = part, .whiten = kind == ADVANTAGE_GDPO};
    advantage_compute(&in, advantage, variance);
}

static void equal_rewards_give_exact_zeros(void) {
    double reward[6] = {0.1, 0.1, 0.1, 0.1, 0.7, 0.1}, advantage[6];
    bool scorable[6] = {true, true, true, true, true, true}, variance[2];
    for (AdvantageKind kind = ADVANTAGE_GROUP; kind < ADVANTAGES; kind++) {
        if (kind == ADVANTAGE_REINFORCE_PLUS_PLUS || kind == ADVANTAGE_BATCH_MEAN) continue; // no group in the baseline
        of_groups(kind, 2, 3, reward, scorable, advantage, variance);
        for (int i = 0; i < 3; i++) CHECK(advantage[i] == 0);
        CHECK(!variance[0] && variance[1]);
        bool centred = kind != ADVANTAGE_OPO && kind != ADVANTAGE_PASSK;
        if (centred) CHECK_NEAR(advantage[3] + advantage[4] + advantage[5], 0, 1e-12);
        CHECK(advantage[4] > 0 && (kind == ADVANTAGE_PASSK ? advantage[3] == 0 : advantage[3] < 0));
    }
}

static void unscored_samples_stay_out(void) {
    double with[4] = {1, 0, NAN, 0.5}, without[3] = {1, 0, 0.5}, a[4], b[3];
    bool scorable[4] = {true, true, false, true}, all[3] = {true, true, true};
    for (AdvantageKind kind = ADVANTAGE_GROUP; kind < ADVANTAGES; kind++) {
        if (kind == ADVANTAGE_OPO) continue; // the lengths of this test go by position
        of_groups(kind, 1, 4, with, scorable, a, NULL);
        of_groups(kind, 1, 3, without, all, b, NULL);
        CHECK(a[2] == 0 && a[0] == b[0] && a[1] == b[1] && a[3] == b[2]);
    }
    bool none[4] = {false}, one[4] = {true}, variance;
    of_groups(ADVANTAGE_GROUP, 1, 4, with, none, a, &variance);
    CHECK(!variance && a[0] == 0 && a[3] == 0);
    of_groups(ADVANTAGE_BATCH, 1, 4, with, one, a, &variance);
    CHECK(!variance && a[0] == 0);
}

static void malformed_and_unknown(void) {
    CHECK_INT(calc_text("advantage", "{\"cases\":[{\"source\":\"trl 1\",\"config\":{}}]}", NULL), 65);
    CHECK_INT(calc_text("advantage", "{\"cases\":[{\"source\":\"trl 1\",\"config\":{\"num_generations\":2},\"inputs\":"
                                     "{\"rewards_per_func\":[[1],[0],[1]],\"reward_weights\":[1]}}]}", NULL), 65);
    CHECK_INT(calc_text("advantage", "{\"cases\":[{\"source\":\"trl 1\",\"config\":{\"num_generations\":1},\"inputs\":"
                                     "{\"rewards_per_func\":[[1],[0,1],[1]],\"reward_weights\":[1]}}]}", NULL), 65);
    Buf out;
    CHECK_INT(calc_text("advantage", "{\"cases\":[{\"source\":\"trl 1\",\"config\":{\"num_generations\":1,\"whiten\":true},"
                                     "\"inputs\":{\"rewards_per_func\":[[1]],\"reward_weights\":[1]}}]}", &out), 0);
    CHECK_STR(out.data, "{\"cases\":[{\"unsupported\":\"whiten = true\"}]}\n");
    buf_free(&out);
}

static const Test tests[] = {
    {"equal_rewards_give_exact_zeros", equal_rewards_give_exact_zeros},
    {"unscored_samples_stay_out", unscored_samples_stay_out},
    {"malformed_and_unknown", malformed_and_unknown},
};
TEST_MAIN(tests)
