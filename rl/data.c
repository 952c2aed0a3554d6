// Rows that a supervised stage learns from: what earlier stages of the recipe wrote (data.h says in which form) and files of the
// user's own, where "completion", or "answer" with "thinking" or "demonstration" before it is enough, and so are conversations and
// text, which are learned as they stand (data_whole.c). It refuses a stage's file whose hash isn't the ledger's, a file that changed since the run began, and rows that say
// nothing to learn. Rows are read once, checked whole, and kept in memory for the stage.
//
// Completions that come with ids of this very tokenizer are learned as these ids, what was given to them left out of the loss;
// any other text is encoded apart from its prompt, as demonstrations are.
#include "chat.h"
#include "data.h"
#include "files.h"
#include "ledger_rows.h"
#include "tasks_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 16 << 20 };

typedef struct DataRow {
    Item item;        // the completion's text as demonstration and truth, where there are no ids
    Mode mode;
    int32_t *ids;     // [count], given ones as -1 - id; NULL: the text is encoded
    int32_t count;
    int32_t *prompt;  // [prompt_count] of a row that is learned as it stands; NULL: the item's is rendered
    int32_t prompt_count;
} DataRow;
struct Data {
    DataRow *rows;
    int64_t count, capacity;
    Arena arena;
};

typedef struct Reader {
    Data *d;
    const char *path;
    const Recipe *recipe;
    const Tokenizer *tokenizer;
    int32_t vocabulary;
    bool last_turn;
    char tokenizer_hash[65];
} Reader;

