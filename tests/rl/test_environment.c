// Training in an environment: the same bits for any number of workers and threads and across a resume, sampler and trainer
// agreed on every token (the trainer refuses otherwise), verdicts of episodes, demonstrations, and what is said to a chat.
#include "../../rl/stages.h"
#include "train_test.h"

#define RECIPE(rewards, grpo)                                                                                \
    "return {model={preset='mini', max_positions=64}, characters='0123456789-:?<>', threads=1, seed=3,\n"     \
    " tasks={{'environment', levels={1,2}}}, rewards={" rewards "}, evaluate={items=6, max_tokens=30, turn_tokens=4},\n" \
    " stages={sft{steps=3, batch=8, modes={direct=1}, optimizer={learning_rate=1e-2}},\n"                    \
    "  grpo{steps=3, prompts=4, group_size=6, modes={direct=1}, checkpoint_every=1, sampling={max_tokens=40, turn_tokens=4},\n" grpo   \
    "   optimizer={learning_rate=1e-3}}}}"

static void the_same_bits(void) {
    static const char *const splits[][2] = {{"reward_workers=1"}, {"reward_workers=3", "threads=2"}, {"microbatch_tokens=1", "reward_workers=2"}};
    const char *recipe = RECIPE("{'guess', short=true}", "");
    TrainedRun first = {0};
    for (int i = 0; i < COUNT(splits); i++) {
        const char *sets[] = {splits[i][0], splits[i][1], NULL};
        char name[32];
        snprintf(name, sizeof name, "turns-%d", i);
        TrainedRun run = train_run(name, recipe, sets, 6);
        TRAINED(run);
        if (i == 0) first = run;
        if (strcmp(run.weights, first.weights) || strcmp(run.head, first.head)) FAIL("%s: other bits than with one worker", splits[i][0]);
    }
    CHECK(ask(&first, "SELECT count(*) FROM samples WHERE course IS NOT NULL AND length(course) > 4 * tokens") > 20);
    CHECK(ask(&first, "SELECT count(*) FROM samples WHERE verdict <> 'scored'") == 0);
    CHECK(ask(&first, "SELECT min(given_mean) FROM steps") > 0);
    CHECK(ask(&first, "SELECT sum(tokens) - (SELECT sum(new_tokens) FROM steps) FROM samples") == 0);
    CHECK(ask(&first, "SELECT count(*) FROM samples WHERE completion LIKE '%?%'") > 20);
    scratch_remove();
}

static void resumed_runs_end_alike(void) {
    const char *recipe = RECIPE("{'guess', short=true}", "");
    TrainedRun whole = train_run("whole", recipe, NULL, 6);
    TRAINED(whole);
    // The newest checkpoint is taken away: the last step is done again.
    Err err = {0};
    char *last = xasprintf("%s/checkpoints/step-6", whole.folder);
    OK(folder_remove(last, &err));
    free(last);
    TrainedRun again = train_from(true, "whole", recipe, NULL, 6);
    TRAINED(again);
    CHECK_STR(again.weights, whole.weights);
    CHECK_STR(again.head, whole.head);
    scratch_remove();
}

