// The decoder: tokens' texts to text. It reads tokenizer.json's "decoder" into a list of steps; each makes a list of
// pieces from the list before, and the last list is joined. Without a decoder the pieces are joined with spaces.
#include "tokenizer_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum StepKind {
    STEP_BYTE_LEVEL,
    STEP_BYTE_FALLBACK,
    STEP_FUSE,
    STEP_METASPACE,
    STEP_REPLACE,
    STEP_STRIP,
    STEP_WORDPIECE,
    STEP_BPE,
} StepKind;
struct DecoderStep {
    StepKind kind;
    Pattern pattern;
    char *text; // Replace's new text, Metaspace's character, Strip's character, WordPiece's prefix, BPEDecoder's suffix
    size_t size;
    size_t start, stop; // Strip: at most so many at each end
    bool keep_first;    // Metaspace: the first piece keeps its spaces
    bool cleanup;       // WordPiece
};
enum { STEP_LIMIT = 32 };

void decoder_free(Decoder *d) {
    for (int i = 0; i < d->count; i++) {
        pattern_free(&d->steps[i].pattern);
        free(d->steps[i].text);
    }
    free(d->steps);
    *d = (Decoder){0};
}

// ---- pieces --------------------------------------------------------------------------------------------------------
static void end_piece(Pieces *p) {
    if (p->count == p->capacity) p->ends = xrealloc(p->ends, (p->capacity = 2 * p->capacity + 64) * sizeof *p->ends);
    p->ends[p->count++] = p->text.size;
}
void pieces_add(Pieces *p, const char *text, size_t size) {
    buf_append(&p->text, text, size);
    end_piece(p);
}
void pieces_free(Pieces *p) {
    buf_free(&p->text);
    free(p->ends);
    *p = (Pieces){0};
}
static Stretch piece_at(const Pieces *p, size_t i) {
    size_t start = i ? p->ends[i - 1] : 0;
    return (Stretch){p->text.data ? p->text.data + start : "", p->ends[i] - start, i == 0};
}

// ---- steps: from `in` to `out` ----------------------------------------------------------------------------------------
static void byte_level(const Pieces *in, Pieces *out) {
    Buf bytes = {0};
    for (size_t i = 0; i < in->count; i++) {
        Stretch s = piece_at(in, i);
        alphabet_to_bytes(s.text, s.size, &bytes);
    }
    utf8_repair(bytes.data, bytes.size, &out->text);
    end_piece(out);
    buf_free(&bytes);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
// "<0x41>": 0x41; -1 if it isn't of that form. "<0x+1>" is, to the `tokenizers` package.
static int byte_of(Stretch s) {
    if (s.size != 6 || memcmp(s.text, "<0x", 3) != 0 || s.text[5] != '>') return -1;
    int high = s.text[3] == '+' ? 0 : hex_digit(s.text[3]), low = hex_digit(s.text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}
static void end_bytes(Buf *bytes, Pieces *out) {
    size_t bad;
    if (bytes->size && utf8_valid(bytes->data, bytes->size, &bad)) {
        pieces_add(out, bytes->data, bytes->size);
    } else {
        for (size_t i = 0; i < bytes->size; i++) pieces_add(out, "\xEF\xBF\xBD", 3);
    }
    bytes->size = 0;
}
static void byte_fallback(const Pieces *in, Pieces *out) {
    Buf bytes = {0};
    for (size_t i = 0; i < in->count; i++) {
        Stretch s = piece_at(in, i);
        int byte = byte_of(s);
        char c = (char)byte;
        if (byte >= 0) {
            buf_append(&bytes, &c, 1);
            continue;
        }
        end_bytes(&bytes, out);
        pieces_add(out, s.text, s.size);
    }
    end_bytes(&bytes, out);
    buf_free(&bytes);
}

static void replace_all(const char *from, size_t from_size, const char *to, size_t to_size, Stretch s, Buf *out) {
    size_t done = 0;
    for (const char *hit; from_size && done < s.size && (hit = memmem(s.text + done, s.size - done, from, from_size));) {
        buf_append(out, s.text + done, (size_t)(hit - s.text) - done);
        buf_append(out, to, to_size);
        done = (size_t)(hit - s.text) + from_size;
    }
    buf_append(out, s.text + done, s.size - done);
}

// At most `start` and `stop` times the character, from each end.
static Stretch strip(const DecoderStep *step, Stretch s) {
    for (size_t i = 0; i < step->start && s.size >= step->size && memcmp(s.text, step->text, step->size) == 0; i++)
        s.text += step->size, s.size -= step->size;
    for (size_t i = 0; i < step->stop && s.size >= step->size; i++) {
        if (memcmp(s.text + s.size - step->size, step->text, step->size) != 0) break;
        s.size -= step->size;
    }
    return s;
}

static void clean_up(Buf *text) {
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},           {" ,", ","},
                                           {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"},         {" do not", " don't"},
                                           {" 's", "'s"},   {" 've", "'ve"}, {" 're", "'re"}};
    for (int i = 0; i < COUNT(pairs); i++) {
        Buf next = {0};
        buf_puts(&next, "");
        replace_all(pairs[i][0], strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1]),
                    (Stretch){text->data, text->size, false}, &next);
        buf_free(text);
        *text = next;
    }
}
static void wordpiece(const DecoderStep *step, Stretch s, Pieces *out) {
    Buf text = {0};
    buf_puts(&text, "");
    bool goes_on = s.size >= step->size && memcmp(s.text, step->text, step->size) == 0;
    if (!s.first && !goes_on) buf_puts(&text, " ");
    size_t skip = !s.first && goes_on ? step->size : 0;
    buf_append(&text, s.text + skip, s.size - skip);
    if (step->cleanup) clean_up(&text);
    pieces_add(out, text.data, text.size);
    buf_free(&text);
}

