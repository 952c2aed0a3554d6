// Splits text into the words that the model works on. tokenizer.json's "pre_tokenizer" is read into a list of steps; each
// step finds its matches, makes pieces of them by its behaviour, and hands every piece to the next one, so nothing is
// stored but what a step changes in a text. A ByteLevel at the end leaves its alphabet to the model, which then works
// on raw bytes. A pre-tokenizer or an option that isn't known is refused, never approximated.
#include "tokenizer_reader.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pretokenizer_free(Pretokenizer *p) {
    for (int i = 0; i < p->count; i++) pattern_free(&p->steps[i].pattern);
    *p = (Pretokenizer){0};
}
void pre_scratch_free(PreScratch *s) {
    for (int i = 0; i < COUNT(s->text); i++) buf_free(&s->text[i][0]), buf_free(&s->text[i][1]);
    regex_scratch_free(&s->regex);
}

// ---- running -----------------------------------------------------------------------------------------------------
typedef struct Run {
    const Pretokenizer *p;
    PreScratch *scratch;
    PieceFunction piece;
    void *context;
} Run;
static bool run_step(const Run *r, int step, Stretch s);

// The matches of one step, and what lies between them, in order; they cover the text. Empty ones occur.
typedef struct Matches {
    const PreStep *step;
    Stretch s;
    PreScratch *scratch;
    size_t at; // up to here all is given
    RegexSearch search;
    bool held, ended; // a match found, but not given yet; no more will be found
} Matches;
typedef struct Part {
    size_t start, stop;
    bool match;
} Part;

static bool next_part(Matches *m, Part *out, bool *any) {
    const char *text = m->s.text;
    size_t size = m->s.size;
    *any = true;
    out->start = m->at;
    if (m->step->scanner < SCAN_LITERAL) {
        *any = m->at < size;
        if (*any) m->at = out->stop = scan(m->step->scanner, text, size, m->at, &out->match);
        out->match ^= m->step->invert;
        return true;
    }
    if (!m->held && !m->ended) {
        TRY(pattern_next(&m->step->pattern, text, size, &m->scratch->regex, &m->search, &m->held, m->scratch->err));
        m->ended = !m->held;
    }
    if (m->held && m->search.start == m->at) {
        *out = (Part){m->search.start, m->search.stop, !m->step->invert};
        m->held = false;
    } else {
        *out = (Part){m->at, m->held ? m->search.start : size, m->step->invert};
        *any = out->stop > out->start;
    }
    m->at = out->stop;
    return true;
}

static bool give(const Run *r, int step, Stretch s, size_t start, size_t stop) {
    if (start >= stop) return true;
    return run_step(r, step + 1, (Stretch){s.text + start, stop - start, s.first && start == 0});
}

// A match joins what follows it, unless that is a match too: then it stands alone.
static bool give_merged_with_next(const Run *r, int step, Matches *m) {
    Part last = {0}; // a match that is not given yet
    bool open = false;
    for (;;) {
        Part p = {0};
        bool any;
        TRY(next_part(m, &p, &any));
        if (!any) break;
        if (open && !p.match) p.start = last.start;
        if (open && p.match) TRY(give(r, step, m->s, last.start, last.stop));
        open = p.match;
        last = p;
        if (!open) TRY(give(r, step, m->s, p.start, p.stop));
    }
    return !open || give(r, step, m->s, last.start, last.stop);
}

static bool split(const Run *r, int step, Stretch s) {
    const PreStep *how = &r->p->steps[step];
    Matches m = {.step = how, .s = s, .scratch = r->scratch};
    if (how->behavior == MERGED_WITH_NEXT) return give_merged_with_next(r, step, &m);
    size_t start = 0, stop = 0; // of the piece that may still grow
    bool open = false, before = false;
    for (;;) {
        Part p = {0};
        bool any, joins = false;
        TRY(next_part(&m, &p, &any));
        if (!any) break;
        if (how->behavior == ISOLATED || (how->behavior == REMOVED && !p.match)) {
            TRY(give(r, step, s, p.start, p.stop));
            continue;
        }
        if (how->behavior == REMOVED) continue;
        if (how->behavior == CONTIGUOUS) joins = open && p.match == before;
        if (how->behavior == MERGED_WITH_PREVIOUS) joins = open && p.match && !before;
        before = p.match;
        if (!joins) {
            TRY(give(r, step, s, start, stop));
            start = p.start;
        }
        stop = p.stop;
        open = true;
    }
    return give(r, step, s, start, stop);
}

