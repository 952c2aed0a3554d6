// Energy counters of the processor, as Linux shows them under /sys/class/powercap: a folder intel-rapl:N for each
// package (also on AMD), with energy_uj and max_energy_range_uj in microjoules. Parts of a package
// (intel-rapl:N:M) are inside its own counter and are left out; so is "psys", which holds the packages again. To these
// comes the meter of the device that a policy is on.
//
// A package's counter starts again at 0 after max_energy_range_uj. A reading below the last one is such a turn if the joules that it
// would come to could have been used since; otherwise the counter was set back. Where it could have gone around unseen, where it
// can't be read, and where it was set back, the sum is no longer known, and stays so.
#include "accounts.h"
#include "files.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// A package takes less than MOST_WATTS, and over the time in which its counter goes around less than USUAL_WATTS. Counters are brought up
// to date a thousand times a second: between two quick questions a few joules appear at once.
enum { MOST_WATTS = 5000, USUAL_WATTS = 500, JOULES_AT_ONCE = 50 };

typedef struct Zone {
    char *file;
    double last, range, sum; // microjoules
} Zone;
struct Energy {
    Zone *zones;
    int count;
    bool failed; // a counter was lost on the way: the sum is no longer known
    double (*clock)(void), asked; // seconds, when the counters were read last
    const Policy *policy; // whose device is watched, or NULL
    bool had_meter, any;  // that device; any of them
    double before, first; // joules of the devices watched before, and of this one when its watch began
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

Energy *energy_open(const char *folder, double (*clock)(void)) {
    if (!folder) folder = "/sys/class/powercap";
    Energy *e = xcalloc(1, sizeof *e);
    e->clock = clock ? clock : clock_seconds;
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
    e->asked = e->clock();
    return e;
}

// Of the device that is watched, since its policy was opened: 0 where it has no meter, as the packages then hold everything that
// counts; NaN where it had one.
static double device_now(Energy *e, bool *has_meter) {
    char held[128] = "";
    double joules = NAN;
    bool answers = e->policy && policy_energy(e->policy, &joules, held);
    if (answers && *held) memcpy(e->held, held, sizeof held);
    if (answers) e->had_meter = e->any = true;
    *has_meter = e->had_meter;
    return answers ? joules : e->had_meter ? NAN : 0;
}
static double device_joules(Energy *e, bool *has_meter) {
    double now = device_now(e, has_meter);
    return *has_meter ? e->before + now - e->first : e->before;
}
void energy_watch(Energy *e, const Policy *policy) {
    bool has_meter;
    e->before = device_joules(e, &has_meter);
    e->policy = policy, e->had_meter = false;
    e->first = device_now(e, &has_meter);
}
double energy_device_joules(Energy *e) {
    bool has_meter;
    double joules = device_joules(e, &has_meter);
    return e->any ? joules : NAN;
}
const char *energy_held(Energy *e) {
    memcpy(e->told, e->held, sizeof e->held);
    e->held[0] = 0;
    return e->told;
}

// What a package used since it was asked last, `seconds` ago; false: that can't be told.
static bool zone_joules(Zone *z, double seconds) {
    double now, used;
    if (!read_number(z->file, &now) || now > z->range) return false;
    used = now >= z->last ? now - z->last : now + z->range - z->last;
    bool turned = now < z->last, possible = used * 1e-6 <= MOST_WATTS * seconds + JOULES_AT_ONCE, unseen = seconds * USUAL_WATTS > z->range * 1e-6;
    z->last = now;
    z->sum += used;
    return !unseen && (!turned || possible);
}
double energy_joules(Energy *e) {
    bool has_meter;
    double sum = 0, device = device_joules(e, &has_meter), now = e->clock(), seconds = fmax(now - e->asked, 0);
    e->asked = now;
    for (int i = 0; i < e->count; i++) {
        if (!zone_joules(&e->zones[i], seconds)) e->failed = true;
        sum += e->zones[i].sum;
    }
    return e->failed || e->count == 0 ? NAN : sum * 1e-6 + device;
}

EnergyMark energy_mark(Energy *e) {
    return (EnergyMark){clock_seconds(), e ? energy_joules(e) : NAN, e ? energy_device_joules(e) : NAN};
}
json_t *energy_spent(Energy *e, EnergyMark before) {
    EnergyMark now = energy_mark(e);
    json_t *out = json_pack("{s:f}", "seconds", now.seconds - before.seconds);
    double joules = now.joules - before.joules, device = now.device_joules - before.device_joules;
    if (isfinite(joules)) json_object_set_new(out, "joules", json_real(joules));
    if (isfinite(device)) json_object_set_new(out, "device_joules", json_real(device));
    return out;
}

void energy_close(Energy *e) {
    if (!e) return;
    for (int i = 0; i < e->count; i++) free(e->zones[i].file);
    free(e->zones);
    free(e);
}
