// The tokenizer as others see it: opening, encoding, decoding, streaming, chat prompts and saving. It owns the order of
// the stages; what each stage does is in the files beside this one. Once opened nothing in it changes but what merging
// remembers of tokens (tokenizer_bpe.c), so any number of threads may use one; every call keeps its working memory to itself.
#include "tokenizer_parts.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- making ----------------------------------------------------------------------------------------------------
static Tokenizer *start(const char *path) {
    Tokenizer *t = xcalloc(1, sizeof *t);
    t->path = xstrdup(path);
    t->bos = t->eos = t->padding = -1;
    t->automatic = xmalloc(sizeof *t->automatic);
    t->automatic[0] = TEXT_OF_SEQUENCE;
    t->automatic_count = 1;
    return t;
}

static bool finish(Tokenizer *t, bool ok, Tokenizer **out) {
    // Only byte-pair merging takes raw bytes: for others the last step writes its alphabet itself.
    if (ok && t->pre.bytes && !(t->model == MODEL_BPE && t->bpe.bytes)) {
        t->pre.steps[t->pre.count - 1].alphabet = true;
        t->pre.bytes = false;
    }
    if (ok && t->chat_source && !template_compile(t->chat_source, strlen(t->chat_source), t->chat_where, &t->chat, &t->chat_error))
        t->chat = NULL; // an error once a chat is asked for
    if (!ok) {
        tokenizer_close(t);
        t = NULL;
    }
    *out = t;
    return ok;
}

bool tokenizer_open(const char *path, Tokenizer **out, Err *err) {
    *out = NULL;
    if (!file_exists(path)) return fail(err, ERR_NOINPUT, path, "is not there, expected a model folder or a .gguf file");
    Tokenizer *t = start(path);
    return finish(t, file_is_folder(path) ? tokenizer_read_folder(t, err) : tokenizer_read_gguf(t, err), out);
}
bool tokenizer_from_characters(const char *characters, Tokenizer **out, Err *err) {
    Tokenizer *t = start("characters");
    return finish(t, tokenizer_read_characters(t, characters, err), out);
}

bool tokenizer_finish_bpe(Tokenizer *t, Err *err) {
    Bpe *b = &t->bpe;
    b->bytes = t->pre.bytes && !b->byte_fallback && !b->prefix && !b->suffix;
    if (b->bytes) TRY(vocabulary_index_bytes(&t->vocabulary, err));
    return bpe_finish(b, err);
}

// What a token's text becomes: by the normaliser if it asks for it.
static bool matched_text(const Tokenizer *t, const AddedToken *a, NormalizerScratch *scratch, Buf *out, Err *err) {
    Stretch s = {a->text, a->size, true};
    if (a->normalized) TRY(normalizer_apply(&t->normalizer, &s, scratch, err));
    buf_puts(out, "");
    buf_append(out, s.text, s.size);
    return true;
}
static void normalizer_scratch_free(NormalizerScratch *s) {
    buf_free(&s->now), buf_free(&s->next);
    regex_scratch_free(&s->regex);
}

// Decoding shows an added token as it is matched; what shows as some special token's text counts as special.
static void mark_special(Tokenizer *t) {
    for (int i = 0; i < t->added_count; i++) {
        if (!t->added[i].special) continue;
        int32_t id = vocabulary_find(&t->vocabulary, t->added[i].text, t->added[i].size);
        const Token *token = &t->vocabulary.tokens[id];
        if (token->shown == token->text) t->vocabulary.tokens[id].special = true;
    }
    for (int32_t id = 0; t->model == MODEL_UNIGRAM && id < t->vocabulary.size; id++) { // texts may repeat there
        Token *token = &t->vocabulary.tokens[id];
        int32_t found = token->present ? vocabulary_find(&t->vocabulary, token_text(&t->vocabulary, id), token->text_size) : id;
        if (t->vocabulary.tokens[found].special && token->shown == token->text) token->special = true;
    }
}

bool tokenizer_set_added(Tokenizer *t, AddedToken *added, int count, Err *err) {
    AddedToken *raw = xcalloc((size_t)count, sizeof *raw), *normalized = xcalloc((size_t)count, sizeof *normalized);
    int raw_count = 0, normalized_count = 0;
    NormalizerScratch scratch = {0};
    bool ok = true;
    t->added = added;
    t->added_count = count;
    // Special ones first: of equal normalised texts the first wins.
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; ok && i < count; i++) {
            AddedToken a = added[i];
            Buf text = {0};
            if (a.special != (pass == 0)) continue;
            t->vocabulary.tokens[a.id].added = true;
            ok = matched_text(t, &a, &scratch, &text, err);
            bool same = text.size == a.size && memcmp(text.data, a.text, a.size) == 0;
            if (ok && !same) vocabulary_show(&t->vocabulary, a.id, text.data, text.size);
            a.text = text.data;
            a.size = text.size;
            if (a.normalized)
                normalized[normalized_count++] = a;
            else
                raw[raw_count++] = a;
        }
    normalizer_scratch_free(&scratch);
    added_tokens_make(&t->raw, raw, raw_count);
    added_tokens_make(&t->normalized, normalized, normalized_count);
    free(raw), free(normalized);
    if (ok) mark_special(t);
    return ok;
}

