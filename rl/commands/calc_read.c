// Reading a case of `calc`: numbers, ragged arrays, masks, options. Nothing that could change a number is skipped: an
// unknown option or input makes the case unsupported, a malformed one ends the command with its place.
#include "calc.h"
#include "programs.h"
#include "recipe_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool calc_unsupported(CalcCase *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(c->why, sizeof c->why, format, args);
    va_end(args);
    return false;
}
bool calc_malformed(const CalcCase *c, const char *path, const char *expected, Err *err) {
    char where[256];
    snprintf(where, sizeof where, "%s: cases[%d].%s", c->file, c->index, path);
    return fail(err, ERR_DATA, where, "expected %s", expected);
}

static bool number_of(const json_t *value, double *out) {
    if (json_is_number(value)) *out = json_number_value(value);
    else if (json_is_null(value)) *out = NAN;
    else if (json_is_string(value) && !strcmp(json_string_value(value), "inf")) *out = INFINITY;
    else if (json_is_string(value) && !strcmp(json_string_value(value), "-inf")) *out = -INFINITY;
    else return false;
    return true;
}
static bool numbers_of(CalcCase *c, const char *path, const json_t *list, double *out, Err *err) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!number_of(json_array_get(list, i), &out[i])) {
            char place[128];
            snprintf(place, sizeof place, "%s[%zu]", path, i);
            return calc_malformed(c, place, "a number, null, \"inf\" or \"-inf\"", err);
        }
    return true;
}

bool calc_list(CalcCase *c, const char *key, int *count, double **values, Err *err) {
    char path[96];
    snprintf(path, sizeof path, "inputs.%s", key);
    const json_t *list = json_object_get(c->inputs, key);
    *count = 0, *values = NULL;
    if (!list || json_is_null(list)) return true;
    if (!json_is_array(list)) return calc_malformed(c, path, "a list of numbers", err);
    *count = (int)json_array_size(list);
    *values = ARENA_NEW(&c->arena, double, *count + 1);
    return numbers_of(c, path, list, *values, err);
}

bool calc_ragged(CalcCase *c, const char *key, const Ragged *shape, Ragged *out, Err *err) {
    char path[96], row_path[112];
    snprintf(path, sizeof path, "inputs.%s", key);
    const json_t *list = json_object_get(c->inputs, key);
    *out = (Ragged){0};
    if (!list || json_is_null(list)) return true;
    if (!json_is_array(list)) return calc_malformed(c, path, "a list of lists of numbers", err);
    out->rows = (int)json_array_size(list);
    if (shape && out->rows != shape->rows) return calc_malformed(c, path, "as many rows as the logprobs have", err);
    out->length = ARENA_NEW(&c->arena, int32_t, out->rows + 1);
    for (int r = 0; r < out->rows; r++) {
        const json_t *row = json_array_get(list, (size_t)r);
        snprintf(row_path, sizeof row_path, "%s[%d]", path, r);
        if (!json_is_array(row)) return calc_malformed(c, row_path, "a list of numbers", err);
        out->length[r] = (int32_t)json_array_size(row);
        if (shape && out->length[r] != shape->length[r])
            return calc_malformed(c, row_path, "as many values as the logprobs' row has", err);
        out->count += out->length[r];
    }
    out->values = ARENA_NEW(&c->arena, double, out->count + 1);
    int64_t at = 0;
    for (int r = 0; r < out->rows; r++) {
        snprintf(row_path, sizeof row_path, "%s[%d]", path, r);
        TRY(numbers_of(c, row_path, json_array_get(list, (size_t)r), out->values + at, err));
        at += out->length[r];
    }
    return true;
}

bool calc_mask(CalcCase *c, const char *key, const Ragged *shape, uint8_t **mask, Err *err) {
    char path[96];
    snprintf(path, sizeof path, "inputs.%s", key);
    Ragged numbers;
    *mask = NULL;
    TRY(calc_ragged(c, key, shape, &numbers, err));
    if (!numbers.values) return true;
    *mask = ARENA_NEW(&c->arena, uint8_t, numbers.count + 1);
    for (int64_t i = 0; i < numbers.count; i++) {
        if (numbers.values[i] != 0 && numbers.values[i] != 1) return calc_malformed(c, path, "only 0 and 1", err);
        (*mask)[i] = numbers.values[i] == 1;
    }
    return true;
}

bool calc_inputs_known(CalcCase *c, const char *const *names) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)c->inputs, key, value) {
        bool known = json_is_null(value);
        for (int i = 0; names[i] && !known; i++) known = !strcmp(names[i], key);
        if (!known) return calc_unsupported(c, "input %.60s", key);
    }
    return true;
}

json_t *calc_ragged_json(const Ragged *shape, const double *values) {
    json_t *rows = json_array();
    for (int r = 0; r < shape->rows; r++) {
        json_t *row = json_array();
        for (int32_t t = 0; t < shape->length[r]; t++) json_array_append_new(row, json_number_or_name(*values++));
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *calc_list_json(int count, const double *values) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, json_number_or_name(values[i]));
    return list;
}

