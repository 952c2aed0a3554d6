// The statements of a template: from tokens to the tree of template_parts.h. Unknown tags, and tags that would reach outside
// the template (include, import, extends, block), are refused with their line. Expressions are in template_expression.c.
#include "template_parser.h"
#include <stdlib.h>
#include <string.h>

// ---- tokens ----------------------------------------------------------------------------------------------------------
const TemplateToken *parser_now(const Parser *p) { return &p->tokens->list[p->at]; }
const TemplateToken *parser_look(const Parser *p) {
    return &p->tokens->list[p->at + 1 < p->tokens->count ? p->at + 1 : p->at];
}
bool parser_is(const Parser *p, TokenKind kind, const char *text) {
    const TemplateToken *t = parser_now(p);
    return t->kind == kind && (!text || text_is(t->text, text));
}
void parser_next(Parser *p) {
    if (p->at + 1 < p->tokens->count) p->at++;
}
bool parser_skip(Parser *p, TokenKind kind, const char *text) {
    if (!parser_is(p, kind, text)) return false;
    parser_next(p);
    return true;
}
const char *parser_shown(const Parser *p, char out[60]) {
    const TemplateToken *t = parser_now(p);
    static const char *const names[] = {[TOKEN_DATA] = "text", [TOKEN_PRINT_BEGIN] = "{{", [TOKEN_PRINT_END] = "}}",
                                        [TOKEN_TAG_BEGIN] = "{%", [TOKEN_TAG_END] = "%}", [TOKEN_STRING] = "a text",
                                        [TOKEN_INT] = "a number", [TOKEN_FLOAT] = "a number", [TOKEN_END] = "the end of the template"};
    if (t->kind == TOKEN_NAME || t->kind == TOKEN_OPERATOR) snprintf(out, 60, "'%.40s'", t->text->data);
    else snprintf(out, 60, "%s", names[t->kind]);
    return out;
}
bool parser_expect(Parser *p, TokenKind kind, const char *text) {
    char found[60];
    if (parser_skip(p, kind, text)) return true;
    static const char *const names[] = {[TOKEN_PRINT_END] = "}}", [TOKEN_TAG_END] = "%}", [TOKEN_NAME] = "a name"};
    return template_fail(p->t, parser_now(p)->line, p->err, "found %s, expected %s", parser_shown(p, found), text ? text : names[kind]);
}
Node *parser_node(Parser *p, NodeKind kind, int line) {
    Node *n = HEAP_NEW(&p->t->heap, Node, 1);
    n->kind = kind;
    n->line = line;
    return n;
}
void nodes_push(Parser *p, Nodes *list, Node *n) {
    if (list->count == list->capacity) {
        int capacity = list->capacity * 2 + 4;
        Node **wider = HEAP_NEW(&p->t->heap, Node *, capacity);
        if (list->count) memcpy(wider, list->items, (size_t)list->count * sizeof *wider);
        list->items = wider;
        list->capacity = capacity;
    }
    list->items[list->count++] = n;
}
Node *parser_group(Parser *p, NodeKind kind, int line, const Nodes *list) {
    Node *n = parser_node(p, kind, line);
    n->items = list->items;
    n->count = list->count;
    return n;
}
int template_name(Template *t, const Text *text) {
    for (int i = 0; i < t->name_count; i++)
        if (text_equal(t->names[i], text)) return i;
    if (t->name_count == NAME_LIMIT) {
        t->too_many_names = true;
        return 0;
    }
    if (t->name_count == t->name_capacity) {
        int capacity = t->name_capacity * 2 + 32;
        const Text **wider = HEAP_NEW(&t->heap, const Text *, capacity);
        if (t->name_count) memcpy(wider, t->names, (size_t)t->name_count * sizeof *wider);
        t->names = wider;
        t->name_capacity = capacity;
    }
    t->names[t->name_count] = text;
    return t->name_count++;
}
bool parser_enter(Parser *p) {
    return ++p->depth <= PARSE_DEPTH || template_fail(p->t, parser_now(p)->line, p->err, "nested more than %d levels deep", PARSE_DEPTH);
}

// ---- bodies ------------------------------------------------------------------------------------------------------------
static bool statement(Parser *p, Node **out);

