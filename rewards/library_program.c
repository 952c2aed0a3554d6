// run.program{ lang =, source =, input =, tests =, seconds =, memory = }: a program in Python or C that a model wrote, in
// bubblewrap (program.h), where the recipe allows it by name. `tests` is a list of { input =, output = } (what a test wants
// never enters the sandbox; output is compared line by line without spaces at the ends of lines and empty lines at the
// end) or, for Python, of texts that run after the program in the same process.
//
// Fuel is taken for the time that a program may use, not for what it used: so the budget is the same on every machine. What
// a clock ended marks the verdict as not replayable.
#include "files.h"
#include "program.h"
#include "script.h"
#include <stdio.h>
#include <string.h>

enum { MAX_TESTS = 100, DEFAULT_SECONDS = 2, DEFAULT_MEMORY = 256 };
static const uint64_t FUEL_A_RUN = 20000, FUEL_A_SECOND = 200000, FUEL_TO_COMPILE = 1000000;

typedef struct Test {
    const char *input, *output, *code; // output NULL: it only has to end well; code: Python that runs after the program
    size_t input_size, output_size, code_size;
} Test;

// ---- arguments ---------------------------------------------------------------------------------------------
// Field `name` of the table at `index`, a text or absent; it stays on the stack.
static const char *text_field(lua_State *L, int index, const char *name, size_t *size) {
    lua_getfield(L, index, name);
    *size = 0;
    if (lua_isnil(L, -1)) return NULL;
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "run.program: %s is a %s, expected a text", name, luaL_typename(L, -1));
    return lua_tolstring(L, -1, size);
}

static int number_field(lua_State *L, const char *name, int otherwise, int most) {
    int whole;
    lua_getfield(L, 1, name);
    lua_Integer n = lua_isnil(L, -1) ? otherwise : lua_tointegerx(L, -1, &whole);
    if (n < 1 || n > most || (!lua_isnil(L, -1) && !whole)) luaL_error(L, "run.program: %s: expected a whole number from 1 to %d", name, most);
    return (int)n;
}

static ProgramLanguage language_field(lua_State *L) {
    size_t size;
    const char *name = text_field(L, 1, "lang", &size);
    Sandbox *box = sandbox_of(L);
    int i = 0;
    while (name && i < PROGRAM_LANGUAGES && strcmp(name, program_language_names[i]) != 0) i++;
    if (!name || i == PROGRAM_LANGUAGES) luaL_error(L, "run.program: lang: expected \"python\" or \"c\" (Lua programs: run.lua)");
    if (!(box->programs >> i & 1))
        luaL_error(L, "run.program isn't allowed here; the recipe allows it by name: {\"./%s\", allow = {\"program.%s\"}}, and 'reckon reward' "
                      "with --allow program.%s", box->name, name, name);
    if (box->program_socket < 0) luaL_error(L, "run.program: nothing runs programs here: only the worker processes of a run do");
    return (ProgramLanguage)i;
}

static void check_keys(lua_State *L) {
    static const char *const known[] = {"lang", "source", "input", "tests", "seconds", "memory", NULL};
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        int i = 0;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "1";
        while (known[i] && strcmp(key, known[i]) != 0) i++;
        if (!known[i]) luaL_error(L, "run.program: unknown setting '%s', expected lang, source, input, tests, seconds or memory", key);
    }
}

// The test on top of the stack; its texts stay on the stack above it.
static Test read_test(lua_State *L, int number, ProgramLanguage language) {
    Test t = {.input = ""};
    int at = lua_gettop(L);
    if (lua_type(L, at) == LUA_TSTRING) {
        if (language != PROGRAM_PYTHON) luaL_error(L, "run.program: test %d is a text, expected { input =, output = } for this language", number);
        t.code = lua_tolstring(L, at, &t.code_size);
        return t;
    }
    if (lua_type(L, at) != LUA_TTABLE) luaL_error(L, "run.program: test %d is a %s, expected { input =, output = } or a text", number, luaL_typename(L, at));
    t.input = text_field(L, at, "input", &t.input_size);
    t.output = text_field(L, at, "output", &t.output_size);
    if (!t.input) t.input = "";
    return t;
}

// ---- judging -----------------------------------------------------------------------------------------------
static size_t line_end(const char *s, size_t size, size_t *next) { // without trailing blanks
    const char *newline = memchr(s, '\n', size);
    size_t n = newline ? (size_t)(newline - s) : size;
    *next = newline ? n + 1 : n;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) n--;
    return n;
}
static bool same_output(const char *a, size_t a_size, const char *b, size_t b_size) {
    while (a_size || b_size) {
        size_t a_next, b_next, n = line_end(a, a_size, &a_next), m = line_end(b, b_size, &b_next);
        if (n != m || (n && memcmp(a, b, n) != 0)) return false;
        a += a_next, a_size -= a_next;
        b += b_next, b_size -= b_next;
    }
    return true;
}

// A test in code has passed only if it came to its end: it then writes a word that the program can't guess.
typedef struct Password {
    char text[24];
    size_t size;
} Password;
static Password make_password(const Test *t) {
    Password p;
    p.size = (size_t)snprintf(p.text, sizeof p.text, "\n#%016llx", (unsigned long long)hash64(t->code, t->code_size));
    return p;
}
static bool take_password(ProgramResult *r, const Password *p) {
    if (r->output.size < p->size || memcmp(r->output.data + r->output.size - p->size, p->text, p->size) != 0) return false;
    r->output.size -= p->size;
    return true;
}

// ---- running -----------------------------------------------------------------------------------------------
typedef struct Program { // all of it lives through an error: its buffers are freed by run_program
    ProgramTask task;
    Buf source; // with a test after it
    ProgramResult result, first_failure;
    int passed, total, failed; // failed: the first test that did, from 1
    bool lost;
} Program;

