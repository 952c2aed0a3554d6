// The language of arms. A text names one arm, or several; an arm that others are measured against is added before them, so that
// a list of arms is always ready to be run in its order.
#include "arm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const strategy_names[] = {"greedy", "sampled", "majority", "best", "routed"};
enum { MAX_ARMS = 256, MAX_DRAWS = 4096 };

typedef struct Parse {
    const ArmDefaults *defaults;
    ArmList *out;
    const char *text;
} Parse;

int arm_find(const ArmList *a, int model, Strategy strategy, Mode mode, int32_t budget) {
    for (int i = 0; i < a->count; i++) {
        const Arm *arm = &a->arms[i];
        if (arm->model == model && arm->strategy == strategy && arm->mode == mode && arm->budget == budget && arm->equal_to < 0) return i;
    }
    return -1;
}

// The name without the model.
static char *plain_name(const Arm *a) {
    Buf b = {0};
    if (a->strategy == STRATEGY_ROUTED) buf_puts(&b, "routed");
    else if (a->equal_to >= 0) buf_puts(&b, "votes");
    else buf_puts(&b, mode_names[a->mode]);
    if (a->budget) buf_printf(&b, "@%d", a->budget);
    if (a->strategy == STRATEGY_SAMPLED) buf_puts(&b, ":sampled");
    if (a->strategy == STRATEGY_MAJORITY && a->equal_to < 0) buf_printf(&b, ":majority=%d", a->k);
    if (a->strategy == STRATEGY_BEST) buf_printf(&b, ":best=%d,%s", a->k, a->reward);
    return b.data;
}

// Takes the arm's texts; one that is there already isn't added again. Returns its place, -1 on error.
static int add(Parse *p, Arm arm, Err *err) {
    char *name = plain_name(&arm);
    if (p->defaults->model_count > 1) {
        char *full = xasprintf("%s/%s", p->defaults->models[arm.model], name);
        free(name);
        name = full;
    }
    arm.name = name;
    for (int i = 0; i < p->out->count; i++)
        if (!strcmp(p->out->arms[i].name, name)) {
            free(name), free(arm.reward);
            return i;
        }
    if (p->out->count == MAX_ARMS) {
        free(name), free(arm.reward);
        fail(err, ERR_USAGE, p->text, "more than %d arms", MAX_ARMS);
        return -1;
    }
    p->out->arms = xrealloc(p->out->arms, (size_t)(p->out->count + 1) * sizeof *p->out->arms);
    p->out->arms[p->out->count] = arm;
    return p->out->count++;
}
static Arm greedy(int model, Mode mode) {
    return (Arm){.model = model, .mode = mode, .strategy = STRATEGY_GREEDY, .k = 1, .seeds = 1, .equal_to = -1};
}
static bool add_both(Parse *p, int model, int *think, Err *err) {
    *think = add(p, greedy(model, MODE_THINK), err);
    return *think >= 0 && add(p, greedy(model, MODE_DIRECT), err) >= 0;
}

// ---- the texts -------------------------------------------------------------------------------------------
static bool number(Parse *p, const char **at, int64_t most, int64_t *out, Err *err) {
    char *end;
    *out = strtoll(*at, &end, 10);
    if (end == *at || **at < '0' || **at > '9' || *out < 1 || *out > most)
        return fail(err, ERR_USAGE, p->text, "found '%.40s', expected a number from 1 to %lld", *at, (long long)most);
    *at = end;
    return true;
}
static bool not_an_arm(const Parse *p, const char *found, Err *err) {
    return fail(err, ERR_USAGE, p->text, "found '%.60s', expected think or direct (with @N, :sampled, :majority=K or :best=K,REWARD), votes, "
                "budgets, budgets=N,N or routed", found);
}

