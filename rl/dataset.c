// A dataset from a JSON Lines file (.zst: compressed): read once, checked whole, kept in memory for the run. A row holds
// "prompt" (a text) or "messages" (a chat that ends with the user), "answer" (a text or an integer), and optionally "level",
// "kind" and "demonstration"; every column reaches the reward. verl's layout is read too: "prompt" as a chat,
// "reward_model.ground_truth" as the answer, "data_source" as the kind; other columns there are passed over. A bad row is an
// error with file:line:column; nothing is skipped.
#include "tasks_parts.h"
#include "files.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 16 << 20, MAX_GROUPS = 256, MAX_LEVEL = 1000000 };

typedef struct Reader {
    Dataset *d;
    const char *path;
    bool chat;
    double held_out_share;
    int group_capacity;
} Reader;

// ---- places ----------------------------------------------------------------------------------------------
// Column, in characters from 1, of the value of a row's own key; 1 if the key isn't there.
static long value_column(const char *line, size_t size, const char *key) {
    int depth = 0;
    long column = 1;
    bool matched = false; // the last text was our key
    for (size_t i = 0; i < size; i++) {
        if (((unsigned char)line[i] & 0xC0) != 0x80) column++;
        if (line[i] == '{' || line[i] == '[') depth++;
        if (line[i] == '}' || line[i] == ']') depth--;
        if (matched && depth == 1 && line[i] == ':') {
            while (i + 1 < size && isspace((unsigned char)line[i + 1])) i++, column++;
            return column;
        }
        if (line[i] != '"') continue;
        size_t start = ++i;
        for (; i < size && line[i] != '"'; i++) {
            if (((unsigned char)line[i] & 0xC0) != 0x80) column++;
            if (line[i] == '\\' && i + 1 < size) i++, column++;
        }
        column++;
        matched = depth == 1 && i - start == strlen(key) && memcmp(line + start, key, i - start) == 0;
    }
    return 1;
}

static bool row_fail(const Reader *r, long line, const char *key, Err *err, const char *format, ...) PRINTF_LIKE(5, 6);
static bool row_fail(const Reader *r, long line, const char *key, Err *err, const char *format, ...) {
    char msg[512], where[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    long column = 1;
    MappedFile f;
    if (file_map_text(r->path, &f, NULL)) {
        const char *p = (const char *)f.data, *end = p + f.size;
        for (long n = 1; n < line && p; n++) {
            p = memchr(p, '\n', (size_t)(end - p));
            if (p) p++;
        }
        const char *stop = p && p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (p && p < end) column = value_column(p, (size_t)((stop ? stop : end) - p), key);
        file_unmap(&f);
    }
    snprintf(where, sizeof where, "%s:%ld:%ld", r->path, line, column);
    return fail(err, ERR_DATA, where, "%s", msg);
}

static const char *type_name(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a truth value";
    case JSON_NULL: return "null";
    }
    return "something else";
}

// ---- columns ---------------------------------------------------------------------------------------------
static bool blank(const char *text) {
    while (isspace((unsigned char)*text)) text++;
    return !*text;
}
// A text that isn't blank and holds no NUL. *out is the arena's; NULL if the column is missing.
static bool text_column(const Reader *r, const json_t *row, const char *key, long line, char **out, Err *err) {
    const json_t *v = json_object_get(row, key);
    *out = NULL;
    if (!v) return true;
    if (!json_is_string(v)) return row_fail(r, line, key, err, "'%s': found %s, expected a text", key, type_name(v));
    const char *text = json_string_value(v);
    if (strlen(text) != json_string_length(v))
        return row_fail(r, line, key, err, "'%s': found a NUL character, expected text without it", key);
    if (blank(text)) return row_fail(r, line, key, err, "'%s': found an empty text, expected one with content", key);
    *out = arena_strdup(&r->d->arena, text);
    return true;
}

