// The normaliser: what happens to a text before it is split. It reads tokenizer.json's "normalizer" into a list of steps
// and runs them. A step that isn't known is refused when the file is read.
#include "tokenizer_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum StepKind {
    STEP_FORM,
    STEP_LOWERCASE,
    STEP_REPLACE,
    STEP_PREPEND,
    STEP_STRIP,
    STEP_STRIP_ACCENTS,
    STEP_PRECOMPILED,
    STEP_BYTE_LEVEL,
    STEP_NMT,
    STEP_BERT,
} StepKind;
struct NormalizerStep {
    StepKind kind;
    NormalForm form;
    Pattern pattern;
    char *text; // what Replace and Prepend put
    size_t size;
    bool left, right; // Strip
    CharsMap *map;
    bool clean, chinese, accents, lower; // BertNormalizer
};
enum { STEP_LIMIT = 64 };

void normalizer_free(Normalizer *n) {
    for (int i = 0; i < n->count; i++) {
        pattern_free(&n->steps[i].pattern);
        charsmap_free(n->steps[i].map);
        free(n->steps[i].text);
    }
    free(n->steps);
    *n = (Normalizer){0};
}

// ---- running -----------------------------------------------------------------------------------------------------
// Each appends the new text to `out`. *first is cleared where the text no longer begins with what it began with.
static void strip(const NormalizerStep *step, const Stretch *s, Buf *out, bool *first) {
    size_t from = 0, to = s->size;
    for (Char c; step->left && from < to && ((c = char_at(s->text, to, from)).kind & KIND_SPACE);) from += (size_t)c.size;
    for (Char c; step->right && to > from && ((c = char_before(s->text, to)).kind & KIND_SPACE);) to -= (size_t)c.size;
    if (from) *first = false;
    buf_append(out, s->text + from, to - from);
}

static void keep_if(const Stretch *s, bool (*drop)(int32_t code), Buf *out, bool *first) {
    size_t done = 0;
    for (size_t at = 0; at < s->size;) {
        int n;
        if (drop(code_at(s->text, at, &n))) {
            if (at == 0) *first = false;
            buf_append(out, s->text + done, at - done);
            done = at + (size_t)n;
        }
        at += (size_t)n;
    }
    buf_append(out, s->text + done, s->size - done);
}

static bool replace(const NormalizerStep *step, const Stretch *s, RegexScratch *scratch, Buf *out, bool *first, Err *err) {
    if (*first) { // what replaces more than one character counts as standing where the last of them stood
        RegexSearch search = {0};
        bool found;
        TRY(pattern_next(&step->pattern, s->text, s->size, scratch, &search, &found, err));
        int n = 0;
        if (found && search.start == 0 && s->size) code_at(s->text, 0, &n);
        if (found && search.start == 0 && search.stop > 0 && (step->size == 0 || search.stop > (size_t)n)) *first = false;
    }
    return pattern_replace(&step->pattern, step->text, step->size, s->text, s->size, scratch, out, err);
}

static bool nmt_drops(int32_t c) {
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}
static bool nmt_space(int32_t c) {
    return c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
           c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}
static void nmt(const Stretch *s, Buf *out, bool *first) {
    for (size_t at = 0; at < s->size;) {
        int n;
        int32_t c = code_at(s->text, at, &n);
        if (nmt_space(c))
            buf_puts(out, " ");
        else if (!nmt_drops(c))
            buf_append(out, s->text + at, (size_t)n);
        else if (at == 0)
            *first = false;
        at += (size_t)n;
    }
}

// ---- BertNormalizer
static bool is_chinese(int32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}
static void bert_characters(const NormalizerStep *step, const Stretch *s, Buf *out, bool *first) {
    for (size_t at = 0; at < s->size;) {
        Char c = char_at(s->text, s->size, at);
        bool white = c.code == '\t' || c.code == '\n' || c.code == '\r';
        bool drop = step->clean && (c.code == 0 || c.code == 0xFFFD || (!white && char_is_old_other(c.code)));
        if (!drop) {
            bool apart = step->chinese && is_chinese(c.code);
            if (apart) buf_puts(out, " ");
            if (step->clean && (c.kind & KIND_SPACE))
                buf_puts(out, " ");
            else
                buf_append(out, s->text + at, (size_t)c.size);
            if (apart) buf_puts(out, " ");
        } else if (at == 0) {
            *first = false;
        }
        at += (size_t)c.size;
    }
}
static void bert(const NormalizerStep *step, const Stretch *s, Buf *out, bool *first) {
    Buf a = {0}, b = {0};
    bert_characters(step, s, &a, first);
    if (step->accents) {
        unicode_normalize(FORM_D, a.data ? a.data : "", a.size, &b);
        a.size = 0;
        keep_if(&(Stretch){b.data ? b.data : "", b.size, false}, char_is_old_nonspacing_mark, &a, first);
    }
    if (step->lower)
        text_to_lower(a.data ? a.data : "", a.size, out);
    else
        buf_append(out, a.data, a.size);
    buf_free(&a), buf_free(&b);
}

