// ChatML without an interpreter. Published ChatML templates differ in spelling only, so the Jinja source is brought into
// a canonical list of statements (white space control applied, message['role'] and message.role the same, sums of
// texts taken apart, neighbouring texts joined), branches that can't be taken without tools are dropped, and the list
// is compared with two forms:
//
//   plain   for message in messages
//               [if loop.first and messages[0].role != "system": TEXT]
//               <|im_start|> message.role TEXT message.content <|im_end|> TEXT
//           if add_generation_prompt: TEXT
//   headed  if messages[0].role == "system": TEXT messages[0].content TEXT, else: TEXT
//           for message in messages: as above, but the first system message is not printed again
//           if add_generation_prompt: TEXT
//
// The texts are the template's own. SmolLM2 and Qwen2 are plain with a default system message, Qwen2.5 is headed.
// Anything else is not recognised, and nothing is guessed.
#include "template.h"
#include <stdlib.h>
#include <string.h>

struct ChatFormat {
    bool headed;
    char *fallback;                 // what is printed first if the first message isn't a system message; may be NULL
    char *system_open, *system_end; // around the first system message, headed only
    char *open, *middle, *end;      // open ROLE middle CONTENT end
    char *generation;               // may be NULL
};

typedef enum StatementKind { STATEMENT_TEXT, STATEMENT_VALUE, STATEMENT_TAG } StatementKind;
typedef struct Statement {
    StatementKind kind;
    char *text; // the text printed, the canonical expression printed, or the canonical tag
} Statement;
typedef struct Program {
    Statement *list;
    int count, capacity;
} Program;

static void program_add(Program *p, StatementKind kind, const char *text, size_t size) {
    if (kind == STATEMENT_TEXT && size == 0) return;
    if (p->count == p->capacity) {
        p->capacity = 2 * p->capacity + 16;
        p->list = xrealloc(p->list, (size_t)p->capacity * sizeof *p->list);
    }
    p->list[p->count++] = (Statement){kind, xstrndup(text, size)};
}
static void program_cut(Program *p, int from, int to) {
    for (int i = from; i < to; i++) free(p->list[i].text);
    memmove(p->list + from, p->list + to, (size_t)(p->count - to) * sizeof *p->list);
    p->count -= to - from;
}
static void program_free(Program *p) {
    for (int i = 0; i < p->count; i++) free(p->list[i].text);
    free(p->list);
}

// ---- reading Jinja -------------------------------------------------------------------------------------------
static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// The string literal at *at (a quote); leaves *at behind it and appends its value. False if it doesn't end, or has an
// escape other than the simple ones.
static bool read_string(const char *s, size_t end, size_t *at, Buf *value) {
    char quote = s[*at];
    size_t i = *at + 1;
    for (; i < end && s[i] != quote; i++) {
        char c = s[i];
        if (c == '\\') {
            if (++i >= end) return false;
            const char *from = "ntr\\'\"", *hit = strchr(from, s[i]);
            if (!hit || !s[i]) return false;
            c = "\n\t\r\\'\""[hit - from];
        }
        buf_append(value, &c, 1);
    }
    *at = i + 1;
    return i < end;
}

// One token of an expression, canonical: a name, a number, an operator, or a string in double quotes. ['name'] after
// a value becomes .name.
static bool read_token(const char *s, size_t end, size_t *at, Buf *out, bool *is_string, Buf *string) {
    size_t i = *at;
    *is_string = s[i] == '\'' || s[i] == '"';
    if (*is_string) {
        string->size = 0;
        buf_append(string, "", 0);
        TRY(read_string(s, end, at, string));
        buf_printf(out, "\"%s\"", string->data);
        return true;
    }
    if (s[i] == '[' && i + 1 < end && (s[i + 1] == '\'' || s[i + 1] == '"')) {
        size_t after = i + 1;
        Buf key = {0};
        bool named = read_string(s, end, &after, &key) && after < end && s[after] == ']' && key.size;
        for (size_t k = 0; named && k < key.size; k++) named = is_name(key.data[k]);
        if (named) {
            buf_printf(out, ".%s", key.data);
            *at = after + 1;
        }
        buf_free(&key);
        if (named) return true;
    }
    size_t start = i++;
    if (is_name(s[start]))
        while (i < end && is_name(s[i])) i++;
    else if (i < end && s[i] == '=' && strchr("=!<>", s[start]))
        i++;
    buf_append(out, s + start, i - start);
    *at = i;
    return true;
}

