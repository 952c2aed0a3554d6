// The run. The loop in run_stage reads like the design's sentence: prompts, rollout, rewards, advantage, update, ledger.
// Around it: the run's folder and its lock, resuming, evaluations, checkpoints, signals, and what a person sees.
//
// Nothing is lost: a step counts once its row is on the ledger, which is written beside the next rollout; a run resumes from the
// newest whole checkpoint, and later rows move to the table of repeated work.
#include "data.h"
#include "accounts.h"
#include "compare_run.h"
#include "compare.h"
#include "cores.h"
#include "curriculum.h"
#include "files.h"
#include "plan_memory.h"
#include "tensorboard.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

// ---- signals ---------------------------------------------------------------------------------------------
// The only mutable globals: a handler can be handed nothing else.
static volatile sig_atomic_t signal_seen, all_saved;
static void on_signal(int number) {
    static const char text[] = "\nreckon: stopped by a signal; all steps are saved, go on with --resume\n";
    if ((all_saved && write(2, text, sizeof text - 1)) || signal_seen) _exit(number == SIGINT ? ERR_INTERRUPTED : ERR_TERMINATED);
    signal_seen = number;
}
static void watch_signals(void) {
    struct sigaction a = {.sa_handler = on_signal};
    int watched[] = {SIGINT, SIGTERM, SIGHUP};
    signal_seen = all_saved = 0;
    for (int i = 0; i < COUNT(watched); i++) sigaction(watched[i], &a, NULL);
}

// ---- the run ---------------------------------------------------------------------------------------------
typedef struct Run {
    Recipe *recipe; // a stage by epochs learns here how many steps it has
    Trainer trainer;
    Ledger *ledger;
    Energy *energy;
    Board *board; // NULL: not asked for
    json_t *curriculum; // of the checkpoint that the run goes on from; NULL: none
    TrainState state;
    int lock;
    int skipped_in_a_row;
    int64_t not_replayable; // verdicts that the ledger already names as decided by a clock or a death
    int64_t reference_step; // whose checkpoint a resumed run measures its KL against
    char *flight_file;    // of the checkpoint that is resumed from; NULL: nothing was in flight
    int64_t total_steps, saved; // saved: the step of the newest checkpoint, -1: none
    // For the estimate of the end, from this start on: this stage's steps, and all stages' FLOPs by the plan.
    int stage_done, stage_left;
    double started, stage_seconds, done_flops, later_flops;
    bool terminal;
    const char *what; // on the progress line
    double shown, metered; // when the bar was last drawn, and the meters read
    Judges judges; // of the comparison's arms
} Run;
enum { SKIPS_IN_A_ROW = 10 };

// By this stage's steps so far and the plan's FLOPs of the later ones; NaN before the first step.
static double seconds_left(const Run *run) {
    if (run->stage_done == 0) return NAN;
    return run->stage_left * run->stage_seconds / run->stage_done + (clock_seconds() - run->started) / run->done_flops * run->later_flops;
}
static void show_bar(Run *run, const char *what, double share) {
    if (!run->terminal || (clock_seconds() - run->shown < 0.2 && share < 1)) return;
    run->shown = clock_seconds();
    double done = run->total_steps ? ((double)run->state.step + share * 0.9) / (double)run->total_steps : 1, left = seconds_left(run);
    char bar[31];
    for (int i = 0; i < 30; i++) bar[i] = i < (int)(done * 30) ? '#' : '.';
    bar[30] = 0;
    fprintf(stderr, "\r[%s] step %lld/%lld, %s", bar, (long long)run->state.step + 1, (long long)run->total_steps, what);
    if (left == left) fprintf(stderr, ", about %d min %02d s left", (int)left / 60, (int)left % 60);
    fprintf(stderr, "\033[K");
    fflush(stderr);
}
static void clear_bar(const Run *run) {
    if (run->terminal) fprintf(stderr, "\r\033[K");
}
static bool on_progress(void *context, const char *what, double share) {
    Run *run = context;
    show_bar(run, what, share);
    if (clock_seconds() - run->metered >= 1) { // a counter that wraps around, a clock that is held down for a while
        run->metered = clock_seconds();
        energy_joules(run->energy);
    }
    return !signal_seen;
}

// On a terminal every step that samples; elsewhere twenty of a stage.
static void tell_step(Run *run, const Stage *stage, const StepReport *s) {
    int every = stage->steps / 20 > 0 ? stage->steps / 20 : 1;
    bool all = run->terminal && stage_row(stage)->samples;
    if (!all && s->stage_step % every != 0 && s->stage_step != stage->steps && s->stage_step != 1) return;
    Buf line = {0};
    step_line(stage, s, seconds_left(run), &line);
    clear_bar(run);
    log_line(LOG_INFO, "%s", line.data);
    buf_free(&line);
}

