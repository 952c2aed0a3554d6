// Environments inside of a worker. A script that returns a table with `reset` and `step` takes turns with the model:
//
//   reset(row, sample)        -> state, words          sample: prompt, truth, mode
//   step(state, action, turn) -> state, words, reward, done
//                                                      turn: number, last, finish, mode, think, answer
//   demonstrate(state, turn)  -> action                optional: what an expert would do, for supervised fine-tuning
//
// `words` is a text, which follows the model's own as it is, a list of chat messages, or nil. `reward` is a number or a
// table of named ones (nil: 0). `turns` (8) bounds the model's turns, `stop` lists texts that end one. nil, "why" abstains.
//
// As with scores the file's own code runs anew at each call: a script remembers only what it puts into the state, which
// must be plain data (JSON) of at most a MiB.
#include "environment.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TURNS = 8, MOST_TURNS = 1000 };

// ---- looking -----------------------------------------------------------------------------------------------------------
typedef struct Look {
    const ScoreScript *script;
    bool grouped, environment;
    RewardEnvironment facts;
} Look;

static bool has_function(lua_State *L, const char *name) {
    lua_pushstring(L, name);
    bool is = lua_rawget(L, 1) == LUA_TFUNCTION;
    lua_pop(L, 1);
    return is;
}

static void read_stops(lua_State *L, Look *look) {
    lua_pushliteral(L, "stop");
    int type = lua_rawget(L, 1);
    if (type == LUA_TNIL) return;
    lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, -1) : MAX_STOPS + 1;
    if (n > MAX_STOPS) luaL_error(L, "stop: expected a list of at most %d texts", MAX_STOPS);
    for (lua_Unsigned i = 0; i < n; i++) {
        size_t size;
        if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TSTRING) luaL_error(L, "stop: expected a list of texts");
        const char *text = lua_tolstring(L, -1, &size);
        if (size == 0 || size > 256 || strlen(text) != size) luaL_error(L, "stop: expected texts of 1 to 256 bytes");
        look->facts.stop[i] = xstrdup(text);
        lua_pop(L, 1);
    }
}

static int look_at_script(lua_State *L) {
    Look *look = lua_touserdata(L, 1);
    lua_settop(L, 0);
    sandbox_push_chunk(look->script->box);
    lua_call(L, 0, 1);
    if (lua_type(L, 1) != LUA_TTABLE) return 0;
    look->grouped = has_function(L, "group");
    if (!has_function(L, "reset") || !has_function(L, "step")) return 0;
    look->facts.demonstrates = has_function(L, "demonstrate");
    lua_pushliteral(L, "turns");
    if (lua_rawget(L, 1) != LUA_TNIL) {
        if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1 || lua_tointeger(L, -1) > MOST_TURNS)
            luaL_error(L, "turns: expected a whole number from 1 to %d", MOST_TURNS);
        look->facts.turns = (int32_t)lua_tointeger(L, -1);
    }
    read_stops(L, look);
    look->environment = true;
    return 0;
}

void scripts_look(const ScoreScripts *scripts, ScriptsLook *out) {
    *out = (ScriptsLook){0};
    for (int i = 0; i < scripts->count; i++) {
        char message[256];
        Look look = {.script = &scripts->list[i], .facts = {.script = i, .turns = DEFAULT_TURNS}};
        look.facts.stop = xcalloc(MAX_STOPS + 1, sizeof *look.facts.stop);
        snprintf(look.facts.name, sizeof look.facts.name, "%s", look.script->name);
        look.facts.task = look.script->task ? xstrdup(look.script->task) : NULL;
        sandbox_reset(look.script->box, scripts->limits.fuel, 0);
        if (!sandbox_protect(look.script->box, look_at_script, &look, message, sizeof message)) look.grouped = look.environment = false;
        out->grouped |= look.grouped;
        ScriptsLook other = {.environment = look.facts};
        if (look.environment && out->environments++ == 0) out->environment = look.facts;
        else look_free(&other);
    }
}

