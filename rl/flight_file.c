// What is in flight, as a file of a checkpoint: JSON, numbers that must come back bit for bit as hexadecimal bytes. Problems, prompts
// and what an environment gave stand in it whole, so that nothing has to be drawn again; verdicts don't: they are a function of the
// samples, and are asked for again. Like all of a checkpoint it is hostile: every array is measured before it is used.
#include "flight.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLIGHT_LIMIT = 1 << 30 };

// ---- writing -------------------------------------------------------------------------------------------------
static json_t *hex(const void *data, size_t size) {
    static const char digits[] = "0123456789abcdef";
    char *text = xmalloc(2 * size + 1);
    for (size_t i = 0; i < size; i++) text[2 * i] = digits[((const uint8_t *)data)[i] >> 4], text[2 * i + 1] = digits[((const uint8_t *)data)[i] & 15];
    json_t *j = json_stringn(text, 2 * size);
    free(text);
    return j;
}
static void put_hex(json_t *into, const char *key, const void *data, size_t size) {
    if (data) json_object_set_new(into, key, hex(data, size));
}
static void put_text(json_t *into, const char *key, const char *text) {
    if (text) json_object_set_new(into, key, json_string(text));
}

static json_t *item_json(const Item *item) {
    json_t *j = json_pack("{s:i}", "level", item->level);
    put_text(j, "kind", item->kind), put_text(j, "prompt", item->prompt), put_text(j, "truth", item->truth);
    put_hex(j, "hash", &item->hash, sizeof item->hash);
    if (item->messages) json_object_set(j, "messages", item->messages);
    if (item->row) json_object_set(j, "row", item->row);
    return j;
}

static json_t *sample_json(const Episode *e, const EnvironmentResult *result) {
    const Completion *c = &e->completion;
    size_t n = (size_t)c->length;
    json_t *j = json_pack("{s:i}", "finish", (int)c->finish), *versions = json_array();
    put_hex(j, "ids", c->ids ? (const void *)c->ids : "", n * 4);
    put_hex(j, "logprob", c->logprob ? (const void *)c->logprob : "", n * 4);
    put_hex(j, "entropy", c->entropy ? (const void *)c->entropy : "", n * 4);
    if (c->kept_start) put_hex(j, "kept_start", c->kept_start, (n + 1) * 8), put_hex(j, "kept_ids", c->kept_ids, (size_t)c->kept_start[n] * 4);
    if (c->given) put_hex(j, "given", c->given, (size_t)c->total), put_hex(j, "all", c->all, (size_t)c->total * 4);
    for (int i = 0; i < e->version_count; i++)
        json_array_append_new(versions, json_pack("[I,i]", (json_int_t)e->versions[i].version, (int)e->versions[i].length));
    json_object_set_new(j, "versions", versions);
    put_hex(j, "environment", result, sizeof *result);
    return j;
}

static json_t *group_json(const Group *g) {
    json_t *j = json_pack("{s:I,s:I,s:i,s:i,s:i,s:s,s:o,s:o}", "step", (json_int_t)g->step, "number", (json_int_t)g->number, "slot", g->slot, "attempt", g->attempt,
                          "began", g->began, "mode", mode_names[g->prompt.mode], "item", item_json(&g->prompt.item),
                          "ids", hex(g->prompt.ids.data, (size_t)g->prompt.ids.count * 4));
    json_t *samples = json_array();
    for (int s = 0; s < g->size; s++) json_array_append_new(samples, sample_json(&g->episodes[s], g->results ? &g->results[s] : NULL));
    json_object_set_new(j, "samples", samples);
    if (g->previous) json_object_set_new(j, "previous", group_json(g->previous));
    return j;
}

bool flight_save(const Flight *f, const char *path, Err *err) {
    json_t *ready = json_array(), *open = json_array();
    for (int i = 0; i < f->ready_count; i++) {
        json_t *batch = json_array();
        for (int p = 0; p < f->prompts; p++) json_array_append_new(batch, group_json(f->ready[i].groups[p]));
        json_array_append_new(ready, batch);
    }
    for (int i = 0; i < f->open_count; i++) json_array_append_new(open, group_json(f->open[i]));
    json_t *j = json_pack("{s:i,s:I,s:I,s:o,s:o}", "sampled", f->sampled, "started", (json_int_t)f->started, "tokens", (json_int_t)f->tokens, "ready", ready,
                          "open", open);
    Buf text = {0};
    json_write(j, &text);
    bool ok = file_write_atomic(path, text.data, text.size, err);
    buf_free(&text);
    json_decref(j);
    return ok;
}