// ---- evaluations and checkpoints -------------------------------------------------------------------------
static void tell_evaluation(const json_t *e) {
    const json_t *level;
    size_t i;
    Buf line = {0};
    json_array_foreach(json_object_get(e, "levels"), i, level)
        buf_printf(&line, "%s level %lld %.1f %%", i ? "," : "", (long long)json_integer_value(json_object_get(level, "level")),
                   100 * json_number_value(json_object_get(level, "accuracy")));
    log_line(LOG_INFO, "held-out accuracy, %s mode:%s", json_string_value(json_object_get(e, "mode")), line.data ? line.data : "");
    buf_free(&line);
}

typedef struct Meters {
    double joules, device_joules;
} Meters;
static Meters meters_now(const Run *run) { return (Meters){energy_joules(run->energy), energy_device_joules(run->energy)}; }
static Meters meters_since(const Run *run, Meters before) {
    Meters now = meters_now(run);
    return (Meters){now.joules - before.joules, now.device_joules - before.device_joules};
}

// Seconds, and the joules counted since `before`; a key that could not be measured is left out.
static json_t *measured_json(const Run *run, double seconds, Meters before) {
    Meters spent = meters_since(run, before);
    json_t *measured = json_pack("{s:f}", "seconds", seconds);
    if (isfinite(spent.joules)) json_object_set_new(measured, "joules", json_real(spent.joules));
    if (isfinite(spent.device_joules)) json_object_set_new(measured, "device_joules", json_real(spent.device_joules));
    return measured;
}

// A verdict that a clock or a death decided may come out otherwise in another run: the ledger says so once a step. `during`
// names what was done.
static bool note_lost_replay(Run *run, const char *during, Err *err) {
    RewardCounts counts;
    reward_pool_counts(run->trainer.rewards, &counts);
    int64_t more = counts.not_replayable - run->not_replayable;
    if (more == 0) return true;
    if (run->not_replayable == 0)
        log_line(LOG_WARN, "reckon: this run is no longer replayable: %lld verdicts during %s were decided by a clock or a process's death (%s)",
                 (long long)more, during, counts.why);
    run->not_replayable = counts.not_replayable;
    json_t *why = json_string(counts.why);
    json_t *detail = json_pack("{s:I,s:s,s:I,s:o}", "step", (json_int_t)run->state.step, "during", during, "verdicts", (json_int_t)more, "first",
                               why ? why : json_string("(not UTF-8)"));
    bool ok = ledger_event(run->ledger, NOT_REPLAYABLE, detail, err);
    json_decref(detail);
    return ok;
}

static bool evaluate_mode(Run *run, Mode mode, int samples, Err *err) {
    Evaluation e;
    const Trainer *t = &run->trainer;
    Meters before = meters_now(run);
    EvaluateOptions options = {.mode = mode, .items = run->recipe->evaluate_items, .samples = samples, .energy = run->energy};
    TRY(evaluate_with(t->policy, run->recipe, t->tasks, t->rewards, &options, &e, err));
    json_t *replayable = evaluation_json(&e, t->tasks), *measured = measured_json(run, e.seconds, before);
    json_object_set_new(replayable, "samples", json_integer(samples));
    json_object_set_new(replayable, "answers", evaluation_answers(&e));
    clear_bar(run);
    if (samples == 0) tell_evaluation(replayable);
    char name[64];
    snprintf(name, sizeof name, "%s %s", samples ? "sampled" : "greedy", mode_names[mode]);
    bool ok = ledger_evaluation(run->ledger, run->state.step, name, replayable, measured, err) && note_lost_replay(run, "an evaluation", err);
    ok = ok && board_evaluation(run->board, run->state.step, name, replayable, err);
    json_decref(replayable), json_decref(measured);
    evaluation_free(&e);
    return ok;
}

static bool evaluate_now(Run *run, const Stage *stage, Err *err) {
    if (run->recipe->evaluate_items <= 0) return true;
    for (Mode m = 0; m < MODES; m++) {
        if (stage->mode_share[m] <= 0 && !stage->data) continue; // rows of data have modes of their own
        TRY(evaluate_mode(run, m, 0, err));
        if (run->recipe->evaluate_samples > 0) TRY(evaluate_mode(run, m, run->recipe->evaluate_samples, err));
    }
    return true;
}