static bool same_value(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}
static bool unsupported_value(CalcCase *c, const char *name, const json_t *value) {
    if (json_is_number(value)) return calc_unsupported(c, "%.60s = %g", name, json_number_value(value));
    Buf text = {0};
    json_write(value, &text);
    calc_unsupported(c, "%.60s = %.120s", name, text.data ? text.data : "");
    buf_free(&text);
    return false;
}

static bool read_option(CalcCase *c, const CalcOption *o, const json_t *value, void *out, Err *err) {
    char path[96], *at = (char *)out + o->offset;
    snprintf(path, sizeof path, "config.%s", o->name);
    double number = NAN;
    switch (o->kind) {
    case CALC_NUMBER:
        if (json_is_null(value)) return true;
        if (!number_of(value, &number)) return calc_malformed(c, path, "a number or null", err);
        *(double *)(void *)at = number;
        return true;
    case CALC_COUNT:
        if (json_is_string(value)) number = 1;
        else if (!number_of(value, &number) || !(number >= 1) || number > 1e9 || number != floor(number))
            return calc_malformed(c, path, "an integer of at least 1", err);
        *(double *)(void *)at = number;
        return true;
    case CALC_FLAG:
        if (!json_is_boolean(value)) return calc_malformed(c, path, "true or false", err);
        *(bool *)(void *)at = json_is_true(value);
        return true;
    case CALC_TEXT:
        if (json_is_null(value)) return true;
        if (!json_is_string(value)) return calc_malformed(c, path, "a text or null", err);
        *(const char **)(void *)at = json_string_value(value);
        return true;
    case CALC_RANGE:
        if (json_is_null(value)) return true;
        if (json_array_size(value) != 2) return calc_malformed(c, path, "a list of two numbers or null", err);
        return numbers_of(c, path, value, (double *)(void *)at, err);
    case CALC_VALUE: *(const json_t **)(void *)at = value; return true;
    case CALC_NEUTRAL: {
        json_t *neutral = json_loads(o->neutral, JSON_DECODE_ANY, NULL);
        bool same = same_value(value, neutral);
        json_decref(neutral);
        return same || unsupported_value(c, o->name, value);
    }
    case CALC_IDLE: return true;
    }
    return true;
}

bool calc_options(CalcCase *c, const CalcOption *table, void *out, Err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)c->config, key, value) {
        const CalcOption *o = table;
        while (o->name && strcmp(o->name, key) != 0) o++;
        if (!o->name) return unsupported_value(c, key, value);
        TRY(read_option(c, o, value, out, err));
    }
    return true;
}

// ---- options that a recipe has a key for -----------------------------------------------------------------------
static const Field *key_named(const char *key) {
    const Field *fields = grpo_fields, *found = NULL;
    char part[64];
    for (const char *at = key; *at; at += strcspn(at, "."), at += *at == '.') {
        snprintf(part, sizeof part, "%.*s", (int)strcspn(at, "."), at);
        found = fields ? field_find(fields, part) : NULL;
        if (!found) return NULL;
        fields = found->fields;
    }
    return found;
}
static int choice_of(const Field *f, const char *word) {
    int i = 0;
    for (const char *p = f->choices; p && *p; i++) {
        size_t n = strcspn(p, "|");
        if (strlen(word) == n && !strncmp(p, word, n)) return i;
        p += n + (p[n] == '|');
    }
    return -1;
}

bool calc_choice(const char *program, const char *option, const char *key, const char *word, int *out) {
    const Field *f = key_named(key);
    json_t *text = json_string(word), *ours = text ? program_word(program_row(program_named(program), option), text) : NULL;
    *out = f && ours ? choice_of(f, json_string_value(ours)) : -1;
    json_decref(text), json_decref(ours);
    return *out >= 0;
}

// Cases have the last part of an option's path.
static const char *argument_of(const OptionMap *row) {
    const char *dot = strrchr(row->theirs, '.');
    return dot ? dot + 1 : row->theirs;
}
// The row's key, where it is one of `keys`.
static const Field *wanted_key(const OptionMap *row, const char *const *keys) {
    bool algo = row->ours && !strncmp(row->ours, "algo.", 5), wanted = false;
    for (int i = 0; algo && keys[i]; i++) wanted |= !strcmp(keys[i], row->ours + 5);
    return wanted ? key_named(row->ours) : NULL;
}

static bool store_option(CalcCase *c, const OptionMap *row, const Field *f, const json_t *value, Stage *stage, Err *err) {
    const char *name = argument_of(row);
    char path[96], *at = (char *)stage + f->offset;
    double number = NAN;
    snprintf(path, sizeof path, "config.%s", name);
    if (json_is_null(value)) return true;
    if (f->kind == FIELD_CHOICE) {
        json_t *word = program_word(row, value);
        int choice = word ? choice_of(f, json_string_value(word)) : -1;
        json_decref(word);
        if (choice < 0 && !json_is_string(value)) return calc_malformed(c, path, "a text or null", err);
        if (choice < 0) return unsupported_value(c, name, value);
        memcpy(at, &choice, sizeof choice);
    } else if (f->kind == FIELD_BOOL) {
        bool flag = json_is_true(value);
        if (!json_is_boolean(value)) return calc_malformed(c, path, "true or false", err);
        memcpy(at, &flag, sizeof flag);
    } else {
        if (f->kind != FIELD_NUMBER || !number_of(value, &number)) return calc_malformed(c, path, "a number or null", err);
        memcpy(at, &number, sizeof number);
    }
    return true;
}

