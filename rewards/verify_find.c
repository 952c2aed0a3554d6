// What of a text is its answer. In order: the content of the last \boxed{}; the last formula between $..$, \(..\),
// \[..\] or of an environment (several joined by "or", "and" or commas are a list), unless words such as "the answer
// is" come after it; else the text itself. What stands after such words, or the last number of a text, are looked for
// only when the text as a whole is no answer.
#include "verify_parts.h"
#include <string.h>

size_t utf8_step(TextSpan t) {
    unsigned char c = t.size ? (unsigned char)*t.data : 0;
    size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    return n < t.size ? n : t.size ? t.size : 1;
}

static bool starts(TextSpan t, const char *with) {
    size_t n = strlen(with);
    return t.size >= n && memcmp(t.data, with, n) == 0;
}
static TextSpan from(TextSpan t, size_t n) { return n > t.size ? (TextSpan){t.data + t.size, 0} : (TextSpan){t.data + n, t.size - n}; }

// ---- boxes --------------------------------------------------------------------------------------------------------
// The content of a box whose braces begin at `t`; all of the rest where they don't close.
static TextSpan braces_content(TextSpan t) {
    int open = 0;
    for (size_t i = 0; i < t.size; i++) {
        if (t.data[i] == '\\' && i + 1 < t.size) i++;
        else if (t.data[i] == '{') open++;
        else if (t.data[i] == '}' && --open == 0) return (TextSpan){t.data + 1, i - 1};
    }
    return from(t, 1);
}

static bool find_box(TextSpan text, TextSpan *out) {
    static const char *const names[] = {"\\boxed", "\\fbox"};
    bool found = false;
    const char *end = text.data + text.size;
    for (const char *p = text.data; p < end && (p = memchr(p, '\\', (size_t)(end - p)));) {
        TextSpan rest = {p, (size_t)(end - p)};
        size_t n = 0;
        for (int i = 0; i < COUNT(names) && !n; i++)
            if (starts(rest, names[i])) n = strlen(names[i]);
        p += n ? n : 1;
        if (!n) continue;
        rest = from(rest, n);
        while (rest.size && *rest.data == ' ') rest = from(rest, 1);
        if (rest.size && *rest.data == '{') {
            *out = braces_content(rest);
            p = out->data + out->size; // a box inside of it is part of it
        } else {
            size_t k = 0;
            while (k < rest.size && !strchr(" $\n", rest.data[k])) k++;
            *out = (TextSpan){rest.data, k};
            p = rest.data + k; // so that no byte is looked at twice
        }
        found = true;
    }
    return found;
}

// ---- formulas -----------------------------------------------------------------------------------------------------
static int count_dollars(TextSpan t) {
    int n = 0;
    for (size_t i = 0; i < t.size; i++)
        if (t.data[i] == '$' && (i == 0 || t.data[i - 1] != '\\')) n++;
    return n;
}

// A price, not the start of a formula: "$5 and $7".
static bool prices(TextSpan t) {
    int n = count_dollars(t);
    if (n % 2) return n == 1 || !memmem(t.data, t.size, "$$", 2);
    const char *end = t.data + t.size, *open = memchr(t.data, '$', t.size), *close;
    if (!open || open + 1 >= end || open[1] < '0' || open[1] > '9') return false;
    close = memchr(open + 1, '$', (size_t)(end - open - 1));
    return close && close[-1] == ' ' && close + 1 < end && close[1] >= '0' && close[1] <= '9';
}

static const struct { const char *open, *close; } delimiters[] = {
    {"$$", "$$"}, {"$", "$"}, {"\\[", "\\]"}, {"\\(", "\\)"}, {"\\begin{align*}", "\\end{align*}"}, {"\\begin{align}", "\\end{align}"},
    {"\\begin{equation*}", "\\end{equation*}"}, {"\\begin{equation}", "\\end{equation}"}, {"\\begin{gather*}", "\\end{gather*}"},
    {"\\begin{aligned}", "\\end{aligned}"}, {"\\begin{math}", "\\end{math}"}};

