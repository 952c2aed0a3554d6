// An episode as the holder of its state sees it: adding up rewards, seeds of turns, and playing one from given actions,
// one call after the other (tests, `reckon reward test`). Training plays many at once (rl/dialogue.c).
#include "files.h"
#include "reward.h"
#include <stdio.h>
#include <string.h>

uint64_t episode_seed(uint64_t seed, int32_t turn) {
    uint64_t words[2] = {seed, (uint64_t)turn};
    return hash64(words, sizeof words);
}

bool episode_add(EnvironmentResult *result, const EnvironmentReply *reply) {
    result->fuel += reply->fuel;
    result->not_replayable |= reply->not_replayable;
    if (reply->state != VERDICT_SCORED) {
        result->state = reply->state;
        memcpy(result->why, reply->why, sizeof result->why);
        return false;
    }
    for (int i = 0; i < reply->part_count; i++) {
        int k = 0;
        while (k < result->part_count && strcmp(result->parts[k].name, reply->parts[i].name) != 0) k++;
        if (k == MAX_REWARD_PARTS) {
            result->state = VERDICT_ERROR;
            snprintf(result->why, sizeof result->why, "more than %d parts of a reward in one episode", MAX_REWARD_PARTS);
            return false;
        }
        if (k == result->part_count) result->parts[result->part_count++] = reply->parts[i];
        else result->parts[k].value += reply->parts[i].value;
    }
    return true;
}

typedef struct Play {
    RewardPool *pool;
    EnvironmentCall call; // the next one
    json_t *state, *said;
    EnvironmentResult *result;
} Play;

// One call; *more is false where the episode can't go on after it. A demonstrated action goes to *action.
static bool call_once(Play *p, bool *more, json_t **action, Err *err) {
    EnvironmentReply reply = {0};
    p->call.state = p->state;
    bool ok = reward_pool_call(p->pool, &p->call, &reply, err) && reward_pool_finish(p->pool, err);
    if (ok) {
        *more = episode_add(p->result, &reply) && !reply.done;
        if (action) {
            *action = json_incref(reply.data);
        } else {
            if (reply.data) json_decref(p->state), p->state = json_incref(reply.data);
            if (reply.state == VERDICT_SCORED) json_array_append_new(p->said, reply.messages ? json_incref(reply.messages) : json_null());
        }
    }
    environment_reply_free(&reply);
    return ok;
}

static bool take_turn(Play *p, const json_t *actions, int32_t turn, bool *more, Err *err) {
    json_t *action = NULL;
    p->call.turn = turn;
    p->call.seed = episode_seed(p->call.seed, turn);
    if (actions) {
        action = json_incref(json_array_get(actions, (size_t)turn - 1));
    } else {
        EnvironmentCall step = p->call;
        p->call.kind = ENVIRONMENT_DEMONSTRATE;
        p->call.seed = episode_seed(p->call.seed, -1); // draws apart from the step's
        TRY(call_once(p, more, &action, err));
        p->call = step;
    }
    bool ok = true;
    if (*more) {
        p->call.kind = ENVIRONMENT_STEP;
        p->call.action = json_string_value(action) ? json_string_value(action) : "";
        p->call.action_size = json_string_length(action);
        ok = call_once(p, more, NULL, err);
        p->call.action = NULL, p->call.action_size = 0; // it goes with `action`
    }
    json_decref(action);
    return ok;
}

bool episode_play(RewardPool *pool, const EnvironmentCall *about, const json_t *actions, json_t **said, EnvironmentResult *out, Err *err) {
    const RewardEnvironment *e = reward_pool_environment(pool);
    *out = (EnvironmentResult){.state = VERDICT_SCORED};
    if (said) *said = NULL;
    if (!e) return fail(err, ERR_DATA, about->id ? about->id : "episode", "the script is no environment: it has no functions reset and step");
    if (!actions && !e->demonstrates) return fail(err, ERR_DATA, e->name, "it has no function demonstrate to play by");
    out->script = e->script;
    Play p = {.pool = pool, .call = *about, .said = json_array(), .result = out};
    bool more = true;
    p.call.kind = ENVIRONMENT_RESET;
    p.call.seed = episode_seed(about->seed, 0);
    bool ok = call_once(&p, &more, NULL, err);
    for (int32_t turn = 1; ok && more && turn <= e->turns && (!actions || (size_t)turn <= json_array_size(actions)); turn++) {
        p.call.seed = about->seed;
        p.call.last = turn == e->turns;
        ok = take_turn(&p, actions, turn, &more, err);
    }
    json_decref(p.state);
    if (ok && said) *said = p.said;
    else json_decref(p.said);
    return ok;
}