static bool needs_space(const Buf *before, const char *token) {
    if (!before->size || strchr(".[]()", token[0])) return false;
    return !strchr(".[(", before->data[before->size - 1]);
}

// Canonical text of a tag.
static bool add_tag(Program *p, const char *s, size_t from, size_t end) {
    Buf tag = {0}, token = {0}, string = {0};
    bool ok = true;
    for (size_t at = from; ok && at < end;) {
        bool is_string;
        if (is_blank(s[at])) {
            at++;
            continue;
        }
        token.size = 0;
        ok = read_token(s, end, &at, &token, &is_string, &string);
        if (!ok) break;
        bool group = token.data[0] == '(' && tag.size && is_name(tag.data[tag.size - 1]); // "if (", "or ("
        if (group || needs_space(&tag, token.data)) buf_puts(&tag, " ");
        buf_append(&tag, token.data, token.size);
    }
    if (ok) program_add(p, STATEMENT_TAG, tag.size ? tag.data : "", tag.size);
    buf_free(&tag), buf_free(&token), buf_free(&string);
    return ok;
}

// What {{ }} prints: a sum, taken apart into texts and values.
static bool add_output(Program *p, const char *s, size_t from, size_t end) {
    Buf term = {0}, token = {0}, string = {0}, text = {0};
    bool ok = true, only_string = false;
    int tokens = 0, depth = 0;
    for (size_t at = from; ok && at <= end;) {
        if (at < end && is_blank(s[at])) {
            at++;
            continue;
        }
        bool sum = at < end && depth == 0 && (s[at] == '+' || s[at] == '~');
        if (sum || at == end) {
            ok = tokens > 0;
            if (tokens == 1 && only_string)
                program_add(p, STATEMENT_TEXT, text.data, text.size);
            else if (ok)
                program_add(p, STATEMENT_VALUE, term.data, term.size);
            term.size = 0, tokens = 0;
            at++;
            continue;
        }
        bool is_string;
        token.size = 0;
        ok = read_token(s, end, &at, &token, &is_string, &string);
        if (!ok) break;
        if (is_string) {
            text.size = 0;
            buf_append(&text, string.data, string.size);
        }
        only_string = is_string;
        depth += (token.data[0] == '(' || token.data[0] == '[') - (token.data[0] == ')' || token.data[0] == ']');
        if (needs_space(&term, token.data)) buf_puts(&term, " ");
        buf_append(&term, token.data, token.size);
        tokens++;
    }
    buf_free(&term), buf_free(&token), buf_free(&string), buf_free(&text);
    return ok;
}

// Where the tag that begins before `at` is closed by `close` ("%}", "}}"), quotes skipped; SIZE_MAX if nowhere.
static size_t find_close(const char *s, size_t size, size_t at, const char *close) {
    for (char quote = 0; at + 1 < size; at++) {
        if (quote && s[at] == '\\')
            at++;
        else if (quote)
            quote = s[at] == quote ? 0 : quote;
        else if (close[0] != '#' && (s[at] == '\'' || s[at] == '"'))
            quote = s[at];
        else if (s[at] == close[0] && s[at + 1] == close[1])
            return at;
    }
    return SIZE_MAX;
}

// The text before a tag, after white space control: "-" strips it, and a block tag alone so far on its line drops the
// blanks before it.
static void add_text(Program *p, const char *s, size_t from, size_t to, bool strip_start, bool strip_end, bool block) {
    if (strip_start)
        while (from < to && is_blank(s[from])) from++;
    if (strip_end) {
        while (to > from && is_blank(s[to - 1])) to--;
    } else if (block) {
        size_t line = to;
        while (line > from && (s[line - 1] == ' ' || s[line - 1] == '\t')) line--;
        if (line == 0 || s[line - 1] == '\n') to = line;
    }
    program_add(p, STATEMENT_TEXT, s + from, to - from);
}

