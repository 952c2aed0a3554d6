// Reads tokenizer.json and its companions from a folder: the model, its added tokens and, with the files that own them,
// normaliser, pre-tokenizer, post-processor and decoder. Everything that changes ids or texts and isn't
// known here is refused with the field's name and what is supported; what only concerns offsets, padding or
// truncation is ignored.
#include "tokenizer_reader.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENIZER_LIMIT = 256 << 20, CONFIG_LIMIT = 16 << 20, ADDED_LIMIT = 1 << 16, ADDED_TEXT_LIMIT = 4096 };
enum { FILE_TOKENIZER, FILE_CONFIG, FILE_SPECIAL_MAP, FILE_TEMPLATE };
const char *const tokenizer_file_names[TOKENIZER_FILES] = {"tokenizer.json", "tokenizer_config.json",
                                                           "special_tokens_map.json", "chat_template.jinja"};

// ---- the model -----------------------------------------------------------------------------------------------
static bool find_model(Reader *r, const json_t *model) {
    static const struct {
        const char *type;
        ModelKind kind;
    } known[] = {{"BPE", MODEL_BPE}, {"Unigram", MODEL_UNIGRAM}, {"WordPiece", MODEL_WORDPIECE}, {"WordLevel", MODEL_WORDPIECE}};
    const char *type = get_text(model, "type");
    if (!json_is_object(model)) return fail(r->err, ERR_DATA, at(r, "model"), "is missing, expected an object");
    if (!type && get(model, "merges")) type = "BPE"; // older files
    for (int i = 0; type && i < COUNT(known); i++)
        if (strcmp(known[i].type, type) == 0) {
            r->t->model = known[i].kind;
            return true;
        }
    return fail(r->err, ERR_DATA, at(r, "model.type"),
                "found '%.40s', which is not supported; expected BPE, Unigram, WordPiece or WordLevel", type ? type : "nothing");
}

static bool check_model(Reader *r, const json_t *model) {
    TRY(find_model(r, model));
    const json_t *dropout = get(model, "dropout"), *vocab = get(model, "vocab");
    if (dropout && json_number_value(dropout) != 0)
        return fail(r->err, ERR_DATA, at(r, "model.dropout"), "found a dropout, expected null: encoding must be a function");
    if (r->t->model == MODEL_UNIGRAM)
        return json_is_array(vocab) || fail(r->err, ERR_DATA, at(r, "model.vocab"), "expected a list");
    if (!json_is_object(vocab)) return fail(r->err, ERR_DATA, at(r, "model.vocab"), "expected an object");
    if (r->t->model == MODEL_BPE && !json_is_array(get(model, "merges")))
        return fail(r->err, ERR_DATA, at(r, "model.merges"), "expected a list");
    return true;
}

// An id, checked; raises *size above it.
static bool read_id(Reader *r, const json_t *v, const char *where, int32_t *id, int32_t *size) {
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (n < 0 || n >= TOKEN_LIMIT)
        return fail(r->err, ERR_DATA, where, "found %s, expected an id from 0 to %d",
                    json_is_integer(v) ? "an id out of range" : "no integer", TOKEN_LIMIT - 1);
    *id = (int32_t)n;
    if (*id >= *size) *size = *id + 1;
    return true;
}

static bool read_merge(Reader *r, const json_t *merge, int32_t rank) {
    Bpe *b = &r->t->bpe;
    const char *where = at(r, "model.merges[%d]", rank);
    if (json_is_string(merge))
        return bpe_merge_put_line(b, rank, json_string_value(merge), json_string_length(merge), where, r->err);
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(left) || !json_is_string(right))
        return fail(r->err, ERR_DATA, where, "expected two tokens, as a list of two texts or as one text");
    return bpe_merge_put(b, rank, json_string_value(left), json_string_length(left), json_string_value(right),
                         json_string_length(right), where, r->err);
}

