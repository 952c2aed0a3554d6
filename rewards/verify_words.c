// Numbers in words: Korean (삼만 오천, 스물다섯, 3만 5천), Japanese (三万五千, 12万3千), Vietnamese (ba mươi lăm nghìn,
// 2,5 triệu) and English (thirty-five thousand, 2.5 million). All are read by one rule: units and tens add up, small
// multipliers (ten, hundred) take the unit before them, big ones (thousand in the languages that group by it, 만, 億)
// take all since the last bigger one. Digits may stand for any unit. Fractions in words as well (3분의 2, ba phần tư).
#include "verify_parts.h"
#include <string.h>

typedef enum WordKind { WORD_UNIT, WORD_TEN, WORD_SMALL, WORD_BIG, WORD_JOIN, WORD_HALF_MORE } WordKind;
typedef struct Word {
    const char *text;
    WordKind kind;
    uint64_t value;
} Word;

// Written together, longest first where one begins another.
static const Word joined[] = {
    {"일곱", WORD_UNIT, 7}, {"다섯", WORD_UNIT, 5}, {"여섯", WORD_UNIT, 6}, {"여덟", WORD_UNIT, 8}, {"아홉", WORD_UNIT, 9}, {"하나", WORD_UNIT, 1},
    {"스물", WORD_TEN, 20}, {"스무", WORD_TEN, 20}, {"서른", WORD_TEN, 30}, {"마흔", WORD_TEN, 40}, {"예순", WORD_TEN, 60}, {"일흔", WORD_TEN, 70},
    {"여든", WORD_TEN, 80}, {"아흔", WORD_TEN, 90}, {"쉰", WORD_TEN, 50}, {"열", WORD_TEN, 10}, {"한", WORD_UNIT, 1}, {"둘", WORD_UNIT, 2}, {"두", WORD_UNIT, 2},
    {"셋", WORD_UNIT, 3}, {"세", WORD_UNIT, 3}, {"넷", WORD_UNIT, 4}, {"네", WORD_UNIT, 4}, {"일", WORD_UNIT, 1}, {"이", WORD_UNIT, 2}, {"삼", WORD_UNIT, 3},
    {"사", WORD_UNIT, 4}, {"오", WORD_UNIT, 5}, {"육", WORD_UNIT, 6}, {"륙", WORD_UNIT, 6}, {"칠", WORD_UNIT, 7}, {"팔", WORD_UNIT, 8}, {"구", WORD_UNIT, 9},
    {"영", WORD_UNIT, 0}, {"공", WORD_UNIT, 0}, {"십", WORD_SMALL, 10}, {"백", WORD_SMALL, 100}, {"천", WORD_SMALL, 1000}, {"만", WORD_BIG, 10000},
    {"억", WORD_BIG, 100000000}, {"조", WORD_BIG, 1000000000000}, {"경", WORD_BIG, 10000000000000000},
    {"ひとつ", WORD_UNIT, 1}, {"ふたつ", WORD_UNIT, 2}, {"みっつ", WORD_UNIT, 3}, {"よっつ", WORD_UNIT, 4}, {"いつつ", WORD_UNIT, 5}, {"むっつ", WORD_UNIT, 6},
    {"ななつ", WORD_UNIT, 7}, {"やっつ", WORD_UNIT, 8}, {"ここのつ", WORD_UNIT, 9},
    {"〇", WORD_UNIT, 0}, {"零", WORD_UNIT, 0}, {"一", WORD_UNIT, 1}, {"二", WORD_UNIT, 2}, {"三", WORD_UNIT, 3}, {"四", WORD_UNIT, 4}, {"五", WORD_UNIT, 5},
    {"六", WORD_UNIT, 6}, {"七", WORD_UNIT, 7}, {"八", WORD_UNIT, 8}, {"九", WORD_UNIT, 9}, {"壱", WORD_UNIT, 1}, {"弐", WORD_UNIT, 2}, {"参", WORD_UNIT, 3},
    {"两", WORD_UNIT, 2}, {"兩", WORD_UNIT, 2}, {"十", WORD_SMALL, 10}, {"拾", WORD_SMALL, 10}, {"百", WORD_SMALL, 100}, {"千", WORD_SMALL, 1000},
    {"万", WORD_BIG, 10000}, {"萬", WORD_BIG, 10000}, {"億", WORD_BIG, 100000000}, {"亿", WORD_BIG, 100000000}, {"兆", WORD_BIG, 1000000000000},
    {"京", WORD_BIG, 10000000000000000},
};
// Written apart; compared without regard to case.
static const Word spaced[] = {
    {"không", WORD_UNIT, 0}, {"một", WORD_UNIT, 1}, {"mốt", WORD_UNIT, 1}, {"hai", WORD_UNIT, 2}, {"ba", WORD_UNIT, 3}, {"bốn", WORD_UNIT, 4}, {"tư", WORD_UNIT, 4},
    {"năm", WORD_UNIT, 5}, {"lăm", WORD_UNIT, 5}, {"nhăm", WORD_UNIT, 5}, {"sáu", WORD_UNIT, 6}, {"bảy", WORD_UNIT, 7}, {"bẩy", WORD_UNIT, 7}, {"tám", WORD_UNIT, 8},
    {"chín", WORD_UNIT, 9}, {"mười", WORD_TEN, 10}, {"mươi", WORD_SMALL, 10}, {"trăm", WORD_SMALL, 100}, {"nghìn", WORD_BIG, 1000}, {"ngàn", WORD_BIG, 1000},
    {"vạn", WORD_BIG, 10000}, {"triệu", WORD_BIG, 1000000}, {"tỷ", WORD_BIG, 1000000000}, {"tỉ", WORD_BIG, 1000000000}, {"linh", WORD_JOIN, 0}, {"lẻ", WORD_JOIN, 0},
    {"rưỡi", WORD_HALF_MORE, 0},
    {"zero", WORD_UNIT, 0}, {"one", WORD_UNIT, 1}, {"two", WORD_UNIT, 2}, {"three", WORD_UNIT, 3}, {"four", WORD_UNIT, 4}, {"five", WORD_UNIT, 5},
    {"six", WORD_UNIT, 6}, {"seven", WORD_UNIT, 7}, {"eight", WORD_UNIT, 8}, {"nine", WORD_UNIT, 9}, {"ten", WORD_TEN, 10}, {"eleven", WORD_TEN, 11},
    {"twelve", WORD_TEN, 12}, {"thirteen", WORD_TEN, 13}, {"fourteen", WORD_TEN, 14}, {"fifteen", WORD_TEN, 15}, {"sixteen", WORD_TEN, 16},
    {"seventeen", WORD_TEN, 17}, {"eighteen", WORD_TEN, 18}, {"nineteen", WORD_TEN, 19}, {"twenty", WORD_TEN, 20}, {"thirty", WORD_TEN, 30},
    {"forty", WORD_TEN, 40}, {"fifty", WORD_TEN, 50}, {"sixty", WORD_TEN, 60}, {"seventy", WORD_TEN, 70}, {"eighty", WORD_TEN, 80},
    {"ninety", WORD_TEN, 90}, {"hundred", WORD_SMALL, 100}, {"thousand", WORD_BIG, 1000}, {"million", WORD_BIG, 1000000},
    {"billion", WORD_BIG, 1000000000}, {"trillion", WORD_BIG, 1000000000000}, {"and", WORD_JOIN, 0},
};