// ---- reading -------------------------------------------------------------------------------------------------
typedef struct Source {
    const Trainer *t;
    const Stage *stage;
    const char *path;
} Source;

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }
// The bytes of a key, in the arena; `size` SIZE_MAX: any multiple of `unit`. *out NULL where the key is missing and may be.
static bool take_hex(const Source *from, Arena *a, const json_t *j, const char *key, bool may_miss, size_t unit, size_t size, void *out, size_t *got, Err *err) {
    const json_t *value = json_object_get(j, key);
    const char *text = json_string_value(value);
    size_t n = text ? json_string_length(value) / 2 : 0;
    uint8_t *bytes = NULL;
    if (got) *got = n;
    if (!text && may_miss) {
        memcpy(out, &bytes, sizeof bytes);
        return true;
    }
    if (!text || json_string_length(value) % 2 || n % unit || (size != SIZE_MAX && n != size))
        return fail(err, ERR_DATA, from->path, "'%s' has %zu bytes, expected %s%zu", key, n, size == SIZE_MAX ? "a multiple of " : "", size == SIZE_MAX ? unit : size);
    bytes = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return fail(err, ERR_DATA, from->path, "'%s' is not hexadecimal", key);
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(out, &bytes, sizeof bytes);
    return true;
}

static bool ids_in_range(const Source *from, const int32_t *ids, size_t count, Err *err) {
    int32_t vocabulary = policy_config(from->t->policy)->vocabulary;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary) return fail(err, ERR_DATA, from->path, "id %d, expected 0 to %d", ids[i], vocabulary - 1);
    return true;
}

static bool take_int(const Source *from, const json_t *j, const char *key, int64_t most, int64_t *out, Err *err) {
    const json_t *value = json_object_get(j, key);
    *out = json_integer_value(value);
    return (json_is_integer(value) && *out >= 0 && *out <= most) || fail(err, ERR_DATA, from->path, "'%s' is not an integer from 0 to %lld", key, (long long)most);
}

static void drop_json(void *j) { json_decref(j); }
static char *take_text(Arena *a, const json_t *j, const char *key) {
    const char *text = json_string_value(json_object_get(j, key));
    return text ? arena_strdup(a, text) : NULL;
}
static json_t *take_json(Arena *a, const json_t *j, const char *key) {
    json_t *value = json_incref(json_object_get(j, key));
    if (value) arena_defer(a, drop_json, value);
    return value;
}

static bool take_item(const Source *from, Group *g, const json_t *j, Err *err) {
    Arena *a = &g->arena;
    int64_t level;
    uint64_t *hash;
    TRY(take_int(from, j, "level", INT32_MAX, &level, err) && take_hex(from, a, j, "hash", false, 8, 8, &hash, NULL, err));
    g->prompt.item = (Item){.kind = take_text(a, j, "kind"), .level = (int)level, .prompt = take_text(a, j, "prompt"), .truth = take_text(a, j, "truth"),
                            .messages = take_json(a, j, "messages"), .row = take_json(a, j, "row"), .hash = *hash};
    return g->prompt.item.kind || fail(err, ERR_DATA, from->path, "an item without a kind");
}

// Whose tokens lie where: as many sampled ones as there are ids, the last one sampled.
static bool check_course(const Source *from, const Completion *c, Err *err) {
    int32_t sampled = 0;
    for (int32_t i = 0; c->given && i < c->total; i++) {
        bool fits = c->given[i] <= 1 && (c->given[i] || (sampled < c->length && c->all[i] == c->ids[sampled]));
        if (!fits) return fail(err, ERR_DATA, from->path, "'all' and 'ids' differ at token %d", i);
        sampled += !c->given[i];
    }
    return !c->given || (sampled == c->length && c->total > 0 && !c->given[c->total - 1]) || fail(err, ERR_DATA, from->path, "'given' doesn't fit 'ids'");
}
static bool check_kept(const Source *from, const Completion *c, size_t count, Err *err) {
    for (int32_t i = 0; c->kept_start && i <= c->length; i++)
        if (i == 0 ? c->kept_start[0] != 0 : c->kept_start[i] <= c->kept_start[i - 1]) return fail(err, ERR_DATA, from->path, "'kept_start' doesn't rise at token %d", i);
    return !c->kept_start || (size_t)c->kept_start[c->length] == count || fail(err, ERR_DATA, from->path, "'kept_ids' has %zu ids, 'kept_start' ends elsewhere", count);
}