// Added tokens that the model doesn't have, and the index over all.
static bool read_other_tokens(Reader *r) {
    Vocabulary *v = &r->t->vocabulary;
    bool repeats = r->t->model == MODEL_UNIGRAM;
    TRY(vocabulary_index(v, repeats, at(r, "model.vocab"), r->err));
    for (int i = 0; i < r->t->added_count; i++) {
        const AddedToken *a = &r->t->added[i];
        int32_t known = vocabulary_find(v, a->text, a->size);
        if (known >= 0 && known != a->id)
            return fail(r->err, ERR_DATA, at(r, "added_tokens[%d]", i), "'%.60s' has the id %d, but %d in the vocabulary",
                        a->text, a->id, known);
        if (known < 0) TRY(vocabulary_put(v, a->id, a->text, a->size, false, at(r, "added_tokens[%d]", i), r->err));
    }
    mem_free(v->by_text);
    v->by_text = NULL;
    return vocabulary_index(v, repeats, at(r, "added_tokens"), r->err);
}

// Tables are as long as the highest id: a short file may not ask for long ones.
static bool check_gaps(Reader *r, size_t names, int32_t size) {
    enum { GAPS = 65536 };
    names += (size_t)r->t->added_count;
    if ((size_t)size <= names * 8 + GAPS) return true;
    return fail(r->err, ERR_DATA, at(r, "model.vocab"), "has ids up to %d, but names %zu tokens: expected fewer gaps", size - 1, names);
}

// The parser has no keys with NUL, but a token may hold one: there the file's text was changed (see hide_nul).
#define HIDDEN_NUL "\U0010FFFE\uFDD0\U0010FFFE"
static size_t show_nul(char *text, size_t size) {
    size_t out = 0, n = strlen(HIDDEN_NUL);
    for (size_t at = 0; at < size; out++) {
        bool hidden = size - at >= n && memcmp(text + at, HIDDEN_NUL, n) == 0;
        text[out] = hidden ? 0 : text[at];
        at += hidden ? n : 1;
    }
    return out;
}
static bool put_token(Reader *r, int32_t id, const char *text) {
    Vocabulary *v = &r->t->vocabulary;
    if (!r->hidden || !strstr(text, HIDDEN_NUL)) return vocabulary_put(v, id, text, strlen(text), true, at(r, "model.vocab"), r->err);
    char *shown = xstrdup(text);
    bool ok = vocabulary_put(v, id, shown, show_nul(shown, strlen(shown)), true, at(r, "model.vocab"), r->err);
    free(shown);
    return ok;
}

static bool read_vocabulary(Reader *r, const json_t *vocab, int32_t size) {
    Vocabulary *v = &r->t->vocabulary;
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value) {
        int32_t id;
        char field[96];
        snprintf(field, sizeof field, "model.vocab['%.60s']", text);
        TRY(read_id(r, value, at(r, "%s", field), &id, &size));
    }
    if (size == 0) return fail(r->err, ERR_DATA, at(r, "model.vocab"), "is empty");
    TRY(check_gaps(r, json_object_size(vocab), size));
    TRY(vocabulary_start(v, size, r->err));
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value) {
        int32_t id = (int32_t)json_integer_value(value);
        TRY(put_token(r, id, text));
    }
    return read_other_tokens(r);
}

static bool find_unknown(Reader *r, const json_t *model, int32_t *out) {
    const char *unknown = get_text(model, "unk_token");
    *out = unknown ? vocabulary_find_model(&r->t->vocabulary, unknown, strlen(unknown)) : -1;
    if (unknown && *out < 0)
        return fail(r->err, ERR_DATA, at(r, "model.unk_token"), "'%.60s' is not in the vocabulary", unknown);
    return true;
}
static char *text_or_null(const json_t *model, const char *key) {
    const char *text = get_text(model, key);
    return text && text[0] ? xstrdup(text) : NULL;
}

