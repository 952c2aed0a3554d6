// Normal forms and case. utf8proc does the work with the tables of Unicode 15; the `tokenizers` package has those of
// 12.1, so what is newer is left alone here: it neither decomposes nor composes nor changes places. Only the stretches
// that need it are worked on: a character that is the same in the form, begins a sequence and never joins what stands
// before it is a safe place to cut. Nothing here fails, and all takes linear time.
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- what is newer ---------------------------------------------------------------------------------------------
// Combining classes and canonical pairs that came after 12.1: taken for characters of class 0 that join nothing.
static const Range newer_classes[] = {
    {0x07FD, 0x07FD}, {0x0898, 0x089F}, {0x08CA, 0x08D3}, {0x09FE, 0x09FE}, {0x0C3C, 0x0C3C}, {0x0D3B, 0x0D3C},
    {0x0EBA, 0x0EBA}, {0x1715, 0x1715}, {0x1ABF, 0x1ACE}, {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};
static const Range newer_compatible[] = {
    {0x32FF, 0x32FF}, {0xA7F2, 0xA7F4}, {0xAB69, 0xAB69}, {0x10781, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
    {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};
static const Range newer_marks[] = {
    {0x07FD, 0x07FD}, {0x0898, 0x089F}, {0x08CA, 0x08D3}, {0x09FE, 0x09FE}, {0x0AFA, 0x0AFF}, {0x0B55, 0x0B55},
    {0x0C04, 0x0C04}, {0x0C3C, 0x0C3C}, {0x0CF3, 0x0CF3}, {0x0D00, 0x0D00}, {0x0D3B, 0x0D3C}, {0x0D81, 0x0D81},
    {0x0EBA, 0x0EBA}, {0x0ECE, 0x0ECE}, {0x1715, 0x1715}, {0x180F, 0x180F}, {0x1ABF, 0x1ACE}, {0x1CF7, 0x1CF7},
    {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C}, {0xA8FF, 0xA8FF}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074}, {0x110C2, 0x110C2},
    {0x11145, 0x11146}, {0x111C9, 0x111C9}, {0x111CE, 0x111CF}, {0x11241, 0x11241}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x1182C, 0x1183A}, {0x11930, 0x11935}, {0x11937, 0x11938}, {0x1193B, 0x1193E},
    {0x11940, 0x11940}, {0x11942, 0x11943}, {0x119D1, 0x119D7}, {0x119DA, 0x119E0}, {0x119E4, 0x119E4},
    {0x11A01, 0x11A0A}, {0x11A33, 0x11A39}, {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47}, {0x11A51, 0x11A5B},
    {0x11A8A, 0x11A99}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45},
    {0x11D47, 0x11D47}, {0x11D8A, 0x11D8E}, {0x11D90, 0x11D91}, {0x11D93, 0x11D97}, {0x11EF3, 0x11EF6},
    {0x11F00, 0x11F01}, {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F42}, {0x13440, 0x13440},
    {0x13447, 0x13455}, {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FE4}, {0x16FF0, 0x16FF1},
    {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};
static const Range newer_nonspacing_marks[] = {
    {0x07FD, 0x07FD}, {0x0898, 0x089F}, {0x08CA, 0x08E1}, {0x09FE, 0x09FE}, {0x0AFA, 0x0AFF}, {0x0B55, 0x0B55},
    {0x0C04, 0x0C04}, {0x0C3C, 0x0C3C}, {0x0D00, 0x0D00}, {0x0D3B, 0x0D3C}, {0x0D81, 0x0D81}, {0x0EBA, 0x0EBA},
    {0x0ECE, 0x0ECE}, {0x180F, 0x180F}, {0x1885, 0x1886}, {0x1ABF, 0x1ACE}, {0x1DF6, 0x1DFB}, {0xA82C, 0xA82C},
    {0xA8C5, 0xA8C5}, {0xA8FF, 0xA8FF}, {0xA9BD, 0xA9BD}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074}, {0x110C2, 0x110C2},
    {0x111C9, 0x111C9}, {0x111CF, 0x111CF}, {0x1123E, 0x1123E}, {0x11241, 0x11241}, {0x1133B, 0x1133B},
    {0x11438, 0x1143F}, {0x11442, 0x11444}, {0x11446, 0x11446}, {0x1145E, 0x1145E}, {0x1182F, 0x11837},
    {0x11839, 0x1183A}, {0x1193B, 0x1193C}, {0x1193E, 0x1193E}, {0x11943, 0x11943}, {0x119D4, 0x119D7},
    {0x119DA, 0x119DB}, {0x119E0, 0x119E0}, {0x11A01, 0x11A0A}, {0x11A33, 0x11A38}, {0x11A3B, 0x11A3E},
    {0x11A47, 0x11A47}, {0x11A51, 0x11A56}, {0x11A59, 0x11A5B}, {0x11A8A, 0x11A96}, {0x11A98, 0x11A99},
    {0x11C30, 0x11C36}, {0x11C38, 0x11C3D}, {0x11C3F, 0x11C3F}, {0x11C92, 0x11CA7}, {0x11CAA, 0x11CB0},
    {0x11CB2, 0x11CB3}, {0x11CB5, 0x11CB6}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D},
    {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D90, 0x11D91}, {0x11D95, 0x11D95}, {0x11D97, 0x11D97},
    {0x11EF3, 0x11EF4}, {0x11F00, 0x11F01}, {0x11F36, 0x11F3A}, {0x11F40, 0x11F40}, {0x11F42, 0x11F42},
    {0x13440, 0x13440}, {0x13447, 0x13455}, {0x16F4F, 0x16F4F}, {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF2D},
    {0x1CF30, 0x1CF46}, {0x1E000, 0x1E006}, {0x1E008, 0x1E018}, {0x1E01B, 0x1E021}, {0x1E023, 0x1E024},
    {0x1E026, 0x1E02A}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1E944, 0x1E94A}};