// Everything up to a tag whose name is one of `ends` (separated by blanks; NULL: up to the end of the template). That
// name is left for the caller.
static bool ends_here(const Parser *p, const char *ends) {
    const TemplateToken *t = parser_now(p);
    for (const char *e = ends; t->kind == TOKEN_NAME && e && *e;) {
        size_t n = strcspn(e, " ");
        if (t->text->size == n && memcmp(t->text->data, e, n) == 0) return true;
        e += n + (e[n] == ' ');
    }
    return false;
}
static bool contents(Parser *p, const char *ends, Node **out) {
    Nodes list = {0};
    int line = parser_now(p)->line;
    for (;;) {
        const TemplateToken *t = parser_now(p);
        Node *n = NULL;
        if (t->kind == TOKEN_END) {
            if (ends) return template_fail(p->t, t->line, p->err, "the template ends, expected %s for the tag of line %d", ends, line);
            break;
        }
        parser_next(p);
        if (t->kind == TOKEN_DATA) {
            n = parser_node(p, NODE_TEXT, t->line);
            n->value = value_text(t->text);
        } else if (t->kind == TOKEN_PRINT_BEGIN) {
            n = parser_node(p, NODE_PRINT, t->line);
            TRY(parse_tuple(p, true, NULL, false, &n->a) && parser_expect(p, TOKEN_PRINT_END, NULL));
        } else {
            if (ends_here(p, ends)) break;
            TRY(parser_enter(p));
            TRY(statement(p, &n) && parser_expect(p, TOKEN_TAG_END, NULL));
            p->depth--;
        }
        nodes_push(p, &list, n);
    }
    *out = parser_group(p, NODE_BODY, line, &list);
    return true;
}
// A body behind the end of its opening tag (a colon before it is fine, as in Python).
static bool body(Parser *p, const char *ends, Node **out) {
    parser_skip(p, TOKEN_OPERATOR, ":");
    return parser_expect(p, TOKEN_TAG_END, NULL) && contents(p, ends, out);
}
static bool body_to(Parser *p, const char *end, Node **out) {
    TRY(body(p, end, out));
    parser_next(p);
    return true;
}

// ---- statements --------------------------------------------------------------------------------------------------------
static bool parse_set(Parser *p, Node *n) {
    TRY(parse_target(p, NULL, true, &n->a));
    if (parser_skip(p, TOKEN_OPERATOR, "=")) return parse_tuple(p, true, NULL, false, &n->b);
    n->kind = NODE_SET_BLOCK;
    return parse_filters(p, &n->b) && body_to(p, "endset", &n->body);
}
static bool parse_for(Parser *p, Node *n) {
    TRY(parse_target(p, "in", false, &n->a) && parser_expect(p, TOKEN_NAME, "in"));
    TRY(parse_tuple(p, false, "recursive", false, &n->b));
    if (parser_skip(p, TOKEN_NAME, "if")) TRY(parse_expression(p, &n->c));
    n->recursive = parser_skip(p, TOKEN_NAME, "recursive");
    int macros = p->macros;
    p->loops++;
    TRY(body(p, "endfor else", &n->body));
    p->loops--;
    n->captures = p->macros > macros;
    bool otherwise = parser_is(p, TOKEN_NAME, "else");
    parser_next(p);
    return !otherwise || body_to(p, "endfor", &n->otherwise);
}
static bool parse_if(Parser *p, Node *n) {
    Nodes list = {0};
    for (;;) {
        Node *condition, *branch;
        TRY(parse_tuple(p, false, NULL, false, &condition) && body(p, "elif else endif", &branch));
        nodes_push(p, &list, condition);
        nodes_push(p, &list, branch);
        bool more = parser_is(p, TOKEN_NAME, "elif"), otherwise = parser_is(p, TOKEN_NAME, "else");
        parser_next(p);
        if (more) continue;
        if (otherwise) TRY(body_to(p, "endif", &n->c));
        n->items = list.items;
        n->count = list.count;
        return true;
    }
}
static bool parse_with(Parser *p, Node *n) {
    Nodes list = {0};
    while (!parser_is(p, TOKEN_TAG_END, NULL)) {
        Node *target, *value;
        if (list.count) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        TRY(parse_target(p, NULL, false, &target) && parser_expect(p, TOKEN_OPERATOR, "=") && parse_expression(p, &value));
        nodes_push(p, &list, target);
        nodes_push(p, &list, value);
    }
    n->items = list.items;
    n->count = list.count;
    return body_to(p, "endwith", &n->body);
}

