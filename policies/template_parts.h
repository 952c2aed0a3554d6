// What the files of the template interpreter share; nothing outside policies/template*.c includes it.
//
// Values are Python's, because templates are written against Python: its truth, equality, order, printing and methods.
// All that a rendering makes lies in one heap that is freed at the end; nothing else is freed. The first failure is kept
// in the Run and everything after it does nothing (`failed` is looked at before anything is done for its effect, and in
// every loop), so functions return values rather than error flags.
#ifndef RECKON_TEMPLATE_PARTS_H
#define RECKON_TEMPLATE_PARTS_H
#include "template.h"

struct Run;
struct Call;

// ---- memory (template_value.c) ---------------------------------------------------------------------------
typedef struct Heap {
    struct HeapBlock *head;
    size_t used;
} Heap;
void *heap_alloc(Heap *p, size_t size); // zeroed, aligned to 16 bytes, never NULL
void heap_free(Heap *p);
#define HEAP_NEW(heap, type, n) ((type *)heap_alloc((heap), sizeof(type) * (size_t)(n)))

// UTF-8, never changed once made.
typedef struct Text {
    const char *data;
    uint32_t size;   // bytes
    uint32_t length; // code points
} Text;
static inline bool text_ascii(const Text *t) { return t->size == t->length; }
bool text_equal(const Text *a, const Text *b);
bool text_is(const Text *a, const char *b);

// ---- values ------------------------------------------------------------------------------------------------
typedef enum ValueKind {
    VALUE_MISSING, // no value at all: an argument not given, a name without a variable
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_VIEW, // keys, values or items of a dict
    VALUE_RANGE,
    VALUE_ITERATOR,
    VALUE_NAMESPACE,
    VALUE_MACRO,
    VALUE_METHOD,
    VALUE_FUNCTION,
    VALUE_LOOP,
    VALUE_CYCLER,
    VALUE_JOINER,
} ValueKind;

typedef struct Value {
    ValueKind kind;
    bool markup; // a string that counts as escaped HTML
    union {
        bool boolean;
        int64_t integer;
        double number;
        const Text *text;
        struct List *list; // of lists and tuples
        struct Dict *dict; // of dicts and namespaces
        struct View *view;
        struct Range *range;
        struct Iterator *iterator;
        struct Macro *macro;
        struct Method *method;
        const struct Function *function;
        struct Loop *loop;
        struct Cycler *cycler;
        const struct Undefined *undefined;
    } as;
} Value;

typedef struct List {
    Value *items; // [count]
    int64_t count, capacity;
    bool group; // a tuple of the filter groupby: .grouper and .list
} List;
typedef struct Dict {
    Value *keys, *values; // [count], in the order of insertion
    int64_t count, capacity;
} Dict;
typedef enum ViewKind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } ViewKind;
typedef struct View {
    Dict *dict;
    ViewKind kind;
} View;
typedef struct Range {
    int64_t start, stop, step, count;
} Range;
typedef struct Undefined {
    const char *hint; // why, or NULL
    const Text *name; // of the variable or attribute, or NULL
    const char *owner; // type of the object that lacks the attribute, or NULL
} Undefined;
typedef struct Cycler { // and joiner, which has one item
    Value *items;
    int64_t count, position;
} Cycler;

typedef Value (*LazyFunction)(struct Run *r, struct Call *call);
// Something that is being iterated over. A lazy one computes `source` into a list at the first step.
typedef struct Iterator {
    Value source;
    int64_t position, count;
    uint32_t offset;   // bytes, in strings
    bool reversed;     // list, tuple, range, views and dicts only
    LazyFunction fill; // lazy: gives the list; NULL once filled
    struct Call *call; // its arguments
} Iterator;

typedef struct Method {
    Value self;
    const struct Function *function;
} Method;

// Arguments of a call, evaluated.
typedef struct Call {
    Value *values; // [count] positional
    int count;
    const Text **names; // [named]
    Value *named_values;
    int named;
    const struct Callable *callable; // a table's row, for errors
} Call;

