#include "json.h"
#include "files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool json_parse(const char *text, size_t size, const char *path, long line, json_t **out, Err *err) {
    json_error_t e;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (*out) return true;
    char where[256];
    snprintf(where, sizeof where, "%s:%ld:%d", path, line + (e.line > 0 ? e.line - 1 : 0), e.column > 0 ? e.column : 1);
    return fail(err, ERR_DATA, where, "not valid JSON: %s", e.text);
}

bool json_read_file(const char *path, size_t limit, json_t **out, Err *err) {
    Buf text;
    *out = NULL;
    TRY(file_read(path, limit, &text, err));
    size_t skip = text.size >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    bool ok = json_parse(text.data + skip, text.size - skip, path, 1, out, err);
    buf_free(&text);
    return ok;
}

bool json_lines(const char *path, size_t line_limit, JsonRow row, void *context, Err *err) {
    MappedFile f;
    TRY(file_map_text(path, &f, err));
    const char *p = (const char *)f.data, *end = p + f.size;
    if (f.size >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) p += 3;
    bool ok = true;
    for (long line = 1; ok && p < end; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        size_t n = (size_t)(stop - p);
        if (n && p[n - 1] == '\r') n--;
        size_t blank = 0;
        while (blank < n && (p[blank] == ' ' || p[blank] == '\t')) blank++;
        if (n > line_limit) {
            char where[256];
            snprintf(where, sizeof where, "%s:%ld:1", path, line);
            ok = fail(err, ERR_DATA, where, "a line of %zu bytes, expected at most %zu", n, line_limit);
        } else if (blank < n) {
            json_t *value;
            ok = json_parse(p, n, path, line, &value, err);
            if (ok) {
                ok = row(context, value, line, err);
                json_decref(value);
            }
        }
        p = newline ? newline + 1 : end;
    }
    file_unmap(&f);
    return ok;
}

static int append_chunk(const char *data, size_t size, void *out) {
    buf_append(out, data, size);
    return 0;
}
void json_write(const json_t *value, Buf *out) {
    json_dump_callback(value, append_chunk, out, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}
json_t *json_number_or_name(double x) {
    if (x != x) return json_null();
    if (isinf(x)) return json_string(x > 0 ? "inf" : "-inf");
    return json_real(x);
}