// "(a, b=1)"
static bool parse_signature(Parser *p, Parameters *q) {
    Nodes defaults = {0};
    Template *t = p->t;
    int *names = NULL, capacity = 0;
    bool any_default = false;
    TRY(parser_expect(p, TOKEN_OPERATOR, "("));
    while (!parser_skip(p, TOKEN_OPERATOR, ")")) {
        Node *otherwise = NULL;
        if (q->count) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        const Text *name = parser_now(p)->text;
        TRY(parser_expect(p, TOKEN_NAME, NULL));
        if (parser_skip(p, TOKEN_OPERATOR, "=")) {
            TRY(parse_expression(p, &otherwise));
            any_default = true;
        } else if (any_default) {
            return template_fail(t, parser_now(p)->line, p->err, "a parameter without a default follows one with a default");
        }
        if (q->count == capacity) {
            int *wider = HEAP_NEW(&t->heap, int, capacity * 2 + 4);
            if (capacity) memcpy(wider, names, (size_t)capacity * sizeof *wider);
            names = wider;
            capacity = capacity * 2 + 4;
        }
        names[q->count++] = template_name(t, name);
        nodes_push(p, &defaults, otherwise);
    }
    q->names = names;
    q->defaults = defaults.items;
    return true;
}
// The body of what is called like a function: loops around it can't be left from inside.
static bool function_body(Parser *p, const char *end, Node *n) {
    int loops = p->loops;
    p->loops = 0;
    p->macros++;
    TRY(body_to(p, end, &n->body));
    p->loops = loops;
    return true;
}
static bool parse_macro(Parser *p, Node *n) {
    const Text *name = parser_now(p)->text;
    TRY(parser_expect(p, TOKEN_NAME, NULL));
    n->name = template_name(p->t, name);
    n->parameters = HEAP_NEW(&p->t->heap, Parameters, 1);
    return parse_signature(p, n->parameters) && function_body(p, "endmacro", n);
}
static bool parse_call_block(Parser *p, Node *n) {
    n->parameters = HEAP_NEW(&p->t->heap, Parameters, 1);
    if (parser_is(p, TOKEN_OPERATOR, "(")) TRY(parse_signature(p, n->parameters));
    TRY(parse_expression(p, &n->a));
    if (n->a->kind != NODE_CALL) return template_fail(p->t, n->line, p->err, "expected a call behind 'call'");
    return function_body(p, "endcall", n);
}
static bool parse_filter_block(Parser *p, Node *n) { return parse_filter_chain(p, NULL, true, &n->a) && body_to(p, "endfilter", &n->body); }
static bool parse_generation(Parser *p, Node *n) {
    p->t->generation = true;
    return function_body(p, "endgeneration", n);
}
static bool parse_print(Parser *p, Node *n) {
    Nodes list = {0};
    while (!parser_is(p, TOKEN_TAG_END, NULL)) {
        if (list.count) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        Node *print = parser_node(p, NODE_PRINT, n->line);
        TRY(parse_expression(p, &print->a));
        nodes_push(p, &list, print);
    }
    n->items = list.items;
    n->count = list.count;
    return true;
}
static bool parse_jump(Parser *p, Node *n) {
    return p->loops > 0 || template_fail(p->t, n->line, p->err, "'break' and 'continue' are only for loops");
}

static bool statement(Parser *p, Node **out) {
    static const struct {
        const char *tag;
        NodeKind kind;
        bool (*parse)(Parser *p, Node *n);
    } tags[] = {
        {"if", NODE_IF, parse_if},
        {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},
        {"macro", NODE_MACRO, parse_macro},
        {"call", NODE_CALL_BLOCK, parse_call_block},
        {"filter", NODE_FILTER_BLOCK, parse_filter_block},
        {"with", NODE_WITH, parse_with},
        {"generation", NODE_GENERATION, parse_generation},
        {"print", NODE_BODY, parse_print},
        {"break", NODE_BREAK, parse_jump},
        {"continue", NODE_CONTINUE, parse_jump},
    };
    char found[60];
    const TemplateToken *t = parser_now(p);
    for (int i = 0; i < COUNT(tags); i++) {
        if (!parser_is(p, TOKEN_NAME, tags[i].tag)) continue;
        parser_next(p);
        *out = parser_node(p, tags[i].kind, t->line);
        return tags[i].parse(p, *out);
    }
    return template_fail(p->t, t->line, p->err,
                         "found the tag %s; expected if, for, set, macro, call, filter, with, generation, break, continue, "
                         "raw or the end of the block that is open",
                         parser_shown(p, found));
}

// ---- the template ----------------------------------------------------------------------------------------------------
bool template_parse(Template *t, const TokenList *tokens, Err *err) {
    Parser p = {.t = t, .tokens = tokens, .err = err};
    return contents(&p, NULL, &t->root);
}

static int known_name(Template *t, const char *name) { return template_name(t, text_make(&t->heap, name, strlen(name))); }
static bool compile(Template *t, Err *err) {
    TokenList tokens = {0};
    t->caller = known_name(t, "caller");
    t->kwargs = known_name(t, "kwargs");
    t->varargs = known_name(t, "varargs");
    t->loop = known_name(t, "loop");
    bool ok = template_lex(t, &tokens, err) && template_parse(t, &tokens, err);
    free(tokens.list);
    if (ok && t->too_many_names) ok = template_fail(t, 1, err, "more than %d names", NAME_LIMIT);
    if (ok) template_find_hidden(t);
    return ok;
}
bool template_compile(const char *source, size_t size, const char *where, Template **out, Err *err) {
    enum { SOURCE_LIMIT = 1 << 20 };
    *out = NULL;
    if (size > SOURCE_LIMIT) return fail(err, ERR_DATA, where, "a template of %zu bytes, expected at most %d", size, SOURCE_LIMIT);
    if (memchr(source, 0, size)) return fail(err, ERR_DATA, where, "a template with a NUL byte, expected text");
    Template *t = xcalloc(1, sizeof *t);
    t->source = xstrndup(source, size);
    t->where = xstrdup(where);
    if (!compile(t, err)) {
        template_free(t);
        return false;
    }
    *out = t;
    return true;
}
void template_free(Template *t) {
    if (!t) return;
    heap_free(&t->heap);
    free(t->source), free(t->where);
    free(t);
}
bool template_reads(const Template *t, const char *name) {
    for (int i = 0; i < t->name_count; i++)
        if (text_is(t->names[i], name)) return true;
    return false;
}
bool template_marks_generation(const Template *t) { return t->generation; }