// ---- calling -----------------------------------------------------------------------------------------------------------
typedef struct Run {
    const ScoreScript *script;
    const EnvironmentCall *call;
    EnvironmentReply *out;
    Buf *data, *said;
} Run;

static void set_text(lua_State *L, const char *name, const char *text, size_t size) {
    if (!text) return;
    lua_pushlstring(L, text, size);
    lua_setfield(L, -2, name);
}

static void push_value(lua_State *L, const json_t *value) {
    if (value) value_push(L, value);
    else lua_newtable(L);
}

static void push_turn(lua_State *L, const EnvironmentCall *c) {
    TextSpan think, answer;
    completion_cut(c->action, c->action_size, strcmp(c->mode, "think") == 0, &think, &answer);
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, c->turn), lua_setfield(L, -2, "number");
    lua_pushboolean(L, c->last), lua_setfield(L, -2, "last");
    set_text(L, "finish", c->finish, strlen(c->finish));
    set_text(L, "mode", c->mode, strlen(c->mode));
    set_text(L, "think", think.data, think.size);
    set_text(L, "answer", answer.data, answer.size);
}

static int push_arguments(lua_State *L, const EnvironmentCall *c) {
    if (c->kind == ENVIRONMENT_RESET) {
        push_value(L, c->row);
        lua_createtable(L, 0, 4);
        set_text(L, "prompt", c->prompt, c->prompt ? strlen(c->prompt) : 0);
        set_text(L, "truth", c->truth, c->truth ? strlen(c->truth) : 0);
        set_text(L, "mode", c->mode, strlen(c->mode));
        return 2;
    }
    push_value(L, c->state);
    if (c->kind == ENVIRONMENT_STEP) lua_pushlstring(L, c->action, c->action_size);
    push_turn(L, c);
    return c->kind == ENVIRONMENT_STEP ? 3 : 2;
}

// The value at `index` as JSON text.
static void write_json(lua_State *L, int index, const char *what, Buf *out) {
    size_t size;
    lua_pushcfunction(L, library_json_encode);
    lua_pushvalue(L, index);
    lua_call(L, 1, 1);
    const char *text = lua_tolstring(L, -1, &size);
    if (size > MAX_STATE) luaL_error(L, "the %s takes %d bytes, at most %d are allowed", what, (int)size, MAX_STATE);
    out->size = 0;
    buf_append(out, text, size);
    buf_append(out, "", 1);
    lua_pop(L, 1);
}

static void write_words(lua_State *L, int index, Run *run) {
    int type = lua_type(L, index);
    if (type == LUA_TNIL) return;
    if (type != LUA_TSTRING && type != LUA_TTABLE) luaL_error(L, "what it says is a %s, expected a text or a list of messages", luaL_typename(L, index));
    lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, index) : 0;
    if (type == LUA_TTABLE && n == 0) luaL_error(L, "what it says is a table without messages, expected a text or a list of messages");
    for (lua_Unsigned i = 1; i <= n; i++) {
        if (lua_rawgeti(L, index, (lua_Integer)i) != LUA_TTABLE || lua_getfield(L, -1, "role") != LUA_TSTRING ||
            lua_getfield(L, -2, "content") != LUA_TSTRING)
            luaL_error(L, "message %d: expected { role = \"user\", content = \"..\" }", (int)i);
        lua_settop(L, lua_gettop(L) - 3);
    }
    write_json(L, index, "text", run->said);
}

static void add_part(lua_State *L, EnvironmentReply *out, const char *name, double value) {
    if (!isfinite(value)) luaL_error(L, "the reward is %f, expected a finite number", value);
    if (out->part_count == MAX_REWARD_PARTS) luaL_error(L, "more than %d parts of a reward", MAX_REWARD_PARTS);
    RewardPart *p = &out->parts[out->part_count++];
    snprintf(p->name, sizeof p->name, "%.23s", name);
    p->value = value;
}

