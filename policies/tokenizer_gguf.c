// Reads the vocabulary that a GGUF file carries in its metadata: byte-level BPE ("gpt2") with a named pre-tokenizer, or
// SentencePiece's BPE ("llama") with scores and byte tokens. Control, unknown and user-defined tokens become added tokens. The
// strings of the file are copied; nothing of it is kept open.
#include "tokenizer_parts.h"
#include "gguf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE }; // of tokenizer.ggml.token_type

static char *copy(GgufText text) { return xstrndup(text.data ? text.data : "", text.size); }

static bool named(const GgufText *text, const char *name) { return text->size == strlen(name) && memcmp(text->data, name, text->size) == 0; }
static bool read_model_name(Tokenizer *t, const Gguf *g, bool *pieces, Err *err) {
    GgufText model = {0};
    *pieces = false;
    if (!gguf_find(g, "tokenizer.ggml.model")) return fail(err, ERR_NOINPUT, t->path, "has no tokenizer: metadata key 'tokenizer.ggml.model' is missing");
    TRY(gguf_get_text(g, "tokenizer.ggml.model", true, &model, err));
    if (named(&model, "none") || named(&model, "no_vocab"))
        return fail(err, ERR_NOINPUT, t->path, "has no tokenizer: tokenizer.ggml.model is '%.*s'", (int)model.size, model.data);
    *pieces = named(&model, "llama");
    if (*pieces || named(&model, "gpt2")) return true;
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.model", t->path);
    return fail(err, ERR_DATA, where,
                "found '%.*s', which is not supported; expected gpt2 (byte-level BPE) or llama (SentencePiece's BPE)",
                (int)(model.size < 60 ? model.size : 60), model.data);
}

static bool read_tokens(Tokenizer *t, const Gguf *g, Err *err) {
    const GgufText *texts = NULL;
    size_t count = 0;
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.tokens", t->path);
    TRY(gguf_get_texts(g, "tokenizer.ggml.tokens", true, &texts, &count, err));
    if (count == 0 || count > TOKEN_LIMIT)
        return fail(err, ERR_DATA, where, "found %zu tokens, expected 1 to %d", count, TOKEN_LIMIT);
    TRY(vocabulary_start(&t->vocabulary, (int32_t)count, err));
    for (size_t i = 0; i < count; i++) {
        size_t bad;
        if (!utf8_valid(texts[i].data, texts[i].size, &bad) || memchr(texts[i].data, 0, texts[i].size))
            return fail(err, ERR_DATA, where, "token %zu is not UTF-8 text", i);
        TRY(vocabulary_put(&t->vocabulary, (int32_t)i, texts[i].data, texts[i].size, true, where, err));
    }
    return vocabulary_index(&t->vocabulary, false, where, err);
}

static bool read_merges(Tokenizer *t, const Gguf *g, Err *err) {
    const GgufText *texts = NULL;
    size_t count = 0;
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.merges", t->path);
    TRY(gguf_get_texts(g, "tokenizer.ggml.merges", true, &texts, &count, err));
    TRY(bpe_merges_start(&t->bpe, count, where, err));
    for (size_t i = 0; i < count; i++) TRY(bpe_merge_put_line(&t->bpe, (int32_t)i, texts[i].data, texts[i].size, where, err));
    return true;
}

static bool read_added(Tokenizer *t, const Gguf *g, Err *err) {
    const GgufValue *types = NULL;
    TRY(gguf_get_ints(g, "tokenizer.ggml.token_type", false, &types, err));
    if (!types) return true;
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.token_type", t->path);
    if (types->count != (uint64_t)t->vocabulary.size)
        return fail(err, ERR_DATA, where, "has %llu entries, expected one for each of %d tokens",
                    (unsigned long long)types->count, t->vocabulary.size);
    int count = 0;
    AddedToken *added = xcalloc((size_t)t->vocabulary.size, sizeof *added);
    for (int32_t id = 0; id < t->vocabulary.size; id++) {
        int64_t type = gguf_int_at(types, (uint64_t)id);
        if (type != TYPE_CONTROL && type != TYPE_USER_DEFINED && type != TYPE_UNKNOWN) continue;
        const Token *token = &t->vocabulary.tokens[id];
        added[count++] = (AddedToken){.text = xstrndup(token_text(&t->vocabulary, id), token->text_size),
                                      .size = token->text_size,
                                      .id = id,
                                      .special = type != TYPE_USER_DEFINED};
    }
    return tokenizer_set_added(t, added, count, err);
}

static bool read_id(Tokenizer *t, const Gguf *g, const char *key, int32_t *out, Err *err) {
    int64_t id = -1;
    TRY(gguf_get_int(g, key, false, &id, err));
    if (id == -1 || id == UINT32_MAX) return true; // missing, or none
    if (id < 0 || id >= t->vocabulary.size) {
        char where[256];
        snprintf(where, sizeof where, "%s: %s", t->path, key);
        return fail(err, ERR_DATA, where, "found %lld, expected an id from 0 to %d", (long long)id, t->vocabulary.size - 1);
    }
    *out = (int32_t)id;
    return true;
}