static bool save(Run *run, Err *err) {
    const Recipe *r = run->recipe;
    int64_t step, ends[64] = {0}, at = 0;
    int count = 1; // step 0, which a first stage's KL is measured against
    TRY(ledger_head(run->ledger, &step, run->state.chain, err));
    json_t *curriculum = curriculum_state(run->trainer.curriculum);
    run->state.curriculum = curriculum;
    bool saved = checkpoint_save(r->run_folder, run->trainer.policy, &run->state, r->hash, err);
    run->state.curriculum = NULL;
    json_decref(curriculum);
    TRY(saved);
    for (int i = 0; i < r->stage_count && count < COUNT(ends); i++) ends[count++] = at += r->stages[i].steps;
    if (run->reference_step > 0 && count < COUNT(ends)) ends[count++] = run->reference_step;
    TRY(checkpoint_prune(r->run_folder, r->keep_checkpoints, ends, count, err));
    run->saved = run->state.step;
    json_t *detail = json_pack("{s:I}", "step", (json_int_t)run->state.step);
    bool ok = ledger_event(run->ledger, "checkpoint", detail, err);
    json_decref(detail);
    return ok;
}

// ---- steps -----------------------------------------------------------------------------------------------
static double flops_so_far(const Run *run) {
    const Trainer *t = &run->trainer;
    return policy_flops(t->policy) + (t->reference ? policy_flops(t->reference) : 0) + (t->teacher ? policy_flops(t->teacher) : 0);
}

// A step's count is replayable, so it begins at 0 whatever this process did before.
static void forget_flops(Run *run) {
    Trainer *t = &run->trainer;
    policy_forget_flops(t->policy);
    if (t->reference) policy_forget_flops(t->reference);
    if (t->teacher) policy_forget_flops(t->teacher);
}

// What a step is likely to take.
static double step_flops(const Run *run, const Stage *stage) {
    return stage_row(stage)->likely * plan_step_flops(policy_config(run->trainer.policy), run->recipe, stage);
}

// A device whose clock is held down is slower than what was measured before, and the ledger should say why.
static bool note_held_clock(Run *run, int64_t step, Err *err) {
    const char *why = energy_held(run->energy);
    if (!*why) return true;
    json_t *detail = json_pack("{s:I,s:s}", "step", (json_int_t)step, "why", why);
    bool ok = ledger_event(run->ledger, "clock held down", detail, err);
    json_decref(detail);
    return ok;
}

static bool take_step(Run *run, const Stage *stage, StepReport *report, Err *err) {
    double start = clock_seconds(), cpu = clock_cpu_seconds();
    forget_flops(run);
    Meters before = meters_now(run);
    const StageRow *row = stage_row(stage);
    Batch batch = {.step = report->step, .stage = stage, .stage_step = report->stage_step};
    bool ok = row->step(&run->trainer, stage, &batch, report, err);
    report->flops = flops_so_far(run);
    report->measured.seconds = clock_seconds() - start;
    report->measured.cpu_seconds = clock_cpu_seconds() - cpu;
    Meters spent = meters_since(run, before);
    report->measured.joules = spent.joules, report->measured.device_joules = spent.device_joules;
    report->measured.peak_bytes = memory_peak_bytes();
    if (ok) curriculum_step(run->trainer.curriculum, &report->levels);
    ok = ok && board_step(run->board, report, err);
    if (ok) {
        run->state.step = report->step;
        run->state.stage_index = report->stage_index;
        run->state.stage_step = report->stage_step;
        run->done_flops += step_flops(run, stage);
        run->stage_seconds += report->measured.seconds;
        run->stage_done++;
        run->stage_left = stage->steps - report->stage_step;
        tell_step(run, stage, report);
        show_bar(run, stage->name, 0);
        ok = ledger_step_beside(run->ledger, report, row->samples ? &batch : NULL, err);
    }
    batch_free(&batch);
    TRY(ok && note_held_clock(run, report->step, err) && note_lost_replay(run, "a step", err));
    run->skipped_in_a_row = report->skipped ? run->skipped_in_a_row + 1 : 0;
    if (run->skipped_in_a_row >= SKIPS_IN_A_ROW)
        return fail(err, ERR_FAILED, stage->name, "the gradient was NaN or infinite in %d steps in a row; lower the learning rate and go on from "
                    "the last checkpoint in %s/checkpoints", SKIPS_IN_A_ROW, run->recipe->run_folder);
    return true;
}
static bool run_step(Run *run, const Stage *stage, int stage_step, Err *err) {
    StepReport report = {.step = run->state.step + 1, .stage_index = run->trainer.stage_index, .stage_step = stage_step,
                         .kind = stage->kind, .reward_mean = NAN, .reward_std = NAN, .corrected_share = NAN};
    bool ok = take_step(run, stage, &report, err);
    expert_load_free(&report.experts), level_counts_free(&report.levels);
    return ok;
}

