// Reports and what tests set. A report is printed and ends the process, unless a test catches it.
#include "internal.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <unistd.h>

namespace emulation {
static std::string kept;
static bool has_kept;
static std::vector<std::string> taken_away;
EmulationMachine machine;
Settings settings;

std::string text(const char *format, ...) {
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return line;
}

// binutils' addr2line reads the line table; without it the address has to do.
std::string place_name(const void *place) {
    Dl_info info;
    if (!place || !dladdr(place, &info) || !info.dli_fbase) return text("%p", place);
    // A return address lies behind its call.
    size_t offset = (size_t)((const char *)place - (const char *)info.dli_fbase) - 1;
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return text("%p", place);
    program[length] = 0;
    std::string found;
    FILE *pipe = popen(text("addr2line -e '%s' -f -C -i -p %#zx 2>/dev/null", program, offset).c_str(), "r");
    if (pipe) {
        char line[1024];
        for (int i = 0; i < 6 && fgets(line, sizeof line, pipe); i++) {
            line[strcspn(line, "\n")] = 0;
            const char *start = line;
            while (*start == ' ') start++;
            if (strstr(start, "EmulatedArguments") || strstr(start, "std::")) break;
            found += (found.empty() ? "" : "\n     ") + std::string(start);
        }
        pclose(pipe);
    }
    return found.empty() || found[0] == '?' ? text("%s+%#zx", program, offset) : found;
}

void report(const std::string &what) {
    if (settings.catching) {
        if (!has_kept) kept = what, has_kept = true;
        return;
    }
    fprintf(stderr, "cuda emulation: %s\n", what.c_str());
    fflush(NULL);
    abort();
}

void kernel_failure(cudaError_t error, const void *place, const std::string &what) {
    std::string where = text("%s, block (%u, %u, %u)", block.kernel, block.index.x, block.index.y, block.index.z);
    if (current) where += text(", thread (%u, %u, %u)", current->index.x, current->index.y, current->index.z);
    report(where + ": " + what + (place ? "\n  at " + place_name(place) : "") +
           text("\n  seed %llu", (unsigned long long)settings.seed));
    kernel_error = error;
    block_abandon();
}

uint64_t mix(uint64_t a, uint64_t b) { // splitmix64
    uint64_t z = a * 0x9e3779b97f4a7c15ull + b + 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return z ? z : 1;
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

static void defaults() {
    settings = Settings{};
    settings.seed = from_environment("RECKON_EMULATION_SEED", 1);
    settings.repeats = (int)from_environment("RECKON_EMULATION_REPEATS", 1);
    settings.guard = true;
    settings.checks = EMULATION_CHECK_UNWRITTEN | EMULATION_CHECK_RACES;
    int capability = (int)from_environment("RECKON_EMULATION_CAPABILITY", 80);
    machine = EmulationMachine{1, capability / 10, capability % 10, 4, (size_t)256 << 20, 13000, false, false};
}
static struct Start {
    Start() { defaults(), nvml_reset(); }
} start;
} // namespace emulation

using namespace emulation;

void emulation_catch(bool on) { settings.catching = on; }
const char *emulation_report(void) { return has_kept ? kept.c_str() : NULL; }
void emulation_reset(void) {
    Lock lock;
    runtime_reset();
    launch_reset();
    nvml_reset();
    kept.clear(), has_kept = false;
    taken_away.clear();
    defaults();
}
void emulation_set_seed(uint64_t seed) { settings.seed = seed; }
void emulation_set_repeats(int times) { settings.repeats = times < 1 ? 1 : times; }
void emulation_set_eager(bool on) { settings.eager = on; }
void emulation_set_checks(int checks) { settings.checks = checks; }
EmulationMachine *emulation_machine(void) { return &machine; }
void emulation_fail_allocation(int nth) { settings.fail_allocation = nth; }
void emulation_fail_host_allocation(int nth) { settings.fail_host_allocation = nth; }
void emulation_fail_launch(int nth, int error) { settings.fail_launch = nth, settings.launch_error = error; }
void emulation_fail_synchronize(int nth, int error) { settings.fail_synchronize = nth, settings.synchronize_error = error; }

void emulation_take_away(const char *library_part) {
    if (library_part)
        taken_away.push_back(library_part);
    else
        taken_away.clear();
}
void *emulation_symbol(const char *library, const char *name) {
    for (const std::string &part : taken_away)
        if (strstr(library, part.c_str())) return NULL;
    if (strstr(library, "cublasLt")) return cublaslt_symbol(name);
    if (strstr(library, "nvidia-ml")) return nvml_symbol(name);
    if (strstr(library, "libcuda")) return driver_symbol(name);
    return NULL;
}
