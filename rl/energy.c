// Energy counters of the processor, as Linux shows them under /sys/class/powercap: a folder intel-rapl:N for each
// package (also on AMD), with energy_uj and max_energy_range_uj in microjoules. Parts of a package
// (intel-rapl:N:M) are inside its own counter and are left out; so is "psys", which holds the packages again. To these
// comes the meter of the device that a policy is on.
#include "accounts.h"
#include "files.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Zone {
    char *file;
    double last, range, sum; // microjoules
} Zone;
struct Energy {
    Zone *zones;
    int count;
    bool failed; // a counter was lost on the way: the sum is no longer known
    const Policy *policy; // whose device is watched, or NULL
    char held[128], told[128];
};

static bool read_number(const char *path, double *out) {
    Buf b;
    if (!file_read(path, 4096, &b, NULL)) return false;
    char *end;
    *out = strtod(b.data, &end);
    bool ok = end != b.data && isfinite(*out) && *out >= 0;
    buf_free(&b);
    return ok;
}

static bool is_package(const char *folder, const char *name) {
    const char *colon = strchr(name, ':');
    if (strncmp(name, "intel-rapl:", 11) || strchr(colon + 1, ':')) return false;
    char *path = xasprintf("%s/%s/name", folder, name);
    Buf label = {0};
    bool package = !file_read(path, 4096, &label, NULL) || strncmp(label.data, "psys", 4) != 0;
    buf_free(&label);
    free(path);
    return package;
}

Energy *energy_open(const char *folder) {
    if (!folder) folder = "/sys/class/powercap";
    Energy *e = xcalloc(1, sizeof *e);
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        if (!is_package(folder, entry->d_name)) continue;
        Zone z = {.file = xasprintf("%s/%s/energy_uj", folder, entry->d_name)};
        char *range = xasprintf("%s/%s/max_energy_range_uj", folder, entry->d_name);
        if (read_number(z.file, &z.last) && read_number(range, &z.range) && z.range > 0) {
            e->zones = xrealloc(e->zones, (size_t)(e->count + 1) * sizeof *e->zones);
            e->zones[e->count++] = z;
        } else { // one package of several unread would make the sum too small
            free(z.file);
            e->failed = true;
        }
        free(range);
    }
    if (d) closedir(d);
    return e;
}

void energy_watch(Energy *e, const Policy *policy) { e->policy = policy; }

// 0 where there is no meter, as the packages then hold everything that counts.
static double device_joules(Energy *e, bool *has_meter) {
    char held[128] = "";
    double joules = NAN;
    *has_meter = e->policy && policy_energy(e->policy, &joules, held);
    if (*has_meter && *held) memcpy(e->held, held, sizeof held);
    return *has_meter ? joules : 0;
}
double energy_device_joules(Energy *e) {
    bool has_meter;
    double joules = device_joules(e, &has_meter);
    return has_meter ? joules : NAN;
}
const char *energy_held(Energy *e) {
    memcpy(e->told, e->held, sizeof e->held);
    e->held[0] = 0;
    return e->told;
}

double energy_joules(Energy *e) {
    bool has_meter;
    double sum = 0, device = device_joules(e, &has_meter);
    for (int i = 0; i < e->count; i++) {
        Zone *z = &e->zones[i];
        double now;
        if (!read_number(z->file, &now)) {
            e->failed = true;
            break;
        }
        z->sum += now >= z->last ? now - z->last : now + z->range - z->last; // wrapped around once
        z->last = now;
        sum += z->sum;
    }
    return e->failed || e->count == 0 ? NAN : sum * 1e-6 + device;
}

void energy_close(Energy *e) {
    if (!e) return;
    for (int i = 0; i < e->count; i++) free(e->zones[i].file);
    free(e->zones);
    free(e);
}
