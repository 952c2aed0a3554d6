// Reads tokenizer.json and its companions from a folder. What is read: a byte-level BPE model, its added tokens,
// normaliser (none or NFC), pre-tokenizer, post-processor and decoder. Everything that changes ids or texts and isn't
// known here is refused with the field's name and what is supported; what only concerns offsets, padding or
// truncation is ignored.
#include "tokenizer_parts.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENIZER_LIMIT = 256 << 20, CONFIG_LIMIT = 16 << 20, ADDED_LIMIT = 1 << 16, ADDED_TEXT_LIMIT = 4096 };
enum { FILE_TOKENIZER, FILE_CONFIG, FILE_SPECIAL_MAP, FILE_TEMPLATE };
const char *const tokenizer_file_names[TOKENIZER_FILES] = {"tokenizer.json", "tokenizer_config.json",
                                                           "special_tokens_map.json", "chat_template.jinja"};

typedef struct Reader {
    Tokenizer *t;
    const char *path; // of the file being read
    char place[256];
    Err *err;
} Reader;

static const char *at(Reader *r, const char *format, ...) PRINTF_LIKE(2, 3);
static const char *at(Reader *r, const char *format, ...) {
    char field[128];
    va_list ap;
    va_start(ap, format);
    vsnprintf(field, sizeof field, format, ap);
    va_end(ap);
    snprintf(r->place, sizeof r->place, "%s: %s", r->path, field);
    return r->place;
}
static const json_t *get(const json_t *object, const char *key) { // NULL if missing or null
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}
static const char *get_text(const json_t *object, const char *key) { return json_string_value(get(object, key)); }
static bool type_is(const json_t *object, const char *type) {
    const char *found = get_text(object, "type");
    return found && strcmp(found, type) == 0;
}

// ---- the model -----------------------------------------------------------------------------------------------
static bool check_model(Reader *r, const json_t *model) {
    const char *type = get_text(model, "type");
    if (!json_is_object(model)) return fail(r->err, ERR_DATA, at(r, "model"), "is missing, expected an object");
    if (type ? strcmp(type, "BPE") != 0 : !get(model, "merges"))
        return fail(r->err, ERR_DATA, at(r, "model.type"), "found '%.40s', which is not supported; expected BPE (byte-level)",
                    type ? type : "nothing");
    if (json_is_true(get(model, "byte_fallback")))
        return fail(r->err, ERR_DATA, at(r, "model.byte_fallback"),
                    "found true, which is not supported; expected a byte-level BPE without byte fallback");
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < COUNT(empty); i++) {
        const char *v = get_text(model, empty[i]);
        if (v && v[0])
            return fail(r->err, ERR_DATA, at(r, "model.%s", empty[i]), "found '%.40s', expected null or an empty text", v);
    }
    const json_t *dropout = get(model, "dropout");
    if (dropout && json_number_value(dropout) != 0)
        return fail(r->err, ERR_DATA, at(r, "model.dropout"), "found a dropout, expected null: encoding must be a function");
    if (!json_is_object(get(model, "vocab"))) return fail(r->err, ERR_DATA, at(r, "model.vocab"), "expected an object");
    if (!json_is_array(get(model, "merges"))) return fail(r->err, ERR_DATA, at(r, "model.merges"), "expected a list");
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
    const char *where = at(r, "model.merges[%d]", rank);
    if (json_is_string(merge))
        return bpe_merge_put_line(&r->t->bpe, rank, json_string_value(merge), json_string_length(merge), where, r->err);
    const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b))
        return fail(r->err, ERR_DATA, where, "expected two tokens, as a list of two texts or as one text");
    return bpe_merge_put(&r->t->bpe, rank, json_string_value(a), json_string_length(a), json_string_value(b),
                         json_string_length(b), where, r->err);
}