static void replace_spaces(const char *text, size_t size, const char *by, Buf *out) {
    size_t done = 0, by_size = strlen(by);
    for (const char *hit; done < size && (hit = memchr(text + done, ' ', size - done));) {
        buf_append(out, text + done, (size_t)(hit - text) - done);
        buf_append(out, by, by_size);
        done = (size_t)(hit - text) + 1;
    }
    buf_append(out, text + done, size - done);
}

// What a step changes before it splits.
static Stretch change(const PreStep *how, Stretch s, Buf *out) {
    out->size = 0;
    if (how->prefix_space) {
        if (s.text[0] == ' ') return s;
        buf_puts(out, " ");
        buf_append(out, s.text, s.size);
    }
    if (how->replacement[0]) {
        size_t n = strlen(how->replacement);
        bool begins = s.text[0] == ' ' || (s.size >= n && memcmp(s.text, how->replacement, n) == 0);
        bool put = !begins && (how->prepend == PREPEND_ALWAYS || (how->prepend == PREPEND_FIRST && s.first));
        if (put) buf_puts(out, how->replacement);
        replace_spaces(s.text, s.size, how->replacement, out);
    }
    return (Stretch){out->data, out->size, s.first};
}

static bool run_step(const Run *r, int step, Stretch s) {
    if (step > 0 && r->p->steps[step - 1].alphabet) { // of the step before
        Buf *out = &r->scratch->text[step][1];
        out->size = 0;
        bytes_to_alphabet(s.text, s.size, out);
        s.text = out->data, s.size = out->size;
    }
    if (step == r->p->count) return r->piece(r->context, s.text, s.size);
    const PreStep *how = &r->p->steps[step];
    if (how->prefix_space || how->replacement[0]) s = change(how, s, &r->scratch->text[step][0]);
    return how->scanner == SCAN_NONE ? run_step(r, step + 1, s) : split(r, step, s);
}

bool pretokenize(const Pretokenizer *p, Stretch s, PreScratch *scratch, PieceFunction piece, void *context) {
    Run r = {.p = p, .scratch = scratch, .piece = piece, .context = context};
    return s.size == 0 || run_step(&r, 0, s);
}

// ---- tokenizer.json ------------------------------------------------------------------------------------------
static bool flag(const json_t *j, const char *key, bool missing) {
    const json_t *v = get(j, key);
    return v ? json_is_true(v) : missing;
}

static bool read_behavior(const json_t *j, bool needed, const char *where, Behavior *out, Err *err) {
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
    const char *name = json_string_value(get(j, "behavior"));
    *out = ISOLATED;
    if (!name && !needed) return true;
    for (int i = 0; name && i < COUNT(names); i++)
        if (strcmp(names[i], name) == 0) {
            *out = (Behavior)i;
            return true;
        }
    return fail(err, ERR_DATA, where,
                "found the behavior '%.40s', expected Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext",
                name ? name : "");
}

static bool read_split(const json_t *j, const char *where, PreStep *out, Err *err) {
    TRY(read_behavior(j, true, where, &out->behavior, err));
    out->invert = flag(j, "invert", false);
    const char *regex = json_string_value(json_object_get(get(j, "pattern"), "Regex"));
    out->scanner = regex ? scanner_of_pattern(regex) : SCAN_NONE;
    if (out->scanner != SCAN_NONE) return true;
    TRY(pattern_from_json(get(j, "pattern"), where, &out->pattern, err));
    out->scanner = out->pattern.regex ? SCAN_REGEX : SCAN_LITERAL;
    return true;
}

static bool read_literal(const char *text, size_t size, const char *where, PreStep *out, Err *err) {
    int n = 0;
    if (size) code_at(text, 0, &n);
    if (!size || size != (size_t)n || n > 4) return fail(err, ERR_DATA, where, "expected one character");
    out->scanner = SCAN_LITERAL;
    out->pattern.literal = xmalloc(size);
    memcpy(out->pattern.literal, text, size);
    out->pattern.size = size;
    return true;
}