// The step whose policy a stage's KL is measured against: the stage's start, or the last time that it was moved.
static int64_t reference_step(const Run *run, const Stage *stage, int64_t start_step) {
    int every = stage->algo.reference_every;
    return every > 0 ? start_step + (run->state.step - start_step) / every * every : start_step;
}
// The step whose weights a stage starts with: those of now, or of an earlier stage's end.
static int64_t first_weights(const Run *run, const Stage *stage, int64_t start_step) {
    return stage->from ? stage_end_step(run->recipe, stage->from) : start_step;
}
static bool take_weights(Run *run, const Stage *stage, int64_t start_step, Err *err) {
    const Recipe *r = run->recipe;
    Trainer *t = &run->trainer;
    int64_t at = first_weights(run, stage, start_step);
    if (at == start_step) return true;
    char *folder = xasprintf("%s/checkpoints/step-%lld", r->run_folder, (long long)at);
    PolicyOptions o = {.precision = r->precision, .threads = r->threads, .device = recipe_device(r), .trainable = true, .keep_blocks = r->keep_blocks,
                       .int8 = recipe_samples_int8(r)};
    TrainState state;
    energy_watch(run->energy, NULL);
    policy_close(t->reference), policy_close(t->policy);
    t->reference = t->policy = NULL;
    bool ok = checkpoint_verify(folder, &state, err) && policy_open(folder, &o, &t->policy, err);
    if (ok) energy_watch(run->energy, t->policy);
    free(folder);
    return ok;
}

static bool open_reference(Run *run, const Stage *stage, int64_t start_step, Err *err) {
    Trainer *t = &run->trainer;
    policy_close(t->reference);
    t->reference = NULL;
    if (stage->algo.kl <= 0) return true;
    int64_t moved = reference_step(run, stage, start_step);
    bool now = run->state.step == moved;
    start_step = moved == start_step ? first_weights(run, stage, start_step) : moved;
    // Before the first step an adapter changes nothing: the reference is the base with the adapter off, at no memory.
    if (start_step == 0 && run->recipe->lora.rank > 0) return policy_view(t->policy, NULL, &t->reference, err);
    if (now) return policy_freeze_copy(t->policy, &t->reference, err);
    PolicyOptions o = {.precision = run->recipe->precision, .beside = t->policy};
    if (start_step == 0 && run->recipe->model_path && !policy_trains_adapter(t->policy))
        return policy_open(run->recipe->model_path, &o, &t->reference, err);
    char *folder = xasprintf("%s/checkpoints/step-%lld", run->recipe->run_folder, (long long)start_step);
    bool adapter = policy_trains_adapter(t->policy);
    bool ok = adapter ? policy_view(t->policy, folder, &t->reference, err) : policy_open(folder, &o, &t->reference, err);
    free(folder);
    return ok;
}

static bool open_objective(Run *run, const Stage *stage, Err *err) {
    objective_script_close(run->trainer.script);
    run->trainer.script = NULL;
    return !stage->algo.objective ||
           objective_script_open(stage->algo.objective, &stage->algo, &run->trainer.script, err);
}

static void close_work(Run *run) {
    Trainer *t = &run->trainer;
    const StageRow *row = stage_row(&t->recipe->stages[t->stage_index]);
    if (row->close) row->close(t);
    t->work = NULL;
}
static bool open_work(Run *run, const Stage *stage, Err *err) {
    const StageRow *row = stage_row(stage);
    return !row->open || row->open(&run->trainer, stage, err);
}

// A resumed run takes up what its checkpoint tells, in the stage that the checkpoint is of; others begin with their first levels.
static bool open_curriculum(Run *run, const Stage *stage, Err *err) {
    bool resumed = run->curriculum && run->state.stage_index == run->trainer.stage_index;
    curriculum_close(run->trainer.curriculum);
    run->trainer.curriculum = NULL;
    TRY(curriculum_open(run->trainer.tasks, stage, resumed ? run->curriculum : NULL, &run->trainer.curriculum, err));
    if (resumed) json_decref(run->curriculum), run->curriculum = NULL;
    return true;
}

// What is in flight belongs to a stage; a resumed one finds in its checkpoint what it had.
static bool open_flight(Run *run, const Stage *stage, int64_t start_step, Err *err) {
    Trainer *t = &run->trainer;
    if (t->flight) TRY(reward_pool_finish(t->rewards, err));
    flight_close(t->flight);
    t->flight = run->state.flight = NULL;
    if (!stage_row(stage)->samples) return true;
    TRY(flight_open(&t->flight));
    run->state.flight = t->flight;
    flight_begin(t->flight, stage, (int)(run->state.step - start_step));
    bool ok = !run->flight_file || flight_load(t, stage, run->flight_file, t->flight, err);
    free(run->flight_file);
    run->flight_file = NULL;
    return ok;
}

