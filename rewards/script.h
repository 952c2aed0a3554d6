// The sandbox as the files of this room see it: one Lua 5.4 state that always starts from the same bytes.
// sandbox.c owns the state, its memory and its budget; library_*.c are what a script may call.
//
// Rules for library functions: charge for work before or while doing it (sandbox_charge), hold nothing outside of
// Lua's own memory across a call that may raise, and never show an address.
#ifndef RECKON_SCRIPT_H
#define RECKON_SCRIPT_H
#include "sandbox.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

typedef enum Exhausted { EXHAUSTED_NOT, EXHAUSTED_FUEL, EXHAUSTED_MEMORY, EXHAUSTED_DEPTH, EXHAUSTED_ORDER } Exhausted;

typedef struct Sandbox {
    lua_State *L;
    SandboxLimits limits;
    char *name;          // of the script, in errors
    uint64_t fuel_left;
    uint64_t growth_left;  // for memory other than strings, in units of 64 bytes
    Exhausted exhausted; // once set, every way back into the script raises again
    char why[200];       // where and what ran out
    char callers[96];    // of the line that raised the last error, as a message's end
    size_t longest_string; // made in this run; long ones make every instruction dearer
    Random random;
    uint64_t substream; // of the random numbers: scripts that score one sample draw apart
    Buf output;          // what the script printed, at most limits.output bytes
    struct SandboxMemory *memory;
    void *snapshot; // the memory's bytes after loading; every run starts from them
    size_t snapshot_size;
    unsigned programs;   // languages that run.program may run: bit 1 << ProgramLanguage
    int program_socket;  // leads to the process that runs them; -1: there is none
    bool not_replayable; // in this run a clock had a say
    struct Expressions *expressions; // compiled regular expressions; only a cache, it can't change a result
} Sandbox;

// A state with the libraries loaded. NULL on failure of the machine (no memory), with `err` filled.
bool sandbox_open(const char *name, const SandboxLimits *limits, Sandbox **out, Err *err) MUST_CHECK;
void sandbox_close(Sandbox *box);
// The global `options`: what a recipe says beside the script's name (NULL: an empty table). Before the state is frozen.
bool sandbox_options(Sandbox *box, const json_t *options, char *message, size_t message_size) MUST_CHECK;
// Compiles source (text only); it stays in the state. ERR_DATA with NAME:LINE.
bool sandbox_load(Sandbox *box, const char *source, size_t size, const char *path, Err *err) MUST_CHECK;
// Fixes the state as the one that sandbox_reset goes back to.
void sandbox_freeze(Sandbox *box);
// Back to the frozen state with a full budget, as if nothing had ever run.
void sandbox_reset(Sandbox *box, uint64_t fuel, uint64_t seed);
// Pushes the compiled chunk.
void sandbox_push_chunk(Sandbox *box);
// Runs `body` with `context` protected; false if it raised: the message then is in `message`, and box->exhausted
// says whether it was the budget.
bool sandbox_protect(Sandbox *box, lua_CFunction body, void *context, char *message, size_t message_size) MUST_CHECK;
static inline uint64_t sandbox_fuel_used(const Sandbox *box, uint64_t fuel) { return fuel - box->fuel_left; }

static inline Sandbox *sandbox_of(lua_State *L) { return *(Sandbox **)lua_getextraspace(L); }
// Takes `amount` of the fuel; raises when it is gone. For C functions called from scripts.
void sandbox_charge(lua_State *L, uint64_t amount);
// Ends the run for good: no pcall catches it.
_Noreturn void sandbox_exhaust(lua_State *L, Exhausted what);
// After a protected call failed with `status` and its error on top: raises again where it must not be caught.
void sandbox_check_error(lua_State *L, int status);

// ---- libraries: each opens by pushing its table or filling the globals --------------------------------------
void library_base(lua_State *L);   // the globals; coroutine
void library_string(lua_State *L); // string, with its metatable; utf8
void library_table(lua_State *L);
void library_math(lua_State *L);
void library_json(lua_State *L);
void library_text(lua_State *L);
void library_answers(lua_State *L); // verify, extract, shape
void library_run(lua_State *L);
int library_run_program(lua_State *L);
void library_re(lua_State *L);
void expressions_free(struct Expressions *e);
// Calls the C function in upvalue 1 after charging for the lengths of its arguments.
int library_charged(lua_State *L);
// Sets field `name` of the table on top to a charged copy of `function`'s field `name`.
void library_take(lua_State *L, int from, const char *const *names);

// The value at `index` for a message: "a string ('1')", "a table ({code = 7})"; short, calls no metamethod, needs no memory.
void value_describe(lua_State *L, int index, char *out, size_t size);
// Pushes the text of any value without showing an address, as tostring does.
const char *library_tostring(lua_State *L, int index, size_t *size);
// Pushes the keys of the table at `index` as an array in their order; returns how many.
lua_Integer library_ordered_keys(lua_State *L, int index);

// ---- values ---------------------------------------------------------------------------------------------------
// Pushes a JSON value: null elements of arrays become json.null, null members of objects are left out.
// Raises when nested too deeply.
void value_push(lua_State *L, const json_t *value);
// json.encode as scripts call it: pays for its work, raises what it can't write.
int library_json_encode(lua_State *L);
// The value at `index` as JSON. False with a message naming the key path; raises nothing. Functions become
// {"$function": n} if `functions` (a running count) isn't NULL, else an error.
bool value_to_json(lua_State *L, int index, int *functions, json_t **out, char *message, size_t message_size);

#endif
