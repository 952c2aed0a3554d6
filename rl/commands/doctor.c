// `reckon doctor`: what this machine offers and what this binary was made from. It only looks: it loads no model,
// starts no thread and writes nothing; walls around reward scripts are tried in processes that end with it. What can't be learnt is null in the JSON and "unknown" in the text, never 0.
#include "accounts.h"
#include "command.h"
#include "cores.h"
#include "files.h"
#include "policy.h"
#include "reward.h"
#include <gnu/libc-version.h>
#include <lua.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <utf8proc.h>
#include <xxhash.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#ifdef HAVE_SECCOMP
#include <seccomp.h>
#endif

enum { SMALL_FILE = 1 << 20 };

// ---- small files of /proc and /sys -----------------------------------------------------------------------
// These files have no size before they are read, so they can't be mapped. Empty if it can't be read.
static Buf read_small(const char *path) {
    Buf text = {0};
    FILE *f = fopen(path, "re");
    if (!f) return text;
    char chunk[4096];
    size_t n;
    while (text.size < SMALL_FILE && (n = fread(chunk, 1, sizeof chunk, f)) > 0) buf_append(&text, chunk, n);
    fclose(f);
    return text;
}

// The first line of a small file, without its newline; null if it can't be read.
static json_t *line_of_file(const char *path) {
    Buf text = read_small(path);
    json_t *line = text.data ? json_stringn(text.data, strcspn(text.data, "\n")) : NULL;
    buf_free(&text);
    return line ? line : json_null();
}

// "MemTotal:  123 kB" in /proc/meminfo, as bytes.
static json_t *memory_bytes(const char *meminfo, const char *key) {
    const char *line = meminfo ? strstr(meminfo, key) : NULL;
    if (!line) return json_null();
    return json_integer(strtoll(line + strlen(key), NULL, 10) * 1024);
}

// "model name : AMD EPYC" in /proc/cpuinfo; null on processors that don't say.
static json_t *cpu_model(void) {
    Buf text = read_small("/proc/cpuinfo");
    json_t *model = NULL;
    const char *line = text.data ? strstr(text.data, "model name") : NULL;
    const char *colon = line ? strchr(line, ':') : NULL;
    if (colon) {
        colon += strspn(colon, ": \t");
        model = json_stringn(colon, strcspn(colon, "\n"));
    }
    buf_free(&text);
    return model ? model : json_null();
}

// ---- sections --------------------------------------------------------------------------------------------
// Those that this process may run on, the time that its control groups allow (null: as much as there is), and what a run with
// `threads = 0` makes of both.
static void add_cores(json_t *section) {
    Cores c = cores_find();
    json_object_set_new(section, "usable_cores", json_integer(c.usable));
    json_object_set_new(section, "allowed_cores", json_integer(c.allowed));
    json_object_set_new(section, "memory_nodes", json_integer(c.nodes));
    json_object_set_new(section, "control_group_cores", c.where[0] ? json_real(c.limit) : json_null());
    json_object_set_new(section, "control_group_file", c.where[0] ? json_string(c.where) : json_null());
}

static json_t *cpu_section(void) {
    json_t *features = json_object();
#if defined(__x86_64__)
    __builtin_cpu_init();
#define FEATURE(name) json_object_set_new(features, name, json_boolean(__builtin_cpu_supports(name)))
    FEATURE("avx2");
    FEATURE("fma");
    FEATURE("avx512f");
    FEATURE("avx512bw");
    FEATURE("avx512vl");
    FEATURE("avx512dq");
    FEATURE("avx512bf16");
    FEATURE("avx512vnni");
#undef FEATURE
#endif
    struct utsname name;
    char variant[64] = "";
    Err err = {0};
    if (!policy_machine_variant("cpu", variant, &err)) log_line(LOG_WARN, "reckon: %s: %s", err.where, err.msg);
    json_t *section = json_pack("{s:o, s:s*}", "model", cpu_model(), "architecture", uname(&name) == 0 ? name.machine : NULL);
    add_cores(section);
    json_object_set_new(section, "features", features);
    json_object_set_new(section, "RECKON_CPU", getenv("RECKON_CPU") ? json_string(getenv("RECKON_CPU")) : json_null());
    json_object_set_new(section, "variant", variant[0] ? json_string(variant) : json_null());
    return section;
}

static json_t *memory_section(void) {
    Buf meminfo = read_small("/proc/meminfo");
    json_t *section = json_pack("{s:o, s:o, s:o, s:o}", "total_bytes", memory_bytes(meminfo.data, "MemTotal:"),
                                "available_bytes", memory_bytes(meminfo.data, "MemAvailable:"), "control_group_limit",
                                line_of_file("/sys/fs/cgroup/memory.max"), "transparent_huge_pages",
                                line_of_file("/sys/kernel/mm/transparent_hugepage/enabled"));
    buf_free(&meminfo);
    return section;
}

