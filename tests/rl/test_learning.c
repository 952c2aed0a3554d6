// GRPO teaches: on a task that a cold start leaves half done, held-out accuracy rises; the same run with scores that have
// nothing to do with the answer does not. A run is a function of its recipe, so the outcome is the same each time on one
// instruction variant; the bounds leave room for the others.
#include "train_test.h"

// The task: name the last digit of a number of three.
static void make_data(void) {
    Buf rows = {0};
    for (int i = 0; i < 1000; i++)
        buf_printf(&rows, "{\"prompt\":\"%03d=\",\"answer\":\"%d\"}\n", i, i % 10);
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    scratch_file("right.lua", "return function(s) return s.answer == s.truth and 1 or 0 end");
    scratch_file("shuffled.lua", "return function(s) return math.random() < 0.3 and 1 or 0 end");
}

static const char recipe[] =
    "return {seed=11, model={preset='mini', max_positions=32}, characters='0123456789=', threads=1,\n"
    " tasks={{'jsonl', file='data.jsonl'}}, held_out=0.2, compare={items=1},\n"
    " rewards={{'right.lua', weight=RIGHT}, {'shuffled.lua', weight=SHUFFLED}},\n"
    " stages={ sft{steps=60, batch=32, modes={direct=1}, optimizer={learning_rate=3e-3, warmup=5}},\n"
    "  grpo{steps=60, prompts=16, group_size=8, modes={direct=1}, sampling={max_tokens=3}, \n"
    "   optimizer={learning_rate=1e-3, schedule='constant'}} },\n"
    " evaluate={items=200, samples=4} }";

static TrainedRun learn(const char *name, const char *right, const char *shuffled) {
    Buf text = {0};
    for (const char *p = recipe; *p;) {
        if (!strncmp(p, "RIGHT", 5)) buf_puts(&text, right), p += 5;
        else if (!strncmp(p, "SHUFFLED", 8)) buf_puts(&text, shuffled), p += 8;
        else buf_append(&text, p++, 1);
    }
    TrainedRun run = train_run(name, text.data, NULL, 120);
    buf_free(&text);
    TRAINED(run);
    return run;
}

// Sampled accuracy on the 200 held-out items, four answers each.
static double accuracy(const TrainedRun *run, int step) {
    char sql[160];
    snprintf(sql, sizeof sql, "SELECT replayable ->> '$.levels[0].accuracy' FROM evaluations WHERE step = %d AND name = 'sampled direct'", step);
    return ask(run, sql);
}

static void accuracy_rises(void) {
    make_data();
    TrainedRun run = learn("right", "1", "0");
    double before = accuracy(&run, 60), after = accuracy(&run, 120);
    printf("     true rewards: held-out accuracy %.3f to %.3f\n", before, after);
    CHECK(before > 0.3 && before < 0.7);
    CHECK(after > before + 0.2);
    // The training reward tells the same story.
    double first = ask(&run, "SELECT avg(reward_mean) FROM steps WHERE step BETWEEN 61 AND 65"),
           last = ask(&run, "SELECT avg(reward_mean) FROM steps WHERE step BETWEEN 116 AND 120");
    CHECK(last > first + 0.15);
    scratch_remove();
}

static void shuffled_rewards_teach_nothing(void) {
    make_data();
    TrainedRun run = learn("shuffled", "0", "1");
    double before = accuracy(&run, 60), after = accuracy(&run, 120);
    printf("     shuffled rewards: held-out accuracy %.3f to %.3f\n", before, after);
    // Of 800 answers, two standard errors are less than 0.04.
    CHECK(after < before + 0.05);
    CHECK(ask(&run, "SELECT sum(groups_trained) FROM steps") > 600); // it did train
    scratch_remove();
}

static const Test tests[] = {
    {"held-out accuracy rises", accuracy_rises},
    {"shuffled rewards teach nothing", shuffled_rewards_teach_nothing},
};
TEST_MAIN(tests)