// The next formula at or after `*at`. `unclosed`: of delimiters (as bits) that nothing closes any more.
static bool next_formula(TextSpan text, size_t *at, bool dollars, unsigned *unclosed, TextSpan *out, size_t *start) {
    for (; *at < text.size; ++*at) {
        TextSpan rest = from(text, *at);
        if (*rest.data != '$' && *rest.data != '\\') continue;
        if (*rest.data == '\\' && rest.size > 1 && (rest.data[1] == '$' || rest.data[1] == '\\')) {
            ++*at;
            continue;
        }
        for (int i = 0; i < COUNT(delimiters); i++) {
            size_t n = strlen(delimiters[i].open), k = strlen(delimiters[i].close);
            if (!starts(rest, delimiters[i].open) || (*rest.data == '$' && !dollars)) continue;
            if (*unclosed >> i & 1) break;
            TextSpan inside = from(rest, n);
            const char *close = memmem(inside.data, inside.size, delimiters[i].close, k);
            while (close && *delimiters[i].close == '$' && close > inside.data && close[-1] == '\\')
                close = memmem(close + 1, (size_t)(inside.data + inside.size - close - 1), delimiters[i].close, k);
            if (!close) *unclosed |= 1u << i;
            if (!close) break;
            *out = (TextSpan){inside.data, (size_t)(close - inside.data)};
            *start = *at;
            *at = (size_t)(close + k - text.data);
            return true;
        }
    }
    return false;
}

static bool joins(TextSpan t) { // what stands between two parts of a list
    static const char *const words[] = {"", ",", "or", "and", ", or", ", and", ";", "또는", "혹은", "과", "와", "이고", "이거나", ", 그리고", "및", "または", "と", "、",
                                        "hoặc", "hay", "và"};
    t = text_trim(t);
    for (int i = 0; i < COUNT(words); i++)
        if (t.size == strlen(words[i]) && memcmp(t.data, words[i], t.size) == 0) return true;
    return false;
}

// The last line of an aligned formula that has any content.
static TextSpan last_line(TextSpan t) {
    if (memmem(t.data, t.size, "matrix}", 7) || memmem(t.data, t.size, "array}", 6) || memmem(t.data, t.size, "cases}", 6)) return t;
    for (TextSpan tail = t; tail.size > 1; tail.size--) {
        const char *p = tail.data + tail.size - 2;
        if (p[0] != '\\' || p[1] != '\\') continue;
        TextSpan line = text_trim((TextSpan){p + 2, (size_t)(t.data + t.size - p - 2)});
        if (line.size) return line;
        t = (TextSpan){t.data, (size_t)(p - t.data)};
        tail.size = t.size + 1; // the backslash before may not serve twice
    }
    return t;
}

void find_answer(TextSpan text, Found *out) {
    *out = (Found){0};
    TextSpan box, after;
    text = text_trim(text);
    if (find_box(text, &box)) {
        out->list[out->count++] = (Segment){.text = box, .math = true};
        return;
    }
    bool dollars = !prices(text);
    unsigned unclosed = 0;
    size_t at = 0, start, end = 0, parts = 0, first = 0;
    TextSpan formula;
    while (text.size && next_formula(text, &at, dollars, &unclosed, &formula, &start)) {
        TextSpan between = {text.data + end, start - end};
        if (!parts) first = start;
        if (parts && !joins(between)) out->count = 0;
        if (out->count == MAX_SEGMENTS) out->count = 0;
        out->list[out->count++] = (Segment){.text = last_line(formula), .math = true};
        parts++, end = at;
    }
    TextSpan sign = {text.data, parts == 1 ? first : 0};
    if (parts == 1 && (starts(sign, "-") || starts(sign, "\xE2\x88\x92")) && text_trim(sign).size < 4) out->list[0].text = text; // -$5$
    TextSpan rest = from(text, end);
    if (out->count && find_after_cue(rest, &after)) out->count = 0;
    if (out->count) {
        out->tail = text_trim(rest);
        return;
    }
    if (parts) text = rest;
    out->list[out->count++] = (Segment){.text = text, .math = text.size && memchr(text.data, '\\', text.size)};
}

// ---- sentences ----------------------------------------------------------------------------------------------------
static size_t cue_at(TextSpan t) {
    static const char *const cues[] = {"answer is:", "answer is", "answer:", "answer :", "answer =", "result is", "option is", "choice is", "answers are", "solutions are", "roots are", "zeros are", "values are", "solution is", "####", "정답은", "답은", "정답:", "정답 :", "답:", "답 :",
                                       "答えは", "答え:", "答え：", "答案是", "正解は", "áp án là", "áp án đúng là", "áp án:", "áp số:", "áp số là", "ết quả là", "ết quả:", "정답은:", "정답："}; // Đáp and đáp
    for (int i = 0; i < COUNT(cues); i++) {
        size_t n = strlen(cues[i]), k = 0;
        if (t.size < n) continue;
        while (k < n && (t.data[k] == cues[i][k] || (t.data[k] >= 'A' && t.data[k] <= 'Z' && t.data[k] + 32 == cues[i][k]))) k++;
        if (k == n) return n;
    }
    return 0;
}

