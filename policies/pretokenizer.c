// Splits text into the words that byte-pair merging works on. The patterns of published tokenizers are recognised by
// their exact text and scanned by hand; each scanner below gives, byte for byte, the pieces that the pattern above it
// gives in the `tokenizers` package (alternatives tried in order, greedy repeats, the end of a piece is the end of the
// text for a look-ahead). Each covers every character, so nothing is left between matches. A pattern that isn't in the
// table is refused, never approximated.
#include "tokenizer_parts.h"
#include <stdio.h>
#include <string.h>

#define LLAMA3_PATTERN(numbers)                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                    \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    Scanner scanner;
    const char *pattern;
} patterns[] = {
    {SCAN_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {SCAN_LLAMA3, LLAMA3_PATTERN("\\p{N}{1,3}")},
    {SCAN_QWEN2, LLAMA3_PATTERN("\\p{N}")},
    {SCAN_DIGITS, "\\p{N}"},
    {SCAN_NUMBERS, "\\p{N}+"},
    {SCAN_PUNCTUATION, "[\\p{P}\\$\\+<=>\\^~\\|]+"},
    {SCAN_TRIPLES, "[0-9][0-9][0-9]"},
    {SCAN_CHARACTERS, "[\\s\\S]"},
};

// ---- scanners: the end of the piece that begins at `at` ------------------------------------------------------
enum { KIND_OF_PATTERN = KIND_LETTER | KIND_NUMBER | KIND_SPACE }; // what \p{L}, \p{N}, \s tell apart

static bool is_newline(Char c) { return c.code == '\n' || c.code == '\r'; }
static bool is_kind(Char c, unsigned kind) { return c.size && (c.kind & KIND_OF_PATTERN) == kind; }

static size_t run_end(const char *text, size_t size, size_t at, unsigned kind) {
    for (Char c = char_at(text, size, at); is_kind(c, kind); c = char_at(text, size, at)) at += (size_t)c.size;
    return at;
}

// 's|'t|'re|'ve|'m|'ll|'d. Ignoring case follows Unicode: U+017F (long s) folds to s; no other letter here has a
// partner beyond ASCII.
static size_t contraction(const char *text, size_t size, size_t at, bool any_case) {
    if (text[at] != '\'') return 0;
    Char a = char_at(text, size, at + 1);
    if (any_case && a.code == 0x17F) return 1 + (size_t)a.size;
    int fold = any_case ? 0x20 : 0;
    char first = (char)(a.code < 0x80 ? a.code | fold : 0);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    char second = (char)(at + 2 < size ? text[at + 2] | fold : 0);
    bool pair = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
    return pair ? 3 : 0;
}

// \s+(?!\S)|\s+: a run of spaces leaves its last character to the word that follows.
static size_t spaces_end(const char *text, size_t size, size_t at) {
    size_t end = run_end(text, size, at, KIND_SPACE);
    if (end == size) return end;
    size_t last = end - (size_t)char_before(text, end).size;
    return last > at ? last : end;
}

static size_t scan_gpt2(const char *text, size_t size, size_t at) {
    size_t n = contraction(text, size, at, false);
    if (n) return at + n;
    Char c = char_at(text, size, at), next = c.size == 1 ? char_at(text, size, at + 1) : (Char){0};
    bool led = c.code == ' ' && next.size && !(next.kind & KIND_SPACE);
    if (!led && (c.kind & KIND_SPACE)) return spaces_end(text, size, at);
    return run_end(text, size, at + led, (led ? next : c).kind & KIND_OF_PATTERN);
}

static size_t scan_llama3(const char *text, size_t size, size_t at, int digits) {
    size_t n = contraction(text, size, at, true);
    if (n) return at + n;
    Char c = char_at(text, size, at);
    if (c.kind & KIND_LETTER) return run_end(text, size, at, KIND_LETTER);
    size_t after = at + (size_t)c.size;
    Char next = char_at(text, size, after);
    if (!is_newline(c) && !(c.kind & KIND_NUMBER) && is_kind(next, KIND_LETTER))
        return run_end(text, size, after, KIND_LETTER);
    if (c.kind & KIND_NUMBER) {
        for (; --digits > 0 && is_kind(next, KIND_NUMBER); next = char_at(text, size, after)) after += (size_t)next.size;
        return after;
    }
    bool led = c.code == ' ' && is_kind(next, 0);
    if (led || is_kind(c, 0)) {
        size_t end = run_end(text, size, at + led, 0);
        while (end < size && (text[end] == '\r' || text[end] == '\n')) end++;
        return end;
    }
    // \s*[\r\n]+: up to the last newline of the run.
    size_t run = run_end(text, size, at, KIND_SPACE), newline = run;
    while (newline > at && text[newline - 1] != '\n' && text[newline - 1] != '\r') newline--;
    return newline > at ? newline : spaces_end(text, size, at);
}

// Runs of characters that have `kind`, and runs of those that don't; with `alone`, each that has it by itself.
static size_t scan_kind(const char *text, size_t size, size_t at, unsigned kind, bool alone) {
    Char c = char_at(text, size, at);
    bool has = (c.kind & kind) != 0;
    size_t end = at + (size_t)c.size;
    if (has && alone) return end;
    for (c = char_at(text, size, end); c.size && has == ((c.kind & kind) != 0); c = char_at(text, size, end))
        end += (size_t)c.size;
    return end;
}

static bool is_punctuation(Char c) {
    return (c.kind & KIND_PUNCTUATION) || (c.code > 0 && c.code < 0x80 && strchr("$+<=>^~|", c.code));
}
static size_t scan_punctuation(const char *text, size_t size, size_t at) {
    Char c = char_at(text, size, at);
    bool has = is_punctuation(c);
    while (c.size && is_punctuation(c) == has) {
        at += (size_t)c.size;
        c = char_at(text, size, at);
    }
    return at;
}

static bool triple_at(const char *text, size_t size, size_t at) {
    if (size - at < 3) return false;
    for (size_t i = at; i < at + 3; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}
static size_t scan_triples(const char *text, size_t size, size_t at) {
    if (triple_at(text, size, at)) return at + 3;
    do at++;
    while (at < size && !triple_at(text, size, at));
    return at;
}

static size_t scan(Scanner scanner, const char *text, size_t size, size_t at) {
    switch (scanner) {
    case SCAN_WHOLE: return size;
    case SCAN_GPT2: return scan_gpt2(text, size, at);
    case SCAN_LLAMA3: return scan_llama3(text, size, at, 3);
    case SCAN_QWEN2: return scan_llama3(text, size, at, 1);
    case SCAN_DIGITS: return scan_kind(text, size, at, KIND_NUMBER, true);
    case SCAN_NUMBERS: return scan_kind(text, size, at, KIND_NUMBER, false);
    case SCAN_PUNCTUATION: return scan_punctuation(text, size, at);
    case SCAN_TRIPLES: return scan_triples(text, size, at);
    case SCAN_CHARACTERS: return at + (size_t)char_at(text, size, at).size;
    }
    return size;
}

static bool apply(const PreStep *step, int left, const char *text, size_t size, PieceFunction piece, void *context) {
    if (left == 0) return piece(context, text, size);
    Buf led = {0};
    if (step->prefix_space && size && text[0] != ' ') {
        buf_puts(&led, " ");
        buf_append(&led, text, size);
        text = led.data, size = led.size;
    }
    bool ok = true;
    for (size_t at = 0; ok && at < size;) {
        size_t end = scan(step->scanner, text, size, at);
        ok = apply(step + 1, left - 1, text + at, end - at, piece, context);
        at = end;
    }
    buf_free(&led);
    return ok;
}
bool pretokenize(const Pretokenizer *p, const char *text, size_t size, PieceFunction piece, void *context) {
    return apply(p->steps, p->count, text, size, piece, context);
}

// ---- tokenizer.json ------------------------------------------------------------------------------------------
static bool refuse(const char *path, const char *place, const char *found, Err *err) {
    char where[256];
    snprintf(where, sizeof where, "%s: %s", path, place);
    return fail(err, ERR_DATA, where,
                "found %.200s; supported are byte-level pre-tokenizers: ByteLevel, Digits then ByteLevel, or Split with "
                "the pattern of GPT-2, Llama 3 or Qwen2 (behavior Isolated) then ByteLevel",
                found);
}

static bool read_split(const json_t *json, const char *path, const char *place, PreStep *out, Err *err) {
    const char *pattern = json_string_value(json_object_get(json_object_get(json, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    if (!pattern) return refuse(path, place, "a Split without a Regex", err);
    char found[256];
    if (!behavior || strcmp(behavior, "Isolated") != 0 || json_is_true(json_object_get(json, "invert"))) {
        snprintf(found, sizeof found, "a Split with behavior '%.40s'", behavior ? behavior : "");
        return refuse(path, place, found, err);
    }
    for (int i = 0; i < COUNT(patterns); i++)
        if (strcmp(patterns[i].pattern, pattern) == 0) {
            out->scanner = patterns[i].scanner;
            return true;
        }
    snprintf(found, sizeof found, "the pattern '%.180s'", pattern);
    return refuse(path, place, found, err);
}

static bool read_step(const json_t *json, const char *path, const char *place, bool last, PreStep *out, Err *err) {
    const char *type = json_string_value(json_object_get(json, "type"));
    *out = (PreStep){0};
    if (!type) return refuse(path, place, "no type", err);
    bool byte_level = strcmp(type, "ByteLevel") == 0;
    if (last != byte_level) {
        char found[128];
        snprintf(found, sizeof found, "%.60s %s", type, last ? "as the last pre-tokenizer" : "before the last pre-tokenizer");
        return refuse(path, place, found, err);
    }
    if (byte_level) {
        out->prefix_space = json_is_true(json_object_get(json, "add_prefix_space"));
        const json_t *pattern = json_object_get(json, "use_regex");
        out->scanner = !pattern || json_is_true(pattern) ? SCAN_GPT2 : SCAN_WHOLE;
        return true;
    }
    if (strcmp(type, "Digits") == 0) {
        out->scanner = json_is_true(json_object_get(json, "individual_digits")) ? SCAN_DIGITS : SCAN_NUMBERS;
        return true;
    }
    return strcmp(type, "Split") == 0 ? read_split(json, path, place, out, err) : refuse(path, place, type, err);
}

bool pretokenizer_from_json(const json_t *json, const char *path, Pretokenizer *out, Err *err) {
    *out = (Pretokenizer){0};
    if (!json || json_is_null(json)) return refuse(path, "pre_tokenizer", "none", err);
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || strcmp(type, "Sequence") != 0) {
        out->count = 1;
        return read_step(json, path, "pre_tokenizer", true, &out->steps[0], err);
    }
    const json_t *list = json_object_get(json, "pretokenizers");
    size_t count = json_array_size(list);
    if (count < 1 || count > COUNT(out->steps)) return refuse(path, "pre_tokenizer", "a Sequence of none or too many", err);
    out->count = (int)count;
    for (size_t i = 0; i < count; i++) {
        char place[64];
        snprintf(place, sizeof place, "pre_tokenizer.pretokenizers[%zu]", i);
        TRY(read_step(json_array_get(list, i), path, place, i + 1 == count, &out->steps[i], err));
    }
    return true;
}

static json_t *split_to_json(Scanner scanner) {
    for (int i = 0; i < COUNT(patterns); i++)
        if (patterns[i].scanner == scanner)
            return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", patterns[i].pattern,
                             "behavior", "Isolated", "invert", 0);
    return json_null();
}
json_t *pretokenizer_to_json(const Pretokenizer *p) {
    json_t *list = json_array();
    for (int i = 0; i < p->count; i++) {
        const PreStep *s = &p->steps[i];
        json_t *step;
        if (i + 1 == p->count)
            step = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", s->prefix_space, "trim_offsets",
                             1, "use_regex", s->scanner == SCAN_GPT2);
        else if (s->scanner == SCAN_DIGITS)
            step = json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1);
        else
            step = split_to_json(s->scanner);
        json_array_append_new(list, step);
    }
    if (p->count == 1) {
        json_t *only = json_incref(json_array_get(list, 0));
        json_decref(list);
        return only;
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

// ---- GGUF's names ----------------------------------------------------------------------------------------------
bool pretokenizer_from_gguf(const char *name, const char *path, Pretokenizer *out, Err *err) {
    static const struct {
        const char *name;
        Pretokenizer pre;
    } known[] = {
        {"gpt-2", {.count = 1, .steps = {{.scanner = SCAN_GPT2}}}},
        {"smollm", {.count = 2, .steps = {{.scanner = SCAN_DIGITS}, {.scanner = SCAN_GPT2}}}},
        {"llama-bpe", {.count = 2, .steps = {{.scanner = SCAN_LLAMA3}}}},
        {"qwen2", {.count = 2, .steps = {{.scanner = SCAN_QWEN2}}}},
        // What readers of GGUF do where a converter did not know the model.
        {"default",
         {.count = 5,
          .steps = {{.scanner = SCAN_PUNCTUATION},
                    {.scanner = SCAN_GPT2},
                    {.scanner = SCAN_NUMBERS},
                    {.scanner = SCAN_TRIPLES}}}},
    };
    for (int i = 0; i < COUNT(known); i++)
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].pre;
            return true;
        }
    char where[256];
    snprintf(where, sizeof where, "%s: tokenizer.ggml.pre", path);
    return fail(err, ERR_DATA, where, "found '%.60s'; supported are gpt-2, default, smollm, llama-bpe and qwen2", name);
}