static bool interrupted(Run *run, Err *err) {
    clear_bar(run);
    if (run->state.step != run->saved) TRY(save(run, err));
    return fail(err, signal_seen == SIGINT ? ERR_INTERRUPTED : ERR_TERMINATED, run->recipe->run_folder,
                "stopped by a signal; step %lld is saved, go on with --resume", (long long)run->state.step);
}

// Before a stage's first step: whether samples end. New weights that nothing has trained yet can't be judged by that.
static bool probe_now(Run *run, const Stage *stage, Err *err) {
    const Trainer *t = &run->trainer;
    ProbeReport probe;
    if (stage->probe == 0 || (run->state.step == 0 && !run->recipe->model_path)) return true;
    Meters before = meters_now(run);
    double start = clock_seconds(), flops = flops_so_far(run);
    TRY(probe_stage(t, stage, &probe, err));
    json_t *detail = measured_json(run, clock_seconds() - start, before);
    json_object_set_new(detail, "stage", json_integer(t->stage_index));
    json_object_set_new(detail, "samples", json_integer(probe.samples));
    json_object_set_new(detail, "truncated", json_real(probe.truncated));
    json_object_set_new(detail, "repetitive", json_real(probe.repetitive));
    json_object_set_new(detail, "length", json_real(probe.length));
    json_object_set_new(detail, "prompt_tokens", json_integer(probe.prompt_tokens));
    json_object_set_new(detail, "new_tokens", json_integer(probe.new_tokens));
    json_object_set_new(detail, "flops", json_real(flops_so_far(run) - flops));
    bool ok = ledger_event(run->ledger, "probe", detail, err);
    json_decref(detail);
    clear_bar(run);
    if (ok)
        log_line(LOG_INFO, "%s: %d samples before step 1: length %.1f, truncated %.0f %%, repetitive %.0f %%", stage->name, probe.samples,
                 probe.length, 100 * probe.truncated, 100 * probe.repetitive);
    if (ok && probe.repetitive > 0.5)
        log_line(LOG_WARN, "reckon: %s: most samples repeat themselves; a reward such as {\"repetition\"} or a lower sampling.temperature may help", stage->name);
    return ok && probe_judge(stage, t->stage_index, &probe, err);
}

// A stage by epochs has as many steps as its data asks for, which an earlier stage may have just made.
static bool count_steps(Run *run, Err *err) {
    TRY(stages_count_steps(run->recipe, run->ledger, err));
    run->total_steps = 0;
    for (int i = 0; i < run->recipe->stage_count; i++) run->total_steps += run->recipe->stages[i].steps;
    return true;
}

static bool run_stage(Run *run, int index, Err *err) {
    const Stage *stage = &run->recipe->stages[index];
    const StageRow *row = stage_row(stage);
    int64_t start_step = 0;
    for (int i = 0; i < index; i++) start_step += run->recipe->stages[i].steps;
    close_work(run); // of the stage before
    run->trainer.stage_index = index;
    run->stage_done = 0;
    run->stage_seconds = run->later_flops = 0;
    for (int i = index + 1; i < run->recipe->stage_count; i++)
        run->later_flops += run->recipe->stages[i].steps * step_flops(run, &run->recipe->stages[i]);
    if (stage->steps == 0) return fail(err, ERR_SOFTWARE, stage->name, "how many steps it has isn't known where it starts");
    if (run->state.step == start_step) TRY(take_weights(run, stage, start_step, err));
    if (run->state.step == start_step) policy_reset_optimizer(run->trainer.policy), run->state.algo = (AlgoState){0};
    if (run->state.step == start_step + stage->steps) return true;
    run->reference_step = reference_step(run, stage, start_step);
    TRY(open_reference(run, stage, start_step, err) && open_objective(run, stage, err));
    TRY(open_curriculum(run, stage, err) && open_work(run, stage, err) && open_flight(run, stage, start_step, err));
    if (run->state.step == 0 && row->samples) TRY(evaluate_now(run, stage, err));
    if (start_step == 0 && run->state.step == 0) TRY(save(run, err)); // a kill before the first one still resumes
    if (stage->rollout_precision == ROLLOUT_INT8)
        log_line(LOG_INFO, "%s: samples are drawn with weights in 8 bits: their log-probabilities aren't the trainer's, and are corrected for by %s", stage->name,
                 stage->algo.correction.level == CORRECTION_TOKEN ? "token" : stage->algo.correction.level == CORRECTION_SEQUENCE ? "sequence" : "rejection");
    if (run->state.step == start_step) {
        bool ok = probe_now(run, stage, err);
        if (!ok && err->code == ERR_INTERRUPTED && signal_seen) return interrupted(run, err);
        TRY(ok);
    }
    for (int step = (int)(run->state.step - start_step) + 1; step <= stage->steps; step++) {
        if (signal_seen) return interrupted(run, err);
        bool ok = run_step(run, stage, step, err);
        if (!ok && err->code == ERR_INTERRUPTED && signal_seen) return interrupted(run, err);
        TRY(ok);
        bool last = step == stage->steps, moved = stage->algo.kl > 0 && stage->algo.reference_every > 0 && step % stage->algo.reference_every == 0;
        if (moved && !last) TRY(open_reference(run, stage, start_step, err));
        if (moved) run->reference_step = run->state.step;
        if (last && row->end) TRY(row->end(&run->trainer, stage, start_step + 1, run->state.step, err) && count_steps(run, err));
        bool due = last || (stage->evaluate_every > 0 && step % stage->evaluate_every == 0);
        if (due && row->validate) TRY(row->validate(&run->trainer, stage, run->state.step, err));
        if (due && !row->keeps_weights) TRY(evaluate_now(run, stage, err));
        if (last || (stage->checkpoint_every > 0 && step % stage->checkpoint_every == 0) || moved) TRY(save(run, err));
    }
    return true;
}

