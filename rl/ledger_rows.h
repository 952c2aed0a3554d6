// Inside the ledger: its tables, its rows as typed values, and how a row becomes a hash. Shared by the files that
// write the ledger (ledger.c), prove it (ledger_verify.c) and read it (cost.c, audit.c, report*.c); nobody else needs it.
//
// Two chains. The replayable one runs run -> step 1 -> evaluations at step 1 -> step 2 ... : each link is SHA-256 over
// the row's content and the link before, so its head is a function of the recipe. The chain of measured things runs
// over `events` alone. A sample's and a prompt's row carry a hash of their own, and a step's content covers those
// hashes, so that a changed cell is named by its row.
#ifndef RECKON_LEDGER_ROWS_H
#define RECKON_LEDGER_ROWS_H
#include <sqlite3.h>

#include "rl.h"

// ---- typed values ----------------------------------------------------------------------------------------
typedef enum ValueKind { VALUE_NULL, VALUE_INT, VALUE_REAL, VALUE_TEXT, VALUE_BLOB } ValueKind;
typedef struct Value {
    ValueKind kind;
    int64_t integer;
    double real;
    const void *data; // borrowed
    size_t size;
} Value;
static inline Value value_int(int64_t x) { return (Value){.kind = VALUE_INT, .integer = x}; }
// NaN is stored as NULL (SQLite has no NaN), and minus zero as zero, so that what is hashed is what is read back.
static inline Value value_real(double x) {
    return x != x ? (Value){0} : (Value){.kind = VALUE_REAL, .real = x == 0 ? 0.0 : x};
}
static inline Value value_bytes(const void *data, size_t size, ValueKind kind) {
    return (Value){.kind = kind, .data = data ? data : "", .size = size};
}
Value value_text(const char *s); // NULL gives NULL
Value value_json(const json_t *j, Buf *memory); // canonical text, kept in `memory`; NULL gives NULL
Value value_column(sqlite3_stmt *row, int column);

// Appends a row in the form that is hashed: the table's name and a NUL, then for each value its kind and 8 bytes,
// little-endian: an integer, the bits of a double, or a length that its bytes follow.
void row_append(Buf *out, const char *table, const Value *values, int count);

// ---- tables ----------------------------------------------------------------------------------------------
enum { T_RUN, T_STEPS, T_STEP_PARTS, T_STEP_LEVELS, T_STEP_EXPERTS, T_REPLACED, T_PROMPTS, T_SAMPLES, T_PARTS, T_EVALUATIONS, T_EVENTS, TABLES, MAX_COLUMNS = 40 };
typedef struct Table {
    const char *name, *create;
    int columns; // all
    int hashed;  // the first so many enter the row's hash; the others hold hashes
} Table;
extern const Table ledger_tables[TABLES];

struct StepWriting; // a step that a thread of its own writes (ledger_step.c)
struct Ledger {
    sqlite3 *db;
    char *path;
    bool writable;
    sqlite3_stmt **insert;       // [TABLES]
    struct StepWriting **beside; // *beside: what is under way, or NULL. The copy of this that the thread writes with has no such place
};

// ---- statements ------------------------------------------------------------------------------------------
// Turns SQLite's last error into ours: ERR_IO (disk full, I/O), ERR_TEMPFAIL (busy), ERR_DATA (damaged content).
bool ledger_failed(const Ledger *l, const char *doing, Err *err);
// Waits for the step that is being written beside, if any, and gives its error. All that reads or writes comes by here.
bool ledger_settle(const Ledger *l, Err *err) MUST_CHECK;
// Prepares `sql`, binding up to two integers (the count of '?' decides).
bool ledger_query(const Ledger *l, const char *sql, int64_t first, int64_t second, sqlite3_stmt **out, Err *err) MUST_CHECK;
// From here to ledger_close every query sees one and the same state, whatever a training run writes meanwhile.
bool ledger_freeze(const Ledger *l, Err *err) MUST_CHECK;
// One row further: *more is false at the end. The statement stays the caller's to finalize.
bool ledger_next(const Ledger *l, sqlite3_stmt *s, bool *more, Err *err) MUST_CHECK;
// A query that gives one integer (NULL and no row give `otherwise`).
bool ledger_integer(const Ledger *l, const char *sql, int64_t argument, int64_t otherwise, int64_t *out, Err *err) MUST_CHECK;
// Columns of a hostile row: a value of another type gives 0, NaN, "".
double column_real(sqlite3_stmt *s, int column);
int64_t column_int(sqlite3_stmt *s, int column);
const char *column_string(sqlite3_stmt *s, int column); // NUL-terminated, never NULL, valid until the next step
// For terminals: control characters (C1 ones too) become '?', in place.
void text_tame(char *text);
// A JSON object in a text column; an empty object where it is anything else. The caller owns it.
json_t *column_object(sqlite3_stmt *s, int column);

// ---- writing ---------------------------------------------------------------------------------------------
bool ledger_begin(Ledger *l, Err *err) MUST_CHECK;
// Commits, or undoes all since ledger_begin where `ok` is false: nothing half-written stays. Returns `ok` if so.
bool ledger_finish(Ledger *l, bool ok, Err *err) MUST_CHECK;
bool ledger_insert(Ledger *l, int table, const Value *values, Err *err) MUST_CHECK; // one value a column
// Runs an UPDATE whose parameters are a text and one or two integers.
bool ledger_set_text(Ledger *l, const char *sql, const char *text, int64_t key, int64_t key2, Err *err) MUST_CHECK;
// Appends to the chain of measured things, within a transaction. `step` below 0: none.
bool ledger_append_event(Ledger *l, const char *kind, int64_t step, const json_t *detail, Err *err) MUST_CHECK;

// ---- links of the chains ---------------------------------------------------------------------------------
// The hash after `content` (64 hex digits or a row's bytes) on top of the link before.
void chain_link(const char *previous, const void *content, size_t size, char out[65]);
// The last link of the replayable chain at or before `step`; an error if there is no run yet.
bool chain_before(const Ledger *l, int64_t step, char out[65], Err *err) MUST_CHECK;
typedef struct LedgerCounts {
    int64_t steps, step_parts, step_levels, step_experts, replaced, prompts, samples, parts, evaluations, events, repeated, repeated_same;
} LedgerCounts;
// The hash of a step's content (64 hex digits) from its rows as they are in the database. With `check`, the prompts'
// and samples' own hashes are recomputed too and the first that differs is the error (ERR_FAILED). `counts` may be NULL.
bool step_content(const Ledger *l, int64_t step, bool check, LedgerCounts *counts, char out[65], Err *err) MUST_CHECK;
// Proves both chains from the first row to the last. ERR_FAILED names the first broken row.
bool ledger_verify(const Ledger *l, LedgerCounts *counts, Err *err) MUST_CHECK;

#endif