static bool take_versions(const Source *from, Group *g, Episode *e, const json_t *j, Err *err) {
    const json_t *list = json_object_get(j, "versions"), *pair;
    size_t i;
    int64_t sum = 0;
    e->version_count = (int)json_array_size(list);
    e->versions = ARENA_NEW(&g->arena, TokenVersions, e->version_count + 1);
    json_array_foreach(list, i, pair) {
        json_int_t length = json_integer_value(json_array_get(pair, 1));
        if (length < 1 || length > e->completion.length) return fail(err, ERR_DATA, from->path, "a stretch of %lld tokens among %d", (long long)length, e->completion.length);
        e->versions[i] = (TokenVersions){.version = json_integer_value(json_array_get(pair, 0)), .length = (int32_t)length};
        sum += length;
    }
    return sum == e->completion.length || fail(err, ERR_DATA, from->path, "versions of %lld tokens, expected %d", (long long)sum, e->completion.length);
}

static bool take_sample(const Source *from, Group *g, int s, const json_t *j, Err *err) {
    Arena *a = &g->arena;
    Episode *e = &g->episodes[s];
    Completion *c = &e->completion;
    EnvironmentResult *result;
    size_t n, kept, total;
    int64_t finish;
    TRY(take_int(from, j, "finish", FINISH_PAUSED, &finish, err) && take_hex(from, a, j, "ids", false, 4, SIZE_MAX, &c->ids, &n, err));
    c->finish = (Finish)finish, c->length = (int32_t)(n / 4);
    if (n > (size_t)INT32_MAX / 2) return fail(err, ERR_DATA, from->path, "a sample of %zu bytes", n);
    TRY(take_hex(from, a, j, "logprob", false, 4, n, &c->logprob, NULL, err) && take_hex(from, a, j, "entropy", false, 4, n, &c->entropy, NULL, err) &&
        take_hex(from, a, j, "kept_start", true, 8, (n / 4 + 1) * 8, &c->kept_start, NULL, err) && take_hex(from, a, j, "kept_ids", !c->kept_start, 4, SIZE_MAX, &c->kept_ids, &kept, err) &&
        take_hex(from, a, j, "given", true, 1, SIZE_MAX, &c->given, &total, err) && take_hex(from, a, j, "all", !c->given, 4, c->given ? total * 4 : SIZE_MAX, &c->all, NULL, err) &&
        take_hex(from, a, j, "environment", true, 1, sizeof *result, &result, NULL, err));
    if (total > INT32_MAX / 2) return fail(err, ERR_DATA, from->path, "a sample of %zu tokens", total);
    c->total = c->given ? (int32_t)total : 0;
    TRY(check_course(from, c, err) && check_kept(from, c, kept / 4, err) && take_versions(from, g, e, j, err));
    TRY(ids_in_range(from, c->ids, n / 4, err) && ids_in_range(from, c->all, (size_t)c->total, err) && ids_in_range(from, c->kept_ids, c->kept_start ? kept / 4 : 0, err));
    if (!result) return true;
    if (result->part_count < 0 || result->part_count > MAX_REWARD_PARTS || (unsigned)result->state >= VERDICT_STATES)
        return fail(err, ERR_DATA, from->path, "'environment' is not what one gave");
    if (!g->results) g->results = ARENA_NEW(a, EnvironmentResult, g->size);
    for (int i = 0; i < MAX_REWARD_PARTS; i++) result->parts[i].name[sizeof result->parts[i].name - 1] = 0;
    result->why[sizeof result->why - 1] = 0;
    g->results[s] = *result;
    return true;
}