// ---- the compiled tree (template_parse.c) --------------------------------------------------------------------
typedef enum NodeKind {
    NODE_CONSTANT, // value
    NODE_NAME,     // name
    NODE_LIST,     // items
    NODE_TUPLE,    // items
    NODE_DICT,     // items: key, value, key, value ...
    NODE_UNARY,    // op, a
    NODE_BINARY,   // op, a, b
    NODE_AND,      // a, b
    NODE_OR,       // a, b
    NODE_NOT,      // a
    NODE_CONCAT,   // items
    NODE_COMPARE,  // a; items[i] compared by ops[i] with what stands before
    NODE_ATTRIBUTE, // a, text
    NODE_ITEM,     // a, b
    NODE_SLICE,    // a (the object), items: start, stop, step, each may be NULL
    NODE_CALL,     // a, arguments
    NODE_FILTER,   // a (NULL: the text of the block), text, arguments
    NODE_TEST,     // a, text, arguments
    NODE_CHOICE,   // a if b else c (NULL)
    NODE_MEMBER,   // name, text: ns.name, only as a target
    // statements
    NODE_TEXT,     // value
    NODE_PRINT,    // a
    NODE_IF,       // items: condition, body (NODE_BODY), ...; c: else body or NULL
    NODE_FOR,      // a target, b iterable, c condition or NULL, body, otherwise; scopes of body, else and condition
    NODE_SET,      // a target, b value
    NODE_SET_BLOCK, // a target, b filter or NULL, body
    NODE_MACRO,    // name, parameters, body
    NODE_CALL_BLOCK, // a call, parameters, body
    NODE_FILTER_BLOCK, // a filter, body
    NODE_WITH,     // items: target, value, ...; body
    NODE_GENERATION, // body
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_BODY, // items
} NodeKind;
typedef enum Operator {
    OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_NEG, OP_POS,
    OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN,
} Operator;

typedef struct Arguments {
    struct Node **values; // [count]
    int count;
    const Text **names; // [named]
    struct Node **named_values;
    int named;
    struct Node *star, *star_star; // *list, **dict; NULL if none
} Arguments;

// Names that a scope hides: it assigns to them before it reads them, so that until then they have no value in it.
typedef struct Hidden {
    int *names; // [count]
    int count;
} Hidden;

// What macros and the bodies of call blocks have.
typedef struct Parameters {
    int *names;          // [count]
    struct Node **defaults; // [count], NULL where there is none
    int count;
    bool reads_caller, reads_kwargs, reads_varargs;
} Parameters;

typedef struct Node {
    NodeKind kind;
    Operator op;
    int line, name;
    const Text *text;
    struct Node *a, *b, *c, *body, *otherwise;
    struct Node **items; // [count]
    Operator *ops;       // [count], of comparisons
    int count;
    bool recursive, captures; // for: the body makes macros, so each round needs a scope of its own
    Value value;
    const struct Callable *callable; // of filters and tests; NULL if unknown
    Arguments *arguments;
    Parameters *parameters;
    Hidden hidden, hidden_otherwise, hidden_condition;
} Node;

enum { NAME_LIMIT = 1024 };
struct Template {
    Heap heap;
    char *where, *source;
    Node *root;
    const Text **names; // [name_count]
    int name_count, name_capacity;
    int caller, kwargs, varargs, loop; // names that mean something
    bool generation, too_many_names;
};

// ---- tokens (template_lex.c) -----------------------------------------------------------------------------------
typedef enum TokenKind {
    TOKEN_DATA, TOKEN_PRINT_BEGIN, TOKEN_PRINT_END, TOKEN_TAG_BEGIN, TOKEN_TAG_END, TOKEN_NAME, TOKEN_STRING, TOKEN_INT,
    TOKEN_FLOAT, TOKEN_OPERATOR, TOKEN_END,
} TokenKind;
typedef struct TemplateToken {
    TokenKind kind;
    int line;
    const Text *text; // data, name, string (its value), operator
    int64_t integer;
    double number;
} TemplateToken;
typedef struct TokenList {
    TemplateToken *list; // [count], ends with TOKEN_END
    int count, capacity;
} TokenList;
// Tokens of t->source; the caller frees the list.
bool template_lex(Template *t, TokenList *out, Err *err) MUST_CHECK;
bool template_fail(const Template *t, int line, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);
bool template_parse(Template *t, const TokenList *tokens, Err *err) MUST_CHECK;
void template_find_hidden(Template *t); // template_scope.c
int template_name(Template *t, const Text *text);

// ---- a rendering (template_run.c) --------------------------------------------------------------------------------
typedef struct Builder { // text being written
    char *data;
    size_t size, capacity;
    int64_t length; // code points
} Builder;
typedef struct Binding {
    int name;
    Value value;
} Binding;
typedef struct Scope {
    struct Scope *parent;
    Binding *list;
    int count, capacity;
} Scope;
typedef struct Macro {
    const Node *node; // NODE_MACRO, NODE_CALL_BLOCK
    Scope *scope;     // where it was made
} Macro;
typedef struct Loop {
    const Node *node;
    Iterator iterator;
    Scope *scope;           // of the condition and of a recursive loop's body
    Value before, current, after; // VALUE_MISSING if none
    int64_t index, length;  // index from 0; length -1: not yet known
    int depth;
    bool filtered;          // the condition has been applied to all that is left
    Value changed;          // arguments of loop.changed the last time
} Loop;