static bool read_vocabulary(Reader *r, const json_t *vocab) {
    Bpe *b = &r->t->bpe;
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value) {
        int32_t id = (int32_t)json_integer_value(value);
        TRY(bpe_put(b, id, text, strlen(text), at(r, "model.vocab"), r->err));
    }
    for (int i = 0; i < r->t->added_count; i++) {
        const AddedToken *a = &r->t->added[i];
        const json_t *known = json_object_get(vocab, a->text);
        if (known && json_integer_value(known) != a->id)
            return fail(r->err, ERR_DATA, at(r, "added_tokens[%d]", i), "'%.60s' has the id %d, but %d in the vocabulary",
                        a->text, a->id, (int)json_integer_value(known));
        if (!known) TRY(bpe_put(b, a->id, a->text, a->size, at(r, "added_tokens[%d]", i), r->err));
    }
    return bpe_index(b, at(r, "added_tokens"), r->err);
}

static bool read_model(Reader *r, const json_t *model, int32_t size) {
    Bpe *b = &r->t->bpe;
    const json_t *vocab = get(model, "vocab"), *merges = get(model, "merges");
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value) {
        int32_t id;
        char field[96];
        snprintf(field, sizeof field, "model.vocab['%.60s']", text);
        TRY(read_id(r, value, at(r, "%s", field), &id, &size));
    }
    if (size == 0) return fail(r->err, ERR_DATA, at(r, "model.vocab"), "is empty");
    TRY(bpe_start(b, size, r->err));
    TRY(read_vocabulary(r, vocab));
    TRY(bpe_merges_start(b, json_array_size(merges), at(r, "model.merges"), r->err));
    for (size_t i = 0; i < json_array_size(merges); i++) TRY(read_merge(r, json_array_get(merges, i), (int32_t)i));
    b->ignore_merges = json_is_true(get(model, "ignore_merges"));
    b->fuse_unknown = json_is_true(get(model, "fuse_unk"));
    const char *unknown = get_text(model, "unk_token");
    if (unknown && !json_is_integer(json_object_get(vocab, unknown)))
        return fail(r->err, ERR_DATA, at(r, "model.unk_token"), "'%.60s' is not in the vocabulary", unknown);
    if (unknown) b->unknown = bpe_find(b, unknown, strlen(unknown));
    return true;
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

// ---- normaliser, post-processor, decoder -----------------------------------------------------------------------
static bool read_normaliser(Reader *r, const json_t *j) {
    if (!j) return true;
    if (type_is(j, "NFC")) {
        r->t->nfc = true;
        return true;
    }
    const json_t *list = get(j, "normalizers");
    if (!type_is(j, "Sequence") || !json_is_array(list)) {
        const char *type = get_text(j, "type");
        return fail(r->err, ERR_DATA, at(r, "normalizer"), "found %.40s, which is not supported; expected none or NFC",
                    type ? type : "no type");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (type_is(item, "Sequence")) return fail(r->err, ERR_DATA, at(r, "normalizer"), "holds a sequence in a sequence");
        TRY(read_normaliser(r, item));
    }
    return true;
}

// The ids that a template puts in the place of one special token.
static bool put_special(Reader *r, const json_t *specials, const char *name, Ids *out) {
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    if (!json_array_size(ids))
        return fail(r->err, ERR_DATA, at(r, "post_processor.special_tokens"), "lacks '%.60s', which the template uses", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= r->t->bpe.size || !r->t->bpe.tokens[id].present)
            return fail(r->err, ERR_DATA, at(r, "post_processor.special_tokens"),
                        "'%.60s' has the id %lld, which no token has", name, (long long)id);
        ids_push(out, (int32_t)id);
    }
    return true;
}