// ---- start -----------------------------------------------------------------------------------------------
static bool write_recipe(const Recipe *r, Err *err) {
    Buf text = {0};
    json_write(r->resolved, &text);
    char *resolved = path_join(r->run_folder, "recipe.resolved.json"), *copy = path_join(r->run_folder, "recipe.lua");
    bool ok = file_write_atomic(resolved, text.data, text.size, err);
    buf_free(&text);
    ok = ok && file_read(r->path, 16 << 20, &text, err) && file_write_atomic(copy, text.data, text.size, err);
    buf_free(&text);
    free(resolved), free(copy);
    return ok;
}

static bool open_policy(Run *run, const char *checkpoint, Err *err) {
    const Recipe *r = run->recipe;
    PolicyOptions o = {.precision = r->precision, .threads = r->threads, .device = recipe_device(r), .trainable = true, .keep_blocks = r->keep_blocks,
                       .int8 = recipe_samples_int8(r)};
    Policy **p = &run->trainer.policy;
    if (checkpoint) {
        char *optimizer = path_join(checkpoint, "optimizer.safetensors");
        bool ok = policy_open(checkpoint, &o, p, err) && policy_load_optimizer(*p, optimizer, err);
        free(optimizer);
        return ok;
    }
    o.lora = r->lora;
    if (r->model_path) return policy_open(r->model_path, &o, p, err);
    Tokenizer *t;
    TRY(tokenizer_from_characters(r->characters, &t, err));
    ModelConfig c = r->config;
    c.vocabulary = tokenizer_size(t);
    c.stop_ids[0] = tokenizer_eos(t);
    c.stop_count = 1;
    return policy_create(&c, t, r->seed, &o, p, err);
}

// A key that would do nothing is an error, before the first step.
static bool check_experts(const Run *run, Err *err) {
    const ModelConfig *c = policy_config(run->trainer.policy);
    bool any = policy_expert_layers(run->trainer.policy) > 0;
    for (int i = 0; i < run->recipe->stage_count; i++) {
        const Stage *s = &run->recipe->stages[i];
        if (s->optimizer.expert_bias_rate > 0 && !(any && c->experts.correction))
            return fail(err, ERR_DATA, s->name, "optimizer.expert_bias_rate is %g, but a %s model has no correction biases of experts",
                        s->optimizer.expert_bias_rate, c->model_type);
        if (s->optimizer.expert_bias_rate > 0 && run->recipe->lora.rank > 0)
            return fail(err, ERR_DATA, s->name, "optimizer.expert_bias_rate is %g, but an adapter leaves the model's correction biases as they are",
                        s->optimizer.expert_bias_rate);
        if ((s->optimizer.router_balance > 0 || s->optimizer.router_z > 0) && !any)
            return fail(err, ERR_DATA, s->name, "optimizer.router_balance is %g and router_z %g, but the model has no experts", s->optimizer.router_balance,
                        s->optimizer.router_z);
    }
    return true;
}