bool tokenizer_set_stages(Tokenizer *t, const char *normalizer, const char *pretokenizer, const char *decoder, Err *err) {
    const char *texts[] = {normalizer, pretokenizer, decoder};
    json_t *stages[3] = {0};
    bool ok = true;
    for (int i = 0; ok && i < 3; i++)
        if (texts[i]) ok = json_parse(texts[i], strlen(texts[i]), t->path, 1, &stages[i], err);
    ok = ok && tokenizer_read_stages(t, stages[0], stages[1], stages[2], t->path, err);
    for (int i = 0; i < 3; i++) json_decref(stages[i]);
    return ok;
}
static char *dumped(const json_t *json) { return json && !json_is_null(json) ? json_dumps(json, JSON_COMPACT) : NULL; }
bool tokenizer_read_stages(Tokenizer *t, const json_t *normalizer, const json_t *pretokenizer, const json_t *decoder,
                           const char *path, Err *err) {
    t->normalizer_text = dumped(normalizer);
    t->pretokenizer_text = dumped(pretokenizer);
    t->decoder_text = dumped(decoder);
    return normalizer_from_json(normalizer, path, &t->normalizer, err) &&
           pretokenizer_from_json(pretokenizer, path, &t->pre, err) && decoder_from_json(decoder, path, &t->decoder, err);
}

void tokenizer_close(Tokenizer *t) {
    if (!t) return;
    vocabulary_free(&t->vocabulary);
    bpe_free(&t->bpe);
    unigram_free(&t->unigram);
    free(t->wordpiece.prefix);
    normalizer_free(&t->normalizer);
    pretokenizer_free(&t->pre);
    decoder_free(&t->decoder);
    added_tokens_free(&t->raw);
    added_tokens_free(&t->normalized);
    for (int i = 0; i < t->added_count; i++) free(t->added[i].text);
    for (int i = 0; i < TOKENIZER_FILES; i++) buf_free(&t->files[i].data);
    template_free(t->chat);
    free(t->normalizer_text), free(t->pretokenizer_text), free(t->decoder_text);
    free(t->added), free(t->automatic), free(t->chat_source), free(t->chat_where), free(t->path);
    free(t);
}

int32_t tokenizer_size(const Tokenizer *t) { return t->vocabulary.size; }
int32_t tokenizer_id(const Tokenizer *t, const char *token) { return vocabulary_find(&t->vocabulary, token, strlen(token)); }
int32_t tokenizer_eos(const Tokenizer *t) { return t->eos; }

// ---- encoding --------------------------------------------------------------------------------------------------
typedef struct Encoder {
    const Tokenizer *t;
    const char *text; // the whole, to name the place of a character
    Ids *out;
    NormalizerScratch normalizer;
    PreScratch pre;
    ModelScratch model;
    Err *err;
} Encoder;

static bool encode_strictly(Encoder *e, const char *piece, size_t size) {
    int32_t before = e->out->count;
    TRY(bpe_encode(&e->t->bpe, piece, size, &e->model, e->out, e->err));
    if (e->out->count > before) return true;
    return fail(e->err, ERR_DATA, "text", "the character '%.*s' (U+%04X) at byte %zu is not in the vocabulary", (int)size,
                piece, (unsigned)char_at(piece, size, 0).code, (size_t)(piece - e->text));
}
static bool encode_piece(void *context, const char *piece, size_t size) {
    Encoder *e = context;
    const Tokenizer *t = e->t;
    switch (t->model) {
    case MODEL_UNIGRAM: return unigram_encode(&t->unigram, piece, size, &e->model, e->out, e->err);
    case MODEL_WORDPIECE: return wordpiece_encode(&t->wordpiece, piece, size, &e->model, e->out, e->err);
    case MODEL_BPE: break;
    }
    if (t->strict) return encode_strictly(e, piece, size);
    return bpe_encode(&t->bpe, piece, size, &e->model, e->out, e->err);
}
static void encode_token(void *context, int32_t id) { ids_push(((Encoder *)context)->out, id); }
static bool encode_normalized(void *context, Stretch s) {
    Encoder *e = context;
    return pretokenize(&e->t->pre, s, &e->pre, encode_piece, e);
}
static bool encode_between(void *context, Stretch s) {
    Encoder *e = context;
    TRY(normalizer_apply(&e->t->normalizer, &s, &e->normalizer, e->err));
    return added_tokens_split(&e->t->normalized, s, (AddedVisitor){encode_normalized, encode_token, e});
}

