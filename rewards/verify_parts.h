// What the files of the checker share: a bounded workspace, exact quotients, the tree of an answer, and who makes and
// reads it. Nothing here is seen outside of rewards/verify*.c.
//
//   verify.c         are two trees equal; the way in
//   verify_find.c    which part of a text is the answer
//   verify_parse.c   the answer's text -> a tree (LaTeX and plain); verify_atoms.c its leaves, verify_brackets.c those in brackets
//   verify_words.c   number words of Korean, Japanese, Vietnamese and English
//   verify_units.c   units and counters
//   verify_value.c   a tree's value at a point, exact or complex
//   verify_number.c  the workspace; whole numbers and quotients of bounded size
#ifndef RECKON_VERIFY_PARTS_H
#define RECKON_VERIFY_PARTS_H
#include "verify.h"

enum { ANSWER_LIMIT = 4096, MAX_LIMBS = 512, MAX_DEPTH = 60, MAX_SYMBOLS = 16, MAX_ITEMS = 256 };

// ---- whole numbers and quotients: exact, or they say that they don't fit ------------------------------------------
typedef struct Whole { // magnitude, least limb first, no leading zero limbs
    uint32_t *limb;    // [size]
    int size;
} Whole;
typedef struct Rational { // above / below, not reduced; below > 0
    bool negative;
    Whole above, below;
} Rational;

// ---- the tree -----------------------------------------------------------------------------------------------------
typedef enum NodeKind {
    NODE_NUMBER,
    NODE_SYMBOL,     // text: its name
    NODE_CONSTANT,   // op: 'p' pi, 'e', 'i'
    NODE_INFINITY,
    NODE_ADD, NODE_SUBTRACT, NODE_MULTIPLY, NODE_DIVIDE, NODE_POWER, // left, right
    NODE_NEGATE, NODE_FACTORIAL, NODE_PERCENT, NODE_DEGREES,         // left
    NODE_PLUS_MINUS, // left (may be NULL), right; op: '+' for plus-minus, '-' for minus-plus
    NODE_FUNCTION,   // op: a Function; left, right (base of a logarithm, index of a root; may be NULL)
    NODE_BASED,      // a number in another base: left its value; text its digits
    // from here on not scalars
    NODE_LIST,       // children
    NODE_SET,        // children
    NODE_BRACKET,    // children; open and close: '(' '[' ')' ']'
    NODE_UNION,      // children
    NODE_MATRIX,     // children row by row; rows, columns
    NODE_RELATION,   // children; how each relates to the one before: Node.relation
    NODE_RATIO,      // children
    NODE_EMPTY,
    NODE_TEXT,       // text
} NodeKind;

typedef enum Function {
    FUNCTION_SQRT, FUNCTION_ROOT, FUNCTION_EXP, FUNCTION_LN, FUNCTION_LOG, FUNCTION_ABS, FUNCTION_FLOOR, FUNCTION_CEIL,
    FUNCTION_SIN, FUNCTION_COS, FUNCTION_TAN, FUNCTION_COT, FUNCTION_SEC, FUNCTION_CSC,
    FUNCTION_ASIN, FUNCTION_ACOS, FUNCTION_ATAN, FUNCTION_SINH, FUNCTION_COSH, FUNCTION_TANH,
    FUNCTION_BINOMIAL, FUNCTION_GCD, FUNCTION_LCM, FUNCTION_MIN, FUNCTION_MAX,
} Function;

enum { UNIT_PERCENT = 100 };
typedef struct Unit {
    int dimension; // 0: none, or a word that measures nothing; UNIT_PERCENT
    Rational factor;
} Unit;

typedef struct Node {
    NodeKind kind;
    int op;               // see above
    int relation;         // as a child of a relation: '<' '>' 'l' (<=) 'g' (>=) '=' '!' 'i' (element of), towards the child before it
    char open, close;
    int rows, columns;
    struct Node *left, *right;
    struct Node *first, *last, *next; // children; the sibling after this one
    int count;            // of children
    TextSpan text;
    Rational number;
    Unit unit;
} Node;

// ---- the workspace of one comparison ------------------------------------------------------------------------------
typedef struct Work {
    char *memory; // [size]
    size_t size, used;
    uint64_t steps, step_limit;
    bool spent;   // memory or steps ran out: nothing computed since counts
    Node spare;   // handed out once the memory is spent
    TextSpan symbols[MAX_SYMBOLS];
    int symbol_count;
    int nested; // comparisons inside of comparisons
    bool whole_points; // symbols stand for whole numbers
} Work;
void *work_alloc(Work *w, size_t bytes); // zeroed; NULL once spent
Node *work_node(Work *w, NodeKind kind); // never NULL
bool work_step(Work *w, uint64_t steps); // false once spent

