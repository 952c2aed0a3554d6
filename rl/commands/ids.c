#include "ids.h"
#include <stdio.h>

bool ids_read(const char *path, Ids **lists, int *count, Err *err) {
    json_t *all;
    *lists = NULL, *count = 0;
    TRY(json_read_file(path, (size_t)1 << 30, &all, err));
    bool ok = json_is_array(all) || fail(err, ERR_DATA, path, "expected a list of lists of token ids");
    bool flat = ok && json_array_size(all) > 0 && json_is_integer(json_array_get(all, 0));
    int n = !ok ? 0 : flat ? 1 : (int)json_array_size(all);
    *lists = xcalloc((size_t)n + 1, sizeof **lists);
    for (int i = 0; ok && i < n; i++) {
        const json_t *list = flat ? all : json_array_get(all, (size_t)i), *id;
        size_t j;
        char where[300];
        snprintf(where, sizeof where, "%s, list %d", path, i);
        ok = (json_is_array(list) && json_array_size(list) > 0) || fail(err, ERR_DATA, where, "expected a list of at least one token id");
        json_array_foreach(list, j, id) {
            if (ok && (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX))
                ok = fail(err, ERR_DATA, where, "place %zu isn't a token id, expected an integer of at least 0", j);
            if (ok) ids_push(&(*lists)[i], (int32_t)json_integer_value(id));
        }
        *count = i + 1;
    }
    json_decref(all);
    return ok;
}