static bool encode_text(Encoder *e, const char *text, size_t size) {
    e->text = text;
    return added_tokens_split(&e->t->raw, (Stretch){text, size, true}, (AddedVisitor){encode_between, encode_token, e});
}

bool tokenizer_encode(const Tokenizer *t, const char *text, size_t size, bool special, Ids *out, Err *err) {
    size_t bad;
    if (size > INT32_MAX / 2) return fail(err, ERR_DATA, "text", "%zu bytes, expected at most %d", size, INT32_MAX / 2);
    if (!utf8_valid(text, size, &bad)) return fail(err, ERR_DATA, "text", "not UTF-8 at byte %zu", bad);
    Encoder e = {.t = t, .out = out, .pre = {.err = err}, .err = err};
    bool ok = true;
    if (!special) ok = encode_text(&e, text, size);
    for (int i = 0; ok && special && i < t->automatic_count; i++) {
        if (t->automatic[i] == TEXT_OF_SEQUENCE)
            ok = encode_text(&e, text, size);
        else
            ids_push(out, t->automatic[i]);
    }
    normalizer_scratch_free(&e.normalizer);
    pre_scratch_free(&e.pre);
    model_scratch_free(&e.model);
    return ok;
}

// ---- decoding --------------------------------------------------------------------------------------------------
// Nothing for an id in a gap, and with `skip_special` for special tokens.
static bool is_shown(const Tokenizer *t, int32_t id, bool skip_special) {
    const Token *token = &t->vocabulary.tokens[id];
    return token->present && !(token->special && skip_special);
}
// The common case: bytes one after the other.
static void decode_bytes(const Tokenizer *t, const int32_t *ids, int32_t count, bool skip_special, Buf *out) {
    const Vocabulary *v = &t->vocabulary;
    Buf bytes = {0};
    for (int32_t i = 0; i < count; i++) {
        const Token *token = &v->tokens[ids[i]];
        if (!is_shown(t, ids[i], skip_special)) continue;
        if (token->shown == token->text)
            buf_append(&bytes, token_bytes(v, ids[i]), token->bytes_size);
        else
            alphabet_to_bytes(token_shown(v, ids[i]), token->shown_size, &bytes);
    }
    utf8_repair(bytes.data, bytes.size, out);
    buf_free(&bytes);
}

bool tokenizer_decode(const Tokenizer *t, const int32_t *ids, int32_t count, bool skip_special, Buf *out, Err *err) {
    const Vocabulary *v = &t->vocabulary;
    for (int32_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= v->size)
            return fail(err, ERR_DATA, "ids", "ids[%d] is %d, expected 0 to %d", i, ids[i], v->size - 1);
    if (t->decoder.byte_level) return decode_bytes(t, ids, count, skip_special, out), true;
    Pieces pieces = {0};
    for (int32_t i = 0; i < count; i++)
        if (is_shown(t, ids[i], skip_special)) pieces_add(&pieces, token_shown(v, ids[i]), v->tokens[ids[i]].shown_size);
    bool ok = decoder_run(&t->decoder, &pieces, out, err);
    pieces_free(&pieces);
    return ok;
}

// The rule of the `tokenizers` package's streaming decoder: text is written once it is longer than what was written for
// the window and doesn't end in a replacement character, which may yet become a whole one.
struct TokenStream {
    const Tokenizer *t;
    Ids window;
    Buf prefix;   // the text already written for the window
    int32_t done; // length of the window when that prefix was taken
};

TokenStream *token_stream_open(const Tokenizer *t) {
    TokenStream *s = xcalloc(1, sizeof *s);
    s->t = t;
    return s;
}
void token_stream_close(TokenStream *s) {
    if (!s) return;
    ids_free(&s->window);
    buf_free(&s->prefix);
    free(s);
}

static bool decode_window(TokenStream *s, Buf *out, Err *err) {
    out->size = 0;
    return tokenizer_decode(s->t, s->window.data, s->window.count, true, out, err);
}
static bool ends_open(const Buf *text) {
    return text->size >= 3 && memcmp(text->data + text->size - 3, "\xEF\xBF\xBD", 3) == 0;
}