static bool run_test(lua_State *L, Program *p, const Test *t) {
    Sandbox *box = sandbox_of(L);
    ProgramTask task = p->task;
    Password password = {.size = 0};
    sandbox_charge(L, FUEL_A_RUN + FUEL_A_SECOND * (uint64_t)task.seconds + (task.source_size + t->input_size + t->code_size) / 16);
    if (t->code) {
        password = make_password(t);
        p->source.size = 0;
        buf_append(&p->source, task.source, task.source_size);
        buf_puts(&p->source, "\n");
        buf_append(&p->source, t->code, t->code_size);
        buf_printf(&p->source, "\nimport sys as _sys\n_sys.stdout.flush()\n_sys.stdout.write('\\n%s')\n", password.text + 1);
        task.source = p->source.data, task.source_size = p->source.size;
    }
    task.input = t->input, task.input_size = t->input_size;
    program_result_free(&p->result);
    if (task.input_size > PROGRAM_MAX_INPUT) luaL_error(L, "run.program: more than 4 MiB of input");
    if (task.source_size > PROGRAM_MAX_SOURCE) { // what a model writes fails its tests; it never fails the script
        p->result.end = PROGRAM_NOT_COMPILED;
        buf_puts(&p->result.errors, "more than 1 MiB of source");
        return false;
    }
    if (!program_ask(box->program_socket, &task, &p->result)) luaL_error(L, "run.program: the process that runs programs ended");
    box->not_replayable |= p->result.end == PROGRAM_OUT_OF_TIME;
    if (p->result.end == PROGRAM_UNAVAILABLE) luaL_error(L, "run.program: %s", p->result.errors.data ? p->result.errors.data : "unavailable");
    sandbox_charge(L, (p->result.output.size + t->output_size) / 16);
    bool ok = p->result.end == PROGRAM_EXITED && p->result.code == 0;
    if (t->code) ok = take_password(&p->result, &password) && ok;
    return ok && (!t->output || same_output(p->result.output.data, p->result.output.size, t->output, t->output_size));
}

static void push_buffer(lua_State *L, const char *name, const Buf *b) {
    lua_pushlstring(L, b->data ? b->data : "", b->size);
    lua_setfield(L, -2, name);
}
static void push_outcome(lua_State *L, const Program *p, const ProgramResult *r) {
    lua_createtable(L, 0, 8);
    lua_pushboolean(L, p->passed == p->total), lua_setfield(L, -2, "ok");
    lua_pushinteger(L, p->passed), lua_setfield(L, -2, "passed");
    lua_pushinteger(L, p->total), lua_setfield(L, -2, "total");
    if (p->failed) lua_pushinteger(L, p->failed), lua_setfield(L, -2, "failed");
    lua_pushstring(L, program_end_names[r->end]), lua_setfield(L, -2, "ended");
    if (r->end <= PROGRAM_SIGNALLED) lua_pushinteger(L, r->code), lua_setfield(L, -2, "code");
    push_buffer(L, "output", &r->output);
    push_buffer(L, "errors", &r->errors);
}

static int run_all(lua_State *L) { // settings, Program
    Program *p = lua_touserdata(L, 2);
    lua_settop(L, 1);
    check_keys(L);
    p->task.language = language_field(L);
    p->task.source = text_field(L, 1, "source", &p->task.source_size);
    if (!p->task.source) luaL_error(L, "run.program: source is missing, expected the program's text");
    p->task.seconds = number_field(L, "seconds", DEFAULT_SECONDS, PROGRAM_MAX_SECONDS);
    p->task.memory = number_field(L, "memory", DEFAULT_MEMORY, PROGRAM_MAX_MEMORY);
    Test alone = {0};
    alone.input = text_field(L, 1, "input", &alone.input_size);
    if (!alone.input) alone.input = "";
    lua_getfield(L, 1, "tests");
    int tests = lua_gettop(L);
    if (!lua_isnil(L, tests) && !lua_istable(L, tests)) luaL_error(L, "run.program: tests is a %s, expected a list", luaL_typename(L, tests));
    if (p->task.language == PROGRAM_C) sandbox_charge(L, FUEL_TO_COMPILE);
    lua_Unsigned count = lua_istable(L, tests) ? lua_rawlen(L, tests) : 1;
    if (count > MAX_TESTS) luaL_error(L, "run.program: more than %d tests", MAX_TESTS);
    for (lua_Unsigned i = 1; i <= count; i++) {
        Test t = alone;
        if (lua_istable(L, tests)) {
            lua_rawgeti(L, tests, (lua_Integer)i);
            t = read_test(L, (int)i, p->task.language);
        }
        p->total++;
        if (run_test(L, p, &t)) {
            p->passed++;
        } else if (!p->failed) {
            p->failed = (int)i;
            p->first_failure = p->result;
            p->result = (ProgramResult){0};
        }
        lua_settop(L, tests);
    }
    push_outcome(L, p, p->failed ? &p->first_failure : &p->result);
    return 1;
}

int library_run_program(lua_State *L) {
    Program p = {.total = 0};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_pushcfunction(L, run_all);
    lua_insert(L, 1);
    lua_pushlightuserdata(L, &p);
    int status = lua_pcall(L, 2, 1, 0); // only to free what isn't Lua's; an error goes on as it came
    program_result_free(&p.result), program_result_free(&p.first_failure), buf_free(&p.source);
    if (status == LUA_OK) return 1;
    if (lua_type(L, -1) == LUA_TSTRING && strncmp(lua_tostring(L, -1), "run.program", 11) == 0) { // ours: say which line called
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}
