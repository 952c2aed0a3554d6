// Opens a device by its name. The CUDA side is a library of its own, linked where the toolkit was there at build time; the
// reference to it is weak, so that everything else links without.
#include "device.h"
#include <stdlib.h>
#include <string.h>

__attribute__((weak)) bool device_open_cuda(int index, int threads, Device **out, Err *err);

// Every slot is filled: a backend without an operation can't be opened.
static bool check_table(const Device *d, Err *err) {
    const char *missing = NULL;
#define CHECK_SLOT(name, Args) if (!d->name) missing = #name;
    RECKON_OPERATIONS(CHECK_SLOT)
#undef CHECK_SLOT
    return !missing || fail(err, ERR_SOFTWARE, d->variant, "has no operation '%s'", missing);
}

bool device_open(const char *name, int threads, Device **out, Err *err) {
    const char *where = name ? "device" : "RECKON_DEVICE";
    int index = 0;
    *out = NULL;
    if (!name) name = getenv("RECKON_DEVICE");
    bool ok;
    if (!name || !*name || strcmp(name, "cpu") == 0) {
        ok = device_open_cpu(NULL, threads, out, err);
    } else if (strcmp(name, "cuda") == 0 || (strncmp(name, "cuda:", 5) == 0 && strlen(name) >= 6 && strlen(name) <= 8 &&
                                             strspn(name + 5, "0123456789") == strlen(name + 5))) {
        if (name[4]) index = atoi(name + 5);
        if (!device_open_cuda) return fail(err, ERR_UNAVAILABLE, where, "'%s': this program was built without CUDA; build it where nvcc is installed", name);
        ok = device_open_cuda(index, threads, out, err);
    } else {
        return fail(err, ERR_USAGE, where, "found '%.40s', expected cpu, cuda or cuda:N", name);
    }
    if (ok && !check_table(*out, err)) {
        device_close(*out);
        *out = NULL;
        return false;
    }
    return ok;
}

Device *device_share(const Device *device) {
    Device *d = (Device *)(uintptr_t)device;
    d->owners++;
    return d;
}

void device_close(Device *d) {
    if (d && d->owners-- == 0) d->close(d);
}
