// What a policy's operations cost, as JSON for those above who don't know the table of operations.
#include "json.h"
#include "model.h"
#include "profile.h"
#include <stdio.h>

bool policy_profile(Policy *p, Err *err) { return profile_open(p->device, &p->device, err); }

json_t *policy_take_profile(Policy *p) {
    const ProfileRow *rows;
    json_t *out = json_array();
    int count = profile_rows(p->device, &rows);
    for (int i = 0; i < count; i++) {
        const ProfileRow *r = &rows[i];
        json_t *row = json_pack("{s:s,s:I,s:f}", "operation", r->operation, "calls", (json_int_t)r->calls, "seconds", r->seconds);
        char shape[64];
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)r->N, (long long)r->K);
        if (r->N) json_object_set_new(row, "shape", json_string(shape));
        if (r->flops > 0) json_object_set_new(row, "flops_per_second", json_real(r->flops / r->seconds));
        json_array_append_new(out, row);
    }
    profile_forget(p->device);
    return out;
}
