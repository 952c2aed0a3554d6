// Rows, values and statements of the ledger. Owns how SQLite's results and errors become ours. A database that is
// read is hostile: a value of an unexpected type reads as nothing, and the chains (ledger_verify.c) say so.
#include "ledger_rows.h"
#include "files.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

Value value_text(const char *s) { return s ? value_bytes(s, strlen(s), VALUE_TEXT) : (Value){0}; }

Value value_json(const json_t *j, Buf *memory) {
    if (!j) return (Value){0};
    memory->size = 0;
    json_write(j, memory);
    return value_bytes(memory->data, memory->size, VALUE_TEXT);
}

Value value_column(sqlite3_stmt *row, int column) {
    switch (sqlite3_column_type(row, column)) {
    case SQLITE_INTEGER: return value_int(sqlite3_column_int64(row, column));
    case SQLITE_FLOAT: return value_real(sqlite3_column_double(row, column));
    case SQLITE_TEXT: {
        const void *data = sqlite3_column_text(row, column);
        return value_bytes(data, (size_t)sqlite3_column_bytes(row, column), VALUE_TEXT);
    }
    case SQLITE_BLOB: {
        const void *data = sqlite3_column_blob(row, column);
        return value_bytes(data, (size_t)sqlite3_column_bytes(row, column), VALUE_BLOB);
    }
    default: return (Value){0};
    }
}

static void append_number(Buf *out, uint64_t x) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(x >> (8 * i));
    buf_append(out, bytes, 8);
}

void row_append(Buf *out, const char *table, const Value *values, int count) {
    buf_append(out, table, strlen(table) + 1);
    for (int i = 0; i < count; i++) {
        const Value *v = &values[i];
        buf_append(out, &"nirtb"[v->kind], 1);
        uint64_t bits = 0;
        memcpy(&bits, &v->real, sizeof bits);
        append_number(out, v->kind == VALUE_INT ? (uint64_t)v->integer : v->kind == VALUE_REAL ? bits : (uint64_t)v->size);
        if (v->kind == VALUE_TEXT || v->kind == VALUE_BLOB) buf_append(out, v->data, v->size);
    }
}

void chain_link(const char *previous, const void *content, size_t size, char out[65]) {
    Buf b = {0};
    buf_append(&b, previous, strlen(previous));
    buf_append(&b, content, size);
    sha256_hex(b.data, b.size, out);
    buf_free(&b);
}

bool ledger_failed(const Ledger *l, const char *doing, Err *err) {
    int code = sqlite3_errcode(l->db);
    const char *why = sqlite3_errmsg(l->db);
    switch (code) {
    case SQLITE_FULL:
        return fail(err, ERR_IO, l->path, "%s: the disk is full; what was written before stays whole", doing);
    case SQLITE_IOERR:
        return fail(err, ERR_IO, l->path, "%s: %s (system error %d); what was written before stays whole", doing, why,
                    sqlite3_system_errno(l->db));
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return fail(err, ERR_TEMPFAIL, l->path, "%s: another process is writing to it", doing);
    case SQLITE_READONLY:
    case SQLITE_PERM: return fail(err, ERR_IO, l->path, "%s: it can't be written: %s", doing, why);
    case SQLITE_CANTOPEN: return fail(err, ERR_IO, l->path, "%s: can't be opened: %s", doing, why);
    case SQLITE_NOMEM: return fail(err, ERR_IO, l->path, "%s: out of memory", doing);
    default: return fail(err, ERR_DATA, l->path, "%s: the ledger is damaged: %s", doing, why);
    }
}

bool ledger_query(const Ledger *l, const char *sql, int64_t first, int64_t second, sqlite3_stmt **out, Err *err) {
    *out = NULL;
    TRY(ledger_settle(l, err));
    if (sqlite3_prepare_v2(l->db, sql, -1, out, NULL) != SQLITE_OK) return ledger_failed(l, "reading", err);
    int wanted = sqlite3_bind_parameter_count(*out);
    if (wanted > 0) sqlite3_bind_int64(*out, 1, first);
    if (wanted > 1) sqlite3_bind_int64(*out, 2, second);
    return true;
}

bool ledger_freeze(const Ledger *l, Err *err) {
    return sqlite3_exec(l->db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK || ledger_failed(l, "reading", err);
}

bool ledger_next(const Ledger *l, sqlite3_stmt *s, bool *more, Err *err) {
    int r = sqlite3_step(s);
    *more = r == SQLITE_ROW;
    return r == SQLITE_ROW || r == SQLITE_DONE || ledger_failed(l, "reading", err);
}

bool ledger_integer(const Ledger *l, const char *sql, int64_t argument, int64_t otherwise, int64_t *out, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    *out = otherwise;
    bool ok = ledger_query(l, sql, argument, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && more && sqlite3_column_type(s, 0) == SQLITE_INTEGER) *out = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return ok;
}

double column_real(sqlite3_stmt *s, int column) {
    int type = sqlite3_column_type(s, column);
    return type == SQLITE_FLOAT || type == SQLITE_INTEGER ? sqlite3_column_double(s, column) : NAN;
}
int64_t column_int(sqlite3_stmt *s, int column) {
    return sqlite3_column_type(s, column) == SQLITE_INTEGER ? sqlite3_column_int64(s, column) : 0;
}
const char *column_string(sqlite3_stmt *s, int column) {
    const unsigned char *text = sqlite3_column_type(s, column) == SQLITE_TEXT ? sqlite3_column_text(s, column) : NULL;
    return text ? (const char *)text : "";
}
void text_tame(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f) *c = '?';
        else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) *c++ = '?', *c = '?';
    }
}
json_t *column_object(sqlite3_stmt *s, int column) {
    json_t *j = NULL;
    if (sqlite3_column_type(s, column) == SQLITE_TEXT) {
        const char *text = (const char *)sqlite3_column_text(s, column);
        if (!json_parse(text, (size_t)sqlite3_column_bytes(s, column), "ledger.db", 1, &j, NULL)) j = NULL;
    }
    if (json_is_object(j)) return j;
    json_decref(j);
    return json_object();
}

bool chain_before(const Ledger *l, int64_t step, char out[65], Err *err) {
    // The newest of: the run, the step, its evaluations; each holds the link that follows from all before.
    static const char sql[] =
        "SELECT chain FROM (SELECT 0 AS step, -2 AS position, chain FROM run"
        " UNION ALL SELECT step, -1, chain FROM steps WHERE step = (SELECT max(step) FROM steps WHERE step <= ?1)"
        " UNION ALL SELECT step, position, chain FROM evaluations WHERE step <= ?1)"
        " ORDER BY step DESC, position DESC LIMIT 1";
    sqlite3_stmt *s;
    bool more = false;
    bool ok = ledger_query(l, sql, step, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && !more) ok = fail(err, ERR_DATA, l->path, "no run is recorded yet");
    if (ok && strlen(column_string(s, 0)) != 64)
        ok = fail(err, ERR_DATA, l->path, "the chain at step %lld holds no hash", (long long)step);
    if (ok) memcpy(out, column_string(s, 0), 65);
    sqlite3_finalize(s);
    return ok;
}
