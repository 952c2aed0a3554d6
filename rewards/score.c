// From a script's return values to a verdict. A script returns function(sample) -> score, or a table with `score` or
// `group` (and a `name`). A score is a finite number, a table of named finite numbers (their sum counts), or
// nil, "why" to abstain. A group function takes the list of samples of one prompt and returns a list of as many
// scores, in which false abstains, or nil, "why". Everything else is an error, never a silent 0.
//
// What a script sees of a sample: prompt, messages, completion, think, answer, truth, row, tokens, think_tokens,
// answer_tokens, finish, mode, step; and its own settings as the global `options`. What it may call stands at the
// head of each library_*.c. The file's own code runs anew for each sample (or group), in a state that remembers
// nothing, so neither order nor worker can matter.
#include "score.h"
#include "embedded.h"
#include "files.h"
#include "program.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SCRIPT = 1 << 20 };

const char *const verdict_state_names[VERDICT_STATES] = {"scored", "abstained", "error", "budget", "killed"};

RewardLimits reward_default_limits(void) {
    SandboxLimits s = sandbox_default_limits();
    return (RewardLimits){.fuel = 20000000, .memory = s.memory, .seconds = 10};
}

// ---- loading -----------------------------------------------------------------------------------------------------------
static bool names_file(const char *script) {
    size_t n = strlen(script);
    return strchr(script, '/') || (n > 4 && strcmp(script + n - 4, ".lua") == 0);
}

static bool read_source(const char *script, Buf *out, Err *err) {
    *out = (Buf){0};
    if (names_file(script)) return file_read(script, MAX_SCRIPT, out, err);
    Buf known = {0};
    for (const EmbeddedFile *f = embedded_files; f->name; f++) {
        size_t n = strlen(f->name);
        if (n < 5 || strcmp(f->name + n - 4, ".lua") != 0) continue;
        if (strlen(script) == n - 4 && memcmp(f->name, script, n - 4) == 0) {
            buf_append(out, f->data, f->size);
            buf_free(&known);
            return true;
        }
        buf_printf(&known, "%s%.*s", known.size ? ", " : "", (int)n - 4, f->name);
    }
    fail(err, ERR_NOINPUT, script, "no such reward; shipped are %s; one of your own is a path ending in .lua",
         known.data ? known.data : "none");
    buf_free(&known);
    return false;
}

// `allow = {"program.python"}` beside the script's name in a recipe: what it may do that others may not.
static bool read_allow(const RewardSpec *spec, unsigned *programs, Err *err) {
    const json_t *allow = json_object_get(spec->options, "allow");
    *programs = 0;
    if (allow && !json_is_array(allow)) return fail(err, ERR_DATA, spec->script, "allow: expected a list, such as {\"program.python\"}");
    for (size_t i = 0; i < json_array_size(allow); i++) {
        const char *name = json_string_value(json_array_get(allow, i));
        int k = 0;
        while (name && k < PROGRAM_LANGUAGES && (strncmp(name, "program.", 8) != 0 || strcmp(name + 8, program_language_names[k]) != 0)) k++;
        if (!name || k == PROGRAM_LANGUAGES)
            return fail(err, ERR_DATA, spec->script, "allow: found '%.40s', expected \"program.python\" or \"program.c\"", name ? name : "no text");
        *programs |= 1u << k;
    }
    return true;
}

