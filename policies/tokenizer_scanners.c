// Hand-written scanners of the patterns that published tokenizers split by, recognised by their exact text. Each gives,
// byte for byte, the pieces that the pattern gives in the `tokenizers` package: alternatives tried in order, greedy
// repeats, the end of a piece is the end of the text for a look-ahead. A scanner covers every character, matched or
// not, and looks at each a bounded number of times.
#include "tokenizer_parts.h"
#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3_PATTERN(numbers)                                                                              \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                                       \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CASED_PATTERN(ending, numbers)                                                                       \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" ending              \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" ending "|" numbers \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK_MARKS "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define DEEPSEEK_ESCAPED_MARKS "[!\\\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define DEEPSEEK_REST                                                                                        \
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    Scanner scanner;
    const char *pattern;
} patterns[] = {
    {SCAN_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {SCAN_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {SCAN_LLAMA3, LLAMA3_PATTERN("\\p{N}{1,3}")},
    {SCAN_QWEN2, LLAMA3_PATTERN("\\p{N}")},
    {SCAN_QWEN35, CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
                               "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    {SCAN_O200K, CASED_PATTERN("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "\\p{N}{1,3}")},
    {SCAN_TEKKEN, CASED_PATTERN("", "\\p{N}")},
    {SCAN_DEEPSEEK3, DEEPSEEK_MARKS DEEPSEEK_REST},
    {SCAN_DEEPSEEK3, DEEPSEEK_ESCAPED_MARKS DEEPSEEK_REST},
    {SCAN_HAN_KANA, "[一-龥\u3040-ゟ゠-ヿ]+"},
    {SCAN_NUMBER, "\\p{N}"},
    {SCAN_NUMBERS, "\\p{N}+"},
    {SCAN_NUMBERS_3, "\\p{N}{1,3}"},
    {SCAN_TRIPLES, "[0-9][0-9][0-9]"},
    {SCAN_LINE_ENDS, "\\s+$"},
    {SCAN_CHARACTERS, "[\\s\\S]"},
};

Scanner scanner_of_pattern(const char *pattern) {
    for (int i = 0; i < COUNT(patterns); i++)
        if (strcmp(patterns[i].pattern, pattern) == 0) return patterns[i].scanner;
    return SCAN_NONE;
}

enum { KIND_OF_PATTERN = KIND_LETTER | KIND_NUMBER | KIND_SPACE }; // what \p{L}, \p{N}, \s tell apart

static bool is_newline(Char c) { return c.code == '\n' || c.code == '\r'; }
// A character whose kinds among `mask` are `kind`.
static bool is_kind(Char c, unsigned mask, unsigned kind) { return c.size && (c.kind & mask) == kind; }
static size_t run_end(const char *text, size_t size, size_t at, unsigned mask, unsigned kind) {
    for (Char c = char_at(text, size, at); is_kind(c, mask, kind); c = char_at(text, size, at)) at += (size_t)c.size;
    return at;
}
// The end of a run of characters that have any of `kinds`.
static size_t any_end(const char *text, size_t size, size_t at, unsigned kinds) {
    for (Char c = char_at(text, size, at); c.kind & kinds; c = char_at(text, size, at)) at += (size_t)c.size;
    return at;
}

// 's|'t|'re|'ve|'m|'ll|'d: its length, 0 if none. Ignoring case follows Unicode: U+017F (long s) folds to s; no other
// letter here has a partner beyond ASCII.
static size_t contraction(const char *text, size_t size, size_t at, bool any_case) {
    if (at >= size || text[at] != '\'') return 0;
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
    size_t end = any_end(text, size, at, KIND_SPACE);
    if (end == size) return end;
    size_t last = end - (size_t)char_before(text, end).size;
    return last > at ? last : end;
}
// \s*[\r\n]+|\s+(?!\S)|\s+: up to the last newline of the run if it has one.
static size_t newlines_end(const char *text, size_t size, size_t at) {
    size_t run = any_end(text, size, at, KIND_SPACE), newline = run;
    while (newline > at && text[newline - 1] != '\n' && text[newline - 1] != '\r') newline--;
    return newline > at ? newline : spaces_end(text, size, at);
}
static size_t skip_newlines(const char *text, size_t size, size_t at, char slash) {
    while (at < size && (text[at] == '\r' || text[at] == '\n' || (slash && text[at] == slash))) at++;
    return at;
}

static size_t scan_gpt2(const char *text, size_t size, size_t at) {
    size_t n = contraction(text, size, at, false);
    if (n) return at + n;
    Char c = char_at(text, size, at);
    Char next = c.code == ' ' ? char_at(text, size, at + 1) : (Char){0};
    bool led = next.size && !(next.kind & KIND_SPACE);
    if (!led && (c.kind & KIND_SPACE)) return spaces_end(text, size, at);
    size_t from = at + (size_t)c.size + (led ? (size_t)next.size : 0);
    return run_end(text, size, from, KIND_OF_PATTERN, (led ? next : c).kind & KIND_OF_PATTERN);
}

// A run of at most `most` numbers that begins with the one at `at`.
static size_t numbers_end(const char *text, size_t size, size_t at, int most) {
    for (Char c; most-- > 0 && ((c = char_at(text, size, at)).kind & KIND_NUMBER);) at += (size_t)c.size;
    return at;
}

// What Llama 3, Qwen2 and their relatives share; `letters` is what a word is made of, `others` what is kept out of
// words, spaces and punctuation.
static size_t scan_llama3(const char *text, size_t size, size_t at, int digits, unsigned letters) {
    size_t n = contraction(text, size, at, true);
    if (n) return at + n;
    Char c = char_at(text, size, at);
    if (c.kind & letters) return any_end(text, size, at + (size_t)c.size, letters);
    size_t after = at + (size_t)c.size;
    if (c.kind & KIND_NUMBER) return numbers_end(text, size, at, digits);
    Char next = char_at(text, size, after);
    if (!is_newline(c) && (next.kind & letters)) return any_end(text, size, after, letters);
    unsigned mask = letters | KIND_NUMBER | KIND_SPACE;
    bool led = c.code == ' ' && is_kind(next, mask, 0);
    if (led || is_kind(c, mask, 0)) return skip_newlines(text, size, run_end(text, size, after, mask, 0), 0);
    return newlines_end(text, size, at);
}

// [upper]*[lower]+ at `at`: its end, 0 if there is none. Letters without case and marks are both, so the first part gives
// back the last of them that the second needs.
static size_t lower_word_end(const char *text, size_t size, size_t at) {
    size_t upper = any_end(text, size, at, KIND_UPPER), lower = any_end(text, size, upper, KIND_LOWER);
    if (lower > upper) return lower;
    for (size_t end = upper; end > at;) {
        Char c = char_before(text, end);
        if (c.kind & KIND_LOWER) return end;
        end -= (size_t)c.size;
    }
    return 0;
}
// A word by case, with one character before it that is no letter, number or newline: [upper]*[lower]+ with it and
// without it, then [upper]+[lower]*. 0 if there is none.
static size_t cased_end(const char *text, size_t size, size_t at, Char c) {
    bool lead = !is_newline(c) && !(c.kind & (KIND_LETTER | KIND_NUMBER));
    size_t from = lead ? at + (size_t)c.size : at, end = lower_word_end(text, size, from);
    if (!end && lead && (c.kind & KIND_MARK)) end = lower_word_end(text, size, at);
    if (end) return end;
    end = any_end(text, size, from, KIND_UPPER);
    return end > from ? end : 0;
}

static size_t scan_cased(const char *text, size_t size, size_t at, int digits, bool endings) {
    Char c = char_at(text, size, at);
    size_t after = at + (size_t)c.size, end = cased_end(text, size, at, c);
    if (end) return end + (endings ? contraction(text, size, end, true) : 0);
    if (c.kind & KIND_NUMBER) return numbers_end(text, size, at, digits);
    Char next = char_at(text, size, after);
    bool led = c.code == ' ' && is_kind(next, KIND_OF_PATTERN, 0);
    if (led || is_kind(c, KIND_OF_PATTERN, 0))
        return skip_newlines(text, size, run_end(text, size, after, KIND_OF_PATTERN, 0), '/');
    return newlines_end(text, size, at);
}

static bool ascii_letter(const char *text, size_t size, size_t at) {
    return at < size && (unsigned)((text[at] | 0x20) - 'a') < 26;
}
static bool ascii_mark(Char c) { return c.code > 0 && c.code < 0x80 && (c.kind & (KIND_PUNCTUATION | KIND_SYMBOL)); }
// Numbers and control characters are matched by nothing: they are left between the matches.
static size_t scan_deepseek3(const char *text, size_t size, size_t at, bool *match) {
    Char c = char_at(text, size, at);
    size_t after = at + (size_t)c.size;
    if (ascii_mark(c) && ascii_letter(text, size, after)) {
        while (ascii_letter(text, size, after)) after++;
        return after;
    }
    unsigned word = KIND_LETTER | KIND_MARK, marks = KIND_PUNCTUATION | KIND_SYMBOL;
    Char next = char_at(text, size, after);
    bool lead = !is_newline(c) && !(c.kind & (KIND_LETTER | marks));
    if (lead && (next.kind & word)) return any_end(text, size, after, word);
    if (c.kind & word) return any_end(text, size, at, word);
    bool led = c.code == ' ' && (next.kind & marks);
    if (led || (c.kind & marks)) return skip_newlines(text, size, any_end(text, size, after, marks), 0);
    if (c.kind & KIND_SPACE) return newlines_end(text, size, at);
    *match = false;
    // Up to where something matches; a number or control character right before a letter leads its word.
    for (at = after; at < size; at += (size_t)c.size) {
        c = char_at(text, size, at);
        if (c.kind & (word | marks | KIND_SPACE)) break;
        if (char_at(text, size, at + (size_t)c.size).kind & word) break;
    }
    return at;
}

// Runs of characters that have `kind`, and runs of those that don't; at most `most` of those that have it.
static size_t scan_kind(const char *text, size_t size, size_t at, unsigned kind, size_t most, bool *match) {
    Char c = char_at(text, size, at);
    *match = (c.kind & kind) != 0;
    if (!*match) most = SIZE_MAX;
    do {
        at += (size_t)c.size;
        c = char_at(text, size, at);
    } while (--most && c.size && *match == ((c.kind & kind) != 0));
    return at;
}
static size_t scan_if(const char *text, size_t size, size_t at, bool (*is)(Char c), bool alone, bool *match) {
    Char c = char_at(text, size, at);
    *match = is(c);
    do {
        at += (size_t)c.size;
        c = char_at(text, size, at);
    } while (!(alone && *match) && c.size && is(c) == *match);
    return at;
}

static bool triple_at(const char *text, size_t size, size_t at) {
    if (size - at < 3) return false;
    for (size_t i = at; i < at + 3; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}
static size_t scan_triples(const char *text, size_t size, size_t at, bool *match) {
    *match = triple_at(text, size, at);
    if (*match) return at + 3;
    do at++;
    while (at < size && !triple_at(text, size, at));
    return at;
}

// \s+$ where $ stands before every newline: the end of the match at `at`, 0 if there is none; then none begins later in
// this run of spaces either.
static size_t line_end(const char *text, size_t size, size_t at, size_t *run) {
    *run = any_end(text, size, at, KIND_SPACE);
    if (*run == at) return 0;
    if (*run == size) return size;
    const char *newline = memrchr(text + at + 1, '\n', *run - at - 1);
    return newline ? (size_t)(newline - text) : 0;
}
static size_t scan_line_ends(const char *text, size_t size, size_t at, bool *match) {
    size_t run, end = line_end(text, size, at, &run);
    *match = end != 0;
    if (end) return end;
    at = run > at ? run : at + (size_t)char_at(text, size, at).size;
    while (at < size && !line_end(text, size, at, &run)) at = run > at ? run : at + (size_t)char_at(text, size, at).size;
    return at;
}

// \w+|[^\w\s]+
static size_t scan_words(const char *text, size_t size, size_t at, bool *match) {
    unsigned mask = KIND_WORD | KIND_SPACE, kind = char_at(text, size, at).kind & mask;
    *match = kind != KIND_SPACE;
    return run_end(text, size, at, mask, kind);
}

size_t scan(Scanner scanner, const char *text, size_t size, size_t at, bool *match) {
    *match = true;
    switch (scanner) {
    case SCAN_GPT2: return scan_gpt2(text, size, at);
    case SCAN_LLAMA3: return scan_llama3(text, size, at, 3, KIND_LETTER);
    case SCAN_QWEN2: return scan_llama3(text, size, at, 1, KIND_LETTER);
    case SCAN_QWEN35: return scan_llama3(text, size, at, 1, KIND_LETTER | KIND_MARK);
    case SCAN_O200K: return scan_cased(text, size, at, 3, true);
    case SCAN_TEKKEN: return scan_cased(text, size, at, 1, false);
    case SCAN_DEEPSEEK3: return scan_deepseek3(text, size, at, match);
    case SCAN_HAN_KANA: return scan_kind(text, size, at, KIND_HAN_KANA, SIZE_MAX, match);
    case SCAN_NUMBER: return scan_kind(text, size, at, KIND_NUMBER, 1, match);
    case SCAN_NUMBERS: return scan_kind(text, size, at, KIND_NUMBER, SIZE_MAX, match);
    case SCAN_NUMBERS_3: return scan_kind(text, size, at, KIND_NUMBER, 3, match);
    case SCAN_DIGIT: return scan_if(text, size, at, char_is_digit, true, match);
    case SCAN_DIGITS: return scan_if(text, size, at, char_is_digit, false, match);
    case SCAN_TRIPLES: return scan_triples(text, size, at, match);
    case SCAN_LINE_ENDS: return scan_line_ends(text, size, at, match);
    case SCAN_CHARACTERS: return at + (size_t)char_at(text, size, at).size;
    case SCAN_SPACE: return scan_kind(text, size, at, KIND_SPACE, 1, match);
    case SCAN_OLD_PUNCTUATION: return scan_if(text, size, at, char_is_old_punctuation, true, match);
    case SCAN_WORDS: return scan_words(text, size, at, match);
    case SCAN_NONE:
    case SCAN_LITERAL:
    case SCAN_REGEX: break;
    }
    return size;
}