static bool read_metaspace(const json_t *j, const char *where, PreStep *out, Err *err) {
    const char *replacement = json_string_value(get(j, "replacement")), *scheme = json_string_value(get(j, "prepend_scheme"));
    if (!replacement) replacement = "\u2581";
    if (flag(j, "split", true)) TRY(read_literal(replacement, strlen(replacement), where, out, err));
    if (strlen(replacement) == 0 || strlen(replacement) > 4) return fail(err, ERR_DATA, where, "expected one character as 'replacement'");
    snprintf(out->replacement, sizeof out->replacement, "%s", replacement);
    out->behavior = MERGED_WITH_NEXT;
    out->prepend = flag(j, "add_prefix_space", true) ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (!scheme) return true;
    static const char *const names[] = {"never", "first", "always"};
    for (int i = 0; i < COUNT(names); i++)
        if (strcmp(names[i], scheme) == 0) {
            out->prepend = (Prepend)i;
            return true;
        }
    return fail(err, ERR_DATA, where, "found the prepend_scheme '%.40s', expected always, first or never", scheme);
}

static bool read_step(const json_t *j, const char *type, const char *where, PreStep *out, Err *err) {
    *out = (PreStep){0};
    if (strcmp(type, "ByteLevel") == 0) {
        out->prefix_space = flag(j, "add_prefix_space", true);
        out->scanner = flag(j, "use_regex", true) ? SCAN_GPT2 : SCAN_NONE;
        out->alphabet = true;
        return true;
    }
    if (strcmp(type, "Split") == 0) return read_split(j, where, out, err);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(j, where, out, err);
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        const json_t *delimiter = get(j, "delimiter");
        out->behavior = REMOVED;
        return read_literal(json_string_value(delimiter), json_string_length(delimiter), where, out, err);
    }
    if (strcmp(type, "Digits") == 0) {
        out->scanner = flag(j, "individual_digits", false) ? SCAN_DIGIT : SCAN_DIGITS;
        return true;
    }
    if (strcmp(type, "Punctuation") == 0) {
        out->scanner = SCAN_OLD_PUNCTUATION;
        return read_behavior(j, false, where, &out->behavior, err);
    }
    if (strcmp(type, "Whitespace") == 0) {
        out->scanner = SCAN_WORDS;
        out->behavior = REMOVED;
        out->invert = true;
        return true;
    }
    if (strcmp(type, "WhitespaceSplit") == 0) {
        out->scanner = SCAN_SPACE;
        out->behavior = REMOVED;
        return true;
    }
    return fail(err, ERR_DATA, where,
                "found %.40s, which is not supported; supported are ByteLevel, Split, Digits, Punctuation, Whitespace, "
                "WhitespaceSplit, Metaspace, BertPreTokenizer, CharDelimiterSplit and Sequence",
                type);
}

static bool read_any(const json_t *j, const char *where, Pretokenizer *p, int depth, Err *err) {
    const char *type = json_string_value(get(j, "type"));
    if (!type) return fail(err, ERR_DATA, where, "has no type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = get(j, "pretokenizers");
        if (!json_is_array(list)) return fail(err, ERR_DATA, where, "is a Sequence without a list 'pretokenizers'");
        if (depth > 8) return fail(err, ERR_DATA, where, "holds sequences in sequences, more than 8 deep");
        for (size_t i = 0; i < json_array_size(list); i++) {
            char place[256];
            snprintf(place, sizeof place, "%.200s.pretokenizers[%zu]", where, i);
            TRY(read_any(json_array_get(list, i), place, p, depth + 1, err));
        }
        return true;
    }
    bool bert = strcmp(type, "BertPreTokenizer") == 0;
    if (p->count + bert >= PRE_STEPS) return fail(err, ERR_DATA, where, "is one step too many, expected at most %d", PRE_STEPS);
    if (bert) {
        p->steps[p->count++] = (PreStep){.scanner = SCAN_SPACE, .behavior = REMOVED};
        p->steps[p->count++] = (PreStep){.scanner = SCAN_OLD_PUNCTUATION};
        return true;
    }
    return read_step(j, type, where, &p->steps[p->count++], err);
}

bool pretokenizer_from_json(const json_t *json, const char *path, Pretokenizer *out, Err *err) {
    *out = (Pretokenizer){0};
    if (!json || json_is_null(json)) return true;
    char where[256];
    snprintf(where, sizeof where, "%.200s: pre_tokenizer", path);
    TRY(read_any(json, where, out, 0, err));
    PreStep *last = out->count ? &out->steps[out->count - 1] : NULL;
    bool earlier = false;
    for (int i = 0; i + 1 < out->count; i++) earlier |= out->steps[i].alphabet;
    if (last && last->alphabet && !earlier) {
        last->alphabet = false;
        out->bytes = true;
    }
    return true;
}