// What the file says, or what readers of GGUF take where it says nothing.
static bool read_automatic(Tokenizer *t, const Gguf *g, bool begins, Err *err) {
    bool bos = begins, eos = false;
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false, &bos, err));
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_eos_token", false, &eos, err));
    int32_t list[3];
    int count = 0;
    if (bos && t->bos >= 0) list[count++] = t->bos;
    list[count++] = TEXT_OF_SEQUENCE;
    if (eos && t->eos >= 0) list[count++] = t->eos;
    t->automatic = xrealloc(t->automatic, (size_t)count * sizeof *list);
    memcpy(t->automatic, list, (size_t)count * sizeof *list);
    t->automatic_count = count;
    return true;
}

static bool read_chat(Tokenizer *t, const Gguf *g, Err *err) {
    GgufText source = {0};
    TRY(gguf_get_text(g, "tokenizer.chat_template", false, &source, err));
    if (!source.data) return true;
    t->chat_source = copy(source);
    t->chat_where = xasprintf("%s: tokenizer.chat_template", t->path);
    size_t bad;
    return (utf8_valid(source.data, source.size, &bad) && strlen(t->chat_source) == source.size) ||
           fail(err, ERR_DATA, t->chat_where, "is not UTF-8 text");
}

static bool read_bytes_model(Tokenizer *t, const Gguf *g, bool *begins, Err *err) {
    GgufText text = {"default", 7};
    GgufPre pre;
    TRY(gguf_get_text(g, "tokenizer.ggml.pre", false, &text, err));
    char *name = copy(text);
    bool ok = gguf_pre_find(name, t->path, &pre, err);
    free(name);
    TRY(ok);
    TRY(tokenizer_set_stages(t, pre.normalizer, pre.pre_tokenizer, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                                                                   "\"trim_offsets\": true, \"use_regex\": true}", err));
    TRY(read_tokens(t, g, err));
    t->bpe = (Bpe){.v = &t->vocabulary, .unknown = -1, .ignore_merges = pre.ignore_merges};
    *begins = pre.begins;
    TRY(read_merges(t, g, err));
    return tokenizer_finish_bpe(t, err);
}

// SentencePiece's BPE as llama.cpp has it: spaces become U+2581, one is put before each stretch of text, characters
// without a token become their bytes' tokens.
static bool read_scores(Tokenizer *t, const Gguf *g, Err *err) {
    const GgufValue *scores = NULL;
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.scores", t->path);
    TRY(gguf_get_reals(g, "tokenizer.ggml.scores", true, &scores, err));
    if (scores->count != (uint64_t)t->vocabulary.size)
        return fail(err, ERR_DATA, where, "has %llu entries, expected one for each of %d tokens",
                    (unsigned long long)scores->count, t->vocabulary.size);
    double *list = xcalloc((size_t)t->vocabulary.size, sizeof *list);
    for (int32_t id = 0; id < t->vocabulary.size; id++) list[id] = gguf_real_at(scores, (uint64_t)id);
    bool ok = bpe_merges_from_scores(&t->bpe, list, where, err);
    free(list);
    return ok;
}
static bool read_pieces_model(Tokenizer *t, const Gguf *g, Err *err) {
    bool prefix = true;
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &prefix, err));
    TRY(tokenizer_set_stages(
        t,
        prefix ? "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, "
                 "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}"
               : "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}",
        NULL,
        prefix ? "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, "
                 "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, "
                 "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}"
               : "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, "
                 "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}",
        err));
    TRY(read_tokens(t, g, err));
    int32_t unknown = -1;
    TRY(read_id(t, g, "tokenizer.ggml.unknown_token_id", &unknown, err));
    t->bpe = (Bpe){.v = &t->vocabulary, .unknown = unknown, .byte_fallback = true, .fuse_unknown = true};
    TRY(read_scores(t, g, err));
    return tokenizer_finish_bpe(t, err);
}

static bool read_all(Tokenizer *t, const Gguf *g, Err *err) {
    bool pieces, begins = true;
    TRY(read_model_name(t, g, &pieces, err));
    TRY(pieces ? read_pieces_model(t, g, err) : read_bytes_model(t, g, &begins, err));
    TRY(read_added(t, g, err));
    TRY(read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err));
    TRY(read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err));
    TRY(read_id(t, g, "tokenizer.ggml.padding_token_id", &t->padding, err));
    TRY(read_automatic(t, g, begins, err));
    return read_chat(t, g, err);
}

bool tokenizer_read_gguf(Tokenizer *t, Err *err) {
    Gguf *g;
    TRY(gguf_open(t->path, &g, err));
    bool ok = read_all(t, g, err);
    gguf_close(g);
    return ok;
}