bool find_after_cue(TextSpan text, TextSpan *out) {
    static const char *const fillers[] = {":", "：", " ", "\n", "**", "$", "약 ", "approximately ", "about ", "therefore ", "thus ", "："};
    bool found = false;
    for (size_t i = 0; i < text.size;) {
        size_t n = cue_at(from(text, i));
        if (n) *out = from(text, i + n), found = true;
        i += n ? n : 1;
    }
    for (bool again = found; again;) {
        again = false;
        for (int i = 0; i < COUNT(fillers) && !again; i++)
            if (starts(*out, fillers[i])) *out = from(*out, strlen(fillers[i])), again = true;
    }
    return found && out->size;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t'; }

static bool is_taken_back(TextSpan before) { // "42 or 43", "not 42": no answer
    static const char *const words[] = {" or", "또는", "혹은", "または", "hoặc", " hay", " not", "n't", " never", "không phải", "không phải là"};
    while (before.size && (is_blank(before.data[before.size - 1]) || before.data[before.size - 1] == '$')) before.size--;
    for (int i = 0; i < COUNT(words); i++) {
        size_t n = strlen(words[i]);
        bool blank = *words[i] == ' ' && before.size == n - 1; // the text begins with it
        if (before.size > n && memcmp(before.data + before.size - n, words[i], n) == 0) return true;
        if (blank && memcmp(before.data, words[i] + 1, n - 1) == 0) return true;
    }
    return false;
}

bool find_denied(TextSpan after) { // 42가 아니다, 42ではない
    static const char *const words[] = {"아니", "아닙", "ではな", "ではあり", "じゃな", "is wrong", "is not", "isn't", "is incorrect"};
    if (after.size > 48) after.size = 48;
    for (int i = 0; i < COUNT(words); i++)
        if (memmem(after.data, after.size, words[i], strlen(words[i]))) return true;
    return false;
}

// Where the bracket opens that closes at `close`; `otherwise` if nowhere before it.
static size_t bracket_start(TextSpan text, size_t close, size_t otherwise) {
    int open = 0;
    for (size_t i = close + 1; i > 0 && i + 400 > close; i--) {
        char c = text.data[i - 1];
        open += c == ')' || c == ']' ? 1 : c == '(' || c == '[' ? -1 : 0;
        if (!open) return i - 1;
    }
    return otherwise;
}

// The word with the last digit, from where a number can begin in it: the sign, bracket or digit before.
bool find_last_number(TextSpan text, TextSpan *out) {
    size_t last = text.size;
    bool words = false; // numbers alone are a list, and none of them is the answer
    for (size_t i = 0; i < text.size && !words; i++) words = (text.data[i] & 0x80) || ((text.data[i] | 32) >= 'a' && (text.data[i] | 32) <= 'z');
    if (!words) return false;
    while (last && !is_digit(text.data[last - 1])) last--;
    if (!last) return false;
    size_t begin = last;
    for (;;) { // this word, and words before it that are numbers too: 2 3/7, 3만 5천
        while (begin && !is_blank(text.data[begin - 1])) begin--;
        size_t gap = begin;
        while (gap && is_blank(text.data[gap - 1])) gap--;
        size_t word = gap;
        while (word && !is_blank(text.data[word - 1])) word--;
        bool number = gap > word && is_digit(text.data[word]);
        for (size_t i = word; i < gap && number; i++) number = is_digit(text.data[i]) || (text.data[i] & 0x80);
        if (!number) break;
        begin = word;
    }
    size_t start = begin, first = begin;
    while (!is_digit(text.data[first])) first++;
    for (size_t i = last; i > begin; i--) // no words that are glued on in front: 답은98
        if ((text.data[i - 1] & 0x80) && i < last && is_digit(text.data[i]) && first >= i) {
            start = i;
            break;
        }
    while (start < last && !is_digit(text.data[start]) && !strchr("-+.($[{", text.data[start]) && !starts(from(text, start), "√") &&
           !starts(from(text, start), "−") && !starts(from(text, start), "€") && !starts(from(text, start), "₩") && !starts(from(text, start), "\\"))
        start++;
    size_t close = last;
    while (close < text.size && is_blank(text.data[close])) close++;
    if (close < text.size && (text.data[close] == ')' || text.data[close] == ']')) start = bracket_start(text, close, start); // the point (2, -3)
    *out = from(text, start);
    return !is_taken_back((TextSpan){text.data, begin}) && !find_denied(from(text, last));
}
