// The meter of a CUDA device: joules that only grow, and why the clock was held down. On the emulated device, whose library
// has whatever counters a test wants, also what happens without a counter, without a library and without a device.
#include "cuda_test.h"
#include "cuda/nvml.h"

static void some_work(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    float *x = input("x", 4096, &r, PLAIN);
    ConvertArgs a = {.count = 4096, .dtype = DTYPE_BF16, .x = x, .y = output("y", 4096, KIND_BF16)};
    ON_CUDA(convert, &a, "work to be metered");
}

static void joules_grow(void) {
    cuda_case();
    double before = NAN, after = NAN;
    char held[128];
    if (!cuda_device->meter(cuda_device, &before, held)) SKIP("this device has no meter");
    if (before != before) SKIP("this device's meter counts no joules");
    some_work();
    CHECK(cuda_device->meter(cuda_device, &after, held));
    CHECK(before >= 0 && after >= before && after < before + 1e4);
}

static void reasons_have_names(void) {
    char text[80];
    nvml_throttle_text(0x1 | 0x2 | 0x100, text, sizeof text); // idle, a clock that was asked for, a display
    CHECK_STR(text, "");
    nvml_throttle_text(NVML_THROTTLE_POWER_CAP | NVML_THROTTLE_HARDWARE_HEAT, text, sizeof text);
    CHECK_STR(text, "power cap, heat, by the hardware");
    nvml_throttle_text(NVML_THROTTLE_ALL, text, sizeof text);
    CHECK_STR(text, "power cap, hardware slowdown, heat, heat, by the hardware, power brake");
    nvml_throttle_text(NVML_THROTTLE_ALL, text, 12);
    CHECK(strlen(text) < 12);
    nvml_throttle_text(NVML_THROTTLE_ALL, text, 0);
}

#ifdef RECKON_CUDA_EMULATION
static const char first_device[] = "0000:01:00.0";
static Nvml *nvml;
static void reset(void) {
    nvml_close(nvml);
    nvml = NULL;
    emulation_reset();
}

static void counters_are_read(void) {
    Err err = {0};
    NvmlReading r;
    reset();
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->joules += 12.5;
    emulation_nvml()->temperature = 81, emulation_nvml()->clock_mhz = 1410, emulation_nvml()->watts = 333;
    emulation_nvml()->throttle_reasons = 0x1 | NVML_THROTTLE_HEAT;
    OK(nvml_read(nvml, &r, &err));
    CHECK_NEAR(r.joules, 12.5, 1e-3); // the counter has millijoules
    CHECK_NEAR(r.watts, 333, 1e-9);
    CHECK_INT(r.temperature, 81);
    CHECK_INT(r.clock_mhz, 1410);
    CHECK_INT(r.throttled, NVML_THROTTLE_HEAT);
    emulation_nvml()->joules = 1; // a driver that was loaded anew counts from zero: not known, not negative
    OK(nvml_read(nvml, &r, &err));
    CHECK(isnan(r.joules));
    reset();
}

static void power_is_integrated(void) {
    Err err = {0};
    NvmlReading r;
    reset();
    emulation_nvml()->energy_supported = false;
    emulation_nvml()->watts = 100;
    OK(nvml_open(first_device, &nvml, &err));
    double start = clock_seconds();
    while (clock_seconds() - start < 0.02) (void)0;
    emulation_nvml()->watts = 300;
    OK(nvml_read(nvml, &r, &err));
    double seconds = clock_seconds() - start;
    CHECK(r.joules >= 200 * 0.02 * 0.99 && r.joules <= 200 * seconds * 1.5 + 1); // the mean of both readings
    emulation_nvml()->power_supported = false;
    OK(nvml_read(nvml, &r, &err)); // the temperature is still there
    CHECK(isnan(r.joules) && isnan(r.watts));
    reset();
}

static void without_a_meter(void) {
    Err err = {0};
    reset();
    emulation_take_away("nvidia-ml");
    CHECK(!nvml_open(first_device, &nvml, &err));
    CHECK_INT(err.code, ERR_UNAVAILABLE);
    CHECK_STR(err.where, "libnvidia-ml.so.1");
    emulation_take_away(NULL);
    CHECK(!nvml_open("0000:77:00.0", &nvml, &err));
    CHECK(err.code == ERR_UNAVAILABLE && strstr(err.msg, "0000:77:00.0"));
    emulation_nvml()->init_error = 9; // the driver isn't loaded
    CHECK(!nvml_open(first_device, &nvml, &err));
    CHECK(strstr(err.msg, "driver") != NULL);
    reset();
}

// Through the device, as a policy asks: a note while the clock is held down, none before and after.
static void a_held_clock_is_told(void) {
    double joules;
    char held[128];
    cuda_case();
    CHECK(cuda_device->meter(cuda_device, &joules, held));
    CHECK_STR(held, "");
    emulation_nvml()->throttle_reasons = NVML_THROTTLE_POWER_CAP;
    emulation_nvml()->temperature = 70, emulation_nvml()->clock_mhz = 1600;
    CHECK(cuda_device->meter(cuda_device, &joules, held));
    CHECK_STR(held, "power cap (70 degrees Celsius, 1600 MHz)");
    emulation_nvml()->throttle_reasons = 0;
    CHECK(cuda_device->meter(cuda_device, &joules, held));
    CHECK_STR(held, "");
    reset(); // the device's own connection too, which is why this test is the first of these
}
#endif

static const Test tests[] = {
    {"cuda meter joules grow", joules_grow},
    {"cuda meter reasons have names", reasons_have_names},
#ifdef RECKON_CUDA_EMULATION
    {"cuda meter a held clock is told", a_held_clock_is_told},
    {"cuda meter counters are read", counters_are_read},
    {"cuda meter power is integrated", power_is_integrated},
    {"cuda meter without a meter", without_a_meter},
#endif
};
CUDA_TEST_MAIN(tests)