static bool open_script(const RewardSpec *spec, int index, const RewardLimits *limits, ScoreScript *out, Buf *all, Err *err) {
    SandboxLimits box_limits = sandbox_default_limits();
    char file[128], message[256];
    Buf source;
    const char *slash = strrchr(spec->script, '/'), *base = slash ? slash + 1 : spec->script;
    int stem = (int)strlen(base) - (names_file(spec->script) && strstr(base, ".lua") ? 4 : 0);
    unsigned programs;
    TRY(read_allow(spec, &programs, err));
    TRY(read_source(spec->script, &source, err));
    box_limits.fuel = limits->fuel;
    box_limits.memory = limits->memory;
    box_limits.bare = limits->bare;
    snprintf(out->name, sizeof out->name, "%.*s", stem, base);
    snprintf(file, sizeof file, "%.40s.lua", out->name);
    if (spec->task) { // one name for the parts of all tasks
        out->task = xstrdup(spec->task);
        snprintf(out->name, sizeof out->name, "task");
    }
    out->weight = spec->weight;
    bool ok = sandbox_open(file, &box_limits, &out->box, err);
    if (ok) {
        out->box->substream = (uint64_t)index;
        out->box->programs = programs;
        ok = sandbox_options(out->box, spec->options, message, sizeof message) ||
             fail(err, ERR_DATA, spec->script, "options: %s", message);
    }
    ok = ok && sandbox_load(out->box, source.data ? source.data : "", source.size, spec->script, err);
    if (ok) sandbox_freeze(out->box);
    buf_printf(all, "%zu:", source.size);
    buf_append(all, source.data, source.size);
    buf_free(&source);
    return ok;
}

bool scripts_open(const RewardSpec *specs, int count, const RewardLimits *limits, ScoreScripts *out, Err *err) {
    *out = (ScoreScripts){.list = xcalloc((size_t)count, sizeof(ScoreScript)), .limits = *limits};
    Buf all = {0};
    bool ok = true;
    for (; ok && out->count < count; out->count++)
        ok = open_script(&specs[out->count], out->count, limits, &out->list[out->count], &all, err);
    for (int i = 0; ok && i < count; i++) out->programs |= out->list[i].box->programs;
    sha256_hex(all.data, all.size, out->hash);
    buf_free(&all);
    return ok;
}

void scripts_close(ScoreScripts *scripts) {
    for (int i = 0; i < scripts->count; i++) sandbox_close(scripts->list[i].box), free(scripts->list[i].task);
    free(scripts->list);
    *scripts = (ScoreScripts){0};
}

// ---- the sample as a table ---------------------------------------------------------------------------------------------
static void set_text(lua_State *L, const char *name, const char *text, size_t size) {
    if (!text) return;
    lua_pushlstring(L, text, size);
    lua_setfield(L, -2, name);
}
static void set_integer(lua_State *L, const char *name, int64_t value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}
static void set_json(lua_State *L, const char *name, const json_t *value) {
    if (!value) return;
    value_push(L, value);
    lua_setfield(L, -2, name);
}

static void push_sample(lua_State *L, const RewardSample *s) {
    TextSpan think, answer;
    completion_cut(s->completion, s->completion_size, strcmp(s->mode, "think") == 0, &think, &answer);
    lua_createtable(L, 0, 16);
    set_text(L, "prompt", s->prompt, s->prompt ? strlen(s->prompt) : 0);
    set_text(L, "completion", s->completion, s->completion_size);
    set_text(L, "think", think.data, think.size);
    set_text(L, "answer", answer.data, answer.size);
    set_text(L, "truth", s->truth, s->truth ? strlen(s->truth) : 0);
    set_text(L, "finish", s->finish, strlen(s->finish));
    set_text(L, "mode", s->mode, strlen(s->mode));
    set_text(L, "task", s->task, s->task ? strlen(s->task) : 0);
    set_json(L, "messages", s->messages);
    set_json(L, "row", s->row);
    set_integer(L, "tokens", s->tokens);
    set_integer(L, "think_tokens", s->think_tokens);
    set_integer(L, "answer_tokens", s->answer_tokens);
    set_integer(L, "step", s->step);
}

// ---- results -----------------------------------------------------------------------------------------------------------
typedef struct Result { // of one script for one sample
    VerdictState state;
    double score;
    RewardPart parts[MAX_REWARD_PARTS];
    int part_count;
    char why[256];
    bool not_replayable;
} Result;

typedef struct Run {
    const ScoreScript *script;
    const RewardSample *samples;
    int count;
    bool group;     // found: the script has a group function and has scored all samples
    bool only_look; // run the file's scope, then stop
    char name[24];
    Result *results;
} Run;