typedef enum Flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } Flow;
typedef struct Run {
    const Template *t;
    Heap heap;
    Err *err;
    TemplateResult *result;
    bool failed;
    int64_t steps, step_limit;
    int depth, line;
    int64_t now;
    Value *base; // [name_count]: variables and globals
    Scope *scope;
    Builder root, *out;
    Flow flow;
    Value block;             // text that a block's filters begin with; the caller of a call block
    const Node *calls_block; // the call that is given `block` as its caller
    int span_capacity;
} Run;

// Keeps the first failure. Returns none, so that `return run_fail(...)` reads well.
Value run_fail(Run *r, const char *format, ...) PRINTF_LIKE(2, 3);
// Counts work, and looks at the memory used; false once the run has failed.
bool run_spend(Run *r, int64_t steps);
// False, and a failure, if `size` bytes more would be too many.
bool run_room(Run *r, double size);
bool run_enter(Run *r); // one level deeper; false if that is too deep
void run_leave(Run *r);
Value run_evaluate(Run *r, const Node *n);
Value run_call(Run *r, Value callee, Call *call);
Value macro_call(Run *r, const Macro *m, const Call *call);
Value loop_call(Run *r, Loop *loop, const Call *call);
void run_body(Run *r, const Node *body);
void scope_set(Run *r, int name, Value value);
Scope *scope_open(Run *r, Scope *parent, const Hidden *hidden);
Value *scope_find(Run *r, int name); // NULL if there is no such variable
void run_loop(Run *r, const Node *n);
bool loop_next(Run *r, Loop *loop, Value *item);
Value loop_attribute(Run *r, Value self, const Text *name);

// ---- making and reading values (template_value.c) ------------------------------------------------------------------
static inline Value value_missing(void) { return (Value){.kind = VALUE_MISSING}; }
static inline Value value_none(void) { return (Value){.kind = VALUE_NONE}; }
static inline Value value_bool(bool b) { return (Value){.kind = VALUE_BOOL, .as.boolean = b}; }
static inline Value value_int(int64_t i) { return (Value){.kind = VALUE_INT, .as.integer = i}; }
static inline Value value_float(double d) { return (Value){.kind = VALUE_FLOAT, .as.number = d}; }
static inline Value value_text(const Text *t) { return (Value){.kind = VALUE_STRING, .as.text = t}; }
static inline Value value_dict(Dict *d) { return (Value){.kind = VALUE_DICT, .as.dict = d}; }
static inline bool is_string(Value v) { return v.kind == VALUE_STRING; }
static inline bool is_list(Value v) { return v.kind == VALUE_LIST || v.kind == VALUE_TUPLE; }
Text *text_make(Heap *p, const char *data, size_t size); // copies
const Text *text_slice(Heap *p, const Text *t, uint32_t from, uint32_t to); // bytes; shares
Value value_copy_text(Run *r, const char *data, size_t size);
Value value_literal(Run *r, const char *text);
Value value_from_json(Run *r, const json_t *json);
Value value_list(Run *r, ValueKind kind, int64_t capacity);
void list_push(Run *r, List *l, Value v);
Value value_undefined(Run *r, const char *hint, const Text *name, const char *owner);
Dict *dict_make(Run *r);
Value *dict_find(Run *r, const Dict *d, Value key); // NULL if none
Value *dict_find_text(Run *r, const Dict *d, const Text *key);
void dict_put(Run *r, Dict *d, Value key, Value value); // fails for a key that can't be one
const char *value_type(Value v); // Python's name of the type
bool value_true(Run *r, Value v);
bool value_equal(Run *r, Value a, Value b);
bool value_same(Value a, Value b);
bool value_order(Run *r, Operator op, Value a, Value b); // OP_LT ... OP_GE; fails for what has no order
bool value_contains(Run *r, Value container, Value item);
bool value_hashable(Run *r, Value v);
bool value_integer(Value v, int64_t *out); // ints and bools
bool value_number(Value v, double *out);   // and floats
int64_t value_length(Run *r, Value v);     // fails for what has none; -1 then
bool value_sized(Value v);

// ---- iterating (template_iterate.c) ----------------------------------------------------------------------------
bool iterator_start(Run *r, Value v, Iterator *out); // fails for what can't be iterated over
bool iterator_next(Run *r, Iterator *i, Value *out); // false at the end, and on failure
bool value_iterable(Value v);
Value iterator_lazy(Run *r, LazyFunction fill, Call *call);
Value value_to_list(Run *r, Value v);
Value range_item(const Range *range, int64_t index);
Value value_slice(Run *r, Value v, Value start, Value stop, Value step);
Value value_reversed(Run *r, Value v);

