// What the two halves of the template parser share: template_parse.c (statements) and template_expression.c.
#ifndef RECKON_TEMPLATE_PARSER_H
#define RECKON_TEMPLATE_PARSER_H
#include "template_parts.h"
#include <stdio.h>

enum { PARSE_DEPTH = 120 }; // brackets, tags, signs: whatever makes a function call itself
typedef struct Parser {
    Template *t;
    const TokenList *tokens;
    Err *err;
    int at, depth;
    int loops;  // that are open here and may be left
    int macros; // made so far
} Parser;
typedef struct Nodes {
    Node **items;
    int count, capacity;
} Nodes;

const TemplateToken *parser_now(const Parser *p);
const TemplateToken *parser_look(const Parser *p); // the one behind
bool parser_is(const Parser *p, TokenKind kind, const char *text); // text NULL: any
void parser_next(Parser *p);
bool parser_skip(Parser *p, TokenKind kind, const char *text);
bool parser_expect(Parser *p, TokenKind kind, const char *text) MUST_CHECK;
bool parser_enter(Parser *p) MUST_CHECK; // one level deeper; the caller decrements `depth`
const char *parser_shown(const Parser *p, char out[60]);
Node *parser_node(Parser *p, NodeKind kind, int line);
void nodes_push(Parser *p, Nodes *list, Node *n);
Node *parser_group(Parser *p, NodeKind kind, int line, const Nodes *list);

bool parse_expression(Parser *p, Node **out) MUST_CHECK;
// One expression, or a tuple where there are commas. Without `choices`, "a if b" is not read; `end` is a name that ends it.
bool parse_tuple(Parser *p, bool choices, const char *end, bool in_brackets, Node **out) MUST_CHECK;
// What can be assigned to: names, tuples of them, and members of namespaces.
bool parse_target(Parser *p, const char *end, bool members, Node **out) MUST_CHECK;
bool parse_filters(Parser *p, Node **out) MUST_CHECK; // "| a | b" of a block; NULL if there is none
bool parse_filter_chain(Parser *p, Node *from, bool inlined, Node **out) MUST_CHECK;

#endif