bool calc_program_options(CalcCase *c, const char *program, const char *const *keys, const CalcOption *table, void *out, Stage *stage, Err *err) {
    const OptionMap *rows = program_named(program)->options;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)c->config, key, value) {
        const CalcOption *o = table;
        const OptionMap *row = rows;
        while (o->name && strcmp(o->name, key) != 0) o++;
        while (row->theirs && (strcmp(argument_of(row), key) != 0 || !wanted_key(row, keys))) row++;
        if (!o->name && !row->theirs) return unsupported_value(c, key, value);
        if (o->name) TRY(read_option(c, o, value, out, err));
    }
    for (const OptionMap *row = rows; row->theirs; row++) { // of two rows with one key the later one says
        const Field *f = wanted_key(row, keys);
        const json_t *given = f ? json_object_get(c->config, argument_of(row)) : NULL;
        if (given) TRY(store_option(c, row, f, given, stage, err));
    }
    return true;
}

// ---- policy losses ---------------------------------------------------------------------------------------------
bool calc_loss_inputs(CalcCase *c, LossInputs *out, Err *err) {
    Ragged old, ref, sampler, entropy;
    uint8_t *mask;
    *out = (LossInputs){0};
    TRY(calc_ragged(c, "logprobs", NULL, &out->shape, err));
    const Ragged *shape = &out->shape;
    if (!shape->values) return calc_malformed(c, "inputs.logprobs", "a list of lists of numbers", err);
    TRY(calc_ragged(c, "old_logprobs", shape, &old, err) && calc_ragged(c, "ref_logprobs", shape, &ref, err) &&
        calc_ragged(c, "sampler_logprobs", shape, &sampler, err) && calc_ragged(c, "entropies", shape, &entropy, err) &&
        calc_mask(c, "mask", shape, &mask, err));
    out->old = old.values, out->ref = ref.values, out->sampler = sampler.values, out->entropy = entropy.values, out->mask = mask;
    int64_t t = 0;
    for (int s = 0; s < shape->rows; s++) {
        double of_sequence = 0;
        for (int32_t i = 0; i < shape->length[s]; i++, t++) of_sequence += !mask || mask[t];
        out->active += of_sequence, out->nonempty += of_sequence > 0;
    }
    if (json_is_array(json_array_get(json_object_get(c->inputs, "advantages"), 0))) {
        Ragged by_token;
        TRY(calc_ragged(c, "advantages", shape, &by_token, err));
        out->token_advantage = by_token.values;
        return true;
    }
    int count;
    double *values;
    TRY(calc_list(c, "advantages", &count, &values, err));
    if (!values || count != shape->rows) return calc_malformed(c, "inputs.advantages", "a number a sequence", err);
    out->advantage = values;
    return true;
}

ObjectiveInput calc_objective_input(const LossInputs *in) {
    return (ObjectiveInput){.sequences = in->shape.rows, .length = in->shape.length, .logprob = in->shape.values, .old_logprob = in->old,
                            .sampler_logprob = in->sampler, .ref_logprob = in->ref, .entropy = in->entropy, .mask = in->mask,
                            .advantage = in->advantage, .token_advantage = in->token_advantage};
}
ObjectiveOutput calc_objective_output(CalcCase *c, const LossInputs *inputs) {
    return (ObjectiveOutput){.dlogprob = ARENA_NEW(&c->arena, double, inputs->shape.count + 1),
                             .dentropy = ARENA_NEW(&c->arena, double, inputs->shape.count + 1)};
}

bool calc_add_objective(CalcCase *c, const Algo *algo, ObjectiveInput *in, const LossInputs *inputs, double scale, ObjectiveOutput *out, Err *err) {
    int64_t n = inputs->shape.count;
    if (algo->kl != 0 && !in->ref_logprob) return calc_malformed(c, "inputs.ref_logprobs", "numbers, as the divergence has a weight", err);
    if (algo->kl == 0) in->ref_logprob = NULL;
    if ((algo->entropy != 0 || algo->top_entropy < 1) && !in->entropy)
        return calc_malformed(c, "inputs.entropies", "numbers, as the entropy takes part", err);
    if (objective_surveys(algo)) {
        uint8_t *chosen = ARENA_NEW(&c->arena, uint8_t, n + 1);
        step_survey(algo, in, &in->entropy_threshold, chosen);
        in->chosen = chosen;
    }
    ObjectiveOutput one = calc_objective_output(c, inputs);
    objective_compute(algo, in, &one);
    out->loss += scale * one.loss;
    for (int64_t t = 0; t < n; t++) out->dlogprob[t] += scale * one.dlogprob[t], out->dentropy[t] += scale * one.dentropy[t];
    return true;
}
