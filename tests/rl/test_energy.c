// Counters of the processor packages and of a device, all of them fake, and the clock as well: counters that go around, are set back,
// fail, or stand where nobody looked for too long; a clock that goes back; devices that come and go.
#include "../test.h"
#include "accounts.h"
#include "files.h"
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    double seconds;
    bool has_meter;
    double joules;
    const char *held;
} world;
static double fake_clock(void) { return world.seconds; }
// In the place of the policy's own: what its device counted.
bool policy_energy(const Policy *p, double *joules, char held[128]) {
    CHECK(p);
    *joules = world.joules;
    snprintf(held, 128, "%s", world.held ? world.held : "");
    return world.has_meter;
}
static int policies[2]; // only their addresses matter
static const Policy *policy(int i) { return (const Policy *)(const void *)&policies[i]; }

// ---- a folder of counters ------------------------------------------------------------------------------------
static char folder[64];
static void put(const char *name, const char *text) {
    Err err = {0};
    char *path = path_join(folder, name);
    OK(file_write_atomic(path, text, strlen(text), &err));
    free(path);
}
static void set(int package, double microjoules) {
    char name[64], text[64];
    snprintf(name, sizeof name, "intel-rapl:%d/energy_uj", package);
    snprintf(text, sizeof text, "%.0f\n", microjoules);
    put(name, text);
}
static void zone(const char *name, const char *label, double microjoules, const char *range) {
    Err err = {0};
    char *path = path_join(folder, name), file[64], text[64];
    OK(folder_make(path, &err));
    snprintf(file, sizeof file, "%s/name", name), put(file, label);
    snprintf(file, sizeof file, "%s/energy_uj", name), snprintf(text, sizeof text, "%.0f\n", microjoules), put(file, text);
    snprintf(file, sizeof file, "%s/max_energy_range_uj", name), put(file, range);
    free(path);
}
static const char range[] = "262143328850\n"; // of many processors; 262143 joules
static const double RANGE = 262143328850;
static Energy *start(double microjoules) {
    strcpy(folder, "/tmp/reckon-energy-XXXXXX");
    CHECK(mkdtemp(folder));
    memset(&world, 0, sizeof world);
    world.seconds = 1000;
    zone("intel-rapl:0", "package-0\n", microjoules, range);
    return energy_open(folder, fake_clock);
}
static void end(Energy *e) {
    Err err = {0};
    energy_close(e);
    OK(folder_remove(folder, &err));
}

// ---- packages --------------------------------------------------------------------------------------------------
static void nothing_to_read(void) {
    Err err = {0};
    strcpy(folder, "/tmp/reckon-energy-XXXXXX");
    CHECK(mkdtemp(folder));
    Energy *e = energy_open(folder, NULL);
    CHECK(isnan(energy_joules(e)) && isnan(energy_device_joules(e)));
    energy_close(e);
    OK(folder_remove(folder, &err));
    e = energy_open("/does/not/exist", NULL);
    CHECK(isnan(energy_joules(e)));
    energy_close(e);
}
static void packages_add_up(void) {
    Energy *e = start(9e6);
    energy_close(e);
    zone("intel-rapl:1", "package-1\n", 1e6, range);
    zone("intel-rapl:0:0", "core\n", 5, range); // inside package-0
    zone("intel-rapl:2", "psys\n", 5, range);   // holds the packages again
    e = energy_open(folder, fake_clock);
    CHECK_NEAR(energy_joules(e), 0, 0);
    set(0, 10.5e6), set(1, 3e6);
    put("intel-rapl:0:0/energy_uj", "777\n"), put("intel-rapl:2/energy_uj", "9999999\n");
    world.seconds += 1;
    CHECK_NEAR(energy_joules(e), 3.5, 1e-9);
    set(0, 10.6e6);
    CHECK_NEAR(energy_joules(e), 3.6, 1e-9);
    put("intel-rapl:1/energy_uj", "nonsense\n"); // one package of two can't be read: the sum would be too small
    CHECK(isnan(energy_joules(e)));
    set(1, 4e6); // what it used meanwhile may be more than it tells
    CHECK(isnan(energy_joules(e)));
    energy_close(e);
    put("intel-rapl:1/energy_uj", "nonsense\n");
    e = energy_open(folder, fake_clock);
    CHECK(isnan(energy_joules(e)));
    end(e);
}
// At 100 watts for hours, asked once a minute: the counter goes around several times, and not a joule is lost.
static void a_counter_goes_around(void) {
    double used = 0, first = RANGE - 3e6;
    Energy *e = start(first);
    for (int minute = 0; minute < 300; minute++) {
        world.seconds += 60, used += 6000e6;
        set(0, fmod(first + used, RANGE));
        CHECK_NEAR(energy_joules(e), used * 1e-6, 1e-5);
    }
    CHECK(used > 6 * RANGE);
    end(e);
}
static void readings_that_cannot_be(void) {
    static const struct {
        const char *what;
        double from, to, seconds;
        bool known;
    } cases[] = {
        {"around at 1036 W", 200000e6, 0, 60, true},
        {"set back", 100000e6, 5e6, 10, false},                                   // 16 kW
        {"set back by little", 100000e6, 99999e6, 10, false},                     // nearly all the way around in ten seconds
        {"around at 300 W", RANGE - 1000e6, 2000e6, 10, true},
        {"around, asked at once", RANGE - 5e6, 5e6, 0, true},                     // updates come in lumps
        {"beyond its own range", 5e6, RANGE + 1e6, 10, false},
        {"standing still", 7e6, 7e6, 10, true},
        {"not asked for an hour", 7e6, 9e6, 3600, false},                         // it could have gone around unseen
        {"not asked for two minutes", 7e6, 9e6, 120, true},
    };
    for (int c = 0; c < COUNT(cases); c++) {
        Energy *e = start(cases[c].from);
        world.seconds += cases[c].seconds;
        set(0, cases[c].to);
        double joules = energy_joules(e), wanted = fmod(cases[c].to - cases[c].from + RANGE, RANGE) * 1e-6;
        bool known = cases[c].known;
        if (known != !isnan(joules)) FAIL("%s: got %g", cases[c].what, joules);
        if (known) CHECK_NEAR(joules, wanted, 1e-6);
        world.seconds += 1; // what isn't known stays so
        set(0, cases[c].to < RANGE - 2e6 ? cases[c].to + 1e6 : 1e6);
        CHECK_INT(!isnan(energy_joules(e)), known);
        end(e);
    }
}
static void small_ranges(void) { // of servers: 65532 joules, around in three minutes at 350 W
    Energy *e = start(0);
    energy_close(e);
    zone("intel-rapl:0", "package-0\n", 60000e6, "65532610987\n");
    e = energy_open(folder, fake_clock);
    world.seconds += 60, set(0, 60000e6 + 350 * 60 * 1e6 - 65532610987.0);
    CHECK_NEAR(energy_joules(e), 350 * 60, 1e-6);
    world.seconds += 132, set(0, 50000e6);
    CHECK(isnan(energy_joules(e)));
    end(e);
}
// Joules come from counters: a clock that goes back changes nothing but what can be ruled out.
static void the_clock_goes_back(void) {
    Energy *e = start(100e6);
    world.seconds -= 500, set(0, 130e6);
    CHECK_NEAR(energy_joules(e), 30, 1e-9);
    world.seconds += 1, set(0, 131e6);
    CHECK_NEAR(energy_joules(e), 31, 1e-9);
    world.seconds -= 1, set(0, 1e6); // around in no time at all
    CHECK(isnan(energy_joules(e)));
    end(e);
}