static Result *bad(Result *r, const Run *run, const char *what, const char *detail) {
    r->state = VERDICT_ERROR;
    r->part_count = 0;
    snprintf(r->why, sizeof r->why, "%s: %s%s", run->script->box->name, what, detail);
    return r;
}

static Result *abstain(Result *r, const Run *run, const char *why) {
    r->state = VERDICT_ABSTAINED;
    r->part_count = 1;
    r->parts[0].value = NAN;
    snprintf(r->parts[0].name, sizeof r->parts[0].name, "%s", run->name);
    snprintf(r->why, sizeof r->why, "%s", why);
    return r;
}

static bool add_part(Result *r, const Run *run, const char *part, double value) {
    if (!isfinite(value)) {
        char text[64];
        snprintf(text, sizeof text, "%.30s is %s", part ? part : "the score",
                 value != value ? "NaN" : value > 0 ? "inf" : "-inf");
        bad(r, run, text, ", expected a finite number");
        return false;
    }
    if (r->part_count == MAX_REWARD_PARTS) {
        bad(r, run, "more than 24 parts", "");
        return false;
    }
    RewardPart *p = &r->parts[r->part_count++];
    snprintf(p->name, sizeof p->name, part ? "%s.%.23s" : "%s", run->name, part);
    p->value = value;
    r->score += value;
    return true;
}

static void read_parts(lua_State *L, int index, const Run *run, Result *r) {
    lua_Integer n = library_ordered_keys(L, index);
    int keys = lua_gettop(L);
    if (n == 0) bad(r, run, "the table of parts is empty", ", expected named numbers");
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, keys, i);
        if (lua_type(L, -1) != LUA_TSTRING) {
            bad(r, run, "a list instead of a table of named parts", "");
            return;
        }
        const char *part = lua_tostring(L, -1);
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        if (lua_type(L, -1) != LUA_TNUMBER) {
            char text[220], what[160];
            value_describe(L, -1, what, sizeof what);
            snprintf(text, sizeof text, "part %.30s is %s", part, what);
            bad(r, run, text, ", expected a number");
            return;
        }
        if (!add_part(r, run, part, lua_tonumber(L, -1))) return;
        lua_settop(L, keys);
    }
}

// The value at `index`, with the reason after it if there is one.
static void read_result(lua_State *L, int index, bool listed, const Run *run, Result *r) {
    *r = (Result){.state = VERDICT_SCORED};
    int type = lua_type(L, index);
    if (type == LUA_TNUMBER) {
        add_part(r, run, NULL, lua_tonumber(L, index));
    } else if (type == LUA_TTABLE) {
        read_parts(L, index, run, r);
    } else if (listed && type == LUA_TBOOLEAN && !lua_toboolean(L, index)) {
        abstain(r, run, "abstained");
    } else if (!listed && type == LUA_TNIL && lua_type(L, index + 1) == LUA_TSTRING) {
        abstain(r, run, lua_tostring(L, index + 1));
    } else if (type == LUA_TNIL || type == LUA_TNONE) {
        bad(r, run, "returned nil without a reason", ", expected a number, a table of numbers, or nil, \"why\"");
    } else {
        char what[160];
        value_describe(L, index, what, sizeof what);
        bad(r, run, "returned ", what);
    }
}