static bool is_newer(int32_t c) { return c >= 0x7FD && in_ranges(c, newer_classes, COUNT(newer_classes)); }

bool char_is_old_mark(int32_t c) {
    if (c < 0x300) return false;
    utf8proc_category_t category = utf8proc_category(c);
    bool mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
    return mark ? !in_ranges(c, newer_marks, COUNT(newer_marks)) : c == 0x1CF2 || c == 0x1CF3;
}
bool char_is_old_nonspacing_mark(int32_t c) {
    if (c < 0x300) return false;
    if (utf8proc_category(c) != UTF8PROC_CATEGORY_MN) return c == 0x1734;
    return !in_ranges(c, newer_nonspacing_marks, COUNT(newer_nonspacing_marks));
}
bool char_is_old_other(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    if (category != UTF8PROC_CATEGORY_CC && category != UTF8PROC_CATEGORY_CF && category != UTF8PROC_CATEGORY_CO) return false;
    return c != 0x890 && c != 0x891 && c != 0x8E2 && c != 0x110CD && !(c >= 0x13430 && c <= 0x1343F);
}

// ---- where a text may be cut ----------------------------------------------------------------------------------
static const Range safe_c[] = {{0x00, 0x2FF}, {0x388, 0x482}, {0x48A, 0x590}, {0x1E00, 0x1F70}, {0x2002, 0x20CF},
                               {0x212C, 0x2328}, {0x3030, 0x3098}, {0x309B, 0xA66E}, {0xAC00, 0xD7A3}, {0xE000, 0xF8FF},
                               {0xFE00, 0xFE0F}, {0xFE30, 0xFFFF}, {0x1F000, 0x1FAFF}};
static const Range safe_d[] = {{0x00, 0xBF}, {0x48A, 0x4C0}, {0x2002, 0x20CF}, {0x30FF, 0xA66E}, {0xE000, 0xF8FF},
                               {0xFE00, 0xFE0F}, {0xFE30, 0xFFFF}, {0x1F000, 0x1FAFF}};
static const Range safe_kc[] = {{0x00, 0x9F}, {0xBF, 0x131}, {0x180, 0x1C3}, {0x3FA, 0x482}, {0x48A, 0x586},
                                {0x1E00, 0x1E99}, {0x1E9C, 0x1F70}, {0x3001, 0x3029}, {0x303B, 0x3098}, {0x30A0, 0x30FE},
                                {0x3400, 0xA66E}, {0xAC00, 0xD7A3}, {0xE000, 0xF8FF}, {0x1F252, 0x1FAFF}};
static const Range safe_kd[] = {{0x00, 0x9F}, {0x48A, 0x4C0}, {0x3001, 0x3029}, {0x3400, 0xA66E}, {0xE000, 0xF8FF},
                                {0x1F252, 0x1FAFF}};
static bool is_safe(NormalForm form, int32_t c) {
    static const struct {
        const Range *ranges;
        int count;
    } safe[] = {[FORM_C] = {safe_c, COUNT(safe_c)},
                [FORM_D] = {safe_d, COUNT(safe_d)},
                [FORM_KC] = {safe_kc, COUNT(safe_kc)},
                [FORM_KD] = {safe_kd, COUNT(safe_kd)}};
    return c < 0x80 || in_ranges(c, safe[form].ranges, safe[form].count);
}

// ---- one stretch ---------------------------------------------------------------------------------------------------
typedef struct Codes {
    int32_t *data;
    size_t count, capacity;
} Codes;

static int combining_class(int32_t c) { return is_newer(c) ? 0 : utf8proc_get_property(c)->combining_class; }

static void append_decomposed(Codes *codes, int32_t c, bool compatible) {
    if (codes->capacity - codes->count < 32) { // the longest decomposition has 18
        codes->capacity = codes->capacity * 2 + 64;
        codes->data = xrealloc(codes->data, codes->capacity * sizeof *codes->data);
    }
    int boundary = 0;
    utf8proc_ssize_t n = -1;
    bool newer = is_newer(c) || (compatible && in_ranges(c, newer_compatible, COUNT(newer_compatible)));
    if (!newer)
        n = utf8proc_decompose_char(c, codes->data + codes->count, 32,
                                    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0), &boundary);
    if (n < 0 || n > 32) { // newer, or a code that utf8proc refuses: stays as it is
        codes->data[codes->count] = c;
        n = 1;
    }
    codes->count += (size_t)n;
}