static bool read_template(Reader *r, const json_t *j) {
    Ids now = {0};
    const json_t *single = get(j, "single"), *specials = get(j, "special_tokens");
    bool ok = json_array_size(single) <= 64 ||
              fail(r->err, ERR_DATA, at(r, "post_processor.single"), "found more than 64 items");
    for (size_t i = 0; ok && i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *special = get_text(get(item, "SpecialToken"), "id"), *sequence = get_text(get(item, "Sequence"), "id");
        if (special)
            ok = put_special(r, specials, special, &now);
        else if (sequence && strcmp(sequence, "A") == 0)
            ids_append(&now, r->t->automatic, r->t->automatic_count);
        else
            ok = fail(r->err, ERR_DATA, at(r, "post_processor.single[%zu]", i), "expected a SpecialToken or the Sequence A");
        if (ok && now.count > 1024) ok = fail(r->err, ERR_DATA, at(r, "post_processor"), "makes more than 1024 tokens");
    }
    if (!ok) {
        ids_free(&now);
        return false;
    }
    free(r->t->automatic);
    r->t->automatic = now.data;
    r->t->automatic_count = now.count;
    return true;
}

static bool read_postprocessor(Reader *r, const json_t *j) {
    if (!j || type_is(j, "ByteLevel")) return true; // ByteLevel changes offsets only
    if (type_is(j, "TemplateProcessing")) return read_template(r, j);
    const json_t *list = get(j, "processors");
    if (!type_is(j, "Sequence") || !json_is_array(list)) {
        const char *type = get_text(j, "type");
        return fail(r->err, ERR_DATA, at(r, "post_processor"),
                    "found %.40s, which is not supported; expected ByteLevel, TemplateProcessing or a sequence of these",
                    type ? type : "no type");
    }
    if (json_array_size(list) > 16) return fail(r->err, ERR_DATA, at(r, "post_processor"), "found more than 16 stages");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (type_is(item, "Sequence")) return fail(r->err, ERR_DATA, at(r, "post_processor"), "holds a sequence in a sequence");
        TRY(read_postprocessor(r, item));
    }
    return true;
}

static bool check_decoder(Reader *r, const json_t *j) {
    const json_t *list = get(j, "decoders");
    if (type_is(j, "Sequence") && json_array_size(list) == 1) j = json_array_get(list, 0);
    if (type_is(j, "ByteLevel")) return true;
    const char *type = get_text(j, "type");
    return fail(r->err, ERR_DATA, at(r, "decoder"), "found %.40s, which is not supported; expected ByteLevel",
                type ? type : "none");
}

static bool read_tokenizer(Reader *r, const json_t *root) {
    Tokenizer *t = r->t;
    int32_t size = 0;
    if (!json_is_object(root)) return fail(r->err, ERR_DATA, r->path, "expected an object");
    TRY(check_model(r, get(root, "model")));
    TRY(read_normaliser(r, get(root, "normalizer")));
    TRY(pretokenizer_from_json(get(root, "pre_tokenizer"), r->path, &t->pre, r->err));
    TRY(check_decoder(r, get(root, "decoder")));
    TRY(read_added(r, get(root, "added_tokens"), &size));
    TRY(read_model(r, get(root, "model"), size));
    TRY(read_postprocessor(r, get(root, "post_processor")));
    // Only our own character vocabularies split into characters; there a character outside is an error.
    t->strict = t->pre.steps[0].scanner == SCAN_CHARACTERS;
    return true;
}

// ---- the companions --------------------------------------------------------------------------------------------
// "eos_token" and its like: a text, or an added token's object.
static bool read_special(Reader *r, const json_t *config, const char *key, int32_t *id) {
    const json_t *v = get(config, key);
    if (!v || *id >= 0) return true;
    const char *text = json_is_object(v) ? get_text(v, "content") : json_string_value(v);
    if (!text) return fail(r->err, ERR_DATA, at(r, "%s", key), "expected a text or an object with 'content'");
    *id = bpe_find(&r->t->bpe, text, strlen(text));
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
    TRY(json_parse(data->data + mark, data->size - mark, path, 1, &root, err));
    bool ok = read_companion(&r, file, root);
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
    tokenizer_set_added(t, added, t->added_count);
    return true;
}