static bool answer_column(const Reader *r, const json_t *row, long line, char **out, Err *err) {
    const json_t *v = json_object_get(row, "answer");
    const char *key = "answer";
    if (!v && json_is_object(json_object_get(row, "reward_model"))) row = json_object_get(row, "reward_model"), key = "ground_truth";
    if (!v) v = json_object_get(row, key);
    if (!v) return row_fail(r, line, "answer", err, "missing 'answer', expected a text or an integer");
    if (json_is_integer(v)) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        *out = arena_strdup(&r->d->arena, text);
        return true;
    }
    if (!json_is_string(v))
        return row_fail(r, line, key, err, "'%s': found %s, expected a text or an integer", key, type_name(v));
    return text_column(r, row, key, line, out, err);
}

static bool messages_column(const Reader *r, const json_t *row, const char *key, long line, Item *item, Err *err) {
    json_t *v = json_object_get(row, key), *message;
    const char *role = NULL, *content = NULL;
    if (!r->chat)
        return row_fail(r, line, key, err, "'%s': the recipe's prompts are plain text (chat=false), expected 'prompt' as a text", key);
    if (!json_is_array(v) || json_array_size(v) == 0)
        return row_fail(r, line, key, err, "'%s': found %s, expected a list of {\"role\",\"content\"}", key,
                        json_is_array(v) ? "an empty list" : type_name(v));
    size_t i;
    json_array_foreach(v, i, message) {
        const json_t *text = json_object_get(message, "content");
        role = json_string_value(json_object_get(message, "role"));
        content = json_string_value(text);
        if (!role || !content || strlen(content) != json_string_length(text))
            return row_fail(r, line, key, err, "'%s': number %zu lacks a text as 'role' or 'content'", key, i + 1);
        if (strcmp(role, "system") && strcmp(role, "user") && strcmp(role, "assistant"))
            return row_fail(r, line, key, err,
                            "'%s': number %zu has the role '%.40s', expected system, user or assistant", key, i + 1, role);
    }
    if (strcmp(role, "user") != 0 || blank(content))
        return row_fail(r, line, key, err, "'%s': the last one is %s, expected a question of the user", key,
                        strcmp(role, "user") ? "not the user's" : "empty");
    item->messages = v; // lives as long as its row
    item->prompt = arena_strdup(&r->d->arena, content);
    return true;
}

static bool question_column(const Reader *r, const json_t *row, long line, Item *item, Err *err) {
    const char *chat = json_object_get(row, "messages") ? "messages" : json_is_array(json_object_get(row, "prompt")) ? "prompt" : NULL;
    bool prompt = json_object_get(row, "prompt") != NULL, messages = json_object_get(row, "messages") != NULL;
    if (prompt && messages)
        return row_fail(r, line, "messages", err, "found both 'prompt' and 'messages', expected one of them");
    if (!prompt && !messages) return row_fail(r, line, "prompt", err, "missing 'prompt' or 'messages'");
    Buf identity = {0};
    if (!chat) {
        TRY(text_column(r, row, "prompt", line, &item->prompt, err));
        buf_puts(&identity, item->prompt);
    } else {
        TRY(messages_column(r, row, chat, line, item, err));
        json_write(item->messages, &identity);
    }
    item->hash = hash64(identity.data, identity.size);
    r->d->rows[r->d->count].held_out = split_held_out("jsonl", identity.data, identity.size, r->held_out_share);
    buf_free(&identity);
    return true;
}

static bool level_column(const Reader *r, const json_t *row, long line, int *level, Err *err) {
    const json_t *v = json_object_get(row, "level");
    *level = 1;
    if (!v) return true;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > MAX_LEVEL)
        return row_fail(r, line, "level", err, "'level': found %s, expected an integer from 0 to %d",
                        json_is_integer(v) ? "one out of range" : type_name(v), MAX_LEVEL);
    *level = (int)json_integer_value(v);
    return true;
}

static bool group_of(Reader *r, const Item *item, long line, int *group, Err *err) {
    Dataset *d = r->d;
    for (*group = 0; *group < d->group_count; ++*group)
        if (d->groups[*group].level == item->level && strcmp(d->groups[*group].kind, item->kind) == 0) return true;
    if (d->group_count == MAX_GROUPS)
        return row_fail(r, line, json_object_get(item->row, "kind") ? "kind" : "level", err,
                        "more than %d pairs of 'kind' and 'level', expected coarser ones", MAX_GROUPS);
    if (d->group_count == r->group_capacity) {
        r->group_capacity = r->group_capacity ? 2 * r->group_capacity : 8;
        d->groups = xrealloc(d->groups, (size_t)r->group_capacity * sizeof *d->groups);
    }
    d->groups[d->group_count++] = (DatasetGroup){item->kind, item->level, 0};
    return true;
}

