// NVML by its C interface, of which only what is called here is declared. It is host code; it lies in a .cu file so that it
// is built where the CUDA side is, and on the emulated device against the emulated library.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
extern "C" {
#include "nvml.h"
}
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"
#endif

static const char library_name[] = "libnvidia-ml.so.1";
enum { NVML_OK = 0, SENSOR_GPU = 0, CLOCK_SM = 1 };

struct Nvml {
    void *library, *device;
    int (*init)(void);
    int (*shutdown)(void);
    int (*device_by_pci)(const char *id, void **device);
    int (*energy)(void *device, unsigned long long *millijoules); // this and what follows may be NULL
    int (*power)(void *device, unsigned *milliwatts);
    int (*temperature)(void *device, int sensor, unsigned *celsius);
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*reasons)(void *device, unsigned long long *reasons);
    const char *(*error)(int code);
    bool has_counter, lost; // lost: the counter was set back
    unsigned long long last_millijoules;
    double counted;             // joules so far
    double integral, watts, at; // without a counter: joules so far, the power then, and when
};

static double seconds_now() {
#ifdef RECKON_CUDA_EMULATION
    return clock_seconds() + emulation_nvml()->clock_skew;
#else
    return clock_seconds();
#endif
}

static void *symbol(const Nvml *n, const char *name) {
#ifdef RECKON_CUDA_EMULATION
    (void)n;
    return emulation_symbol(library_name, name);
#else
    return dlsym(n->library, name);
#endif
}
static bool load(Nvml *n) {
#ifndef RECKON_CUDA_EMULATION
    n->library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) return false;
#endif
    *(void **)&n->init = symbol(n, "nvmlInit_v2");
    *(void **)&n->shutdown = symbol(n, "nvmlShutdown");
    *(void **)&n->device_by_pci = symbol(n, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&n->energy = symbol(n, "nvmlDeviceGetTotalEnergyConsumption");
    *(void **)&n->power = symbol(n, "nvmlDeviceGetPowerUsage");
    *(void **)&n->temperature = symbol(n, "nvmlDeviceGetTemperature");
    *(void **)&n->clock = symbol(n, "nvmlDeviceGetClockInfo");
    *(void **)&n->reasons = symbol(n, "nvmlDeviceGetCurrentClocksThrottleReasons");
    *(void **)&n->error = symbol(n, "nvmlErrorString");
    return n->init && n->shutdown && n->device_by_pci;
}
static void unload(Nvml *n) {
    if (n->library) dlclose(n->library);
    free(n);
}

static double power_now(const Nvml *n) {
    unsigned milliwatts = 0;
    return n->power && n->power(n->device, &milliwatts) == NVML_OK ? milliwatts * 1e-3 : (double)NAN;
}

bool nvml_open(const char *pci_bus_id, Nvml **out, Err *err) {
    Nvml *n = (Nvml *)xcalloc(1, sizeof *n);
    *out = NULL;
    if (!load(n)) {
        unload(n);
        return fail(err, ERR_UNAVAILABLE, library_name, "not found, or not the library it should be: the device's energy and clocks can't be read");
    }
    int status = n->init();
    if (status == NVML_OK) {
        status = n->device_by_pci(pci_bus_id, &n->device);
        if (status != NVML_OK) n->shutdown();
    }
    if (status != NVML_OK) {
        fail(err, ERR_UNAVAILABLE, library_name, "device %.40s: %.200s", pci_bus_id, n->error ? n->error(status) : "error without a text");
        unload(n);
        return false;
    }
    n->has_counter = n->energy && n->energy(n->device, &n->last_millijoules) == NVML_OK;
    n->watts = power_now(n);
    n->at = seconds_now();
    *out = n;
    return true;
}

// Going around at the counter's end is a small step in unsigned arithmetic. Going back is a step of more than half of all numbers: a
// driver that was loaded anew, and what was used in between is not known. A question without an answer loses nothing.
static double counter_now(Nvml *n) {
    unsigned long long now = 0;
    if (n->energy(n->device, &now) != NVML_OK) return (double)NAN;
    unsigned long long used = now - n->last_millijoules;
    if (used >> 63) n->lost = true;
    n->last_millijoules = now;
    n->counted += n->lost ? 0 : (double)used * 1e-3;
    return n->lost ? (double)NAN : n->counted;
}
static double joules_now(Nvml *n, double watts) {
    if (n->has_counter) return counter_now(n);
    double seconds = seconds_now() - n->at;
    n->integral += seconds >= 0 ? (n->watts + watts) / 2 * seconds : (double)NAN; // NaN once the power was not to be had, or time went back
    n->watts = watts;
    n->at += seconds;
    return n->integral;
}

bool nvml_read(Nvml *n, NvmlReading *out, Err *err) {
    unsigned celsius = 0, mhz = 0;
    unsigned long long reasons = 0;
    out->watts = power_now(n);
    out->joules = joules_now(n, out->watts);
    out->temperature = n->temperature && n->temperature(n->device, SENSOR_GPU, &celsius) == NVML_OK ? (int)celsius : -1;
    out->clock_mhz = n->clock && n->clock(n->device, CLOCK_SM, &mhz) == NVML_OK ? (int)mhz : -1;
    int status = n->reasons ? n->reasons(n->device, &reasons) : NVML_OK;
    out->throttled = status == NVML_OK ? reasons & NVML_THROTTLE_ALL : 0;
    bool answers = out->joules == out->joules || out->watts == out->watts || out->temperature >= 0 || out->clock_mhz >= 0 || status == NVML_OK;
    return answers || fail(err, ERR_IO, library_name, "the device no longer answers: %.200s", n->error ? n->error(status) : "error without a text");
}

void nvml_close(Nvml *n) {
    if (!n) return;
    n->shutdown();
    unload(n);
}

void nvml_throttle_text(uint64_t reasons, char *text, size_t size) {
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {{NVML_THROTTLE_POWER_CAP, "power cap"}, {NVML_THROTTLE_HARDWARE, "hardware slowdown"}, {NVML_THROTTLE_HEAT, "heat"},
                 {NVML_THROTTLE_HARDWARE_HEAT, "heat, by the hardware"}, {NVML_THROTTLE_POWER_BRAKE, "power brake"}};
    size_t used = 0;
    if (size) text[0] = 0;
    for (const auto &name : names) {
        if (!(reasons & name.bit) || used >= size) continue;
        int wrote = snprintf(text + used, size - used, "%s%s", used ? ", " : "", name.name);
        if (wrote > 0) used += (size_t)wrote;
    }
}