// Energy comes from the processor's own counter where the kernel shows it to this user (RAPL; root only since 5.10).
static json_t *energy_section(void) {
    const char *counter = "/sys/class/powercap/intel-rapl:0/energy_uj";
    Buf text = read_small(counter);
    const char *why = text.size ? NULL : file_exists(counter) ? "the counter is there, but only root may read it"
                                                              : "this system shows no energy counter";
    json_t *section = json_pack("{s:b, s:s?}", "rapl", text.size > 0, "why", why);
    buf_free(&text);
    return section;
}

static json_t *built_section(void) {
    const char *sanitized =
#ifdef RECKON_SANITIZED
        "yes";
#else
        "no";
#endif
    return json_pack("{s:s, s:s, s:s}", "compiler",
#ifdef __clang__
                     "clang " __clang_version__,
#else
                     "gcc " __VERSION__,
#endif
                     "c_library", gnu_get_libc_version(), "sanitizers", sanitized);
}

static json_t *libraries_section(void) {
    char pcre2[64] = "", xxhash[32];
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) < (int)sizeof pcre2) pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    unsigned x = XXH_versionNumber();
    snprintf(xxhash, sizeof xxhash, "%u.%u.%u", x / 10000, x / 100 % 100, x % 100);
    json_t *libraries =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "lua", LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE,
                  "sqlite", sqlite3_libversion(), "jansson", jansson_version_str(), "pcre2", pcre2, "utf8proc",
                  utf8proc_version(), "openssl", OpenSSL_version(OPENSSL_VERSION), "xxhash", xxhash);
#ifdef HAVE_SECCOMP
    const struct scmp_version *v = seccomp_version();
    char seccomp[48];
    snprintf(seccomp, sizeof seccomp, "%u.%u.%u", v->major, v->minor, v->micro);
    json_object_set_new(libraries, "seccomp", json_string(seccomp));
#endif
    return libraries;
}

// ---- output ----------------------------------------------------------------------------------------------
// Keys whose null says that there is none, not that it can't be learnt.
static bool is_optional(const char *key) {
    static const char *const keys[] = {"why", "RECKON_CPU", "control_group_cores", "control_group_file"};
    for (int i = 0; i < COUNT(keys); i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}
static void print_value(int depth, const char *key, const json_t *value) {
    if (json_is_object(value)) {
        const char *inner;
        json_t *member;
        printf("%*s%s\n", 2 * depth, "", key);
        json_object_foreach((json_t *)value, inner, member) print_value(depth + 1, inner, member);
        return;
    }
    printf("%*s%-*s ", 2 * depth, "", 26 - 2 * depth, key);
    if (json_is_string(value)) printf("%s\n", json_string_value(value));
    if (json_is_integer(value)) {
        long long n = json_integer_value(value);
        printf(strstr(key, "bytes") ? "%.1f GiB\n" : "%.0f\n", strstr(key, "bytes") ? (double)n / (1 << 30) : (double)n);
    }
    if (json_is_boolean(value)) printf("%s\n", json_is_true(value) ? "yes" : "no");
    if (json_is_real(value)) printf("%g\n", json_real_value(value));
    if (json_is_null(value)) printf("%s\n", is_optional(key) ? "-" : "unknown");
}

static bool examine_run(const Args *args, Err *err) {
    json_t *diagnosis;
    TRY(diagnose_run(args->positional[0], &diagnosis, err));
    bool ok = true;
    if (args_flag(args, "json")) ok = print_json(diagnosis, err);
    else diagnose_print(diagnosis);
    json_decref(diagnosis);
    return ok && (fflush(stdout) == 0 || fail(err, ERR_IO, "stdout", "can't write the diagnosis"));
}

static bool doctor_run(const Args *args, Err *err) {
    if (args->positional_count) return examine_run(args, err);
    json_t *report = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "version", RECKON_VERSION, "cpu", cpu_section(),
                               "memory", memory_section(), "reward_walls", reward_walls(), "energy", energy_section(),
                               "built", built_section(), "libraries", libraries_section());
    if (!report) return fail(err, ERR_SOFTWARE, "doctor", "could not put the report together");
    bool ok = true;
    if (args_flag(args, "json")) {
        ok = print_json(report, err);
    } else {
        const char *key;
        json_t *value;
        json_object_foreach(report, key, value) print_value(0, key, value);
        ok = fflush(stdout) == 0 || fail(err, ERR_IO, "stdout", "can't write the report");
    }
    json_decref(report);
    return ok;
}

static const Option doctor_options[] = {
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END,
};
const Command command_doctor = {
    .name = "doctor",
    .summary = "says what this machine offers, or what is wrong with a run and what to change",
    .usage = "[RUN] [--json]",
    .detail = "Without RUN: processor, memory, walls around reward scripts, energy counter. Put its output into a report of a problem.\n"
              "With the folder of a run: reads its ledger and names what it finds in each stage (no variance, collapse of entropy,\n"
              "length without reward, reward hacking, truncation, steps too large, ...), with the evidence and a setting to change.\n"
              "Looks and changes nothing; exits 0 whatever it finds.",
    .example = "reckon doctor runs/quickstart",
    .positional_max = 1,
    .options = doctor_options,
    .run = doctor_run,
};