// ---- a device --------------------------------------------------------------------------------------------------
static void a_device_counts_too(void) {
    Energy *e = start(0);
    world.has_meter = true, world.joules = 500; // since the policy was opened
    energy_watch(e, policy(0));
    CHECK_NEAR(energy_joules(e), 0, 0);
    world.joules = 512, set(0, 3e6), world.held = "power cap";
    CHECK_NEAR(energy_joules(e), 15, 1e-9);
    CHECK_NEAR(energy_device_joules(e), 12, 1e-9);
    CHECK_STR(energy_held(e), "power cap");
    world.held = NULL;
    energy_joules(e);
    CHECK_STR(energy_held(e), "");
    world.joules = 520;
    energy_watch(e, NULL); // closed: what it used stays
    world.joules = 9999;
    CHECK_NEAR(energy_joules(e), 23, 1e-9);
    CHECK_NEAR(energy_device_joules(e), 20, 1e-9);
    world.joules = 1; // another one counts from its own start
    energy_watch(e, policy(1));
    CHECK_NEAR(energy_joules(e), 23, 1e-9);
    world.joules = 4;
    CHECK_NEAR(energy_joules(e), 26, 1e-9);
    energy_watch(e, NULL);
    world.has_meter = false; // one without a meter: the packages hold everything that counts
    energy_watch(e, policy(0));
    set(0, 4e6);
    CHECK_NEAR(energy_joules(e), 27, 1e-9);
    end(e);
}
static void a_device_that_fails(void) {
    Energy *e = start(0);
    world.has_meter = true, world.joules = 10;
    energy_watch(e, policy(0));
    world.joules = NAN; // a reading that failed
    CHECK(isnan(energy_joules(e)) && isnan(energy_device_joules(e)));
    world.joules = 30; // its counter counted on
    CHECK_NEAR(energy_joules(e), 20, 1e-9);
    world.has_meter = false; // it no longer answers: its joules aren't 0 now
    CHECK(isnan(energy_joules(e)) && isnan(energy_device_joules(e)));
    energy_watch(e, NULL); // and what it used up to its end isn't known
    CHECK(isnan(energy_joules(e)));
    end(e);

    e = start(0);
    CHECK(isnan(energy_device_joules(e)));
    energy_watch(e, policy(0)); // has none
    CHECK(isnan(energy_device_joules(e)));
    set(0, 2e6);
    CHECK_NEAR(energy_joules(e), 2, 1e-9);
    put("intel-rapl:0/energy_uj", "\n");
    world.has_meter = true, world.joules = 3;
    CHECK(isnan(energy_joules(e)));
    end(e);
}

static const Test tests[] = {
    {"energy nothing to read", nothing_to_read},
    {"energy packages add up", packages_add_up},
    {"energy a counter goes around", a_counter_goes_around},
    {"energy readings that cannot be", readings_that_cannot_be},
    {"energy small ranges", small_ranges},
    {"energy the clock goes back", the_clock_goes_back},
    {"energy a device counts too", a_device_counts_too},
    {"energy a device that fails", a_device_that_fails},
};
TEST_MAIN(tests)