static bool push(TokenStream *s, int32_t id, Buf *text, bool *ready, Buf *piece, Err *err) {
    if (s->prefix.size == 0 && s->window.count) {
        TRY(decode_window(s, text, err));
        if (!ends_open(text)) {
            buf_append(&s->prefix, text->data, text->size);
            s->done = s->window.count;
        }
    }
    ids_push(&s->window, id);
    TRY(decode_window(s, text, err));
    if (text->size <= s->prefix.size || ends_open(text)) return true;
    *ready = true;
    piece->size = 0;
    // A decoder may change what it gave before; a piece begins at a character all the same.
    size_t from = s->prefix.size;
    while (from < text->size && ((unsigned char)text->data[from] & 0xC0) == 0x80) from++;
    buf_append(piece, text->data + from, text->size - from);
    int32_t kept = s->window.count - s->done;
    memmove(s->window.data, s->window.data + s->done, (size_t)kept * sizeof *s->window.data);
    s->window.count = kept;
    s->done = kept;
    TRY(decode_window(s, text, err));
    s->prefix.size = 0;
    buf_append(&s->prefix, text->data, text->size);
    return true;
}

bool token_stream_push(TokenStream *s, int32_t id, bool *ready, Buf *piece, Err *err) {
    Buf text = {0};
    *ready = false;
    if (id < 0 || id >= s->t->vocabulary.size)
        return fail(err, ERR_DATA, "ids", "found the id %d, expected 0 to %d", id, s->t->vocabulary.size - 1);
    bool ok = push(s, id, &text, ready, piece, err);
    buf_free(&text);
    return ok;
}

// ---- chat ------------------------------------------------------------------------------------------------------
bool tokenizer_has_chat(const Tokenizer *t) { return t->chat_source != NULL; }
bool tokenizer_chat_reads(const Tokenizer *t, const char *variable) { return t->chat && template_reads(t->chat, variable); }
static char *token_copy(const Tokenizer *t, int32_t id) {
    return id < 0 ? NULL : xstrndup(token_text(&t->vocabulary, id), t->vocabulary.tokens[id].text_size);
}
bool tokenizer_chat_render(const Tokenizer *t, const ChatRequest *request, Buf *out, Err *err) {
    if (!t->chat_source) return fail(err, ERR_DATA, t->path, "has no chat template, so messages can't become a prompt");
    if (!t->chat) return fail(err, t->chat_error.code, t->chat_error.where, "%s", t->chat_error.msg);
    ChatRequest r = *request;
    char *bos = token_copy(t, t->bos), *eos = token_copy(t, t->eos);
    r.bos = bos;
    r.eos = eos;
    TemplateResult result;
    bool ok = chat_render(t->chat, &r, &result, err);
    if (ok) buf_append(out, result.text.data, result.text.size);
    template_result_free(&result);
    free(bos), free(eos);
    return ok;
}
bool tokenizer_chat(const Tokenizer *t, const json_t *messages, bool add_generation_prompt, Buf *out, Err *err) {
    ChatRequest r = {.messages = messages, .add_generation_prompt = add_generation_prompt, .now = -1};
    return tokenizer_chat_render(t, &r, out, err);
}

// ---- saving ----------------------------------------------------------------------------------------------------
static void free_files(TokenizerFile *files) {
    for (int i = 0; i < TOKENIZER_FILES; i++) buf_free(&files[i].data);
}

bool tokenizer_save(const Tokenizer *t, const char *folder, Err *err) {
    TokenizerFile built[TOKENIZER_FILES] = {0};
    if (!t->carried) tokenizer_build_files(t, built);
    const TokenizerFile *files = t->carried ? t->files : built;
    bool ok = true;
    for (int i = 0; ok && i < TOKENIZER_FILES; i++) {
        if (!files[i].data.data) continue;
        char *path = path_join(folder, files[i].name);
        ok = file_write_atomic(path, files[i].data.data, files[i].data.size, err);
        free(path);
    }
    free_files(built);
    return ok;
}

void tokenizer_hash(const Tokenizer *t, char out[65]) {
    TokenizerFile built[TOKENIZER_FILES] = {0};
    if (!t->carried) tokenizer_build_files(t, built);
    const TokenizerFile *files = t->carried ? t->files : built;
    Buf all = {0}; // names and digests of the files that there are
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        char digest[65];
        if (!files[i].data.data) continue;
        sha256_hex(files[i].data.data, files[i].data.size, digest);
        buf_printf(&all, "%s %s\n", files[i].name, digest);
    }
    sha256_hex(all.data ? all.data : "", all.size, out);
    buf_free(&all);
    free_files(built);
}
