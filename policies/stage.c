// Host arrays on their way to the device; see model.h.
#include "model.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };
static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void stage_add(Stage *s, const void *host, size_t bytes, const void **view) {
    s->arrays[s->count].host = host;
    s->arrays[s->count].bytes = bytes;
    s->arrays[s->count++].view = view;
}

static bool stage_reserve(const Policy *p, Stage *s, size_t bytes, Err *err) {
    const Device *d = p->device;
    if (bytes <= s->capacity) return true;
    d->forget(d); // recordings read from the memory that goes
    stage_free(p, s);
    bytes *= 2;
    TRY(d->allocate(d, bytes, "batch", (void **)&s->memory, err));
    s->host = xmalloc(bytes);
    s->capacity = bytes;
    return true;
}

bool stage_send(const Policy *p, Stage *s, Err *err) {
    size_t bytes = 0, at = 0;
    int count = s->count;
    s->count = 0;
    for (int i = 0; i < count; i++) {
        if (p->device->is_host) *s->arrays[i].view = s->arrays[i].host;
        bytes += aligned(s->arrays[i].bytes);
    }
    if (p->device->is_host) return true;
    TRY(stage_reserve(p, s, bytes, err));
    for (int i = 0; i < count; i++) {
        bool given = s->arrays[i].host != NULL;
        if (given && s->arrays[i].bytes) memcpy(s->host + at, s->arrays[i].host, s->arrays[i].bytes);
        *s->arrays[i].view = given ? s->memory + at : NULL;
        at += aligned(s->arrays[i].bytes);
    }
    p->device->upload(p->device, s->memory, s->host, bytes);
    return true;
}

void stage_free(const Policy *p, Stage *s) {
    p->device->release(p->device, s->memory);
    free(s->host);
    s->host = s->memory = NULL;
    s->capacity = 0;
}