static bool run(const NormalizerStep *step, Stretch *s, NormalizerScratch *scratch, Buf *out, Err *err) {
    switch (step->kind) {
    case STEP_FORM: unicode_normalize(step->form, s->text, s->size, out); return true;
    case STEP_LOWERCASE: text_to_lower(s->text, s->size, out); return true;
    case STEP_REPLACE: return replace(step, s, &scratch->regex, out, &s->first, err);
    case STEP_PREPEND:
        if (s->size) buf_append(out, step->text, step->size);
        buf_append(out, s->text, s->size);
        return true;
    case STEP_STRIP: strip(step, s, out, &s->first); return true;
    case STEP_STRIP_ACCENTS: keep_if(s, char_is_old_mark, out, &s->first); return true;
    case STEP_PRECOMPILED: charsmap_apply(step->map, s->text, s->size, out); return true;
    case STEP_BYTE_LEVEL: bytes_to_alphabet(s->text, s->size, out); return true;
    case STEP_NMT: nmt(s, out, &s->first); return true;
    case STEP_BERT: bert(step, s, out, &s->first); return true;
    }
    return true;
}

bool normalizer_apply(const Normalizer *n, Stretch *s, NormalizerScratch *scratch, Err *err) {
    for (int i = 0; i < n->count; i++) {
        const NormalizerStep *step = &n->steps[i];
        if (step->kind == STEP_FORM && unicode_is_normal(step->form, s->text, s->size)) continue;
        scratch->next.size = 0;
        TRY(run(step, s, scratch, &scratch->next, err));
        Buf now = scratch->next;
        scratch->next = scratch->now;
        scratch->now = now;
        s->text = now.data ? now.data : "";
        s->size = now.size;
    }
    return true;
}

// ---- tokenizer.json -------------------------------------------------------------------------------------------------
static bool flag(const json_t *j, const char *key, bool missing) {
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}
static bool read_text(const json_t *j, const char *key, const char *where, NormalizerStep *step, Err *err) {
    const json_t *v = json_object_get(j, key);
    if (!json_is_string(v)) return fail(err, ERR_DATA, where, "lacks a text '%s'", key);
    step->size = json_string_length(v);
    step->text = xmalloc(step->size + 1);
    memcpy(step->text, json_string_value(v), step->size + 1);
    return true;
}
static bool read_map(const json_t *j, const char *where, NormalizerStep *step, Err *err) {
    const json_t *v = json_object_get(j, "precompiled_charsmap");
    if (!json_is_string(v)) return fail(err, ERR_DATA, where, "lacks a text 'precompiled_charsmap'");
    return charsmap_make(json_string_value(v), json_string_length(v), where, &step->map, err);
}

static bool read_step(const json_t *j, const char *type, const char *where, NormalizerStep *step, Err *err) {
    static const struct {
        const char *type;
        StepKind kind;
        NormalForm form;
    } known[] = {
        {"NFC", STEP_FORM, FORM_C},          {"NFD", STEP_FORM, FORM_D},
        {"NFKC", STEP_FORM, FORM_KC},        {"NFKD", STEP_FORM, FORM_KD},
        {"Lowercase", STEP_LOWERCASE, 0},    {"Replace", STEP_REPLACE, 0},
        {"Prepend", STEP_PREPEND, 0},        {"Strip", STEP_STRIP, 0},
        {"StripAccents", STEP_STRIP_ACCENTS, 0}, {"Precompiled", STEP_PRECOMPILED, 0},
        {"ByteLevel", STEP_BYTE_LEVEL, 0},   {"Nmt", STEP_NMT, 0},
        {"BertNormalizer", STEP_BERT, 0},
    };
    int i = 0;
    while (i < COUNT(known) && strcmp(known[i].type, type) != 0) i++;
    if (i == COUNT(known))
        return fail(err, ERR_DATA, where,
                    "found %.40s, which is not supported; supported are NFC, NFD, NFKC, NFKD, Lowercase, Replace, Prepend, "
                    "Strip, StripAccents, Precompiled, ByteLevel, Nmt, BertNormalizer and Sequence",
                    type);
    step->kind = known[i].kind;
    step->form = known[i].form;
    step->left = flag(j, "strip_left", true);
    step->right = flag(j, "strip_right", true);
    step->clean = flag(j, "clean_text", true);
    step->chinese = flag(j, "handle_chinese_chars", true);
    step->lower = flag(j, "lowercase", true);
    step->accents = flag(j, "strip_accents", step->lower);
    switch (step->kind) {
    case STEP_REPLACE:
        return pattern_from_json(json_object_get(j, "pattern"), where, &step->pattern, err) &&
               read_text(j, "content", where, step, err);
    case STEP_PREPEND: return read_text(j, "prepend", where, step, err);
    case STEP_PRECOMPILED: return read_map(j, where, step, err);
    default: return true;
    }
}

static bool read_any(const json_t *j, const char *path, Normalizer *n, int depth, Err *err) {
    char where[256];
    const char *type = json_string_value(json_object_get(j, "type"));
    snprintf(where, sizeof where, "%s: normalizer", path);
    if (!type) return fail(err, ERR_DATA, where, "has no type");
    if (n->count == STEP_LIMIT || depth > 8) return fail(err, ERR_DATA, where, "holds more than %d steps", STEP_LIMIT);
    if (strcmp(type, "Sequence") != 0) return read_step(j, type, where, &n->steps[n->count++], err);
    const json_t *list = json_object_get(j, "normalizers");
    if (!json_is_array(list)) return fail(err, ERR_DATA, where, "is a Sequence without a list 'normalizers'");
    for (size_t i = 0; i < json_array_size(list); i++) TRY(read_any(json_array_get(list, i), path, n, depth + 1, err));
    return true;
}
bool normalizer_from_json(const json_t *json, const char *path, Normalizer *out, Err *err) {
    *out = (Normalizer){0};
    if (!json || json_is_null(json)) return true;
    out->steps = xcalloc(STEP_LIMIT, sizeof *out->steps);
    return read_any(json, path, out, 0, err);
}
