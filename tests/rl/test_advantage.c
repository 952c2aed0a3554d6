// Advantages: TRL's numbers, and what the trainer relies on: exact zeros, no leak from samples without a score.
#include "../test.h"
#include "calc_cases.h"
#include "rl.h"

static void trl_cases(void) {
    CaseCounts n = calc_compare("advantage", "advantages_trl.json");
    CHECK_INT(n.agreed, 32);
    CHECK_INT(n.unsupported, 24); // gdpo and rloo
}

static void equal_rewards_give_exact_zeros(void) {
    double reward[6] = {0.1, 0.1, 0.1, 0.1, 0.7, 0.1}, advantage[6];
    bool scorable[6] = {true, true, true, true, true, true}, variance[2];
    for (AdvantageKind kind = ADVANTAGE_GROUP; kind <= ADVANTAGE_NONE; kind++) {
        advantage_compute(kind, 1e-4, 2, 3, reward, scorable, advantage, variance);
        for (int i = 0; i < 3; i++) CHECK(advantage[i] == 0);
        CHECK(!variance[0] && variance[1]);
        CHECK_NEAR(advantage[3] + advantage[4] + advantage[5], 0, 1e-12);
        CHECK(advantage[4] > 0 && advantage[3] < 0);
    }
}

static void unscored_samples_stay_out(void) {
    double with[4] = {1, 0, NAN, 0.5}, without[3] = {1, 0, 0.5}, a[4], b[3];
    bool scorable[4] = {true, true, false, true}, all[3] = {true, true, true};
    for (AdvantageKind kind = ADVANTAGE_GROUP; kind <= ADVANTAGE_NONE; kind++) {
        advantage_compute(kind, 1e-4, 1, 4, with, scorable, a, NULL);
        advantage_compute(kind, 1e-4, 1, 3, without, all, b, NULL);
        CHECK(a[2] == 0 && a[0] == b[0] && a[1] == b[1] && a[3] == b[2]);
    }
    bool none[4] = {false}, one[4] = {true}, variance;
    advantage_compute(ADVANTAGE_GROUP, 1e-4, 1, 4, with, none, a, &variance);
    CHECK(!variance && a[0] == 0 && a[3] == 0);
    advantage_compute(ADVANTAGE_BATCH, 1e-4, 1, 4, with, one, a, &variance);
    CHECK(!variance && a[0] == 0);
}

static void malformed_and_unknown(void) {
    CHECK_INT(calc_text("advantage", "{\"cases\":[{\"source\":\"trl\",\"config\":{}}]}", NULL), 65);
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
    {"trl_cases", trl_cases},
    {"equal_rewards_give_exact_zeros", equal_rewards_give_exact_zeros},
    {"unscored_samples_stay_out", unscored_samples_stay_out},
    {"malformed_and_unknown", malformed_and_unknown},
};
TEST_MAIN(tests)