// ---- printing (template_print.c) -----------------------------------------------------------------------------------
void builder_append(Run *r, Builder *b, const char *data, size_t size);
void builder_puts(Run *r, Builder *b, const char *text);
void builder_text(Run *r, Builder *b, const Text *text);
void builder_code(Run *r, Builder *b, int32_t code);
void builder_fill(Run *r, Builder *b, int32_t code, int64_t count);
Value builder_value(Run *r, const Builder *b);
void print_str(Run *r, Builder *b, Value v);
void print_repr(Run *r, Builder *b, Value v);
void print_float(Run *r, Builder *b, double x); // as Python's repr
void print_escaped(Run *r, Builder *b, Value v); // HTML, unless it is markup
const Text *value_str(Run *r, Value v);         // str(v)
typedef struct JsonStyle {
    bool indented, sort_keys, ascii;
    const Text *indent;            // of one level
    const Text *comma, *colon;     // NULL: Python's
} JsonStyle;
void print_json_value(Run *r, Builder *b, Value v, const JsonStyle *style, int level);
// str.format and %, and format specifications (template_format.c).
Value format_percent(Run *r, Value format, Value arguments);
Value format_braces(Run *r, Value format, const Call *call);

// ---- text (template_text.c) ----------------------------------------------------------------------------------------
int32_t text_code(const Text *t, uint32_t at, uint32_t *size); // the code point at byte `at`
uint32_t text_offset(const Text *t, int64_t index); // byte of code point `index`, 0 to length
int64_t text_find(const Text *t, const Text *part, uint32_t from, uint32_t to); // byte offset, -1 if none
int64_t text_find_last(const Text *t, const Text *part, uint32_t from, uint32_t to);
bool code_space(int32_t code);
bool code_digit(int32_t code);
bool code_word(int32_t code);
const Text *text_strip(Run *r, const Text *t, const Text *chars, bool left, bool right); // chars NULL: white space
Value text_split(Run *r, Value self, const Text *separator, int64_t limit, bool from_right);
Value text_lines(Run *r, Value self, bool keep_ends);
Value text_replace(Run *r, const Text *t, const Text *old, const Text *new, int64_t limit);
Value text_upper(Run *r, Value v);
Value text_lower(Run *r, Value v);
Value text_title(Run *r, Value v, bool by_filter);
Value text_capitalize(Run *r, Value v);
Value text_swapcase(Run *r, Value v);
Value text_casefold(Run *r, Value v);
Value text_pad(Run *r, Value v, int64_t width, int32_t fill, char side); // '<', '>', '^'
bool text_kind(const Text *t, char kind); // isalpha 'a', isdigit 'd', isalnum 'n', isspace 's', isupper 'U', islower 'L', ...
bool text_to_int(const Text *t, int base, int64_t *out);
bool text_to_float(const Text *t, double *out);
// A result that has the markup flag of what it came from.
static inline Value value_like(Value source, Value made) {
    made.markup = source.markup;
    return made;
}

// ---- operators (template_operators.c) -------------------------------------------------------------------------------
Value operate(Run *r, Operator op, Value a, Value b);
Value operate_unary(Run *r, Operator op, Value a);
Value value_attribute(Run *r, Value v, const Text *name);   // v.name
Value value_item(Run *r, Value v, Value index);             // v[index]
Value value_path(Run *r, Value v, Value path, Value otherwise); // 'a.b.0', as filters take attributes
Value builtin_attribute(Run *r, Value v, const Text *name); // methods and the like; missing if there is none

// ---- filters, tests, methods, functions ------------------------------------------------------------------------------
// A row of a table. `parameters` are names separated by blanks; "name?" may be left out (it is then VALUE_MISSING);
// "*" takes the call as it is; a "/" at the beginning: they can't be named.
typedef Value (*CallFunction)(Run *r, Value *a, Call *call);
typedef struct Callable {
    const char *name, *parameters;
    CallFunction function;
} Callable;
typedef struct Function {
    Callable callable;
    bool unsafe; // would change what it is called on: not allowed
} Function;
enum { PARAMETER_LIMIT = 8 };
Value callable_call(Run *r, const Callable *c, Value *self, Call *call); // self may be NULL
const Callable *filter_find(const Text *name);
const Callable *test_find(const Text *name);
const Function *method_find(Value self, const Text *name);
const Function *function_find(const Text *name);
extern const Callable filter_rows[], filter_list_rows[], test_rows[];
extern const Function function_rows[], string_methods[], list_methods[], dict_methods[], other_methods[];
const Callable *callable_find(const Callable *rows, const Text *name);
bool argument_int(Run *r, Value v, int64_t otherwise, int64_t *out); // missing gives `otherwise`
bool argument_true(Run *r, Value v);                                // missing is false
const Text *argument_text(Run *r, Value v);                         // fails for what is no text; NULL then

#endif
