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
    reset();
}

static double joules_read(void) {
    Err err = {0};
    NvmlReading r;
    OK(nvml_read(nvml, &r, &err));
    return r.joules;
}
// At its end the counter goes on from 0, once and again.
static void a_counter_goes_around(void) {
    Err err = {0};
    reset();
    emulation_nvml()->joules = 0, emulation_nvml()->millijoules_before = ~0ULL - 2499; // 2.5 J before the end
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->joules = 2;
    CHECK_NEAR(joules_read(), 2, 1e-9);
    emulation_nvml()->joules = 4;
    CHECK_NEAR(joules_read(), 4, 1e-9);
    CHECK_NEAR(joules_read(), 4, 1e-9); // nothing was used
    emulation_nvml()->millijoules_before += 1ULL << 62; // quarter by quarter around all of it
    emulation_nvml()->joules = 5;
    double before = joules_read();
    for (int i = 0; i < 4; i++) {
        emulation_nvml()->millijoules_before += 1ULL << 62;
        double now = joules_read();
        CHECK_NEAR((now - before) / 0x1p62, 1e-3, 1e-9);
        before = now;
    }
    reset();
}
// A driver that was loaded anew counts from zero: not known, not negative, and not known again once it has counted past where it was.
static void a_counter_set_back(void) {
    Err err = {0};
    reset();
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->joules += 4000;
    CHECK_NEAR(joules_read(), 4000, 1e-9);
    emulation_nvml()->joules = 1;
    CHECK(isnan(joules_read()));
    emulation_nvml()->joules = 9000;
    CHECK(isnan(joules_read()));
    reset();
}
// A reading that fails tells nothing; the counter counts on, and the next one has it all.
static void a_reading_fails(void) {
    Err err = {0};
    reset();
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->joules += 10;
    emulation_nvml()->energy_error = 999;
    CHECK(isnan(joules_read()));
    emulation_nvml()->energy_error = 0;
    emulation_nvml()->joules += 5;
    CHECK_NEAR(joules_read(), 15, 1e-9);
    reset();
    emulation_nvml()->energy_error = 4; // no permission from the start: power instead
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->energy_error = 0;
    emulation_nvml()->clock_skew = 10;
    double joules = joules_read();
    CHECK(joules >= 2500 && joules < 2500 + 250);
    emulation_nvml()->power_error = 15; // watts without a reading: what was used till then isn't known, nor what comes
    CHECK(isnan(joules_read()));
    emulation_nvml()->power_error = 0;
    CHECK(isnan(joules_read()));
    reset();
}
static void the_clock_goes_back(void) {
    Err err = {0};
    reset();
    OK(nvml_open(first_device, &nvml, &err)); // a counter asks no clock
    emulation_nvml()->joules += 3;
    emulation_nvml()->clock_skew = -100;
    CHECK_NEAR(joules_read(), 3, 1e-9);
    reset();
    emulation_nvml()->energy_supported = false;
    emulation_nvml()->watts = 100;
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->clock_skew = 20;
    double joules = joules_read();
    CHECK(joules >= 2000 && joules < 2000 + 100);
    emulation_nvml()->clock_skew = 19; // a step back of a second: never fewer joules than before
    CHECK(isnan(joules_read()));
    reset();
}

static void power_is_integrated(void) {
    Err err = {0};
    NvmlReading r;
    reset();
    emulation_nvml()->energy_supported = false;
    emulation_nvml()->watts = 100;
    OK(nvml_open(first_device, &nvml, &err));
    emulation_nvml()->watts = 300, emulation_nvml()->clock_skew = 60;
    OK(nvml_read(nvml, &r, &err));
    CHECK(r.joules >= 200 * 60 && r.joules <= 200 * 60 * 1.05); // the mean of both readings
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
    {"cuda meter a counter goes around", a_counter_goes_around},
    {"cuda meter a counter set back", a_counter_set_back},
    {"cuda meter a reading fails", a_reading_fails},
    {"cuda meter the clock goes back", the_clock_goes_back},
    {"cuda meter power is integrated", power_is_integrated},
    {"cuda meter without a meter", without_a_meter},
#endif
};
CUDA_TEST_MAIN(tests)