static bool read_program(const char *s, Program *p) {
    size_t size = strlen(s), at = 0;
    if (size && s[size - 1] == '\n') size--;
    for (bool strip_start = false;;) {
        size_t tag = at;
        while (tag + 1 < size && !(s[tag] == '{' && strchr("{%#", s[tag + 1]))) tag++;
        if (tag + 1 >= size) {
            add_text(p, s, at, size, strip_start, false, false);
            return true;
        }
        char kind = s[tag + 1];
        const char close[] = {kind == '{' ? '}' : kind, '}', 0};
        size_t start = tag + 2, end = find_close(s, size, start, close);
        if (end == SIZE_MAX) return false;
        bool dash = start < end && s[start] == '-', plus = start < end && s[start] == '+';
        add_text(p, s, at, tag, strip_start, dash, kind != '{' && !plus);
        start += dash || plus;
        strip_start = end > start && s[end - 1] == '-';
        size_t inner = end - strip_start;
        if (kind == '{' && !add_output(p, s, start, inner)) return false;
        if (kind == '%' && !add_tag(p, s, start, inner)) return false;
        at = end + 2;
        if (!strip_start && kind != '{' && at < size && s[at] == '\n') at++;
    }
}

// ---- dropping what can't happen ----------------------------------------------------------------------------------
static bool tag_begins(const Statement *s, const char *word) {
    size_t n = strlen(word);
    return s->kind == STATEMENT_TAG && strncmp(s->text, word, n) == 0 && !is_name(s->text[n]);
}
static bool tag_is(const Statement *s, const char *text) {
    return s->kind == STATEMENT_TAG && strcmp(s->text, text) == 0;
}
// The next elif, else or endif of the if at `at`; -1 if there is none.
static int branch_end(const Program *p, int at) {
    for (int i = at + 1, depth = 0; i < p->count; i++) {
        const Statement *s = &p->list[i];
        if (depth == 0 && (tag_begins(s, "elif") || tag_begins(s, "else") || tag_begins(s, "endif"))) return i;
        depth += tag_begins(s, "if");
        depth -= tag_begins(s, "endif");
    }
    return -1;
}

// The if at `at` is never taken: it goes, with an else its branch stays.
static bool drop_if(Program *p, int at) {
    int stop = branch_end(p, at);
    if (stop < 0 || tag_begins(&p->list[stop], "elif")) return false;
    if (tag_begins(&p->list[stop], "else")) {
        int end = branch_end(p, stop);
        if (end < 0 || !tag_begins(&p->list[end], "endif")) return false;
        program_cut(p, end, end + 1);
    }
    program_cut(p, at, stop + 1);
    return true;
}
// The if at `at` is always taken: only its first branch stays.
static bool keep_first(Program *p, int at) {
    int stop = branch_end(p, at), end = stop;
    while (end >= 0 && !tag_begins(&p->list[end], "endif")) end = branch_end(p, end);
    if (end < 0) return false;
    program_cut(p, stop, end + 1);
    program_cut(p, at, at + 1);
    return true;
}

// Holds for the roles user, assistant (without tool calls) and system (not first): those of a headed template.
static const char headed_condition[] =
    "if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or "
    "(message.role == \"assistant\" and not message.tool_calls)";

static bool fold(Program *p, bool *headed) {
    for (int i = 0; i < p->count; i++) {
        if (tag_is(&p->list[i], "if tools") || tag_is(&p->list[i], "if not add_generation_prompt is defined")) {
            TRY(drop_if(p, i));
            i--;
        } else if (tag_is(&p->list[i], headed_condition)) {
            TRY(!*headed && keep_first(p, i));
            *headed = true;
            i--;
        }
    }
    for (int i = 0; i + 1 < p->count; i++) { // neighbouring texts
        Statement *a = &p->list[i], *b = a + 1;
        if (a->kind != STATEMENT_TEXT || b->kind != STATEMENT_TEXT) continue;
        char *joined = xasprintf("%s%s", a->text, b->text);
        free(a->text);
        a->text = joined;
        program_cut(p, i + 1, i + 2);
        i--;
    }
    return true;
}

