// The emulated runtime API, cuBLASLt and NVML: what they do, what they refuse, and what tests can make them do.
#include "test.h"
#include "api_cases.h"
#include "emulation.h"

static void run_case(const char *(*run)(void)) {
    emulation_reset();
    emulation_catch(true);
    const char *wrong = run();
    emulation_reset();
    if (wrong) FAIL("%s", wrong);
    CHECK_INT(emulation_allocations(), 0);
}
#define CASE(name)                                                                                           \
    static void test_##name(void) { run_case(case_##name); }
API_CASES(CASE)
#define ROW(name) {#name, test_##name},
static const Test tests[] = {API_CASES(ROW)};
TEST_MAIN(tests)
