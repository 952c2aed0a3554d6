// Reads /proc/self/cgroup (which groups), /proc/self/mountinfo (where they are to be seen) and the limits of each group and of those
// above it, as far as they can be seen: cpu.max of version 2; cpu.cfs_quota_us and cpu.cfs_period_us of version 1. In a container the
// groups above it are hidden, and its own may be named as the host names them: what is mounted then is its own. It writes nothing.
#include "cores.h"
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TEXT = 1 << 16 };

// A small file of /proc or /sys, which has no size before it is read. False if there is none.
static bool read_text(const char *path, char out[TEXT]) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t size = fread(out, 1, TEXT - 1, f);
    bool ok = !ferror(f);
    fclose(f);
    out[size] = 0;
    return ok;
}

// Whether one of the words of a list with commas is `word`.
static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ',') && (at[n] == 0 || at[n] == ',')) return true;
    return false;
}

// In mountinfo a blank is \040, and so on.
static void unescape(char *s) {
    char *to = s;
    for (; *s; s++) {
        bool escaped = s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7';
        *to++ = escaped ? (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0')) : *s;
        if (escaped) s += 3;
    }
    *to = 0;
}

// The group of this process in the hierarchy of version 2 (a line "0::/path"), or in that of version 1 with the controller
// "cpu" ("4:cpu,cpuacct:/path"). NULL: it is in none. Cuts `text` into lines.
static char *find_group(char *text, int version) {
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *id = strsep(&line, ":"), *controllers = strsep(&line, ":");
        if (!line || !controllers) continue;
        if (version == 2 ? strcmp(id, "0") == 0 && !*controllers : has_word(controllers, "cpu")) return line;
    }
    return NULL;
}

// Where that hierarchy is mounted, and which of its groups is seen there. "31 23 0:28 ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS"
static bool find_mount(char *text, int version, char **group, char **point) {
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *tail = strstr(line, " - ");
        if (!tail) continue;
        *tail = 0;
        tail += 3;
        char *type = strsep(&tail, " ");
        strsep(&tail, " ");
        for (int skip = 0; skip < 3; skip++) strsep(&line, " ");
        *group = strsep(&line, " "), *point = strsep(&line, " ");
        if (!*point || !tail) continue;
        unescape(*group), unescape(*point);
        if (version == 2 ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && has_word(tail, "cpu")) return true;
    }
    return false;
}

// A quota of so many microseconds a period, as cores; INFINITY where there is none.
static double as_cores(const char *quota, const char *period) {
    char *end;
    double q = strtod(quota, &end), p = strtod(period, NULL);
    return end != quota && q > 0 && p > 0 && isfinite(q) && isfinite(p) ? q / p : INFINITY;
}
static double limit_of(const char *folder, int version, char where[512]) {
    char quota[TEXT], period[TEXT];
    snprintf(where, 512, "%.480s/%s", folder, version == 2 ? "cpu.max" : "cpu.cfs_period_us");
    if (!read_text(where, period)) return INFINITY;
    if (version == 2) return as_cores(period, period + strcspn(period, " "));
    snprintf(where, 512, "%.480s/cpu.cfs_quota_us", folder);
    return read_text(where, quota) ? as_cores(quota, period) : INFINITY;
}

static double limit_in(const char *root, int version, char where[256]) {
    char path[256], groups[TEXT], mounts[TEXT], folder[1024], file[512], *shown, *point;
    snprintf(path, sizeof path, "%.200s/proc/self/cgroup", root);
    char *group = read_text(path, groups) ? find_group(groups, version) : NULL;
    snprintf(path, sizeof path, "%.200s/proc/self/mountinfo", root);
    if (!group || !read_text(path, mounts) || !find_mount(mounts, version, &shown, &point)) return INFINITY;
    size_t n = strcmp(shown, "/") == 0 ? 0 : strlen(shown);
    bool below = strncmp(group, shown, n) == 0 && (group[n] == '/' || !group[n]) && !strstr(group, "/..");
    const char *rest = below && strcmp(group + n, "/") != 0 ? group + n : "";
    snprintf(folder, sizeof folder, "%.200s%.400s%.400s", root, point, rest);
    size_t top = strlen(root) + strlen(point);
    double limit = INFINITY;
    for (;;) {
        double found = limit_of(folder, version, file);
        if (found < limit) {
            limit = found;
            snprintf(where, 256, "%.255s", file);
        }
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash) return limit;
        *slash = 0;
    }
}

double cores_limit(const char *root, char where[256]) {
    char other[256] = "";
    where[0] = 0;
    double limit = limit_in(root, 2, where), old = limit_in(root, 1, other);
    if (old >= limit) return limit;
    memcpy(where, other, sizeof other);
    return old;
}

int cores_usable(int allowed, double limit) {
    if (allowed < 1) allowed = 1;
    return limit < allowed ? (limit > 1 ? (int)ceil(limit) : 1) : allowed;
}

// "0-3,8" of a node's cores: whether one of them is allowed.
static bool any_allowed(const char *list, const bool *allowed, int count) {
    for (char *end; *list >= '0' && *list <= '9'; list = *end == ',' ? end + 1 : end) {
        long from = strtol(list, &end, 10), to = from;
        if (*end == '-') to = strtol(end + 1, &end, 10);
        for (long i = from; i >= 0 && i <= to && i < count; i++)
            if (allowed[i]) return true;
    }
    return false;
}
int cores_nodes(const char *root, const bool *allowed, int count) {
    enum { MOST = 1024, MISSING = 16 };
    int nodes = 0;
    for (int node = 0, missing = 0; node < MOST && missing < MISSING; node++) { // numbers may have gaps
        char path[300], list[TEXT];
        snprintf(path, sizeof path, "%.200s/sys/devices/system/node/node%d/cpulist", root, node);
        bool there = read_text(path, list);
        missing = there ? 0 : missing + 1;
        nodes += there && any_allowed(list, allowed, count);
    }
    return nodes ? nodes : 1;
}

Cores cores_find(void) {
    Cores c = {0};
    cpu_set_t set;
    bool allowed[CPU_SETSIZE];
    CPU_ZERO(&set);
    c.allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    for (int i = 0; i < CPU_SETSIZE; i++) allowed[i] = CPU_ISSET(i, &set);
    c.nodes = cores_nodes("", allowed, CPU_SETSIZE);
    c.limit = cores_limit("", c.where);
    c.usable = cores_usable(c.allowed, c.limit);
    return c;
}

// ---- where memory is -------------------------------------------------------------------------------------
bool cores_spread(const Cores *c) { return c->nodes > 1 && c->usable > (c->allowed + c->nodes - 1) / c->nodes; }

bool memory_interleave(void *p, size_t bytes) {
#if defined(SYS_mbind) && defined(SYS_get_mempolicy)
    enum { NODES = 1024, WORD = 8 * sizeof(unsigned long), INTERLEAVE = 3, MEMORY_ALLOWED = 4 };
    unsigned long nodes[NODES / WORD] = {0};
    if (syscall(SYS_get_mempolicy, NULL, nodes, (unsigned long)NODES, NULL, MEMORY_ALLOWED) != 0) return false;
    return syscall(SYS_mbind, p, bytes, INTERLEAVE, nodes, (unsigned long)NODES, 0) == 0;
#else
    (void)p, (void)bytes;
    return false;
#endif
}
void memory_spread(void *p, size_t bytes) {
    if (access("/sys/devices/system/node/node1", F_OK) != 0) return; // as good as everywhere, found out cheaply
    Cores c = cores_find();
    if (cores_spread(&c)) memory_interleave(p, bytes);
}