// ---- the two forms -------------------------------------------------------------------------------------------
typedef struct Cursor {
    Statement *at, *end;
} Cursor;
static bool take(Cursor *c, StatementKind kind, const char *text) {
    if (c->at == c->end || c->at->kind != kind || strcmp(c->at->text, text) != 0) return false;
    c->at++;
    return true;
}
static bool take_text(Cursor *c, char **out) {
    if (c->at == c->end || c->at->kind != STATEMENT_TEXT) return false;
    *out = xstrdup(c->at++->text);
    return true;
}
static bool take_head(Cursor *c, ChatFormat *f) {
    return take(c, STATEMENT_TAG, "if messages[0].role == \"system\"") && take_text(c, &f->system_open) &&
           take(c, STATEMENT_VALUE, "messages[0].content") && take_text(c, &f->system_end) &&
           take(c, STATEMENT_TAG, "else") && take_text(c, &f->fallback) && take(c, STATEMENT_TAG, "endif");
}
static bool take_fallback(Cursor *c, ChatFormat *f) {
    if (!take(c, STATEMENT_TAG, "if loop.first and messages[0].role != \"system\"") &&
        !take(c, STATEMENT_TAG, "if loop.first and message.role != \"system\""))
        return true;
    return take_text(c, &f->fallback) && take(c, STATEMENT_TAG, "endif");
}
static bool take_format(Cursor *c, ChatFormat *f) {
    if (f->headed) TRY(take_head(c, f));
    TRY(take(c, STATEMENT_TAG, "for message in messages"));
    if (!f->headed) TRY(take_fallback(c, f));
    TRY(take_text(c, &f->open) && take(c, STATEMENT_VALUE, "message.role") && take_text(c, &f->middle) &&
        take(c, STATEMENT_VALUE, "message.content") && take_text(c, &f->end) && take(c, STATEMENT_TAG, "endfor"));
    if (take(c, STATEMENT_TAG, "if add_generation_prompt"))
        TRY(take_text(c, &f->generation) && take(c, STATEMENT_TAG, "endif"));
    return c->at == c->end && strcmp(f->open, "<|im_start|>") == 0 && strncmp(f->end, "<|im_end|>", 10) == 0;
}

ChatFormat *chat_format_read(const char *source) {
    Program p = {0};
    ChatFormat *f = xcalloc(1, sizeof *f);
    bool ok = read_program(source, &p) && fold(&p, &f->headed);
    Cursor c = {p.list, p.list + p.count};
    ok = ok && take_format(&c, f);
    program_free(&p);
    if (ok) return f;
    chat_format_free(f);
    return NULL;
}
void chat_format_free(ChatFormat *f) {
    if (!f) return;
    free(f->fallback), free(f->system_open), free(f->system_end);
    free(f->open), free(f->middle), free(f->end), free(f->generation);
    free(f);
}

// ---- printing ------------------------------------------------------------------------------------------------
static bool check_message(const ChatFormat *f, const char *where, size_t index, const json_t *m, Err *err) {
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    if (!json_is_string(role) || !json_is_string(content))
        return fail(err, ERR_DATA, where, "messages[%zu] lacks a text '%s'; expected {\"role\": .., \"content\": ..}", index,
                    json_is_string(role) ? "content" : "role");
    if (!f->headed) return true;
    const char *r = json_string_value(role);
    const json_t *calls = json_object_get(m, "tool_calls");
    if (strcmp(r, "user") != 0 && strcmp(r, "assistant") != 0 && strcmp(r, "system") != 0)
        return fail(err, ERR_DATA, where, "messages[%zu] has the role '%.60s', expected system, user or assistant", index, r);
    if (json_is_true(calls) || json_array_size(calls) || json_object_size(calls))
        return fail(err, ERR_DATA, where, "messages[%zu] has tool calls, which are not supported", index);
    return true;
}
static void put(Buf *out, const json_t *message, const char *key) {
    const json_t *value = json_object_get(message, key);
    buf_append(out, json_string_value(value), json_string_length(value));
}

bool chat_format_render(const ChatFormat *f, const char *where, const json_t *messages, bool add_generation_prompt,
                        Buf *out, Err *err) {
    size_t count = json_array_size(messages);
    if (!json_is_array(messages)) return fail(err, ERR_DATA, where, "messages is not a list");
    if (f->headed && !count) return fail(err, ERR_DATA, where, "messages is empty; this template needs one");
    for (size_t i = 0; i < count; i++) TRY(check_message(f, where, i, json_array_get(messages, i), err));
    const json_t *first = json_array_get(messages, 0);
    bool system = first && strcmp(json_string_value(json_object_get(first, "role")), "system") == 0;
    if (count && !system && f->fallback) buf_puts(out, f->fallback);
    if (f->headed && system) {
        buf_puts(out, f->system_open);
        put(out, first, "content");
        buf_puts(out, f->system_end);
    }
    for (size_t i = f->headed && system ? 1 : 0; i < count; i++) {
        const json_t *m = json_array_get(messages, i);
        buf_puts(out, f->open);
        put(out, m, "role");
        buf_puts(out, f->middle);
        put(out, m, "content");
        buf_puts(out, f->end);
    }
    if (add_generation_prompt && f->generation) buf_puts(out, f->generation);
    return true;
}
