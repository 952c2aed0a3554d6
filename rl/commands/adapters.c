// Adapters by name: "none", DIR or NAME=DIR. A folder whose own name has "=" in it is found first.
#include "adapters.h"
#include "files.h"
#include <stdlib.h>
#include <string.h>

static char *name_of(const char *folder) {
    size_t n = strlen(folder), start;
    while (n > 1 && folder[n - 1] == '/') n--;
    for (start = n; start > 0 && folder[start - 1] != '/';) start--;
    return xstrndup(folder + start, n - start);
}
static bool open_one(const char *text, Policy *p, AdapterList *out, Err *err) {
    const char *equals = file_exists(text) ? NULL : strchr(text, '=');
    int at = out->count;
    out->name[at] = equals ? xstrndup(text, (size_t)(equals - text)) : name_of(text);
    out->index[at] = -1;
    out->count++;
    for (int i = 0; i < at; i++)
        if (!strcmp(out->name[i], out->name[at]))
            return fail(err, ERR_USAGE, "--adapter", "two adapters are named '%.60s'; NAME=DIR names one otherwise", out->name[at]);
    if (!strcmp(text, "none")) return true;
    out->index[at] = policy_adapter_count(p);
    return policy_add_adapter(p, equals ? equals + 1 : text, err);
}
bool adapters_open(const Args *args, Policy *p, AdapterList *out, Err *err) {
    const char *const *list = args_list(args, "adapter");
    *out = (AdapterList){0};
    bool ok = true;
    for (int i = 0; ok && list[i]; i++)
        ok = i < MAX_ADAPTERS ? open_one(list[i], p, out, err) : fail(err, ERR_USAGE, "--adapter", "expected at most %d", MAX_ADAPTERS);
    if (!ok) adapters_free(out);
    return ok;
}
void adapters_free(AdapterList *a) {
    for (int i = 0; i < a->count; i++) free(a->name[i]);
    *a = (AdapterList){0};
}
const char *adapters_turn(const AdapterList *a, Policy *p, int i) {
    if (a->count == 0) return NULL;
    policy_use_adapter(p, a->index[i]);
    return a->name[i];
}