static bool read_bpe(Reader *r, const json_t *model, int32_t size) {
    Tokenizer *t = r->t;
    Bpe *b = &t->bpe;
    const json_t *merges = get(model, "merges");
    TRY(read_vocabulary(r, get(model, "vocab"), size));
    b->v = &t->vocabulary;
    b->prefix = text_or_null(model, "continuing_subword_prefix");
    b->suffix = text_or_null(model, "end_of_word_suffix");
    b->ignore_merges = json_is_true(get(model, "ignore_merges"));
    b->fuse_unknown = json_is_true(get(model, "fuse_unk"));
    b->byte_fallback = json_is_true(get(model, "byte_fallback"));
    TRY(find_unknown(r, model, &b->unknown));
    TRY(bpe_merges_start(b, json_array_size(merges), at(r, "model.merges"), r->err));
    for (size_t i = 0; i < json_array_size(merges); i++) TRY(read_merge(r, json_array_get(merges, i), (int32_t)i));
    return tokenizer_finish_bpe(t, r->err);
}

static bool read_unigram(Reader *r, const json_t *model, int32_t size) {
    Vocabulary *v = &r->t->vocabulary;
    Unigram *u = &r->t->unigram;
    const json_t *vocab = get(model, "vocab"), *unknown = get(model, "unk_id");
    size_t count = json_array_size(vocab);
    if (count == 0 || count > TOKEN_LIMIT)
        return fail(r->err, ERR_DATA, at(r, "model.vocab"), "found %zu tokens, expected 1 to %d", count, TOKEN_LIMIT);
    if (size < (int32_t)count) size = (int32_t)count;
    TRY(check_gaps(r, count, size));
    TRY(vocabulary_start(v, size, r->err));
    u->v = v;
    u->scores = xcalloc((size_t)size, sizeof *u->scores);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(vocab, i), *text = json_array_get(item, 0), *score = json_array_get(item, 1);
        const char *where = at(r, "model.vocab[%zu]", i);
        if (json_array_size(item) != 2 || !json_is_string(text) || !json_is_number(score))
            return fail(r->err, ERR_DATA, where, "expected a text and its score");
        TRY(vocabulary_put(v, (int32_t)i, json_string_value(text), json_string_length(text), true, where, r->err));
        u->scores[i] = json_number_value(score);
    }
    TRY(read_other_tokens(r));
    u->unknown = -1;
    if (unknown && (!json_is_integer(unknown) || json_integer_value(unknown) < 0 || json_integer_value(unknown) >= (json_int_t)count))
        return fail(r->err, ERR_DATA, at(r, "model.unk_id"), "expected an id from 0 to %zu", count - 1);
    if (unknown) u->unknown = (int32_t)json_integer_value(unknown);
    u->byte_fallback = json_is_true(get(model, "byte_fallback"));
    return unigram_finish(u, r->err);
}

static bool read_wordpiece(Reader *r, const json_t *model, int32_t size) {
    WordPiece *w = &r->t->wordpiece;
    const json_t *longest = get(model, "max_input_chars_per_word");
    TRY(read_vocabulary(r, get(model, "vocab"), size));
    TRY(find_unknown(r, model, &w->unknown));
    w->v = &r->t->vocabulary;
    if (type_is(model, "WordLevel")) return true;
    const char *prefix = get_text(model, "continuing_subword_prefix");
    w->prefix = xstrdup(prefix ? prefix : "##");
    w->longest = json_integer_value(longest) > 0 ? (size_t)json_integer_value(longest) : 100;
    return true;
}

static bool read_model(Reader *r, const json_t *model, int32_t size) {
    switch (r->t->model) {
    case MODEL_UNIGRAM: return read_unigram(r, model, size);
    case MODEL_WORDPIECE: return read_wordpiece(r, model, size);
    case MODEL_BPE: break;
    }
    return read_bpe(r, model, size);
}