static bool run(const DecoderStep *step, const Pieces *in, Pieces *out, RegexScratch *scratch, Err *err) {
    if (step->kind == STEP_BYTE_LEVEL) return byte_level(in, out), true;
    if (step->kind == STEP_BYTE_FALLBACK) return byte_fallback(in, out), true;
    if (step->kind == STEP_FUSE) return pieces_add(out, in->text.data, in->text.size), true;
    for (size_t i = 0; i < in->count; i++) {
        Stretch s = piece_at(in, i);
        switch (step->kind) {
        case STEP_METASPACE: {
            bool drop = s.first && !step->keep_first;
            replace_all(step->text, step->size, " ", drop ? 0 : 1, s, &out->text);
            end_piece(out);
            break;
        }
        case STEP_REPLACE:
            TRY(pattern_replace(&step->pattern, step->text, step->size, s.text, s.size, scratch, &out->text, err));
            end_piece(out);
            break;
        case STEP_STRIP:
            s = strip(step, s);
            pieces_add(out, s.text, s.size);
            break;
        case STEP_BPE:
            replace_all(step->text, step->size, " ", i + 1 < in->count ? 1 : 0, s, &out->text);
            end_piece(out);
            break;
        default: wordpiece(step, s, out); break;
        }
    }
    return true;
}

bool decoder_run(const Decoder *d, Pieces *pieces, Buf *out, Err *err) {
    Pieces next = {0};
    RegexScratch scratch = {0};
    bool ok = true;
    for (int i = 0; ok && i < d->count; i++) {
        next.text.size = next.count = 0;
        ok = run(&d->steps[i], pieces, &next, &scratch, err);
        Pieces now = *pieces;
        *pieces = next;
        next = now;
    }
    for (size_t i = 0; ok && i < pieces->count; i++) {
        Stretch s = piece_at(pieces, i);
        if (!d->count && i) buf_puts(out, " ");
        buf_append(out, s.text, s.size);
    }
    pieces_free(&next);
    regex_scratch_free(&scratch);
    return ok;
}