// ---- a row -----------------------------------------------------------------------------------------------
static bool row_fail(const Reader *r, long line, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);
static bool row_fail(const Reader *r, long line, Err *err, const char *format, ...) {
    char msg[512], where[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%.200s:%ld", r->path, line);
    return fail(err, ERR_DATA, where, "%s", msg);
}

// A text of the row; *out NULL where it is missing or null. Text with a NUL is refused.
static bool text_of(const Reader *r, const json_t *row, const char *key, long line, const char **out, Err *err) {
    const json_t *v = json_object_get(row, key);
    *out = json_string_value(v);
    if (!v || json_is_null(v)) return true;
    if (!*out) return row_fail(r, line, err, "'%s': expected a text", key);
    return strlen(*out) == json_string_length(v) || row_fail(r, line, err, "'%s': found a NUL character, expected text without it", key);
}

static void release_json(void *value) { json_decref(value); }

// A chat whose last message is the user's; an assistant's after it is what to learn.
static bool read_messages(const Reader *r, const json_t *given, long line, Item *item, const char **completion, Err *err) {
    json_t *messages = json_deep_copy(given), *message;
    arena_defer(&r->d->arena, release_json, messages);
    if (!r->recipe->chat) return row_fail(r, line, err, "'messages': the recipe's prompts are plain text (chat=false), expected 'prompt' as a text");
    if (!json_is_array(messages)) return row_fail(r, line, err, "'messages': expected a list of {\"role\",\"content\"}");
    size_t i, count = json_array_size(messages);
    const char *role = "";
    json_array_foreach(messages, i, message) {
        role = json_string_value(json_object_get(message, "role"));
        const json_t *content = json_object_get(message, "content");
        if (!role || !json_is_string(content) || strlen(json_string_value(content)) != json_string_length(content))
            return row_fail(r, line, err, "'messages': number %zu lacks a text as 'role' or 'content'", i + 1);
    }
    if (count > 1 && strcmp(role, "assistant") == 0) {
        if (!*completion) *completion = arena_strdup(&r->d->arena, json_string_value(json_object_get(json_array_get(messages, count - 1), "content")));
        json_array_remove(messages, --count);
        role = json_string_value(json_object_get(json_array_get(messages, count - 1), "role"));
    }
    if (count == 0 || strcmp(role, "user") != 0) return row_fail(r, line, err, "'messages': expected a question of the user before what is to be learned");
    item->messages = messages;
    item->prompt = arena_strdup(&r->d->arena, json_string_value(json_object_get(json_array_get(messages, count - 1), "content")));
    return true;
}

static bool read_mode(const Reader *r, const char *mode, bool thinks, long line, Mode *out, Err *err) {
    *out = thinks ? MODE_THINK : MODE_DIRECT;
    if (!mode) return true;
    for (*out = 0; *out < MODES; ++*out)
        if (strcmp(mode_names[*out], mode) == 0) return true;
    return row_fail(r, line, err, "'mode': found '%.40s', expected think or direct", mode);
}

// Ids that hold for this tokenizer; the last one was sampled, or there would be nothing to learn after it.
static bool read_ids(const Reader *r, const json_t *row, long line, DataRow *out, Err *err) {
    const json_t *ids = json_object_get(row, "ids"), *id;
    const char *hash = json_string_value(json_object_get(row, "tokenizer"));
    if (!ids || json_array_size(ids) == 0 || !hash || strcmp(hash, r->tokenizer_hash) != 0) return true;
    size_t i, count = json_array_size(ids);
    if (count > 1 << 24) return row_fail(r, line, err, "'ids': found %zu of them, expected at most %d", count, 1 << 24);
    out->ids = ARENA_NEW(&r->d->arena, int32_t, count);
    json_array_foreach(ids, i, id) {
        json_int_t x = json_integer_value(id), token = x < 0 ? -1 - x : x;
        if (!json_is_integer(id) || x < INT32_MIN || token >= r->vocabulary || (x < 0 && i + 1 == count))
            return row_fail(r, line, err, "'ids': number %zu is no id of this tokenizer's %d that was sampled or given", i + 1, r->vocabulary);
        out->ids[i] = (int32_t)x;
    }
    out->count = (int32_t)count;
    return true;
}

// The text as demonstration_render takes it: what stands before "</think>", and after it.
static bool take_completion(const Reader *r, const char *completion, long line, DataRow *out, Err *err) {
    static const char end[] = "</think>";
    const char *at = strstr(completion, end);
    if (out->mode == MODE_DIRECT) {
        out->item.truth = arena_strdup(&r->d->arena, completion);
        return true;
    }
    if (!at) return row_fail(r, line, err, "'completion': in think mode, expected thinking that ends with </think>");
    char *thinking = arena_strdup(&r->d->arena, completion);
    thinking[at - completion] = 0;
    out->item.demonstration = thinking;
    out->item.truth = arena_strdup(&r->d->arena, at + sizeof end - 1);
    return true;
}

static int32_t *keep_ids(const Reader *r, Ids *ids, int32_t *count) {
    int32_t *kept = ARENA_NEW(&r->d->arena, int32_t, ids->count);
    if (ids->count) memcpy(kept, ids->data, (size_t)ids->count * sizeof *kept);
    *count = ids->count;
    ids_free(ids);
    return kept;
}

// A row with a conversation or, where `text` isn't NULL, a text alone.
static bool read_whole(const Reader *r, const json_t *row, const char *text, const char *mode, long line, DataRow *out, Err *err) {
    Conversation talk = {.messages = json_object_get(row, "messages"), .tools = json_object_get(row, "tools"), .mode = MODE_TEMPLATE, .last_turn = r->last_turn};
    Ids prompt = {0}, rest = {0};
    Err why = {0};
    if (json_is_null(talk.tools)) talk.tools = NULL;
    if (!text && !r->recipe->chat) return row_fail(r, line, err, "'messages': the recipe's prompts are plain text (chat=false), expected 'prompt' or 'text'");
    if (!text && mode) TRY(read_mode(r, mode, false, line, &out->mode, err));
    if (!text && mode) talk.mode = (int)out->mode;
    bool ok = text ? text_encode(r->tokenizer, text, &prompt, &rest, &why) : conversation_encode(r->tokenizer, &talk, &prompt, &rest, &why);
    out->prompt = keep_ids(r, &prompt, &out->prompt_count);
    out->ids = keep_ids(r, &rest, &out->count);
    return ok || row_fail(r, line, err, "%s%s%s", why.where, *why.where ? ": " : "", why.msg);
}

static void add_row(Data *d, const DataRow *row) {
    if (d->count == d->capacity) {
        d->capacity = d->capacity ? 2 * d->capacity : 256;
        d->rows = xrealloc(d->rows, (size_t)d->capacity * sizeof *d->rows);
    }
    d->rows[d->count++] = *row;
}

static bool read_row(void *context, json_t *row, long line, Err *err) {
    Reader *r = context;
    Data *d = r->d;
    const char *prompt, *completion, *thinking, *answer, *mode, *kind, *text = NULL;
    if (!json_is_object(row)) return row_fail(r, line, err, "expected an object");
    TRY(text_of(r, row, "prompt", line, &prompt, err) && text_of(r, row, "completion", line, &completion, err) &&
        text_of(r, row, "thinking", line, &thinking, err) && text_of(r, row, "answer", line, &answer, err) && text_of(r, row, "mode", line, &mode, err) &&
        text_of(r, row, "kind", line, &kind, err));
    if (!thinking) TRY(text_of(r, row, "demonstration", line, &thinking, err));
    DataRow out = {.item.kind = arena_strdup(&d->arena, kind ? kind : "data")};
    const json_t *messages = json_object_get(row, "messages");
    bool alone = !prompt && !completion && !answer && json_array_size(json_object_get(row, "ids")) == 0;
    if (alone && !messages) TRY(text_of(r, row, "text", line, &text, err));
    if (alone && (messages || text)) {
        TRY(read_whole(r, row, text, mode, line, &out, err));
        add_row(d, &out);
        return true;
    }
    if (messages && prompt) return row_fail(r, line, err, "found both 'prompt' and 'messages', expected one of them");
    if (messages) TRY(read_messages(r, messages, line, &out.item, &completion, err));
    else if (prompt) out.item.prompt = arena_strdup(&d->arena, prompt);
    else return row_fail(r, line, err, "missing 'prompt' or 'messages', or 'text' alone");
    TRY(read_mode(r, mode, completion ? strstr(completion, "</think>") != NULL : thinking != NULL, line, &out.mode, err) && read_ids(r, row, line, &out, err));
    if (completion && !out.ids) TRY(take_completion(r, completion, line, &out, err));
    if (!completion && !out.ids) {
        if (!answer) return row_fail(r, line, err, "missing 'completion', or 'answer'");
        if (out.mode == MODE_THINK && !thinking) return row_fail(r, line, err, "missing 'thinking' in think mode");
        out.item.truth = arena_strdup(&d->arena, answer);
        if (out.mode == MODE_THINK) out.item.demonstration = arena_strdup(&d->arena, thinking);
    }
    add_row(d, &out);
    return true;
}

// ---- sources ---------------------------------------------------------------------------------------------
bool data_record(const Ledger *l, const char *stage, json_t **out, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT replayable FROM evaluations WHERE name = '" DATA_RECORD "' ORDER BY step", 0, 0, &s, err), more = true;
    *out = NULL;
    while (ok && !*out && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *record = column_object(s, 0);
        const char *name = json_string_value(json_object_get(record, "stage"));
        if (name && strcmp(name, stage) == 0) *out = json_incref(record);
        json_decref(record);
    }
    sqlite3_finalize(s);
    return ok;
}

static const Stage *stage_named(const Recipe *r, const char *name) {
    for (int i = 0; i < r->stage_count; i++)
        if (strcmp(r->stages[i].name, name) == 0 && stage_row(&r->stages[i])->makes_data) return &r->stages[i];
    return NULL;
}

// The file of an earlier stage, as the ledger knows it; the caller frees *out.
static bool made_file(const Trainer *t, const Stage *from, char **out, Err *err) {
    json_t *record;
    char hash[65];
    *out = NULL;
    TRY(data_record(t->ledger, from->name, &record, err));
    const char *expected = json_string_value(json_object_get(record, "sha256"));
    char *name = data_file_name(t->recipe, from);
    *out = path_join(t->recipe->run_folder, name);
    free(name);
    bool ok = expected || fail(err, ERR_DATA, from->name, "the ledger knows of no rows that this stage has made");
    ok = ok && sha256_file(*out, hash, err);
    if (ok && strcmp(hash, expected) != 0)
        ok = fail(err, ERR_DATA, *out, "has the SHA-256 %.16s..., but stage '%s' wrote %.16s...: the file was changed since", hash, from->name, expected);
    json_decref(record);
    return ok;
}

static bool hash_files(const Recipe *r, const char *const *names, Buf *all, Err *err) {
    for (int i = 0; names && names[i]; i++) {
        char hash[65];
        if (stage_named(r, names[i])) continue;
        TRY(sha256_file(names[i], hash, err));
        buf_printf(all, "%s\n", hash);
    }
    return true;
}
bool stages_data_hash(const Recipe *r, char out[65], Err *err) {
    Buf all = {0};
    bool ok = true;
    for (int i = 0; ok && i < r->stage_count; i++)
        ok = hash_files(r, r->stages[i].data, &all, err) && hash_files(r, r->stages[i].validation, &all, err);
    out[0] = 0;
    if (ok && all.size) sha256_hex(all.data, all.size, out);
    buf_free(&all);
    return ok;
}

// The files are still those that the run began with.
static bool check_facts(const Trainer *t, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    char hash[65];
    TRY(stages_data_hash(t->recipe, hash, err));
    bool ok = ledger_query(t->ledger, "SELECT replayable FROM run", 0, 0, &s, err) && ledger_next(t->ledger, s, &more, err);
    json_t *facts = ok && more ? column_object(s, 0) : json_object();
    const char *expected = json_string_value(json_object_get(facts, "stage_data"));
    if (ok && strcmp(expected ? expected : "", hash) != 0) ok = fail(err, ERR_DATA, "data", "a file that the stages name was changed since the run began");
    json_decref(facts);
    sqlite3_finalize(s);
    return ok;
}

bool data_open(const Trainer *t, const Stage *stage, Data **out, Err *err) {
    Data *d = *out = xcalloc(1, sizeof *d);
    Reader r = {.d = d, .recipe = t->recipe, .tokenizer = policy_tokenizer(t->policy), .vocabulary = policy_config(t->policy)->vocabulary,
                .last_turn = stage->last_turn};
    tokenizer_hash(r.tokenizer, r.tokenizer_hash);
    bool ok = check_facts(t, err);
    for (int i = 0; ok && stage->data[i]; i++) {
        const Stage *from = stage_named(t->recipe, stage->data[i]);
        char *path = from ? NULL : xstrdup(stage->data[i]);
        if (from) ok = made_file(t, from, &path, err);
        r.path = path;
        ok = ok && json_lines(path, LINE_BYTES, read_row, &r, err);
        free(path);
    }
    if (ok && d->count == 0) ok = fail(err, ERR_DATA, stage->name, "its data has no rows, expected one JSON object a line");
    if (ok) return true;
    data_close(d);
    *out = NULL;
    return false;
}
void data_close(Data *d) {
    if (!d) return;
    free(d->rows);
    arena_reset(&d->arena);
    free(d);
}

int64_t data_count(const Data *d) { return d->count; }

// ---- steps -----------------------------------------------------------------------------------------------
static int rows_a_step(const Stage *s) { return s->batch - (int)(s->tasks_share * s->batch + 0.5); }

int data_rows_of_step(const Data *d, const Stage *stage, int stage_step) {
    int rows = rows_a_step(stage);
    int64_t left = stage->epochs * d->count - (int64_t)(stage_step - 1) * rows;
    return stage->epochs > 0 && left < rows ? (int)left : rows;
}

static bool count_row(void *context, json_t *row, long line, Err *err) {
    (void)row, (void)line, (void)err;
    ++*(int64_t *)context;
    return true;
}
// *rows stays -1 where an earlier stage hasn't made them yet.
static bool count_rows(const Recipe *r, const Stage *stage, const Ledger *l, int64_t *rows, Err *err) {
    int64_t sum = 0;
    *rows = -1;
    for (int i = 0; stage->data[i]; i++) {
        const Stage *from = stage_named(r, stage->data[i]);
        json_t *record = NULL;
        if (!from) TRY(json_lines(stage->data[i], LINE_BYTES, count_row, &sum, err));
        else if (l) TRY(data_record(l, from->name, &record, err));
        if (from && !record) return true;
        sum += json_integer_value(json_object_get(record, "rows"));
        json_decref(record);
    }
    *rows = sum;
    return true;
}
bool stages_count_steps(Recipe *r, const Ledger *ledger, Err *err) {
    for (int i = 0; i < r->stage_count; i++) {
        Stage *s = &r->stages[i];
        int64_t rows, a_step = rows_a_step(s);
        if (s->epochs == 0 || s->steps > 0 || !s->data) continue;
        TRY(count_rows(r, s, ledger, &rows, err));
        int64_t steps = rows > 0 ? (s->epochs * rows + a_step - 1) / a_step : 0;
        if (steps > 10000000) return fail(err, ERR_DATA, s->name, "%d epochs of %lld rows are more than 10000000 steps", s->epochs, (long long)rows);
        s->steps = (int)steps;
        if (rows == 0) return fail(err, ERR_DATA, s->name, "its data has no rows, expected one JSON object a line");
        if (steps > 0 && s->optimizer.warmup > steps)
            return fail(err, ERR_DATA, s->name, "'optimizer.warmup': found %d, expected at most the %lld steps of %d epochs", s->optimizer.warmup,
                        (long long)steps, s->epochs);
    }
    return true;
}

bool run_count_steps(Recipe *r, Err *err) {
    Ledger *l = NULL;
    bool any = false;
    for (int i = 0; i < r->stage_count; i++) any |= r->stages[i].steps == 0;
    if (!any) return true;
    bool ok = ledger_open_read(r->run_folder, &l, err) && stages_count_steps(r, l, err);
    ledger_close(l);
    return ok;
}

int64_t stage_steps_at_most(const Recipe *r, const Stage *stage) {
    int64_t rows = 0;
    Err ignored;
    if (stage->steps > 0) return stage->steps;
    for (int i = 0; stage->data[i]; i++) {
        const Stage *from = stage_named(r, stage->data[i]);
        if (from) rows += (int64_t)from->steps * from->batch * from->keep;
        else if (!json_lines(stage->data[i], LINE_BYTES, count_row, &rows, &ignored)) return 0;
    }
    return (stage->epochs * rows + rows_a_step(stage) - 1) / rows_a_step(stage);
}

// ---- examples --------------------------------------------------------------------------------------------
static void drop_ids(void *p) { ids_free(p); }

static void take_ids(const DataRow *row, Arena *arena, Completion *out) {
    *out = (Completion){.all = ARENA_NEW(arena, int32_t, row->count), .given = ARENA_NEW(arena, uint8_t, row->count),
                        .ids = ARENA_NEW(arena, int32_t, row->count), .total = row->count};
    for (int32_t i = 0; i < row->count; i++) {
        int32_t id = row->ids[i];
        out->given[i] = id < 0;
        out->all[i] = id < 0 ? -1 - id : id;
        if (id >= 0) out->ids[out->length++] = id;
    }
    if (out->length == out->total) out->given = NULL, out->all = NULL, out->total = 0;
}

bool data_example(const Trainer *t, const Stage *stage, const Data *d, uint64_t index, Arena *arena, Ids *prompt, Completion *out, Err *err) {
    uint64_t count = (uint64_t)d->count, words[3] = {t->recipe->seed, hash64(stage->name, strlen(stage->name)), index / count};
    const DataRow *row = &d->rows[permuted(index % count, count, hash64(words, sizeof words))];
    const Tokenizer *tokenizer = policy_tokenizer(t->policy);
    if (row->prompt) ids_append(prompt, row->prompt, row->prompt_count);
    else TRY(prompt_render(t->recipe, tokenizer, &row->item, row->mode, prompt, err));
    if (row->ids) {
        take_ids(row, arena, out);
    } else {
        Ids *target = ARENA_NEW(arena, Ids, 1);
        arena_defer(arena, drop_ids, target);
        TRY(demonstration_render(t->recipe, tokenizer, &row->item, row->mode, target, err));
        *out = (Completion){.ids = target->data, .length = target->count};
    }
    int32_t length = prompt->count + completion_total(out), longest = policy_config(t->policy)->max_positions;
    return length <= longest || fail(err, ERR_DATA, stage->name, "a row of its data has %d tokens with its prompt, the model takes %d", length, longest);
}