// ---- added tokens -----------------------------------------------------------------------------------------------
static bool read_added(Reader *r, const json_t *list, int32_t *size) {
    size_t count = json_array_size(list);
    if (list && !json_is_array(list)) return fail(r->err, ERR_DATA, at(r, "added_tokens"), "expected a list");
    if (count > ADDED_LIMIT)
        return fail(r->err, ERR_DATA, at(r, "added_tokens"), "found %zu, expected at most %d", count, ADDED_LIMIT);
    r->t->added = xcalloc(count, sizeof *r->t->added);
    for (size_t i = 0; i < count; i++) {
        const json_t *j = json_array_get(list, i), *content = json_object_get(j, "content");
        if (!json_is_string(content) || json_string_length(content) > ADDED_TEXT_LIMIT ||
            strlen(json_string_value(content)) != json_string_length(content))
            return fail(r->err, ERR_DATA, at(r, "added_tokens[%zu].content", i),
                        "expected a text without NUL of at most %d bytes", ADDED_TEXT_LIMIT);
        AddedToken a = {.single_word = json_is_true(get(j, "single_word")),
                        .lstrip = json_is_true(get(j, "lstrip")),
                        .rstrip = json_is_true(get(j, "rstrip")),
                        .normalized = json_is_true(get(j, "normalized")),
                        .special = json_is_true(get(j, "special"))};
        TRY(read_id(r, json_object_get(j, "id"), at(r, "added_tokens[%zu].id", i), &a.id, size));
        a.size = json_string_length(content);
        a.text = xstrdup(json_string_value(content));
        r->t->added[r->t->added_count++] = a;
    }
    return true;
}

// ---- the whole -------------------------------------------------------------------------------------------------
static bool read_tokenizer(Reader *r, const json_t *root) {
    Tokenizer *t = r->t;
    int32_t size = 0;
    if (!json_is_object(root)) return fail(r->err, ERR_DATA, r->path, "expected an object");
    TRY(check_model(r, get(root, "model")));
    TRY(tokenizer_read_stages(t, get(root, "normalizer"), get(root, "pre_tokenizer"), get(root, "decoder"), r->path, r->err));
    TRY(read_added(r, get(root, "added_tokens"), &size));
    TRY(read_model(r, get(root, "model"), size));
    TRY(tokenizer_read_post(t, get(root, "post_processor"), r->path, r->err));
    // Only our own character vocabularies split into characters; there a character outside is an error.
    const PreStep *first = &t->pre.steps[0];
    t->strict = first->scanner == SCAN_CHARACTERS && first->behavior == ISOLATED && !first->invert && t->pre.count == 2 &&
                t->model == MODEL_BPE && t->bpe.bytes && t->bpe.ignore_merges && t->bpe.merge_count == 0;
    return true;
}

// ---- the companions --------------------------------------------------------------------------------------------
// "eos_token" and its like: a text, or an added token's object.
static bool read_special(Reader *r, const json_t *config, const char *key, int32_t *id) {
    const json_t *v = get(config, key);
    if (!v || *id >= 0) return true;
    const char *text = json_is_object(v) ? get_text(v, "content") : json_string_value(v);
    if (!text) return fail(r->err, ERR_DATA, at(r, "%s", key), "expected a text or an object with 'content'");
    *id = vocabulary_find(&r->t->vocabulary, text, strlen(text));
    return *id >= 0 || fail(r->err, ERR_DATA, at(r, "%s", key), "'%.60s' is not in the vocabulary", text);
}
static bool read_specials(Reader *r, const json_t *config) {
    if (!json_is_object(config)) return fail(r->err, ERR_DATA, r->path, "expected an object");
    return read_special(r, config, "eos_token", &r->t->eos) && read_special(r, config, "bos_token", &r->t->bos) &&
           read_special(r, config, "pad_token", &r->t->padding);
}

// A text, or a list of named ones of which "default" counts.
static bool read_chat_template(Reader *r, const json_t *config) {
    const json_t *v = get(config, "chat_template");
    const char *source = json_string_value(v);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = get_text(json_array_get(v, i), "name");
        if (name && strcmp(name, "default") == 0) source = get_text(json_array_get(v, i), "template");
    }
    if (v && !source) return fail(r->err, ERR_DATA, at(r, "chat_template"), "expected a text or a list with a 'default'");
    if (!source) return true;
    r->t->chat_source = xstrdup(source);
    r->t->chat_where = xstrdup(r->path);
    return true;
}