static void read_reward(lua_State *L, int index, EnvironmentReply *out) {
    int type = lua_type(L, index);
    if (type == LUA_TNIL) return;
    if (type == LUA_TNUMBER) {
        add_part(L, out, "", lua_tonumber(L, index));
        return;
    }
    if (type != LUA_TTABLE) luaL_error(L, "the reward is a %s, expected a number or a table of named numbers", luaL_typename(L, index));
    lua_Integer n = library_ordered_keys(L, index);
    int keys = lua_gettop(L);
    for (lua_Integer i = 1; i <= n; i++) {
        if (lua_rawgeti(L, keys, i) != LUA_TSTRING) luaL_error(L, "the reward is a list, expected a number or a table of named numbers");
        const char *name = lua_tostring(L, -1);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, index) != LUA_TNUMBER) luaL_error(L, "part %s of the reward is a %s, expected a number", name, luaL_typename(L, -1));
        add_part(L, out, name, lua_tonumber(L, -1));
        lua_settop(L, keys);
    }
}

static int call_script(lua_State *L) {
    static const char *const names[] = {"reset", "step", "demonstrate"};
    Run *run = lua_touserdata(L, 1);
    const EnvironmentCall *c = run->call;
    lua_settop(L, 0);
    sandbox_push_chunk(run->script->box);
    lua_call(L, 0, 1);
    if (lua_type(L, 1) != LUA_TTABLE || !has_function(L, names[c->kind])) luaL_error(L, "the script has no function %s", names[c->kind]);
    lua_pushstring(L, names[c->kind]);
    lua_rawget(L, 1);
    lua_replace(L, 1);
    lua_call(L, push_arguments(L, c), 4);
    EnvironmentReply *out = run->out; // state, words, reward, done at 1..4
    if (lua_isnil(L, 1) && lua_type(L, 2) == LUA_TSTRING) {
        *out = (EnvironmentReply){.state = VERDICT_ABSTAINED};
        snprintf(out->why, sizeof out->why, "%s", lua_tostring(L, 2));
        return 0;
    }
    if (lua_isnil(L, 1)) luaL_error(L, "%s returned nil, expected a state, or nil and why", names[c->kind]);
    if (c->kind == ENVIRONMENT_DEMONSTRATE && lua_type(L, 1) != LUA_TSTRING) luaL_error(L, "demonstrate returned a %s, expected a text", luaL_typename(L, 1));
    write_json(L, 1, "state", run->data);
    if (c->kind == ENVIRONMENT_DEMONSTRATE) return 0;
    write_words(L, 2, run);
    if (c->kind == ENVIRONMENT_RESET) return 0;
    read_reward(L, 3, out);
    out->done = lua_toboolean(L, 4);
    return 0;
}

void environment_call(const ScoreScripts *scripts, int script, const EnvironmentCall *call, EnvironmentReply *out, Buf memory[2]) {
    *out = (EnvironmentReply){.state = VERDICT_SCORED};
    memory[0].size = memory[1].size = 0;
    if (script < 0 || script >= scripts->count) {
        out->state = VERDICT_ERROR;
        snprintf(out->why, sizeof out->why, "no such script");
        return;
    }
    char message[256];
    Run run = {.script = &scripts->list[script], .call = call, .out = out, .data = &memory[0], .said = &memory[1]};
    Sandbox *box = run.script->box;
    sandbox_reset(box, scripts->limits.fuel, call->seed);
    if (!sandbox_protect(box, call_script, &run, message, sizeof message)) {
        *out = (EnvironmentReply){.state = box->exhausted ? VERDICT_BUDGET : VERDICT_ERROR};
        memory[0].size = memory[1].size = 0;
        snprintf(out->why, sizeof out->why, "%s", message);
    }
    out->fuel = sandbox_fuel_used(box, scripts->limits.fuel);
    out->not_replayable = box->not_replayable;
}
