// What a processor could do at best is measured for every variant but the reference, which is slow on purpose.
#include "device.h"
#include "../test.h"
#include <math.h>

static void peaks_of(const char *variant, bool measured) {
    Device *d;
    Err err = {0};
    if (!device_open_cpu(variant, 2, &d, &err)) {
        CHECK_INT(err.code, ERR_UNAVAILABLE);
        return;
    }
    for (Dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        double flops, bytes;
        OK(d->peaks(d, dtype, &flops, &bytes, &err));
        CHECK(measured ? flops > 1e6 && bytes > 1e6 && isfinite(flops) && isfinite(bytes) : isnan(flops) && isnan(bytes));
    }
    device_close(d);
}
static void best_variant(void) { peaks_of(NULL, true); }
static void generic_variant(void) { peaks_of("generic", true); }
static void reference_variant(void) { peaks_of("reference", false); }

static const Test tests[] = {{"the best variant's", best_variant}, {"the generic one's", generic_variant}, {"not the reference's", reference_variant}};
TEST_MAIN(tests)