static bool read_row(void *context, json_t *row, long line, Err *err) {
    Reader *r = context;
    Dataset *d = r->d;
    if (!json_is_object(row)) return row_fail(r, line, "", err, "found %s, expected an object", type_name(row));
    if (d->count == d->capacity) {
        d->capacity = d->capacity ? 2 * d->capacity : 256;
        d->rows = xrealloc(d->rows, (size_t)d->capacity * sizeof *d->rows);
    }
    DatasetRow *out = &d->rows[d->count];
    *out = (DatasetRow){.item.row = row};
    Item *item = &out->item;
    TRY(question_column(r, row, line, item, err));
    TRY(answer_column(r, row, line, &item->truth, err));
    TRY(level_column(r, row, line, &item->level, err));
    bool source = !json_object_get(row, "kind") && json_object_get(row, "reward_model");
    TRY(text_column(r, row, source ? "data_source" : "kind", line, &item->kind, err));
    TRY(text_column(r, row, "demonstration", line, &item->demonstration, err));
    if (!item->kind) item->kind = arena_strdup(&d->arena, "jsonl");
    TRY(group_of(r, item, line, &out->group, err));
    json_incref(row);
    d->count++;
    return true;
}

// ---- the whole -------------------------------------------------------------------------------------------
typedef struct Order {
    int group;
    uint64_t hash;
    int64_t row;
} Order;
static int compare_order(const void *a, const void *b) {
    const Order *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

// Splits the rows. Held-out problems are listed by hash, so that the first N of them are a sample whatever the order of
// the file, and once only; a repeated row to train on counts as often as it stands there.
static void split_rows(Dataset *d) {
    Order *order = xmalloc((size_t)d->count * sizeof *order);
    d->train = xmalloc((size_t)d->count * sizeof *d->train);
    d->held_out = xmalloc((size_t)d->count * sizeof *d->held_out);
    for (int64_t i = 0; i < d->count; i++) {
        order[i] = (Order){d->rows[i].group, d->rows[i].item.hash, i};
        if (!d->rows[i].held_out) d->train[d->train_count++] = i;
    }
    qsort(order, (size_t)d->count, sizeof *order, compare_order);
    for (int64_t i = 0; i < d->count; i++) {
        if (i && order[i].group == order[i - 1].group && order[i].hash == order[i - 1].hash) continue;
        d->groups[order[i].group].distinct++;
        if (d->rows[order[i].row].held_out) d->held_out[d->held_out_count++] = order[i].row;
    }
    free(order);
}

bool dataset_read(const char *path, bool chat, double held_out, Dataset *out, Err *err) {
    *out = (Dataset){0};
    Reader r = {.d = out, .path = path, .chat = chat, .held_out_share = held_out};
    char after[65];
    bool ok = sha256_file(path, out->hash, err) && json_lines(path, LINE_BYTES, read_row, &r, err) &&
              sha256_file(path, after, err);
    if (ok && strcmp(after, out->hash) != 0) ok = fail(err, ERR_DATA, path, "changed while it was read");
    if (ok && out->count == 0) ok = fail(err, ERR_DATA, path, "found no rows, expected one JSON object a line");
    if (ok) split_rows(out);
    if (ok && out->train_count == 0)
        ok = fail(err, ERR_DATA, path, "all of the %lld rows are held out for evaluation (held_out=%g), expected some to train on",
                  (long long)out->count, held_out);
    if (!ok) dataset_free(out);
    return ok;
}

void dataset_free(Dataset *d) {
    for (int64_t i = 0; i < d->count; i++) json_decref(d->rows[i].item.row);
    free(d->rows);
    free(d->train);
    free(d->held_out);
    free(d->groups);
    arena_reset(&d->arena);
    *d = (Dataset){0};
}