// ---- calling -----------------------------------------------------------------------------------------------------------
// Leaves the function to call on top, having run the file's scope.
static void push_entry(lua_State *L, Run *run) {
    snprintf(run->name, sizeof run->name, "%s", run->script->name);
    sandbox_push_chunk(run->script->box);
    lua_call(L, 0, 1);
    if (lua_type(L, -1) == LUA_TFUNCTION) return;
    if (lua_type(L, -1) != LUA_TTABLE)
        luaL_error(L, "%s: the script returned %s, expected a function or a table", run->script->name, luaL_typename(L, -1));
    lua_pushliteral(L, "name");
    if (lua_rawget(L, -2) == LUA_TSTRING) snprintf(run->name, sizeof run->name, "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
    lua_pushliteral(L, "group");
    run->group = lua_rawget(L, -2) == LUA_TFUNCTION;
    lua_pushliteral(L, "score");
    bool single = lua_rawget(L, -3) == LUA_TFUNCTION;
    lua_pushliteral(L, "step");
    if (lua_rawget(L, -4) == LUA_TFUNCTION && !run->group && !single)
        luaL_error(L, "%s: the script is an environment, which scores episodes and no single texts", run->script->name);
    lua_pop(L, 1);
    if (run->group == single) luaL_error(L, "%s: the script's table needs one function: score or group", run->script->name);
    if (run->group) lua_pop(L, 1);
}

static void call_group(lua_State *L, Run *run) {
    lua_createtable(L, run->count, 0);
    for (int i = 0; i < run->count; i++) {
        push_sample(L, &run->samples[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_call(L, 1, 2);
    int list = lua_gettop(L) - 1;
    if (lua_type(L, list) != LUA_TTABLE) {
        for (int i = 0; i < run->count; i++) {
            read_result(L, list, false, run, &run->results[i]);
            if (run->results[i].state == VERDICT_SCORED) bad(&run->results[i], run, "returned a number", ", expected a list");
        }
        return;
    }
    if (lua_rawlen(L, list) != (lua_Unsigned)run->count) {
        char text[96];
        snprintf(text, sizeof text, "returned a list of %llu for %d samples", (unsigned long long)lua_rawlen(L, list),
                 run->count);
        for (int i = 0; i < run->count; i++) bad(&run->results[i], run, text, "");
        return;
    }
    for (int i = 0; i < run->count; i++) {
        lua_rawgeti(L, list, i + 1);
        read_result(L, lua_gettop(L), true, run, &run->results[i]);
        lua_settop(L, list + 1);
    }
}

static int run_script(lua_State *L) {
    Run *run = lua_touserdata(L, 1);
    push_entry(L, run);
    if (run->only_look) return 0;
    if (run->group) {
        call_group(L, run);
        return 0;
    }
    push_sample(L, run->samples);
    lua_call(L, 1, 2);
    read_result(L, lua_gettop(L) - 1, false, run, run->results);
    return 0;
}

// Runs the script on run->samples (one, unless it turns out to have a group function, when all of them are scored).
// Returns the fuel it took.
static uint64_t run_protected(Run *run, const RewardLimits *limits, int samples) {
    Sandbox *box = run->script->box;
    char message[256];
    uint64_t fuel = limits->fuel;
    if (__builtin_mul_overflow(fuel, (uint64_t)samples, &fuel)) fuel = UINT64_MAX;
    sandbox_reset(box, fuel, run->samples ? run->samples[0].seed : 0);
    if (!sandbox_protect(box, run_script, run, message, sizeof message)) {
        for (int i = 0; run->results && i < run->count; i++) {
            Result *r = &run->results[i];
            *r = (Result){.state = box->exhausted ? VERDICT_BUDGET : VERDICT_ERROR};
            snprintf(r->why, sizeof r->why, "%s", message);
        }
    }
    for (int i = 0; run->results && i < run->count; i++) run->results[i].not_replayable = box->not_replayable;
    return sandbox_fuel_used(box, fuel);
}

// ---- verdicts ----------------------------------------------------------------------------------------------------------
// An abstention is below a score: one script that scored makes the sample scored.
static const int badness[VERDICT_STATES] = {[VERDICT_ABSTAINED] = 0, [VERDICT_SCORED] = 1, [VERDICT_ERROR] = 2,
                                            [VERDICT_BUDGET] = 3, [VERDICT_KILLED] = 4};

// Adds one script's result to the sample's verdict, which starts as abstained with score 0.
static void combine(Verdict *v, const Result *r, double weight) {
    v->not_replayable |= r->not_replayable;
    if (badness[r->state] > badness[v->state] || (r->state == v->state && !v->why[0])) {
        v->state = r->state;
        snprintf(v->why, sizeof v->why, "%s", r->why);
    }
    if (r->state == VERDICT_SCORED) v->score += weight * r->score;
    for (int i = 0; i < r->part_count; i++) {
        if (v->part_count == MAX_REWARD_PARTS) {
            v->state = VERDICT_ERROR;
            snprintf(v->why, sizeof v->why, "more than %d parts in all", MAX_REWARD_PARTS);
            return;
        }
        v->parts[v->part_count++] = r->parts[i];
    }
}

// Samples that are scored together answer one prompt, so they are of one task.
static bool is_for(const ScoreScripts *scripts, const ScoreScript *script, const RewardSample *samples) {
    if (!script->task) return true;
    if (strcmp(script->task, "*") != 0) return samples[0].task && strcmp(script->task, samples[0].task) == 0;
    for (int i = 0; i < scripts->count; i++)
        if (scripts->list[i].task && samples[0].task && strcmp(scripts->list[i].task, samples[0].task) == 0) return false;
    return true;
}

// What an environment gave over an episode, as the result of its script.
static void take_episode(const ScoreScript *script, const RewardSample *s, Result *r, Verdict *v) {
    const EnvironmentResult *e = s->environment;
    *r = (Result){.state = VERDICT_ERROR};
    if (!e || e->script != s[0].environment->script) return;
    Run run = {.script = script};
    snprintf(run.name, sizeof run.name, "%s", script->name);
    r->state = e->state;
    r->not_replayable = e->not_replayable;
    snprintf(r->why, sizeof r->why, "%s", e->why);
    v->fuel += e->fuel;
    for (int i = 0; i < e->part_count && r->state == VERDICT_SCORED; i++) add_part(r, &run, e->parts[i].name[0] ? e->parts[i].name : NULL, e->parts[i].value);
    if (e->part_count == 0 && r->state == VERDICT_SCORED) add_part(r, &run, NULL, 0);
}

void scripts_score(const ScoreScripts *scripts, const RewardSample *samples, int count, Verdict *out,
                   void (*progress)(void *context, int samples), void *context) {
    Result *results = xcalloc((size_t)count, sizeof *results);
    for (int i = 0; i < count; i++) {
        out[i] = (Verdict){.state = VERDICT_ABSTAINED};
        results[i].state = VERDICT_ERROR; // until something better is known
    }
    for (int s = 0; s < scripts->count; s++) {
        if (!is_for(scripts, &scripts->list[s], samples)) continue;
        if (samples[0].environment && samples[0].environment->script == s) {
            for (int i = 0; i < count; i++) {
                take_episode(&scripts->list[s], &samples[i], &results[i], &out[i]);
                combine(&out[i], &results[i], scripts->list[s].weight);
            }
            continue;
        }
        Run run = {.script = &scripts->list[s], .only_look = count > 1};
        if (run.only_look) { // is it for groups?
            if (progress) progress(context, count);
            run.samples = samples;
            run_protected(&run, &scripts->limits, 1);
        }
        bool together = run.group;
        int step = together ? count : 1;
        for (int i = 0; i < count; i += step) {
            run = (Run){.script = &scripts->list[s], .samples = samples + i, .count = step, .results = results + i};
            if (progress) progress(context, step);
            uint64_t fuel = run_protected(&run, &scripts->limits, step);
            for (int k = i; k < i + step; k++) out[k].fuel += fuel / (uint64_t)step;
        }
        for (int i = 0; i < count; i++) combine(&out[i], &results[i], scripts->list[s].weight);
    }
    for (int i = 0; i < count; i++) {
        Verdict *v = &out[i];
        if (v->state == VERDICT_SCORED) {
            v->why[0] = 0;
            if (isfinite(v->score)) continue;
            v->state = VERDICT_ERROR; // finite scores and weights can still overflow
            snprintf(v->why, sizeof v->why, "the weighted sum of the scores isn't finite");
        }
        v->score = NAN;
        if (!v->why[0]) snprintf(v->why, sizeof v->why, "no reward is for the task '%.60s'", samples[i].task ? samples[i].task : "");
    }
    free(results);
}