// The end of the string that begins at `at` (behind its quote), and whether it holds \u0000; `size` if it has none.
static size_t string_end(const char *text, size_t size, size_t at, bool *nul) {
    *nul = false;
    for (at++; at < size; at++) {
        if (text[at] == '"') return at + 1;
        if (text[at] != '\\') continue;
        if (size - at >= 6 && memcmp(text + at, "\\u0000", 6) == 0) *nul = true;
        at++;
    }
    return size;
}
// A copy of the file's text with \u0000 in keys written as HIDDEN_NUL, which is made of codes that no text has. *out stays
// empty where there is nothing to hide, or where the file holds such a code itself.
static void hide_nul(const char *text, size_t size, Buf *out) {
    if (!memmem(text, size, "\\u0000", 6) || strcasestr(text, "\\ufdd0") || memmem(text, size, "\uFDD0", 3)) return;
    size_t done = 0;
    for (size_t at = 0; at < size;) {
        if (text[at] != '"') {
            at++;
            continue;
        }
        bool nul;
        size_t start = at, after = at = string_end(text, size, at, &nul);
        while (after < size && strchr(" \t\r\n", text[after]) && text[after]) after++;
        if (!nul || after >= size || text[after] != ':') continue;
        buf_append(out, text + done, start - done);
        for (size_t i = start; i < at; i++) {
            bool hidden = at - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0;
            if (hidden) {
                buf_puts(out, HIDDEN_NUL);
                i += 5;
            } else {
                buf_append(out, text + i, 1);
                if (text[i] == '\\') buf_append(out, text + ++i, 1);
            }
        }
        done = at;
    }
    if (out->size) buf_append(out, text + done, size - done);
}

static bool read_companion(Reader *r, int file, const json_t *root) {
    if (file == FILE_TOKENIZER) return read_tokenizer(r, root);
    TRY(read_specials(r, root));
    return file != FILE_CONFIG || read_chat_template(r, root);
}

static bool read_file(Tokenizer *t, int file, const char *path, Err *err) {
    Buf *data = &t->files[file].data;
    Reader r = {.t = t, .path = path, .err = err};
    TRY(file_read(path, file == FILE_TOKENIZER ? TOKENIZER_LIMIT : CONFIG_LIMIT, data, err));
    if (file == FILE_TEMPLATE) { // goes before the one in tokenizer_config.json
        size_t bad;
        if (!utf8_valid(data->data, data->size, &bad) || strlen(data->data) != data->size)
            return fail(err, ERR_DATA, path, "is not UTF-8 text");
        free(t->chat_source), free(t->chat_where);
        t->chat_source = xstrdup(data->data);
        t->chat_where = xstrdup(path);
        return true;
    }
    size_t mark = data->size >= 3 && memcmp(data->data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    json_t *root;
    Buf hidden = {0};
    if (file == FILE_TOKENIZER) hide_nul(data->data + mark, data->size - mark, &hidden);
    bool ok = hidden.size ? json_parse(hidden.data, hidden.size, path, 1, &root, err)
                          : json_parse(data->data + mark, data->size - mark, path, 1, &root, err);
    r.hidden = hidden.size > 0;
    buf_free(&hidden);
    TRY(ok);
    ok = read_companion(&r, file, root);
    json_decref(root);
    return ok;
}

bool tokenizer_read_folder(Tokenizer *t, Err *err) {
    t->carried = true;
    bool ok = true;
    for (int i = 0; ok && i < TOKENIZER_FILES; i++) {
        char *path = path_join(t->path, tokenizer_file_names[i]);
        t->files[i].name = tokenizer_file_names[i];
        if (i == FILE_TOKENIZER && !file_exists(path))
            ok = fail(err, ERR_NOINPUT, t->path, "holds no tokenizer.json");
        else if (file_exists(path))
            ok = read_file(t, i, path, err);
        free(path);
    }
    if (!ok) return false;
    AddedToken *added = t->added;
    t->added = NULL;
    return tokenizer_set_added(t, added, t->added_count, err);
}
