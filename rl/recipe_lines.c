// Where the keys of a recipe stand in its text, so that an error about a value can name its line. A small lexer of Lua
// walks the table after the last `return` outside of blocks and notes the line of each key of literal tables, through
// constructors such as grpo{...}. It never fails and judges nothing: what it can't follow (values made by code) has no
// line of its own, and recipe_line falls back to the first mention of the key. The interpreter decides what is valid.
#include "recipe_parts.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct KeyLine {
    char *path;
    long line;
} KeyLine;
struct RecipeLines {
    char *text;
    size_t size;
    KeyLine *keys;
    int count, capacity;
};

typedef enum TokenKind { TOKEN_END, TOKEN_NAME, TOKEN_STRING, TOKEN_NUMBER, TOKEN_SYMBOL } TokenKind;
typedef struct Token {
    TokenKind kind;
    char symbol; // of a symbol of one character; 'x' for longer ones
    const char *text;
    size_t size; // of a string: what stands between the quotes, escapes as written
    long line;
} Token;
typedef struct Lexer {
    const char *p, *end;
    long line;
    Token token; // the one at hand
} Lexer;

// ---- lexer -----------------------------------------------------------------------------------------------
// At "[", "[=", ...: the number of '=' of a long bracket, -1 if it isn't one.
static int long_bracket(const char *p, const char *end) {
    int level = 0;
    const char *q = p + 1;
    while (q < end && *q == '=') q++, level++;
    return q < end && *q == '[' ? level : -1;
}
static void skip_long(Lexer *l, int level, const char **text, size_t *size) {
    l->p += level + 2;
    *text = l->p;
    for (; l->p < l->end; l->p++) {
        if (*l->p == '\n') l->line++;
        if (*l->p != ']') continue;
        const char *q = l->p + 1;
        while (q < l->end && *q == '=' && q - l->p - 1 < level) q++;
        if (q - l->p - 1 == level && q < l->end && *q == ']') {
            *size = (size_t)(l->p - *text);
            l->p = q + 1;
            return;
        }
    }
    *size = (size_t)(l->p - *text);
}
static void skip_blank(Lexer *l) {
    while (l->p < l->end) {
        if (*l->p == '\n') l->line++;
        if (isspace((unsigned char)*l->p)) {
            l->p++;
        } else if (l->end - l->p >= 2 && l->p[0] == '-' && l->p[1] == '-') {
            l->p += 2;
            int level = l->p < l->end && *l->p == '[' ? long_bracket(l->p, l->end) : -1;
            const char *text;
            size_t size;
            if (level >= 0)
                skip_long(l, level, &text, &size);
            else
                while (l->p < l->end && *l->p != '\n') l->p++;
        } else {
            return;
        }
    }
}
static void read_quoted(Lexer *l, Token *t) {
    char quote = *l->p++;
    t->kind = TOKEN_STRING;
    t->text = l->p;
    while (l->p < l->end && *l->p != quote && *l->p != '\n') {
        if (*l->p == '\\' && l->p + 1 < l->end) {
            l->p++;
            if (*l->p == '\n') l->line++;
        }
        l->p++;
    }
    t->size = (size_t)(l->p - t->text);
    if (l->p < l->end && *l->p == quote) l->p++;
}
static bool name_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

static void next(Lexer *l) {
    skip_blank(l);
    Token t = {.kind = TOKEN_SYMBOL, .text = l->p, .line = l->line};
    int level;
    if (l->p >= l->end) {
        t.kind = TOKEN_END;
    } else if (*l->p == '"' || *l->p == '\'') {
        read_quoted(l, &t);
    } else if (*l->p == '[' && (level = long_bracket(l->p, l->end)) >= 0) {
        t.kind = TOKEN_STRING;
        skip_long(l, level, &t.text, &t.size);
    } else if (name_char(*l->p)) {
        t.kind = isdigit((unsigned char)*l->p) ? TOKEN_NUMBER : TOKEN_NAME;
        while (l->p < l->end && (name_char(*l->p) || (t.kind == TOKEN_NUMBER && *l->p == '.'))) l->p++;
        t.size = (size_t)(l->p - t.text);
    } else {
        t.symbol = *l->p++;
        t.size = 1;
        if (l->p < l->end && *l->p == '=' && strchr("=~<>", t.symbol)) l->p++, t.symbol = 'x', t.size = 2;
    }
    l->token = t;
}
static bool is_symbol(const Lexer *l, char c) { return l->token.kind == TOKEN_SYMBOL && l->token.symbol == c; }
static bool is_text(const Token *t, const char *text) {
    return t->size == strlen(text) && memcmp(t->text, text, t->size) == 0;
}
// How a word changes the depth of blocks: `while` and `for` count through their `do`.
static int block_depth(const Token *t) {
    static const char *const openers[] = {"function", "if", "do", "repeat"}, *const closers[] = {"end", "until"};
    if (t->kind != TOKEN_NAME) return 0;
    for (int i = 0; i < COUNT(openers); i++)
        if (is_text(t, openers[i])) return 1;
    for (int i = 0; i < COUNT(closers); i++)
        if (is_text(t, closers[i])) return -1;
    return 0;
}