// What the bits of a run depend on besides the weights: the same on every resume, or the ledger refuses to go on.
static bool run_facts(const Run *run, json_t **out, Err *err) {
    const Recipe *r = run->recipe;
    char data[65], scripts[65], stage_data[65], teachers[65];
    TRY(stages_data_hash(r, stage_data, err) && teachers_hash(r, teachers, err));
    tasks_hash(run->trainer.tasks, data);
    reward_pool_hash(run->trainer.rewards, scripts);
    *out = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "name", r->name, "recipe_hash", r->hash, "version", RECKON_VERSION, "variant",
                     policy_variant(run->trainer.policy), "precision", r->precision == PRECISION_BF16 ? "bf16" : "fp32", "data", data,
                     "rewards", scripts);
    if (stage_data[0]) json_object_set_new(*out, "stage_data", json_string(stage_data));
    if (teachers[0]) json_object_set_new(*out, "teachers", json_string(teachers));
    // The sampler's numbers aren't the trainer's then. Runs without it keep the facts that they had.
    if (recipe_samples_int8(r)) json_object_set_new(*out, "rollouts", json_string("int8, corrected"));
    return true;
}

static bool record_start(Run *run, bool resumed, Err *err) {
    const Policy *p = run->trainer.policy;
    struct utsname u = {0};
    uname(&u);
    json_t *facts;
    TRY(run_facts(run, &facts, err));
    Cores cores = cores_find();
    json_t *measured = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:o,s:b}", "host", u.nodename, "system", u.release, "machine", u.machine,
                                                          "device", policy_variant(p), "threads", policy_threads(p), "allowed_cores", cores.allowed, "usable_cores",
                                 cores.usable, "control_group_cores", cores.where[0] ? json_real(cores.limit) : json_null(), "resumed", resumed);
    bool ok = ledger_run(run->ledger, facts, measured, err);
    json_decref(facts), json_decref(measured);
    if (ok && resumed) {
        json_t *detail = json_pack("{s:I}", "step", (json_int_t)run->state.step);
        ok = ledger_event(run->ledger, "resume", detail, err);
        json_decref(detail);
    } else if (ok) {
        char weights[65];
        double start = clock_seconds();
        Meters before = meters_now(run);
        TRY(policy_hash(p, weights, err));
        json_t *model = json_pack("{s:s}", "sha256", weights), *spent = measured_json(run, clock_seconds() - start, before);
        ok = ledger_evaluation(run->ledger, 0, "model", model, spent, err);
        json_decref(model), json_decref(spent);
    }
    return ok;
}

// A ledger without any whole checkpoint is of a run that was killed before its first one, which is made before step 1:
// nothing to go on from. One with steps has lost its checkpoints, and what it tells is not thrown away.
static bool ledger_is_empty(const char *run_folder, Err *err) {
    Ledger *l;
    int64_t step = 0;
    char head[65];
    // Before the facts of the run are written there is no head.
    bool ok = ledger_open_read(run_folder, &l, err) && (ledger_head(l, &step, head, err) || step == 0);
    ledger_close(l);
    TRY(ok);
    return step == 0 || fail(err, ERR_DATA, run_folder, "its ledger ends at step %lld but no whole checkpoint is left to go on from: "
                             "choose another folder with --run", (long long)step);
}

// Opens what the run needs, in the order that keeps it safe: the reward workers are forked before the model is read
// and before any thread starts.
static bool start(Run *run, const TrainOptions *o, Err *err) {
    const Recipe *r = run->recipe;
    TRY(folder_make(r->run_folder, err));
    TRY(run_lock(r->run_folder, &run->lock, err)); // first of all: what is there may not change while it is looked at
    char *ledger_path = path_join(r->run_folder, "ledger.db"), *checkpoint = NULL;
    bool there = file_exists(ledger_path), found = false;
    free(ledger_path);
    if (there && !o->resume)
        return fail(err, ERR_CANTCREAT, r->run_folder, "holds a run already: go on with --resume, or choose another folder with --run");
    if (there) TRY(checkpoint_latest(r->run_folder, r->hash, &run->state, &checkpoint, &found, err));
    if (found) TRY(checkpoint_curriculum(checkpoint, &run->curriculum, err));
    if (there && !found) TRY(ledger_is_empty(r->run_folder, err));
    bool ok = reward_pool_open(r->rewards, r->reward_count, r->reward_workers, &r->reward_limits, &run->trainer.rewards, err) &&
              (r->compare_items <= 0 || judges_open((const char *const *)r->compare_arms, r, &run->judges, err));
    Tasks *tasks = NULL;
    ok = ok && tasks_open(r, &tasks, err);
    run->trainer.tasks = tasks;
    ok = ok && open_policy(run, checkpoint, err) && check_experts(run, err);
    run->energy = run->trainer.energy = energy_open(NULL, NULL);
    if (ok) energy_watch(run->energy, run->trainer.policy);
    if (ok && there && !found) { // killed before its first checkpoint: nothing to go on from
        char *stale = path_join(r->run_folder, "ledger.db"), *wal = path_join(r->run_folder, "ledger.db-wal"), *shm = path_join(r->run_folder, "ledger.db-shm");
        unlink(stale), unlink(wal), unlink(shm);
        free(stale), free(wal), free(shm);
    }
    ok = ok && (found || write_recipe(r, err)) && ledger_open(r->run_folder, found, &run->ledger, err);
    if (ok && found) ok = ledger_rewind(run->ledger, run->state.step, err);
    run->trainer.ledger = run->ledger;
    ok = ok && record_start(run, found, err) && plan_reserve(r, tasks, run->trainer.policy, err); // hashing takes memory of its own
    if (ok && r->tensorboard) ok = board_open(r->run_folder, run->state.step, &run->board, err);
    if (found) run->saved = run->state.step;
    if (ok && found) log_line(LOG_INFO, "going on from step %lld", (long long)run->state.step);
    char *flight = checkpoint ? path_join(checkpoint, FLIGHT_FILE) : NULL;
    if (flight && file_exists(flight)) run->flight_file = xstrdup(flight);
    free(flight), free(checkpoint);
    return ok;
}