// Canonical order of one run of marks, stable, in time linear in its length: a hostile run may be a megabyte long,
// and utf8proc's own sort is quadratic.
static void order_marks(int32_t *marks, size_t count, int32_t *spare) {
    size_t start[257] = {0};
    for (size_t i = 0; i < count; i++) start[combining_class(marks[i]) + 1]++;
    for (int i = 0; i < 256; i++) start[i + 1] += start[i];
    for (size_t i = 0; i < count; i++) spare[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, count * sizeof *marks);
}

static void order_all_marks(Codes *codes) {
    int32_t *spare = NULL;
    for (size_t i = 0; i < codes->count;) {
        size_t end = i;
        bool sorted = true;
        for (int last = 0; end < codes->count; end++) {
            int class = combining_class(codes->data[end]);
            if (class == 0) break;
            sorted = sorted && class >= last;
            last = class;
        }
        if (!sorted) {
            if (!spare) spare = xmalloc(codes->count * sizeof *spare);
            order_marks(codes->data + i, end - i, spare);
        }
        i = end + 1;
    }
    free(spare);
}

// Parts beside a newer character don't see each other.
static void compose(Codes *codes) {
    size_t out = 0;
    for (size_t at = 0; at < codes->count;) {
        size_t end = at;
        while (end < codes->count && !is_newer(codes->data[end])) end++;
        size_t n = end - at;
        if (n)
            n = (size_t)utf8proc_normalize_utf32(codes->data + at, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        memmove(codes->data + out, codes->data + at, n * sizeof *codes->data);
        out += n;
        if (end < codes->count) codes->data[out++] = codes->data[end++];
        at = end;
    }
    codes->count = out;
}

static void normalize_stretch(NormalForm form, const char *text, size_t size, Codes *codes, Buf *out) {
    codes->count = 0;
    for (size_t at = 0; at < size;) {
        int n;
        append_decomposed(codes, code_at(text, at, &n), form == FORM_KC || form == FORM_KD);
        at += (size_t)n;
    }
    order_all_marks(codes);
    if (form == FORM_C || form == FORM_KC) compose(codes);
    for (size_t i = 0; i < codes->count; i++) utf8_append(codes->data[i], out);
}

// ---- the whole -------------------------------------------------------------------------------------------------------
// The first place at or after `at` whose character isn't safe; *last is where the one before it begins.
static size_t skip_safe(NormalForm form, const char *text, size_t size, size_t at, size_t *last) {
    *last = at;
    while (at < size) {
        int n;
        if (!is_safe(form, code_at(text, at, &n))) break;
        *last = at;
        at += (size_t)n;
    }
    return at;
}

bool unicode_is_normal(NormalForm form, const char *text, size_t size) {
    size_t last;
    return skip_safe(form, text, size, 0, &last) == size;
}

void unicode_normalize(NormalForm form, const char *text, size_t size, Buf *out) {
    Codes codes = {0};
    for (size_t done = 0; done < size;) {
        size_t from, at = skip_safe(form, text, size, done, &from);
        if (at == size) from = size;
        buf_append(out, text + done, from - done);
        if (at == size) break;
        for (int n; at < size; at += (size_t)n)
            if (is_safe(form, code_at(text, at, &n))) break;
        normalize_stretch(form, text + from, at - from, &codes, out);
        done = at;
    }
    free(codes.data);
}

// ---- case ------------------------------------------------------------------------------------------------------------
// Capital letters that came with Unicode 15.1 to 17, and what is added to make them small.
static int32_t lower_of(int32_t c) {
    static const struct {
        int32_t first, last, add;
    } newer[] = {{0x1C89, 0x1C89, 1},       {0xA7CB, 0xA7CB, -0xA567}, {0xA7CC, 0xA7CC, 1},
                 {0xA7CE, 0xA7CE, 1},       {0xA7D2, 0xA7D2, 1},       {0xA7D4, 0xA7D4, 1},
                 {0xA7DA, 0xA7DA, 1},       {0xA7DC, 0xA7DC, -0xA641}, {0x10D50, 0x10D65, 0x20},
                 {0x16EA0, 0x16EB8, 0x1B}};
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (utf8proc_category(c) == UTF8PROC_CATEGORY_CN)
        for (int i = 0; i < COUNT(newer); i++)
            if (c >= newer[i].first && c <= newer[i].last) return c + newer[i].add;
    return utf8proc_tolower(c);
}
void text_to_lower(const char *text, size_t size, Buf *out) {
    size_t done = 0; // what is small already is copied as a whole
    for (size_t at = 0; at < size;) {
        int n;
        int32_t c = code_at(text, at, &n), small = lower_of(c);
        if (small != c || c == 0x130) {
            buf_append(out, text + done, at - done);
            if (c == 0x130) // becomes two characters
                buf_puts(out, "i\u0307");
            else
                utf8_append(small, out);
            done = at + (size_t)n;
        }
        at += (size_t)n;
    }
    buf_append(out, text + done, size - done);
}