// Episodes that fail get their verdict, and the run goes on; what can't be told to the model is an error too.
static void verdicts_of_episodes(void) {
    scratch_file("moody.lua",
                 "return { stop = { '?' }, reset = function(row) return { n = row.number }, '1:' end, demonstrate = function() return '2?' end,\n"
                 "  step = function(state, action, turn)\n"
                 "    local kind = state.n % 4\n"
                 "    if options.calm or kind == 0 then return state, nil, { good = 1 }, true end\n"
                 "    if kind == 1 then error('moody') end\n"
                 "    if kind == 2 then return nil, 'no opinion' end\n"
                 "    return state, 'what?', 0, false\n"
                 "  end }");
    TrainedRun run = train_run("moody", RECIPE("{'moody.lua'}", ""), (const char *[]){"max_failed_share=1", "stages.1.steps=1", NULL}, 4);
    CHECK(!run.ok && strstr(run.err.msg, "a demonstration failed in turn 1"));
    const char *alone = "return {model={preset='mini', max_positions=64}, characters='0123456789-:?<>', threads=1, seed=3, max_failed_share=1,\n"
                        " tasks={{'environment'}}, rewards={{'moody.lua'}}, evaluate={items=0},\n"
                        " stages={grpo{steps=4, prompts=8, group_size=3, modes={direct=1}, sampling={max_tokens=30, turn_tokens=4}}}}";
    run = train_run("moody", alone, NULL, 4);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'scored' AND reward = 1") > 5);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'abstained' AND why = 'no opinion'") > 5);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'error' AND why LIKE '%moody'") > 5);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'error' AND why LIKE 'what the environment says can''t be given to the model: %'") > 5);
    TrainedRun strict = train_run("strict", alone, (const char *[]){"max_failed_share=0.1", NULL}, 4);
    CHECK(!strict.ok && strstr(strict.err.msg, "could not be scored"));
    TrainedRun none = train_run("none", alone, (const char *[]){"rewards.1=format", NULL}, 4);
    CHECK(!none.ok);
    scratch_remove();
}

// The recipe to copy, with fewer steps.
static void the_recipe_runs(void) {
    Err err = {0};
    Buf text = {0};
    char *path = xasprintf("%s/../../scripts/recipes/guess.lua", TEST_DATA);
    OK(file_read(path, 1 << 20, &text, &err));
    buf_append(&text, "", 1);
    TrainedRun run = train_run("guess", text.data, (const char *[]){"stages.1.steps=4", "stages.1.optimizer.warmup=0", "stages.2.steps=2", "stages.2.prompts=4",
                                                                    "stages.2.group_size=4", "evaluate.items=5", "threads=1", NULL}, 6);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'scored'") == 32);
    free(path), buf_free(&text);
    scratch_remove();
}

// What follows a model's message in ChatML, whether the model ended it itself or not.
static void words_of_a_chat(void) {
    Err err = {0};
    Tokenizer *t;
    char *folder = xasprintf("%s/tokenizers/qwen2-style", TEST_DATA);
    OK(tokenizer_open(folder, &t, &err));
    free(folder);
    if (!tokenizer_has_chat(t)) SKIP("the tokenizer has no chat template");
    Recipe r = {.chat = true, .style = {{.prefix = (char[]){"<think>"}}, {.prefix = (char[]){""}}}};
    json_t *words = json_pack("[{s:s,s:s}]", "role", "user", "content", "higher"), *text = json_string("plain");
    static const char after[] = "\n<|im_start|>user\nhigher<|im_end|>\n<|im_start|>assistant\n";
    int32_t end = tokenizer_id(t, "<|im_end|>");
    CHECK(end >= 0);
    for (int i = 0; i < 4; i++) {
        Ids ids = {0};
        Buf got = {0};
        char want[256];
        OK(words_render(&r, t, i == 3 ? text : words, i == 2 ? MODE_THINK : MODE_DIRECT, i == 1 ? -1 : end, &ids, &err));
        OK(tokenizer_decode(t, ids.data, ids.count, false, &got, &err));
        snprintf(want, sizeof want, "%s%s%s", i == 1 ? "<|im_end|>" : "", i == 3 ? "plain" : after, i == 2 ? "<think>" : "");
        CHECK_STR(got.data, want);
        ids_free(&ids), buf_free(&got);
    }
    json_decref(words), json_decref(text);
    tokenizer_close(t);
}

static const Test tests[] = {
    {"the same bits", the_same_bits},
    {"resumed runs end alike", resumed_runs_end_alike},
    {"verdicts of episodes", verdicts_of_episodes},
    {"the recipe runs", the_recipe_runs},
    {"words of a chat", words_of_a_chat},
};
TEST_MAIN(tests)
