// How many cores there are to use: control groups of version 1, 2 and both, seen from a host, from a container with a namespace of its
// own and from one without, nested, unlimited, broken; made up in a folder that stands for the system's root.
#include "../test.h"
#include "cores.h"
#include "files.h"
#include "threads.h"
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILES = 8 };
typedef struct Case {
    const char *name;
    struct {
        const char *path, *text;
    } files[FILES];
    double limit;
    const char *where; // ends so
} Case;

#define CGROUP2 "proc/self/mountinfo", "24 1 0:22 / /proc rw - proc proc rw\n29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
static const Case cases[] = {
    {"a container with a namespace of its own", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "200000 100000\n"}}, 2.0, "/sys/fs/cgroup/cpu.max"},
    {"part of a core", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "25000 50000\n"}}, 0.5, "cpu.max"},
    {"no limit", {{"proc/self/cgroup", "0::/a\n"}, {CGROUP2}, {"sys/fs/cgroup/a/cpu.max", "max 100000\n"}}, INFINITY, ""},
    {"the root, which has no limit", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}}, INFINITY, ""},
    {"the limit of a group above",
     {{"proc/self/cgroup", "0::/user/one/job\n"}, {CGROUP2}, {"sys/fs/cgroup/user/one/job/cpu.max", "max 100000\n"},
      {"sys/fs/cgroup/user/one/cpu.max", "350000 100000\n"}, {"sys/fs/cgroup/user/cpu.max", "800000 100000\n"}}, 3.5, "/user/one/cpu.max"},
    {"the smallest of two limits",
     {{"proc/self/cgroup", "0::/user/job\n"}, {CGROUP2}, {"sys/fs/cgroup/user/job/cpu.max", "400000 100000\n"},
      {"sys/fs/cgroup/user/cpu.max", "300000 100000\n"}}, 3, "/user/cpu.max"},
    {"a container that sees the host's names",
     {{"proc/self/cgroup", "0::/docker/abc/inner\n"},
      {"proc/self/mountinfo", "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"}, {"sys/fs/cgroup/inner/cpu.max", "max 100000\n"},
      {"sys/fs/cgroup/cpu.max", "150000 100000\n"}}, 1.5, "/sys/fs/cgroup/cpu.max"},
    {"a group outside of what is mounted", {{"proc/self/cgroup", "0::/../other\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "600000 100000\n"}}, 6, "cpu.max"},
    {"a mount with a blank in its name",
     {{"proc/self/cgroup", "0::/x\n"}, {"proc/self/mountinfo", "29 23 0:26 / /a\\040b rw - cgroup2 none rw\n"}, {"a b/x/cpu.max", "100000 100000"}}, 1, "/a b/x/cpu.max"},
    {"version 1",
     {{"proc/self/cgroup", "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n"},
      {"proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n33 31 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"},
      {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"}, {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
      {"sys/fs/cgroup/cpuset/cpu.cfs_quota_us", "1\n"}, {"sys/fs/cgroup/cpuset/cpu.cfs_period_us", "1000\n"}}, 2, "cpu.cfs_quota_us"},
    {"version 1 without a limit",
     {{"proc/self/cgroup", "4:cpu:/\n"}, {"proc/self/mountinfo", "33 31 0:30 / /cg rw - cgroup cgroup rw,cpu\n"}, {"cg/cpu.cfs_quota_us", "-1\n"},
      {"cg/cpu.cfs_period_us", "100000\n"}}, INFINITY, ""},
    {"both side by side",
     {{"proc/self/cgroup", "4:cpu:/job\n0::/\n"},
      {"proc/self/mountinfo", "33 31 0:30 / /cg rw - cgroup cgroup rw,cpu\n41 31 0:38 / /unified rw - cgroup2 cgroup2 rw\n"},
      {"cg/job/cpu.cfs_quota_us", "50000\n"}, {"cg/job/cpu.cfs_period_us", "20000\n"}}, 2.5, "/cg/job/cpu.cfs_quota_us"},
    {"a period of nothing", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "200000 0\n"}}, INFINITY, ""},
    {"words", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "many few\n"}}, INFINITY, ""},
    {"one number", {{"proc/self/cgroup", "0::/\n"}, {CGROUP2}, {"sys/fs/cgroup/cpu.max", "200000"}}, INFINITY, ""},
    {"lines without an end", {{"proc/self/cgroup", "4:cpu\n0:\n:::\n\n"}, {"proc/self/mountinfo", "1 2 - cgroup2\n - cgroup2 a b\n29 23 0:26 /\n"}}, INFINITY, ""},
    {"nothing mounted", {{"proc/self/cgroup", "0::/\n"}}, INFINITY, ""},
    {"no control groups", {{"proc/version", "Linux\n"}}, INFINITY, ""},
};

static void limits(void) {
    for (int i = 0; i < COUNT(cases); i++) {
        const Case *c = &cases[i];
        Err err = {0};
        char root[] = "/tmp/reckon-cores-XXXXXX", where[256];
        CHECK(mkdtemp(root));
        for (int f = 0; f < FILES && c->files[f].path; f++) {
            char *path = path_join(root, c->files[f].path), *folder = xstrdup(path);
            *strrchr(folder, '/') = 0;
            OK(folder_make(folder, &err));
            OK(file_write_atomic(path, c->files[f].text, strlen(c->files[f].text), &err));
            free(path), free(folder);
        }
        double limit = cores_limit(root, where);
        size_t n = strlen(c->where);
        if (limit != c->limit) FAIL("%s: found a limit of %g cores, expected %g", c->name, limit, c->limit);
        if (strlen(where) < n || strcmp(where + strlen(where) - n, c->where) != 0 || (n == 0 && where[0]))
            FAIL("%s: found '%s', expected a path that ends in '%s'", c->name, where, c->where);
        char *remove = xasprintf("rm -r '%s'", root);
        CHECK_INT(system(remove), 0);
        free(remove);
    }
}