static void finish(Run *run) {
    Trainer *t = &run->trainer;
    close_work(run);
    Err ignored;
    if (t->flight && reward_pool_environment(t->rewards)) { // its dialogues may still wait for answers
        if (!reward_pool_finish(t->rewards, &ignored)) log_line(LOG_WARN, "reckon: %s", ignored.msg);
        flight_close(t->flight);
        t->flight = NULL;
    }
    reward_pool_close(t->rewards);
    flight_close(t->flight); // no verdict comes any more
    free(run->flight_file);
    policy_close(t->reference);
    policy_close(t->policy);
    objective_script_close(t->script);
    curriculum_close(t->curriculum);
    json_decref(run->curriculum);
    ledger_close(run->ledger);
    energy_close(run->energy);
    board_close(run->board);
    tasks_close((Tasks *)(uintptr_t)t->tasks);
    judges_close(&run->judges);
    if (run->lock >= 0) run_unlock(run->lock);
}

static bool compare_at_end(Run *run, Err *err) {
    json_t *comparison;
    const Trainer *t = &run->trainer;
    all_saved = true; // from here on a signal ends the process at once
    if (signal_seen) return interrupted(run, err);
    log_line(LOG_INFO, "comparing on %d held-out items of each level", run->recipe->compare_items);
    TRY(compare_run(t->policy, run->recipe, t->tasks, t->rewards, &run->judges, run->ledger, run->state.step, &comparison, err));
    compare_print(comparison);
    json_decref(comparison);
    return note_lost_replay(run, "the comparison", err);
}

// How this session of the run ended, for those who count what it cost: one without such an event was killed.
static bool record_end(Run *run, bool ok, const Err *why, Err *err) {
    bool stopped = !ok && (why->code == ERR_INTERRUPTED || why->code == ERR_TERMINATED);
    int64_t step;
    char head[65];
    // A step counts once its row is there; of one that is being written, the first question may be told that it failed.
    if (!ledger_head(run->ledger, &step, head, err) && (ok || !ledger_head(run->ledger, &step, head, err))) return false;
    json_t *text = ok ? json_null() : json_string(why->msg);
    json_t *detail = json_pack("{s:I,s:s,s:o}", "step", (json_int_t)step, "how", ok ? "finished" : stopped ? "stopped" : "failed", "why",
                               text ? text : json_string("(not UTF-8)"));
    bool written = ledger_event(run->ledger, "end", detail, err);
    json_decref(detail);
    return written;
}

bool train(Recipe *r, const TrainOptions *options, Err *err) {
    Run run = {.recipe = r, .trainer = {.recipe = r}, .lock = -1, .saved = -1, .started = clock_seconds(), .terminal = isatty(2)};
    run.trainer.algo_state = &run.state.algo;
    run.trainer.progress = on_progress;
    run.trainer.progress_context = &run;
    watch_signals();
    Err lost = {0};
    bool ok = start(&run, options, err) && count_steps(&run, err);
    for (int i = 0; ok && i < r->stage_count; i++) ok = run_stage(&run, i, err);
    clear_bar(&run);
    ok = ok && (!options->compare || r->compare_items <= 0 || compare_at_end(&run, err));
    if (ok) ok = record_end(&run, true, NULL, err) && report_write(r->run_folder, NULL, err);
    else if (run.ledger && !record_end(&run, false, err, &lost)) log_line(LOG_WARN, "reckon: how this run ended could not be put on its ledger: %s", lost.msg);
    if (!ok && run.saved >= 0 && policy_failed(run.trainer.policy)) { // what it holds is lost, so nothing more can be saved
        Err first = *err;
        fail(err, ERR_IO, first.where, "%s; step %lld is saved, go on with --resume", first.msg, (long long)run.saved);
    }
    finish(&run);
    return ok;
}
