// What a CUDA device's own meters say (NVIDIA Management Library): energy, temperature, clock, and why the clock was held
// down. The library is opened at run time; without it, or on a device without a meter, a reading says "not measured".
#ifndef RECKON_NVML_H
#define RECKON_NVML_H
#include "base.h"

typedef struct Nvml Nvml;
typedef struct NvmlReading {
    double joules;      // since nvml_open; NaN: not measured, and never again where the counter was set back
    double watts;       // now; NaN: not measured
    int temperature;    // degrees Celsius; -1: not measured
    int clock_mhz;      // of the multiprocessors; -1: not measured
    uint64_t throttled; // NVML_THROTTLE_* seen since the reading before
} NvmlReading;

// Reasons that cost speed, as the library numbers them.
enum {
    NVML_THROTTLE_POWER_CAP = 0x4,    // the software's power limit
    NVML_THROTTLE_HARDWARE = 0x8,     // halved or more by the hardware
    NVML_THROTTLE_HEAT = 0x20,        // by software, for temperature
    NVML_THROTTLE_HARDWARE_HEAT = 0x40,
    NVML_THROTTLE_POWER_BRAKE = 0x80, // asked for from outside, by the power supply
    NVML_THROTTLE_ALL = 0xec,
};

// The device with this PCI bus id ("0000:1b:00.0"). ERR_UNAVAILABLE: no library, no permission, no such device.
bool nvml_open(const char *pci_bus_id, Nvml **out, Err *err) MUST_CHECK;
// False only where the device no longer answers. Energy is the device's own counter; where it has none, power is integrated
// over the readings, so read often.
bool nvml_read(Nvml *n, NvmlReading *out, Err *err) MUST_CHECK;
void nvml_close(Nvml *n);
// "power cap, heat", for a person; empty if nothing of NVML_THROTTLE_ALL is set.
void nvml_throttle_text(uint64_t reasons, char *text, size_t size);

#endif
