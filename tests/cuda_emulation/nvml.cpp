// NVML over counters that tests set.
#include "internal.h"
#include "nvml.h"

namespace emulation {
static EmulationNvml state;
static int users; // nvmlInit calls without their nvmlShutdown

void nvml_reset() {
    state = EmulationNvml{};
    state.joules = 1000, state.joules_per_launch = 0.001, state.watts = 250;
    state.temperature = 45, state.clock_mhz = 1980, state.memory_clock_mhz = 2619;
    state.energy_supported = state.power_supported = true;
    users = 0;
}
void nvml_count_launch() { state.joules += state.joules_per_launch; }

static nvmlReturn_t answer(nvmlDevice_t device) {
    if (!users) return NVML_ERROR_UNINITIALIZED;
    uintptr_t number = (uintptr_t)device;
    return number >= 1 && number <= (uintptr_t)machine.devices ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
} // namespace emulation

using namespace emulation;

EmulationNvml *emulation_nvml(void) { return &state; }

nvmlReturn_t nvmlInit_v2(void) {
    if (state.init_error) return (nvmlReturn_t)state.init_error;
    users++;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlShutdown(void) {
    if (!users) return NVML_ERROR_UNINITIALIZED;
    users--;
    return NVML_SUCCESS;
}
const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
    case NVML_SUCCESS: return "The operation was successful";
    case NVML_ERROR_UNINITIALIZED: return "NVML was not first initialized with nvmlInit()";
    case NVML_ERROR_INVALID_ARGUMENT: return "A supplied argument is invalid";
    case NVML_ERROR_NOT_SUPPORTED: return "The requested operation is not available on target device";
    case NVML_ERROR_NO_PERMISSION: return "The current user does not have permission for operation";
    case NVML_ERROR_NOT_FOUND: return "A query to find an object was unsuccessful";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "An input argument is not large enough";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "NVIDIA driver is not loaded";
    case NVML_ERROR_GPU_IS_LOST: return "The GPU has fallen off the bus or has otherwise become inaccessible";
    default: return "An internal driver error occurred";
    }
}
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    if (!users) return NVML_ERROR_UNINITIALIZED;
    return snprintf(version, length, "580.00") < (int)length ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    if (!users) return NVML_ERROR_UNINITIALIZED;
    *count = (unsigned)machine.devices;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    *device = (nvmlDevice_t)(uintptr_t)(index + 1);
    return answer(*device);
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    unsigned domain, bus, slot;
    if (!users) return NVML_ERROR_UNINITIALIZED;
    if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) return NVML_ERROR_INVALID_ARGUMENT;
    if (domain || slot || bus < 1 || bus > (unsigned)machine.devices) return NVML_ERROR_NOT_FOUND;
    *device = (nvmlDevice_t)(uintptr_t)bus; // as device.cpp numbers them
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    if (nvmlReturn_t error = answer(device)) return error;
    int n = snprintf(name, length, "Emulated device %d", (int)(uintptr_t)device - 1);
    return n < (int)length ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    if (nvmlReturn_t error = answer(device)) return error;
    if (!state.energy_supported) return NVML_ERROR_NOT_SUPPORTED;
    if (state.energy_error) return (nvmlReturn_t)state.energy_error;
    *millijoules = state.millijoules_before + (unsigned long long)(state.joules * 1000);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    if (nvmlReturn_t error = answer(device)) return error;
    if (!state.power_supported) return NVML_ERROR_NOT_SUPPORTED;
    if (state.power_error) return (nvmlReturn_t)state.power_error;
    *milliwatts = (unsigned)(state.watts * 1000);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t, unsigned *degrees) {
    if (nvmlReturn_t error = answer(device)) return error;
    *degrees = state.temperature;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
    if (nvmlReturn_t error = answer(device)) return error;
    *reasons = state.throttle_reasons;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned *mhz) {
    if (nvmlReturn_t error = answer(device)) return error;
    *mhz = type == NVML_CLOCK_MEM ? state.memory_clock_mhz : state.clock_mhz;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned *mhz) {
    if (nvmlReturn_t error = answer(device)) return error;
    *mhz = type == NVML_CLOCK_MEM ? 2619 : 1980;
    return NVML_SUCCESS;
}

void *emulation::nvml_symbol(const char *name) {
#define NAMED(function)                                                                                      \
    if (!strcmp(name, #function)) return (void *)function;
    NAMED(nvmlInit_v2)
    NAMED(nvmlShutdown)
    NAMED(nvmlErrorString)
    NAMED(nvmlSystemGetDriverVersion)
    NAMED(nvmlDeviceGetCount_v2)
    NAMED(nvmlDeviceGetHandleByIndex_v2)
    NAMED(nvmlDeviceGetHandleByPciBusId_v2)
    NAMED(nvmlDeviceGetName)
    NAMED(nvmlDeviceGetTotalEnergyConsumption)
    NAMED(nvmlDeviceGetPowerUsage)
    NAMED(nvmlDeviceGetTemperature)
    NAMED(nvmlDeviceGetCurrentClocksThrottleReasons)
    NAMED(nvmlDeviceGetCurrentClocksEventReasons)
    NAMED(nvmlDeviceGetClockInfo)
    NAMED(nvmlDeviceGetMaxClockInfo)
#undef NAMED
    return NULL;
}