bool rational_digits(Work *w, const char *digits, int count, int scale, Rational *out); // digits / 10^scale
bool rational_whole(Work *w, uint64_t value, Rational *out);
// Each is false if the result doesn't fit (or divides by zero).
bool rational_add(Work *w, const Rational *a, const Rational *b, bool subtract, Rational *out);
bool rational_multiply(Work *w, const Rational *a, const Rational *b, Rational *out);
bool rational_divide(Work *w, const Rational *a, const Rational *b, Rational *out);
bool rational_power(Work *w, const Rational *a, int exponent, Rational *out);
int rational_compare(Work *w, const Rational *a, const Rational *b); // -1, 0, 1
double rational_double(const Rational *a);
// Whether it is a whole number below 2^53, and which.
bool rational_small(const Rational *a, int64_t *out);
static inline bool rational_is_zero(const Rational *a) { return a->above.size == 0; }

// ---- from text to a tree ------------------------------------------------------------------------------------------
typedef struct Parser {
    Work *work;
    const char *at, *end;
    bool math;          // inside of $..$ or a command: letters stand for themselves
    bool decimal_comma; // 3,5 is three and a half
    bool failed;
    bool bar;           // inside |..|: a bar closes
    int depth;          // of nesting
    int brackets;       // open ones: a comma there separates
} Parser;
// The whole of `text` as one answer; NULL if it can't be read as one. `math`: see Parser.
Node *parse_answer(Work *w, TextSpan text, bool math, bool decimal_comma);
// A leading answer: a number with its unit, or a formula; the rest is at *rest. NULL if there is none.
Node *parse_leading(Work *w, TextSpan text, const char **rest);

// Used between verify_parse.c, verify_atoms.c and verify_brackets.c.
Node *parse_sum(Parser *p);
Node *parse_items(Parser *p);  // a list if there is more than one
Node *parse_atom(Parser *p);
Node *parse_bracket(Parser *p, char open); // after ( or [
Node *parse_braces(Parser *p);             // {...} in LaTeX
Node *parse_set(Parser *p);                // after \{
Node *parse_bars(Parser *p, const char *close);
Node *parse_environment(Parser *p);        // after \begin
bool parse_close(Parser *p, const char *const *forms, char *out); // one of these (NULL-terminated); its last character
Node *parse_group(Parser *p);  // {...}, a digit, a letter or a command: an argument of a command
void parse_blanks(Parser *p);
bool parse_take(Parser *p, const char *word); // if it stands here, past it
bool parse_looks(const Parser *p, const char *word);
bool parse_command(Parser *p, const char *name); // \name, not followed by a letter
Node *parse_fail(Parser *p);
int parse_letters(const Parser *p); // length of the run of ASCII letters here
bool letters_go_on(const Parser *p, int run); // with a letter of another script: a word, not symbols
bool parse_text_command(Parser *p, TextSpan *content); // \text{..} and its kind: past it
bool parse_number(Parser *p, Rational *out); // digits, separators, point, exponent; false and unmoved if none
Node *node_binary(Parser *p, NodeKind kind, Node *left, Node *right);
Node *node_number(Parser *p, const Rational *number);
void node_append(Node *parent, Node *child);
Node *node_reals(Work *w); // the interval of all real numbers

// ---- words and units ----------------------------------------------------------------------------------------------
// Number words, or digits followed by a multiplier (3만, 2 million), at the start of `text`; false if there are none.
// A fraction in words (3분의 2, ba phần tư) too.
bool words_number(Work *w, TextSpan text, Rational *out, size_t *used);
size_t words_minus(TextSpan text); // length of a leading word for minus, 0 if there is none
// A unit, counter, or other words that may follow a number; false if they can't. `known` ones have a dimension.
bool unit_read(Work *w, TextSpan text, Unit *out);
TextSpan without_ending(TextSpan text); // less a particle or "is" at its end: B입니다, Dです
bool unit_is_letter_unit(TextSpan word); // m, g, s and other one-letter units; cm and other short ones

// ---- values -------------------------------------------------------------------------------------------------------
typedef struct Value {
    bool bad;      // undefined here, or beyond what we compute
    bool exact;
    int infinite;  // -1, 1: an infinity
    Rational q;    // if exact
    double re, im; // if not
} Value;
// `sign`: what plus-minus means, 1 or -1. `point`: which values the symbols take.
Value value_of(Work *w, const Node *node, int sign, int point);
bool values_equal(Work *w, const Value *a, const Value *b);
enum { POINTS = 6 };

// ---- finding the answer in a text ---------------------------------------------------------------------------------
enum { MAX_SEGMENTS = 32 };
typedef struct Segment {
    TextSpan text;
    bool math;
} Segment;
typedef struct Found {
    Segment list[MAX_SEGMENTS]; // more than one: parts of a list
    int count;
    TextSpan tail; // what follows the last formula: perhaps its unit
} Found;
// What of a text is its answer.
void find_answer(TextSpan text, Found *out);
// What follows words such as "the answer is"; the end of a text from its last number on. False if there is none.
bool find_after_cue(TextSpan text, TextSpan *out);
bool find_last_number(TextSpan text, TextSpan *out);
bool find_denied(TextSpan after); // whether the words that come next take it back
size_t utf8_step(TextSpan text); // bytes of the character at the start, at least 1

#endif