// ---- tokenizer.json ------------------------------------------------------------------------------------------------
static bool read_text(const json_t *j, const char *key, const char *missing, const char *where, DecoderStep *step, Err *err) {
    const json_t *v = json_object_get(j, key);
    if (!json_is_string(v) && (!missing || (v && !json_is_null(v)))) return fail(err, ERR_DATA, where, "lacks a text '%s'", key);
    const char *text = json_is_string(v) ? json_string_value(v) : missing;
    step->size = json_is_string(v) ? json_string_length(v) : strlen(missing);
    step->text = xmalloc(step->size + 1);
    memcpy(step->text, text, step->size);
    return true;
}
static bool read_character(const json_t *j, const char *key, const char *missing, const char *where, DecoderStep *step, Err *err) {
    int n = 0;
    TRY(read_text(j, key, missing, where, step, err));
    if (step->size) code_at(step->text, 0, &n);
    return (step->size && step->size == (size_t)n) || fail(err, ERR_DATA, where, "expected one character as '%s'", key);
}
static size_t read_count(const json_t *j, const char *key) {
    json_int_t n = json_integer_value(json_object_get(j, key));
    return n > 0 ? (size_t)n : 0;
}

static bool read_metaspace(const json_t *j, const char *where, DecoderStep *step, Err *err) {
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    step->keep_first = scheme ? strcmp(scheme, "never") == 0 : json_is_false(json_object_get(j, "add_prefix_space"));
    return read_character(j, "replacement", "\u2581", where, step, err);
}

static bool read_step(const json_t *j, const char *type, const char *where, DecoderStep *step, Err *err) {
    static const struct {
        const char *type;
        StepKind kind;
    } known[] = {
        {"ByteLevel", STEP_BYTE_LEVEL}, {"ByteFallback", STEP_BYTE_FALLBACK}, {"Fuse", STEP_FUSE},
        {"Metaspace", STEP_METASPACE},  {"Replace", STEP_REPLACE},            {"Strip", STEP_STRIP},
        {"WordPiece", STEP_WORDPIECE},  {"BPEDecoder", STEP_BPE},
    };
    int i = 0;
    while (i < COUNT(known) && strcmp(known[i].type, type) != 0) i++;
    if (i == COUNT(known))
        return fail(err, ERR_DATA, where,
                    "found %.40s, which is not supported; supported are ByteLevel, ByteFallback, Fuse, Metaspace, Replace, "
                    "Strip, WordPiece, BPEDecoder and Sequence",
                    type);
    step->kind = known[i].kind;
    step->start = read_count(j, "start");
    step->stop = read_count(j, "stop");
    const json_t *cleanup = json_object_get(j, "cleanup");
    step->cleanup = !cleanup || json_is_true(cleanup);
    switch (step->kind) {
    case STEP_METASPACE: return read_metaspace(j, where, step, err);
    case STEP_REPLACE:
        return pattern_from_json(json_object_get(j, "pattern"), where, &step->pattern, err) &&
               read_text(j, "content", NULL, where, step, err);
    case STEP_STRIP: return read_character(j, "content", NULL, where, step, err);
    case STEP_WORDPIECE: return read_text(j, "prefix", "##", where, step, err);
    case STEP_BPE: return read_text(j, "suffix", "</w>", where, step, err);
    default: return true;
    }
}

static bool read_any(const json_t *j, const char *where, Decoder *d, int depth, Err *err) {
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return fail(err, ERR_DATA, where, "has no type");
    if (d->count == STEP_LIMIT || depth > 8) return fail(err, ERR_DATA, where, "holds more than %d steps", STEP_LIMIT);
    if (strcmp(type, "Sequence") != 0) return read_step(j, type, where, &d->steps[d->count++], err);
    const json_t *list = json_object_get(j, "decoders");
    if (!json_is_array(list)) return fail(err, ERR_DATA, where, "is a Sequence without a list 'decoders'");
    for (size_t i = 0; i < json_array_size(list); i++) TRY(read_any(json_array_get(list, i), where, d, depth + 1, err));
    return true;
}
bool decoder_from_json(const json_t *json, const char *path, Decoder *out, Err *err) {
    *out = (Decoder){0};
    if (!json || json_is_null(json)) return true;
    char where[256];
    snprintf(where, sizeof where, "%.200s: decoder", path);
    out->steps = xcalloc(STEP_LIMIT, sizeof *out->steps);
    TRY(read_any(json, where, out, 0, err));
    if (out->count == 0) { // an empty Sequence joins without spaces
        out->steps[out->count++] = (DecoderStep){.kind = STEP_FUSE};
        return true;
    }
    out->byte_level = out->count == 1 && out->steps[0].kind == STEP_BYTE_LEVEL;
    return true;
}
