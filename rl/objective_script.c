// A user's own objective: a Lua file that returns a function over one sequence. It gets a table
//   length, logprob, old, ref (or nil), entropy, mask, weight, advantage (lists by token), frozen (logprob behind
//   stop-gradients: the same numbers, kept still in the check), sequences, tokens, rollout_tokens, max_completion
// and returns loss, dlogprob [, dentropy]: its share of the step's loss, denominators included, and that loss's derivatives
// by every token's logprob and entropy. Under a zero mask logprobs read 0 and derivatives don't count.
//
// It runs behind the sandbox's wall and from the same bytes for every sequence, so no result depends on their order or on
// the split into microbatches. Opening it compares the derivatives with central differences of the loss, and refuses the
// script where they differ.
#include "files.h"
#include "script.h"
#include "stages.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ObjectiveScript {
    Sandbox *box;
    char *path;
};
enum { SCRIPT_BYTES = 1 << 20 };

typedef struct Call {
    Sandbox *box;
    const ObjectiveInput *in;
    ObjectiveOutput *out;
} Call;

static bool is_active(const ObjectiveInput *in, int32_t t) { return !in->mask || in->mask[t]; }

// Field `name` of the table on top: a list by token; 0 under the mask. No field where there are no values.
static void push_list(lua_State *L, const char *name, const ObjectiveInput *in, const double *values, double otherwise) {
    lua_createtable(L, in->length[0], 0);
    for (int32_t t = 0; t < in->length[0]; t++) {
        lua_pushnumber(L, !is_active(in, t) ? 0 : values ? values[t] : otherwise);
        lua_rawseti(L, -2, t + 1);
    }
    lua_setfield(L, -2, name);
}
static void push_number(lua_State *L, const char *name, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

static void push_sequence(lua_State *L, const ObjectiveInput *in) {
    const double *frozen = in->frozen ? in->frozen : in->logprob;
    lua_createtable(L, 0, 16);
    push_list(L, "logprob", in, in->logprob, 0);
    push_list(L, "frozen", in, frozen, 0);
    push_list(L, "old", in, in->old_logprob ? in->old_logprob : frozen, 0);
    if (in->ref_logprob) push_list(L, "ref", in, in->ref_logprob, 0);
    push_list(L, "entropy", in, in->entropy, 0);
    push_list(L, "weight", in, in->weight, 1);
    push_list(L, "mask", in, NULL, 1);
    push_list(L, "advantage", in, in->token_advantage, in->advantage ? in->advantage[0] : 0);
    lua_pushinteger(L, in->length[0]);
    lua_setfield(L, -2, "length");
    push_number(L, "sequences", in->step_sequences);
    push_number(L, "tokens", in->step_tokens);
    push_number(L, "rollout_tokens", in->rollout_tokens);
    push_number(L, "max_completion", in->max_completion);
}

// A list of `length` numbers at `index`.
static void take_list(lua_State *L, int index, const char *name, const ObjectiveInput *in, double *out) {
    if (lua_type(L, index) != LUA_TTABLE) luaL_error(L, "%s is %s, expected a list of %d numbers", name, luaL_typename(L, index), (int)in->length[0]);
    for (int32_t t = 0; t < in->length[0]; t++) {
        lua_rawgeti(L, index, t + 1);
        if (!lua_isnumber(L, -1)) luaL_error(L, "%s[%d] is %s, expected a number", name, (int)t + 1, luaL_typename(L, -1));
        out[t] = is_active(in, t) ? lua_tonumber(L, -1) : 0;
        lua_pop(L, 1);
    }
}

static int run_sequence(lua_State *L) {
    Call *c = lua_touserdata(L, 1);
    sandbox_push_chunk(c->box);
    lua_call(L, 0, 1);
    if (lua_type(L, -1) != LUA_TFUNCTION) return luaL_error(L, "the script returned %s, expected one function", luaL_typename(L, -1));
    push_sequence(L, c->in);
    lua_call(L, 1, 3);
    if (!lua_isnumber(L, -3)) return luaL_error(L, "the first result is %s, expected the loss", luaL_typename(L, -3));
    c->out->loss = lua_tonumber(L, -3);
    take_list(L, lua_gettop(L) - 1, "dlogprob", c->in, c->out->dlogprob);
    if (lua_isnil(L, -1)) return 0;
    double *dentropy = c->out->dentropy;
    if (!dentropy) return 0;
    take_list(L, lua_gettop(L), "dentropy", c->in, dentropy);
    return 0;
}

static void count_tokens(const ObjectiveInput *in, ObjectiveOutput *out) {
    for (int32_t t = 0; t < in->length[0]; t++) {
        if (!is_active(in, t)) continue;
        double ratio = in->old_logprob ? exact_exp(in->logprob[t] - in->old_logprob[t]) : 1;
        out->tokens++;
        out->ratio_max = fmax(out->ratio_max, fabs(ratio - 1));
    }
}

bool objective_script_compute(ObjectiveScript *s, const Algo *algo, const ObjectiveInput *in, ObjectiveOutput *out, Err *err) {
    char message[512];
    Call call = {s->box, in, out};
    out->loss = out->kl_sum = out->clipped = out->clipped_low = out->clipped_high = out->tokens = out->ratio_max = 0;
    for (int32_t t = 0; out->dentropy && t < in->length[0]; t++) out->dentropy[t] = 0;
    sandbox_reset(s->box, s->box->limits.fuel, 0);
    if (!sandbox_protect(s->box, run_sequence, &call, message, sizeof message)) return fail(err, ERR_DATA, s->path, "%s", message);
    for (int32_t t = 0; in->ref_logprob && t < in->length[0]; t++)
        if (is_active(in, t)) out->kl_sum += kl_term(&algo->kl_form, in->logprob[t], in->logprob[t], in->ref_logprob[t]).value;
    count_tokens(in, out);
    return true;
}

// ---- the check -------------------------------------------------------------------------------------------------
enum { CHECK_TOKENS = 9, CHECK_SEQUENCES = 4 };
typedef struct Probe {
    int32_t length;
    double logprob[CHECK_TOKENS], frozen[CHECK_TOKENS], old[CHECK_TOKENS], ref[CHECK_TOKENS], entropy[CHECK_TOKENS], advantage;
    uint8_t mask[CHECK_TOKENS];
    ObjectiveInput in;
} Probe;

static void make_probe(Probe *p, int which, bool reference) {
    Random r = random_start(7, STREAM_TEST, (uint64_t)which);
    double active = 0;
    p->length = which == 0 ? 1 : CHECK_TOKENS - which;
    p->advantage = which % 2 ? -0.7 - which * 0.1 : 0.9 + which * 0.1;
    for (int t = 0; t < p->length; t++) {
        p->logprob[t] = p->frozen[t] = -2.5 * random_double(&r) - 0.05;
        p->old[t] = which == 2 ? p->logprob[t] : p->logprob[t] + 0.4 * random_normal(&r); // the third is on policy
        p->ref[t] = p->logprob[t] + 0.3 * random_normal(&r);
        p->entropy[t] = 0.1 + random_double(&r);
        p->mask[t] = which != 3 || t % 3 != 1;
        active += p->mask[t];
    }
    p->in = (ObjectiveInput){.sequences = 1, .length = &p->length, .logprob = p->logprob, .frozen = p->frozen, .old_logprob = p->old,
                             .ref_logprob = reference ? p->ref : NULL, .entropy = p->entropy, .mask = p->mask, .advantage = &p->advantage,
                             .max_completion = 16, .step_sequences = 4, .step_tokens = 2 * active, .rollout_tokens = 3 * active};
}

static bool difference(ObjectiveScript *s, const Algo *algo, Probe *p, double *at, double *out, Err *err) {
    double dlogprob[CHECK_TOKENS], dentropy[CHECK_TOKENS], here = *at, h = 1e-6, up;
    ObjectiveOutput o = {.dlogprob = dlogprob, .dentropy = dentropy};
    *at = here + h;
    TRY(objective_script_compute(s, algo, &p->in, &o, err));
    up = o.loss;
    *at = here - h;
    TRY(objective_script_compute(s, algo, &p->in, &o, err));
    *at = here;
    *out = (up - o.loss) / (2 * h);
    return true;
}

static bool check_derivatives(ObjectiveScript *s, const Algo *algo, Err *err) {
    for (int which = 0; which < CHECK_SEQUENCES; which++) {
        Probe p;
        double dlogprob[CHECK_TOKENS], dentropy[CHECK_TOKENS], want;
        ObjectiveOutput out = {.dlogprob = dlogprob, .dentropy = dentropy};
        make_probe(&p, which, algo->kl > 0);
        TRY(objective_script_compute(s, algo, &p.in, &out, err));
        for (int kind = 0; kind < 2; kind++)
            for (int t = 0; t < p.length; t++) {
                TRY(difference(s, algo, &p, kind ? &p.entropy[t] : &p.logprob[t], &want, err));
                double got = kind ? dentropy[t] : dlogprob[t];
                if (!(fabs(got - want) <= 1e-7 + 1e-4 * fabs(want)))
                    return fail(err, ERR_DATA, s->path, "%s of token %d of a test sequence (advantage %.3g) is %.9g, but differences of the loss "
                                "give %.9g", kind ? "dentropy" : "dlogprob", t + 1, p.advantage, got, want);
            }
    }
    return true;
}

// ---- its life --------------------------------------------------------------------------------------------------
bool objective_script_open(const char *path, const Algo *algo, ObjectiveScript **out, Err *err) {
    SandboxLimits limits = sandbox_default_limits();
    Buf source;
    const char *slash = strrchr(path, '/');
    *out = NULL;
    TRY(file_read(path, SCRIPT_BYTES, &source, err));
    ObjectiveScript *s = xcalloc(1, sizeof *s);
    s->path = xstrdup(path);
    bool ok = sandbox_open(slash ? slash + 1 : path, &limits, &s->box, err);
    ok = ok && sandbox_load(s->box, source.data ? source.data : "", source.size, path, err);
    buf_free(&source);
    if (ok) sandbox_freeze(s->box);
    ok = ok && check_derivatives(s, algo, err);
    if (!ok) objective_script_close(s);
    *out = ok ? s : NULL;
    return ok;
}
void objective_script_close(ObjectiveScript *s) {
    if (!s) return;
    sandbox_close(s->box);
    free(s->path);
    free(s);
}