static bool letter(unsigned char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

// Vietnamese letters with marks are all of two or three bytes whose capitals differ in the last one; capitals of the
// words above occur at their start only, where the letter is plain ASCII.
static bool spaced_word_at(TextSpan t, const char *word) {
    size_t n = strlen(word);
    if (t.size < n) return false;
    for (size_t i = 0; i < n; i++) {
        char c = t.data[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c + 32);
        if (c != word[i]) return false;
    }
    if (t.size == n) return true;
    unsigned char next = (unsigned char)t.data[n];
    return !letter(next) && (next < 0xC3 || next > 0xE1); // another Vietnamese letter would go on
}

static const Word *word_at(TextSpan t, bool *apart) {
    *apart = true;
    for (int i = 0; t.size && letter((unsigned char)*t.data) && i < COUNT(spaced); i++)
        if (spaced_word_at(t, spaced[i].text)) return &spaced[i];
    *apart = false;
    for (int i = 0; t.size && (*t.data & 0x80) && i < COUNT(joined); i++) {
        size_t n = strlen(joined[i].text);
        if (t.size >= n && memcmp(t.data, joined[i].text, n) == 0) return &joined[i];
    }
    return NULL;
}

// ---- the rule -----------------------------------------------------------------------------------------------------
typedef struct Sum {
    Work *work;
    Rational total, section, unit;
    bool has_unit, any;
    uint64_t last_big, last_multiplier, last_small;
    bool tens; // the section is a ten in one word: sixteen, twenty
    int plain_run; // units in a row without multipliers: digits of a number
} Sum;

static bool start(Sum *s, Work *w) {
    *s = (Sum){.work = w, .last_big = UINT64_MAX, .last_small = UINT64_MAX};
    return rational_whole(w, 0, &s->total) && rational_whole(w, 0, &s->section) && rational_whole(w, 0, &s->unit);
}
static bool times(Sum *s, Rational *a, uint64_t by) {
    Rational r;
    return rational_whole(s->work, by, &r) && rational_multiply(s->work, a, &r, a);
}
static bool plus(Sum *s, Rational *a, const Rational *b) { return rational_add(s->work, a, b, false, a); }

static bool take_small(Sum *s, uint64_t by) {
    if (by == 100 && s->tens) { // sixteen hundred, twenty-five hundred
        if (s->has_unit && !plus(s, &s->section, &s->unit)) return false;
        s->has_unit = s->tens = false, s->last_multiplier = s->last_small = 100;
        return times(s, &s->section, 100);
    }
    if (by >= s->last_small) return false; // 십백: no such number
    s->last_small = by;
    if (!s->has_unit && !rational_whole(s->work, 1, &s->unit)) return false;
    if (!times(s, &s->unit, by) || !plus(s, &s->section, &s->unit)) return false;
    s->has_unit = false, s->last_multiplier = by;
    return true;
}
static bool take_big(Sum *s, uint64_t by) {
    if (s->has_unit && !plus(s, &s->section, &s->unit)) return false;
    bool nothing = rational_is_zero(&s->section);
    if (by > s->last_big) { // two thousand million
        if (!plus(s, &s->total, &s->section) || !times(s, &s->total, by)) return false;
    } else {
        if (by == s->last_big || (nothing && s->any && s->has_unit)) return false;
        if (nothing && !rational_whole(s->work, 1, &s->section)) return false;
        if (!times(s, &s->section, by) || !plus(s, &s->total, &s->section)) return false;
    }
    s->has_unit = false, s->last_big = by, s->last_multiplier = by, s->last_small = UINT64_MAX;
    return rational_whole(s->work, 0, &s->section);
}
static bool take_word(Sum *s, const Word *word) {
    Rational r;
    switch (word->kind) {
    case WORD_UNIT:
        if (!rational_whole(s->work, word->value, &r)) return false;
        if (s->has_unit) { // digits in a row: 二〇二四
            if (s->plain_run == 0 || !times(s, &s->unit, 10)) return false;
            s->plain_run++;
            return plus(s, &s->unit, &r);
        }
        s->unit = r, s->has_unit = true, s->plain_run = rational_is_zero(&s->section) && rational_is_zero(&s->total);
        return true;
    case WORD_TEN:
        if (s->has_unit || s->last_small <= 10 || !rational_whole(s->work, word->value, &r)) return false;
        s->tens = s->last_small == UINT64_MAX && s->last_big == UINT64_MAX;
        s->last_small = 10;
        return plus(s, &s->section, &r);
    case WORD_SMALL: return take_small(s, word->value);
    case WORD_BIG: return take_big(s, word->value);
    case WORD_HALF_MORE: // half of the last multiplier: hai triệu rưỡi
        if (s->has_unit || !s->last_multiplier || !rational_whole(s->work, s->last_multiplier / 2, &r)) return false;
        return plus(s, &s->total, &r);
    case WORD_JOIN: return !s->has_unit;
    }
    return false;
}

// Digits among words; a comma is the decimal one unless three digits follow (2,5 triệu; 1,200만).
static bool take_digits(Sum *s, TextSpan *t) {
    size_t n = 0;
    while (n < t->size && ((t->data[n] >= '0' && t->data[n] <= '9') || t->data[n] == ',' || t->data[n] == '.')) n++;
    while (n && (t->data[n - 1] == ',' || t->data[n - 1] == '.')) n--;
    if (!n || n > 40 || s->has_unit) return false;
    const char *comma = memchr(t->data, ',', n);
    Parser p = {.work = s->work, .at = t->data, .end = t->data + n, .math = true,
                .decimal_comma = comma && t->data + n - comma != 4 && !memchr(comma + 1, ',', (size_t)(t->data + n - comma - 1))};
    if (!parse_number(&p, &s->unit) || p.failed || p.at != p.end) return false;
    s->has_unit = true, s->plain_run = 0;
    *t = (TextSpan){t->data + n, t->size - n};
    return true;
}

static size_t blanks_at(TextSpan t) {
    size_t n = 0;
    while (n < t.size && (t.data[n] == ' ' || (t.data[n] == '-' && n == 0))) n++;
    return n;
}

// 이 as "is" after a number: 3만이다.
static bool is_particle(TextSpan t) {
    static const char *const forms[] = {"이다", "이고", "이며", "이므", "이에", "이라", "이지", "이었", "이야", "이니", "이란", "이 ", "이나", "이상", "이하", "이내"};
    for (int i = 0; i < COUNT(forms); i++)
        if (t.size >= strlen(forms[i]) && memcmp(t.data, forms[i], strlen(forms[i])) == 0) return true;
    return false;
}

// How far the words go on; `words` counts them, `pure`: no digits among them.
static bool read_phrase(Work *w, TextSpan text, Rational *out, size_t *used, int *words, bool *pure) {
    Sum s;
    TextSpan t = text;
    *words = 0, *pure = true, *used = 0;
    if (!start(&s, w)) return false;
    while (t.size) {
        TextSpan next = t;
        size_t gap = s.any ? blanks_at(t) : 0;
        bool apart;
        next.data += gap, next.size -= gap;
        const Word *word = word_at(next, &apart);
        Sum before = s;
        if (word && (s.any || (word->kind != WORD_JOIN && word->kind != WORD_HALF_MORE))) {
            if ((gap && t.data[0] == '-' && !apart) || (s.any && is_particle(next))) break;
            if (!take_word(&s, word)) {
                s = before;
                break;
            }
            size_t n = strlen(word->text);
            t = (TextSpan){next.data + n, next.size - n};
            if (word->kind != WORD_JOIN) *used = (size_t)(t.data - text.data), ++*words;
        } else if (!word && next.size && *next.data >= '0' && *next.data <= '9' && (!s.any || s.last_multiplier)) {
            if (!take_digits(&s, &next)) {
                s = before;
                break;
            }
            bool follows; // digits after words belong to them only with a multiplier or at the end: 3만 5천, 3만 500
            TextSpan rest = {next.data + blanks_at(next), next.size - blanks_at(next)};
            const Word *after = word_at(rest, &follows);
            if (!after && !s.any) return false; // digits alone are no words
            if (!after && gap && s.last_multiplier < 1000) {
                s = before;
                break;
            }
            *pure = false;
            t = next;
            *used = (size_t)(t.data - text.data);
        } else {
            break;
        }
        s.any = true;
    }
    if (!*words) return false;
    if (s.has_unit && !plus(&s, &s.section, &s.unit)) return false;
    *out = s.total;
    return plus(&s, out, &s.section);
}

// Words alone must stand alone or before a counter: 이 in 이것 is no two, 三 in 三角形 no three.
static bool stands_alone(TextSpan text, size_t used, int words, bool pure) {
    static const char *const counters[] = {
        "개", "명", "마리", "권", "살", "시간", "분", "초", "번", "장", "대", "잔", "병", "송이", "그루", "켤레", "채", "쌍", "층", "년", "월", "일", "주", "점", "등", "위", "회",
        "가지", "배", "원", "인", "시", "자루", "척", "칸", "줄", "판", "곳", "팀", "입니다", "이다", "です", "だ", "個", "人", "円", "本", "枚", "匹", "冊", "台", "回", "歳", "時間", "分", "秒",
        "年", "月", "日", "番", "倍", "点", "件", "階", "杯", "足", "頭", "羽", "軒", "組", "度", "つ", "个", "元", "名", "퍼센트", "パーセント", "미터", "センチ", "그램"};
    TextSpan rest = {text.data + used, text.size - used};
    if (!pure || words > 1 || rest.size == 0 || (unsigned char)*rest.data < 0xE3) return true;
    for (int i = 0; i < COUNT(counters); i++)
        if (rest.size >= strlen(counters[i]) && memcmp(rest.data, counters[i], strlen(counters[i])) == 0) return true;
    return memcmp(rest.data, "\xE3\x80", rest.size < 2 ? rest.size : 2) == 0; // a full stop or a wide blank
}

// ---- fractions ----------------------------------------------------------------------------------------------------
static bool small_number(Work *w, TextSpan t, Rational *out, size_t *used) { // a word phrase, or plain digits
    int words;
    bool pure;
    Parser p = {.work = w, .at = t.data, .end = t.data + t.size, .math = true};
    if (read_phrase(w, t, out, used, &words, &pure)) return true;
    if (!t.size || *t.data < '0' || *t.data > '9' || !parse_number(&p, out)) return false;
    *used = (size_t)(p.at - t.data);
    return true;
}

// 3분의 2 and 三分の二 name the lower part first, ba phần tư the upper.
static bool read_fraction(Work *w, TextSpan text, Rational *out, size_t *used) {
    static const struct { const char *mark; bool below_first; } marks[] = {{"분의", true}, {"分の", true}, {"分之", true}, {"phần", false}};
    Rational first, second;
    size_t a, b;
    if (!small_number(w, text, &first, &a)) return false;
    a += blanks_at((TextSpan){text.data + a, text.size - a});
    for (int i = 0; i < COUNT(marks); i++) {
        size_t n = strlen(marks[i].mark);
        if (text.size - a < n || memcmp(text.data + a, marks[i].mark, n) != 0) continue;
        TextSpan rest = {text.data + a + n, text.size - a - n};
        size_t gap = blanks_at(rest);
        rest.data += gap, rest.size -= gap;
        if (!small_number(w, rest, &second, &b)) return false;
        *used = a + n + gap + b;
        return marks[i].below_first ? rational_divide(w, &second, &first, out) : rational_divide(w, &first, &second, out);
    }
    return false;
}

static const struct { const char *text; uint8_t above, below; } fractions[] = {
    {"half", 1, 2}, {"절반", 1, 2}, {"半分", 1, 2}, {"một nửa", 1, 2}, {"a dozen", 12, 1},
};

// "point", digit words: three point one four, 삼 점 일사, 三点一四, ba phẩy năm.
static bool read_decimals(Work *w, TextSpan rest, Rational *number, size_t *used) {
    static const char *const points[] = {"point", "phẩy", "점", "点"};
    size_t at = blanks_at(rest), n = 0, end = 0;
    char digits[24];
    int count = 0;
    for (int i = 0; i < COUNT(points) && !n; i++)
        if (rest.size - at > strlen(points[i]) && memcmp(rest.data + at, points[i], strlen(points[i])) == 0) n = strlen(points[i]);
    if (!n) return true;
    for (at += n; count < COUNT(digits);) {
        TextSpan t = {rest.data + at, rest.size - at};
        size_t gap = blanks_at(t);
        bool apart;
        const Word *word = word_at((TextSpan){t.data + gap, t.size - gap}, &apart);
        if (!word || word->kind != WORD_UNIT) break;
        digits[count++] = (char)('0' + word->value);
        end = at += gap + strlen(word->text);
    }
    Rational part;
    if (!count) return true; // 24点: points of another kind
    *used += end;
    return rational_digits(w, digits, count, count, &part) && rational_add(w, number, &part, false, number);
}

// three fifths, a third, two and three quarters: of a number and how it goes on.
static bool ordinal_at(TextSpan t, bool one, uint64_t *below, size_t *used) {
    static const struct { const char *text; uint16_t below; } ordinals[] = {
        {"half", 2}, {"halves", 2}, {"third", 3}, {"fourth", 4}, {"quarter", 4}, {"fifth", 5}, {"sixth", 6}, {"seventh", 7}, {"eighth", 8}, {"ninth", 9},
        {"tenth", 10}, {"eleventh", 11}, {"twelfth", 12}, {"fifteenth", 15}, {"sixteenth", 16}, {"twentieth", 20}, {"hundredth", 100}, {"thousandth", 1000}};
    for (int i = 0; i < COUNT(ordinals); i++) {
        size_t n = strlen(ordinals[i].text);
        if (t.size < n || memcmp(t.data, ordinals[i].text, n) != 0) continue;
        bool many = t.data[n - 1] == 's';
        if (!many && t.size > n && t.data[n] == 's') n++, many = true;
        if (many == one || (t.size > n && letter((unsigned char)t.data[n]))) continue; // twenty-fifth is no fraction
        *below = ordinals[i].below, *used = n;
        return true;
    }
    return false;
}
static bool read_english_fraction(Work *w, TextSpan text, Rational *out, size_t *used) {
    int words;
    bool pure;
    size_t n = 0, tail;
    uint64_t value;
    Rational below, part;
    int64_t above;
    if (text.size > 2 && (*text.data | 32) == 'a' && text.data[1] == ' ') {
        if (!rational_whole(w, 1, out)) return false;
        n = 1;
    } else if (!read_phrase(w, text, out, &n, &words, &pure) || !pure) {
        return false;
    }
    TextSpan rest = {text.data + n, text.size - n};
    size_t gap = blanks_at(rest);
    TextSpan next = {rest.data + gap, rest.size - gap};
    if (next.size > 4 && memcmp(next.data, "and ", 4) == 0 && read_english_fraction(w, (TextSpan){next.data + 4, next.size - 4}, &part, &tail)) {
        *used = n + gap + 4 + tail;
        return rational_compare(w, &part, &(Rational){.above = part.below, .below = part.below}) < 0 && rational_add(w, out, &part, false, out);
    }
    if (!gap || !rational_small(out, &above) || !ordinal_at(next, above == 1, &value, &tail)) return false;
    *used = n + gap + tail;
    return rational_whole(w, value, &below) && rational_divide(w, out, &below, out);
}

bool words_number(Work *w, TextSpan text, Rational *out, size_t *used) {
    int words;
    bool pure, could = false;
    *used = 0;
    if (!text.size) return false;
    for (size_t i = 0; i < text.size && i < 60 && !could; i++) // digits alone: the common case
        could = (text.data[i] & 0x80) || letter((unsigned char)text.data[i]);
    if (!could) return false;
    for (int i = 0; i < COUNT(fractions); i++) {
        size_t n = strlen(fractions[i].text);
        if (!spaced_word_at(text, fractions[i].text)) continue;
        Rational below;
        *used = n;
        return rational_whole(w, fractions[i].above, out) && rational_whole(w, fractions[i].below, &below) && rational_divide(w, out, &below, out);
    }
    if (read_fraction(w, text, out, used)) return true;
    if (letter((unsigned char)*text.data) && read_english_fraction(w, text, out, used)) return true;
    size_t article = text.size > 2 && (*text.data | 32) == 'a' && text.data[1] == ' ' ? 2 : 0; // a hundred
    bool apart;
    TextSpan phrase = {text.data + article, text.size - article};
    const Word *first = article ? word_at(phrase, &apart) : NULL;
    if (article && (!first || (first->kind != WORD_SMALL && first->kind != WORD_BIG))) return false;
    if (!read_phrase(w, phrase, out, used, &words, &pure)) return false;
    *used += article;
    if (pure && !read_decimals(w, (TextSpan){text.data + *used, text.size - *used}, out, used)) return false;
    return stands_alone(text, *used, words, pure);
}

size_t words_minus(TextSpan text) {
    static const char *const words[] = {"minus ", "negative ", "Minus ", "Negative ", "âm ", "마이너스 ", "마이너스", "マイナス", "负", "음수 "};
    for (int i = 0; i < COUNT(words); i++) {
        size_t n = strlen(words[i]);
        if (text.size > n && memcmp(text.data, words[i], n) == 0) return n;
    }
    return 0;
}