static bool take_group(const Source *from, const json_t *j, Group **out, Err *err);
static bool fill_group(const Source *from, Group *g, const json_t *j, Err *err) {
    int64_t number, slot, attempt, began;
    const json_t *samples = json_object_get(j, "samples"), *sample, *previous = json_object_get(j, "previous");
    const char *mode = json_string_value(json_object_get(j, "mode"));
    size_t i, n;
    int32_t *ids;
    TRY(take_int(from, j, "step", INT64_MAX / 2, &g->step, err) && take_int(from, j, "number", UINT32_MAX, &number, err) &&
        take_int(from, j, "slot", from->stage->batch - 1, &slot, err) && take_int(from, j, "attempt", from->stage->algo.refills, &attempt, err) &&
        take_int(from, j, "began", from->stage->steps, &began, err) && take_item(from, g, json_object_get(j, "item"), err));
    g->number = (uint32_t)number, g->slot = (int)slot, g->attempt = (int)attempt, g->began = (int)began;
    g->prompt.mode = mode && !strcmp(mode, mode_names[MODE_DIRECT]) ? MODE_DIRECT : MODE_THINK;
    TRY(take_hex(from, &g->arena, j, "ids", false, 4, SIZE_MAX, &ids, &n, err) && ids_in_range(from, ids, n / 4, err));
    if (n == 0 || n > (size_t)INT32_MAX / 2) return fail(err, ERR_DATA, from->path, "a prompt of %zu ids", n / 4);
    ids_append(&g->prompt.ids, ids, (int32_t)(n / 4));
    if (json_array_size(samples) != (size_t)g->size) return fail(err, ERR_DATA, from->path, "%zu samples, expected %d", json_array_size(samples), g->size);
    json_array_foreach(samples, i, sample) TRY(take_sample(from, g, (int)i, sample, err));
    if (previous && g->attempt == 0) return fail(err, ERR_DATA, from->path, "a first attempt has another before it");
    return !previous || take_group(from, previous, &g->previous, err);
}

static void drop_ids(void *p) { ids_free(p); }
static bool take_group(const Source *from, const json_t *j, Group **out, Err *err) {
    Arena arena = {0};
    Group *g = *out = ARENA_NEW(&arena, Group, 1);
    g->arena = arena;
    g->size = from->stage->group_size;
    g->episodes = ARENA_NEW(&g->arena, Episode, g->size);
    arena_defer(&g->arena, drop_ids, &g->prompt.ids);
    return fill_group(from, g, j, err);
}

static bool submit(const Trainer *t, Group *g, Err *err) {
    for (; g; g = g->previous) TRY(group_submit(t, g, err));
    return true;
}

static bool take_batch(const Source *from, Flight *f, const json_t *batch, Err *err) {
    int prompts = from->stage->batch;
    if (json_array_size(batch) != (size_t)prompts) return fail(err, ERR_DATA, from->path, "a batch of %zu groups, expected %d", json_array_size(batch), prompts);
    FlightBatch *to = &f->ready[f->ready_count++];
    to->groups = xcalloc((size_t)prompts + 1, sizeof *to->groups);
    for (int i = 0; i < prompts; i++) TRY(take_group(from, json_array_get(batch, (size_t)i), &to->groups[i], err) && submit(from->t, to->groups[i], err));
    return true;
}

bool flight_load(const Trainer *t, const Stage *stage, const char *path, Flight *f, Err *err) {
    const Source from = {t, stage, path};
    json_t *j = NULL;
    int64_t sampled = 0;
    TRY(json_read_file(path, FLIGHT_LIMIT, &j, err));
    const json_t *ready = json_object_get(j, "ready"), *open = json_object_get(j, "open");
    size_t batches = json_array_size(ready), groups = json_array_size(open);
    f->prompts = stage->batch;
    f->ready = xcalloc(batches + 1, sizeof *f->ready), f->open = xcalloc(groups + 1, sizeof *f->open);
    bool ok = take_int(&from, j, "sampled", stage->steps, &sampled, err) && take_int(&from, j, "started", INT64_MAX / 2, &f->started, err) &&
              take_int(&from, j, "tokens", INT64_MAX / 2, &f->tokens, err);
    if (ok && (batches > (size_t)stage->staleness + 1 || groups > (size_t)stage->partial))
        ok = fail(err, ERR_DATA, path, "%zu batches and %zu groups in flight, expected at most %d and %d", batches, groups, stage->staleness + 1, stage->partial);
    f->sampled = (int)sampled;
    for (size_t i = 0; ok && i < batches; i++) ok = take_batch(&from, f, json_array_get(ready, i), err);
    for (size_t i = 0; ok && i < groups; i++) {
        Group **to = &f->open[f->open_count++];
        ok = take_group(&from, json_array_get(open, i), to, err) && submit(t, (*to)->previous, err);
    }
    json_decref(j);
    return ok;
}