static bool parse_strategy(Parse *p, const char *at, Arm *arm, Err *err) {
    int64_t k = 1;
    arm->seeds = p->defaults->seeds, arm->temperature = p->defaults->temperature;
    if (!strcmp(at, "sampled")) {
        arm->strategy = STRATEGY_SAMPLED;
    } else if (!strcmp(at, "greedy")) {
        arm->seeds = 1, arm->temperature = 0;
    } else if (!strncmp(at, "majority=", 9)) {
        at += 9;
        TRY(number(p, &at, MAX_DRAWS, &k, err));
        if (*at) return not_an_arm(p, at, err);
        arm->strategy = STRATEGY_MAJORITY;
    } else if (!strncmp(at, "best=", 5)) {
        at += 5;
        TRY(number(p, &at, MAX_DRAWS, &k, err));
        if (*at != ',' || !at[1]) return fail(err, ERR_USAGE, p->text, "expected best=K,REWARD: the reward script that chooses");
        arm->strategy = STRATEGY_BEST;
        arm->reward = xstrdup(at + 1);
    } else {
        return not_an_arm(p, at, err);
    }
    arm->k = (int)k;
    return true;
}
static bool parse_mode(Parse *p, int model, const char *at, Err *err) {
    Arm arm = greedy(model, MODE_DIRECT);
    if (!strncmp(at, "think", 5)) arm.mode = MODE_THINK, at += 5;
    else if (!strncmp(at, "direct", 6)) at += 6;
    else return not_an_arm(p, at, err);
    if (*at == '@') {
        int64_t budget;
        at++;
        TRY(number(p, &at, 1 << 20, &budget, err));
        if (arm.mode == MODE_DIRECT) return fail(err, ERR_USAGE, p->text, "a direct answer has no thinking to close");
        arm.budget = (int32_t)budget;
    }
    if (*at && *at != ':') return not_an_arm(p, at, err);
    if (*at == ':') TRY(parse_strategy(p, at + 1, &arm, err));
    return add(p, arm, err) >= 0;
}
static bool parse_budgets(Parse *p, int model, const char *at, Err *err) {
    int think;
    TRY(add_both(p, model, &think, err));
    Arm arm = greedy(model, MODE_THINK);
    for (int i = 0; !*at && i < 4; i++) { // a half, a quarter, an eighth, a sixteenth
        arm.budget = p->defaults->max_tokens >> (i + 1);
        if (arm.budget > 0 && add(p, arm, err) < 0) return false;
    }
    while (*at) {
        int64_t budget;
        at++; // '=' or ','
        TRY(number(p, &at, 1 << 20, &budget, err));
        arm.budget = (int32_t)budget;
        if (add(p, arm, err) < 0) return false;
        if (*at && *at != ',') return not_an_arm(p, at, err);
    }
    return true;
}
static bool parse_one(Parse *p, int model, const char *at, Err *err) {
    int think;
    if (!strcmp(at, "votes")) {
        TRY(add_both(p, model, &think, err));
        return add(p, (Arm){.model = model, .mode = MODE_DIRECT, .strategy = STRATEGY_MAJORITY, .seeds = p->defaults->seeds,
                            .temperature = p->defaults->temperature, .equal_to = think}, err) >= 0;
    }
    if (!strcmp(at, "routed")) {
        TRY(add_both(p, model, &think, err));
        return add(p, (Arm){.model = model, .mode = MODE_DIRECT, .strategy = STRATEGY_ROUTED, .k = 1, .seeds = 1, .equal_to = -1}, err) >= 0;
    }
    if (!strncmp(at, "budgets", 7) && (!at[7] || at[7] == '=')) return parse_budgets(p, model, at + 7, err);
    return parse_mode(p, model, at, err);
}

bool arms_parse(const char *const *texts, const ArmDefaults *d, ArmList *out, Err *err) {
    static const char *const usual[] = {"think", "direct", NULL};
    *out = (ArmList){0};
    bool ok = true;
    for (int model = 0; model < d->model_count; model++) {
        for (const char *const *text = texts && *texts ? texts : usual; ok && *text; text++) {
            Parse p = {.defaults = d, .out = out, .text = *text};
            const char *at = *text;
            size_t longest = 0;
            int meant = model;
            for (int i = 0; i < d->model_count; i++) { // the longest name that fits
                size_t n = strlen(d->models[i]);
                if (n < longest || strncmp(*text, d->models[i], n) != 0 || (*text)[n] != '/') continue;
                longest = n;
                meant = i;
                at = *text + n + 1;
            }
            if (meant == model) ok = parse_one(&p, model, at, err);
        }
    }
    if (!ok) arms_free(out);
    return ok;
}
void arms_free(ArmList *a) {
    for (int i = 0; i < a->count; i++) free(a->arms[i].name), free(a->arms[i].reward);
    free(a->arms);
    *a = (ArmList){0};
}
