// A launch: its limits, the order of its blocks, and its repeats. Blocks run one after the other, mostly in shuffled order;
// a block that waits for another to begin later would be stuck on a busy device too.
#include "internal.h"

namespace emulation {
static uint64_t launch_number;
static std::map<const void *, int> shared_limits; // by kernel, where more than the plain limit was asked for

void launch_reset() {
    launch_number = 0;
    shared_limits.clear();
}

size_t shared_optin() { // of the compute capability (CUDA C++ Programming Guide, table of technical specifications)
    int capability = machine.major * 10 + machine.minor;
    if (capability == 80 || capability == 87) return 163 * 1024;
    if (capability >= 90 && capability < 120) return SHARED_LARGEST;
    return capability >= 80 ? 99 * 1024 : 64 * 1024;
}

cudaError_t function_attribute(const void *function, cudaFuncAttribute attribute, int value) {
    if (!function) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || (size_t)value > shared_optin())
        return cudaErrorInvalidValue;
    shared_limits[function] = value;
    return cudaSuccess;
}

cudaError_t launch_check(const EmulatedLaunch *l) {
    const dim3 &g = l->grid, &b = l->block;
    if (!g.x || !g.y || !g.z || g.x > INT32_MAX || g.y > 65535 || g.z > 65535) return cudaErrorInvalidConfiguration;
    if (!b.x || !b.y || !b.z || b.x > MAX_THREADS || b.y > MAX_THREADS || b.z > 64 || (uint64_t)b.x * b.y * b.z > MAX_THREADS)
        return cudaErrorInvalidConfiguration;
    auto limit = shared_limits.find(l->function);
    size_t allowed = limit == shared_limits.end() ? SHARED_PLAIN : max((size_t)limit->second, SHARED_PLAIN);
    return l->shared_bytes > min(allowed, shared_optin()) ? cudaErrorInvalidValue : cudaSuccess;
}

Launch launch_copy(const EmulatedLaunch *l) {
    Launch copy;
    copy.name = l->name;
    copy.what = *l;
    copy.arguments = std::make_shared<std::vector<Line>>(l->arguments_size / sizeof(Line) + 1);
    l->copy(copy.arguments->data(), l->arguments);
    copy.what.arguments = copy.arguments->data();
    return copy;
}

static bool run_blocks(const EmulatedLaunch *l, uint64_t seed) {
    Generator random = {seed};
    uint64_t count = (uint64_t)l->grid.x * l->grid.y * l->grid.z;
    uint32_t order = random.below(6); // ascending, descending, else shuffled
    std::vector<uint32_t> shuffled;
    if (order > 1 && count <= 1 << 20) {
        shuffled.resize(count);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t k = random.below(i + 1);
            shuffled[i] = shuffled[k], shuffled[k] = i;
        }
    }
    checker_launch_begins();
    checker_allow(l->arguments, l->arguments_size);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n = !shuffled.empty() ? shuffled[i] : order == 1 ? count - 1 - i : i;
        uint3 index = {(unsigned)(n % l->grid.x), (unsigned)(n / l->grid.x % l->grid.y), (unsigned)(n / l->grid.x / l->grid.y)};
        if (!block_run(index, mix(seed, n))) return false;
    }
    return true;
}

cudaError_t launch_run(const Launch &launch) {
    if (settings.fail_launch && --settings.fail_launch == 0) return (cudaError_t)settings.launch_error;
    EmulatedLaunch l = launch.what;
    l.name = launch.name.c_str();
    uint64_t seed = mix(settings.seed, launch_number++);
    memory_thread_begins();
    device_memory_open();
    block_prepare(&l);
    bool repeat = settings.repeats > 1, whole = true;
    if (repeat) writes_track();
    for (int turn = 0; turn < settings.repeats && whole; turn++) {
        if (turn) writes_rewind(turn == 1);
        whole = run_blocks(&l, mix(seed, (uint64_t)turn));
        if (!whole || !turn) continue;
        std::string difference = writes_compare();
        if (difference.empty()) continue;
        kernel_error = cudaErrorLaunchFailure;
        whole = false;
        report(launch.name + ": the result depends on the order of threads: " + difference +
               text("\n  seed %llu", (unsigned long long)settings.seed));
    }
    if (repeat) writes_forget();
    if (whole && !bands_check(launch.name.c_str())) whole = false, kernel_error = cudaErrorIllegalAddress;
    device_memory_close();
    nvml_count_launch();
    return whole ? cudaSuccess : kernel_error;
}
} // namespace emulation