static void usable(void) {
    const struct {
        int allowed;
        double limit;
        int usable;
    } rows[] = {{64, 2, 2}, {64, INFINITY, 64}, {4, 8, 4}, {64, 1.5, 2}, {64, 0.1, 1}, {2, 2, 2}, {1, INFINITY, 1}, {0, INFINITY, 1}, {64, 2.01, 3}};
    for (int i = 0; i < COUNT(rows); i++) CHECK_INT(cores_usable(rows[i].allowed, rows[i].limit), rows[i].usable);
}

static void nodes(void) {
    const struct {
        const char *name, *cpus[4]; // of node 0, 1, ...; NULL: there is no such node
        int nodes;
    } rows[] = {{"one", {"0-15\n"}, 1}, {"two", {"0-3,8\n", "4-7,9-11\n"}, 2}, {"only those allowed", {"0-3\n", "4-7\n", "8-9\n"}, 2},
                {"a gap", {"0\n", NULL, NULL, "5\n"}, 2}, {"memory without cores", {"0-9\n", "\n"}, 1}, {"words", {"all\n", "-3\n"}, 1}, {"none", {NULL}, 1}};
    const bool allowed[8] = {true, true, false, false, true, true, true, true};
    for (int i = 0; i < COUNT(rows); i++) {
        Err err = {0};
        char root[] = "/tmp/reckon-cores-XXXXXX";
        CHECK(mkdtemp(root));
        for (int node = 0; node < COUNT(rows[i].cpus); node++) {
            if (!rows[i].cpus[node]) continue;
            char *folder = xasprintf("%s/sys/devices/system/node/node%d", root, node), *path = path_join(folder, "cpulist");
            OK(folder_make(folder, &err));
            OK(file_write_atomic(path, rows[i].cpus[node], strlen(rows[i].cpus[node]), &err));
            free(path), free(folder);
        }
        int found = cores_nodes(root, allowed, COUNT(allowed));
        if (found != rows[i].nodes) FAIL("%s: found %d nodes, expected %d", rows[i].name, found, rows[i].nodes);
        char *remove = xasprintf("rm -r '%s'", root);
        CHECK_INT(system(remove), 0);
        free(remove);
    }
    CHECK(cores_spread(&(Cores){.allowed = 64, .usable = 64, .nodes = 2}));
    CHECK(cores_spread(&(Cores){.allowed = 64, .usable = 33, .nodes = 2}));
    CHECK(!cores_spread(&(Cores){.allowed = 64, .usable = 32, .nodes = 2}));
    CHECK(!cores_spread(&(Cores){.allowed = 64, .usable = 2, .nodes = 2}));
    CHECK(!cores_spread(&(Cores){.allowed = 64, .usable = 64, .nodes = 1}));
}

// What the system says of the memory afterwards; its contents stay.
static void interleaves(void) {
#ifdef SYS_get_mempolicy
    enum { BYTES = 8 << 20, INTERLEAVE = 3, OF_ADDRESS = 2 };
    Err err = {0};
    void *memory;
    int mode = -1;
    OK(mem_alloc(BYTES, "memory", &memory, &err));
    memset(memory, 7, BYTES);
    bool done = memory_interleave(memory, BYTES);
    if (done) syscall(SYS_get_mempolicy, &mode, NULL, 0UL, memory, OF_ADDRESS);
    int wrong = 0;
    for (int i = 0; i < BYTES; i++) wrong += ((const char *)memory)[i] != 7;
    mem_free(memory);
    if (!done) SKIP("this system lets no process say where its memory is");
    CHECK_INT(mode & 0xff, INTERLEAVE);
    CHECK_INT(wrong, 0);
#else
    SKIP("this system has no nodes of memory");
#endif
}

// A pool without a number takes what was found; a number wins.
static void pools(void) {
    Err err = {0};
    Pool *p;
    cpu_set_t before, one;
    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    Cores c = cores_find();
    CHECK_INT(c.allowed, CPU_COUNT(&before));
    CHECK(c.usable >= 1 && c.usable <= c.allowed);
    OK(pool_open(0, &p, &err));
    CHECK_INT(pool_count(p), c.usable);
    pool_close(p);
    int first = 0;
    while (!CPU_ISSET(first, &before)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    bool found = cores_find().usable == 1 && pool_open(0, &p, &err);
    int count = found ? pool_count(p) : 0;
    if (found) pool_close(p);
    CHECK_INT(sched_setaffinity(0, sizeof before, &before), 0);
    CHECK_INT(count, 1);
    OK(pool_open(3, &p, &err));
    CHECK_INT(pool_count(p), 3);
    pool_close(p);
}

static const Test tests[] = {
    {"limits of control groups", limits},
    {"cores to use", usable},
    {"nodes of memory", nodes},
    {"memory by turns", interleaves},
    {"a pool takes them, a number wins", pools},
};
TEST_MAIN(tests)