// ---- tables ----------------------------------------------------------------------------------------------
static void add_key(RecipeLines *r, const char *path, long line) {
    if (r->count == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 64;
        r->keys = xrealloc(r->keys, (size_t)r->capacity * sizeof *r->keys);
    }
    r->keys[r->count++] = (KeyLine){xstrdup(path), line};
}

// To the ',' or ';' after a value (taken) or the '}' that ends its table (left).
static void skip_value(Lexer *l) {
    for (int depth = 0; l->token.kind != TOKEN_END; next(l)) {
        bool opens = l->token.kind == TOKEN_SYMBOL && strchr("({[", l->token.symbol) && l->token.symbol;
        bool closes = l->token.kind == TOKEN_SYMBOL && strchr(")}]", l->token.symbol) && l->token.symbol;
        if (depth == 0 && is_symbol(l, '}')) return;
        if (depth == 0 && (is_symbol(l, ',') || is_symbol(l, ';'))) {
            next(l);
            return;
        }
        depth += opens - closes + block_depth(&l->token);
    }
}

static void read_table(RecipeLines *r, Lexer *l, const char *path, int depth);

// A value: notes the keys of a literal table, bare or behind a constructor's name, and moves past it.
static void read_value(RecipeLines *r, Lexer *l, const char *path, int depth) {
    if (l->token.kind == TOKEN_NAME && !block_depth(&l->token)) {
        next(l);
        if (is_symbol(l, '(')) next(l);
    }
    if (is_symbol(l, '{') && depth < 32) {
        next(l);
        read_table(r, l, path, depth + 1);
        if (is_symbol(l, ')')) next(l);
    }
    skip_value(l);
}

// The key at hand, if there is one: NAME = or ["text"] = or [1] =. Otherwise the lexer stays where it is.
static bool read_key(Lexer *l, char *key, size_t capacity) {
    Lexer ahead = *l;
    bool bracket = is_symbol(&ahead, '[');
    if (bracket) next(&ahead);
    Token t = ahead.token;
    if (bracket ? t.kind != TOKEN_STRING && t.kind != TOKEN_NUMBER : t.kind != TOKEN_NAME) return false;
    next(&ahead);
    if (bracket && !is_symbol(&ahead, ']')) return false;
    if (bracket) next(&ahead);
    if (!is_symbol(&ahead, '=')) return false;
    next(&ahead);
    snprintf(key, capacity, "%.*s", (int)(t.size < capacity ? t.size : capacity - 1), t.text);
    *l = ahead;
    return true;
}

// After '{', to after its '}'.
static void read_table(RecipeLines *r, Lexer *l, const char *path, int depth) {
    int position = 0;
    while (l->token.kind != TOKEN_END && !is_symbol(l, '}')) {
        char key[128];
        long line = l->token.line;
        if (!read_key(l, key, sizeof key)) snprintf(key, sizeof key, "%d", ++position);
        char *inner = path[0] ? xasprintf("%s.%s", path, key) : xstrdup(key);
        add_key(r, inner, line);
        read_value(r, l, inner, depth);
        free(inner);
    }
    next(l);
}

RecipeLines *recipe_lines_read(const char *text, size_t size) {
    RecipeLines *r = xcalloc(1, sizeof *r);
    r->text = xstrndup(text, size);
    r->size = size;
    Lexer l = {r->text, r->text + size, 1, {0}}, last = {0};
    int depth = 0;
    for (next(&l); l.token.kind != TOKEN_END; next(&l)) {
        depth += block_depth(&l.token);
        if (depth == 0 && l.token.kind == TOKEN_NAME && is_text(&l.token, "return")) last = l;
    }
    if (last.p) {
        next(&last);
        read_value(r, &last, "", 0);
    }
    return r;
}
void recipe_lines_free(RecipeLines *r) {
    if (!r) return;
    for (int i = 0; i < r->count; i++) free(r->keys[i].path);
    free(r->keys);
    free(r->text);
    free(r);
}

static long line_of_path(const RecipeLines *r, const char *path, size_t size) {
    for (int i = 0; i < r->count; i++)
        if (strlen(r->keys[i].path) == size && memcmp(r->keys[i].path, path, size) == 0) return r->keys[i].line;
    return 0;
}
static long line_of_mention(const RecipeLines *r, const char *key) {
    Lexer l = {r->text, r->text + r->size, 1, {0}};
    for (next(&l); l.token.kind != TOKEN_END; next(&l))
        if ((l.token.kind == TOKEN_NAME || l.token.kind == TOKEN_STRING) && is_text(&l.token, key)) return l.token.line;
    return 0;
}
long recipe_line(const RecipeLines *r, const char *path) {
    size_t size = strlen(path);
    long line = line_of_path(r, path, size);
    const char *dot = strrchr(path, '.'), *key = dot ? dot + 1 : path;
    if (!line && !isdigit((unsigned char)*key)) line = line_of_mention(r, key);
    while (!line && size > 0) {
        while (size > 0 && path[size - 1] != '.') size--;
        if (size > 0) line = line_of_path(r, path, --size);
    }
    return line ? line : 1;
}
