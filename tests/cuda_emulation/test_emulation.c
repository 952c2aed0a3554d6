// The emulated device, tested with planted bugs: each must be caught. In instrumented builds (without sanitizers) every
// one is caught by a report that names its kind; in the sanitizer build those that the address or undefined-behaviour
// sanitizer finds end the process, and races show as a result that depends on the order of threads.
#include "test.h"
#include "emulation.h"
#include "planted.h"
#include <sys/wait.h>
#include <unistd.h>

// Runs it in a child, without catching; what it printed, and whether it ended well with right results.
static bool in_child(bool (*run)(void), char *printed, size_t size) {
    int ends[2];
    fflush(NULL);
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        emulation_reset();
        emulation_set_repeats(6);
        _exit(run() ? 0 : 3);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; used + 1 < size && (n = read(ends[0], printed + used, size - 1 - used)) > 0;) used += (size_t)n;
    printed[used] = 0;
    for (char rest[4096]; read(ends[0], rest, sizeof rest) > 0;) continue;
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// `instrumented` and `sanitized` are what the report contains; NULL: no report, but wrong results; UNSEEN: this build can't.
#define UNSEEN "-"
static void caught(bool (*run)(void), const char *instrumented, const char *sanitized) {
    static char printed[65536];
    const char *want = emulation_checker_active() ? instrumented : sanitized;
    if (want && !strcmp(want, UNSEEN)) SKIP("only instrumented code (a build without sanitizers) shows this");
    if (in_child(run, printed, sizeof printed)) FAIL("nothing was caught");
    if (want && !strstr(printed, want)) FAIL("expected a report with '%s', found: %.900s", want, printed);
    if (!want && *printed) FAIL("expected wrong results and no report, found: %.900s", printed);
    if (!emulation_checker_active()) return; // the sanitizers end the process
    emulation_reset();
    emulation_set_repeats(6);
    emulation_catch(true);
    bool right = run();
    const char *report = emulation_report();
    if (want && !(report && strstr(report, want))) FAIL("caught: expected a report with '%s', found: %s", want, report ? report : "none");
    if (!want && right) FAIL("expected wrong results");
    emulation_reset();
    CHECK_INT(emulation_allocations(), 0);
    // The device works again.
    CHECK(right_reduction());
}
#define CAUGHT(name, instrumented, sanitized)                                                                \
    static void test_##name(void) { caught(name, instrumented, sanitized); }
#define ORDER "depends on the order of threads"
CAUGHT(missing_barrier, "data race", ORDER)
CAUGHT(missing_second_barrier, "data race", ORDER)
CAUGHT(missing_warp_barrier, "data race", ORDER)
CAUGHT(mask_lacks_caller, "lacks the calling lane", "lacks the calling lane")
CAUGHT(mask_names_absent_lane, "this warp has only lanes 0xffff", "this warp has only lanes 0xffff")
CAUGHT(masks_differ, "with mask 0xffffffff", "with mask 0xffffffff") // however they meet
CAUGHT(lane_exits, "exit", "exit")
CAUGHT(lane_at_barrier, "don't arrive", "don't arrive")
CAUGHT(collectives_differ, "wrong mask", "wrong mask")
CAUGHT(read_before_wait, "awaits an asynchronous copy", ORDER)
CAUGHT(wait_for_too_few, "awaits an asynchronous copy", ORDER)
CAUGHT(wait_without_barrier, "of shared memory", ORDER) // under way, or written by another
CAUGHT(shared_read_out_of_bounds, "out of bounds", "use-after-poison")
CAUGHT(shared_write_out_of_bounds, "out of bounds", "use-after-poison")
CAUGHT(device_read_out_of_bounds, "byte 256 of a device allocation of 256 bytes is out of bounds", "use-after-poison")
CAUGHT(device_write_out_of_bounds, "out of bounds", "use-after-poison")
CAUGHT(device_write_far_out_of_bounds, "out of bounds", "device memory that isn't allocated")
CAUGHT(device_use_after_free, "out of bounds", "device memory that isn't allocated")
CAUGHT(local_array_out_of_bounds, "out of an array's bounds", "out of bounds")
CAUGHT(null_pointer, "at (nil)", "null pointer")
CAUGHT(divergent_barrier, "divergent barrier", "divergent barrier")
CAUGHT(two_barriers, "divergent barrier", "divergent barrier")
CAUGHT(exit_before_barrier, "divergent barrier", "divergent barrier")
CAUGHT(misaligned_vector, "misaligned", "misaligned")
CAUGHT(misaligned_ldmatrix, "multiple of 16", "multiple of 16")
CAUGHT(misaligned_async_copy, "not aligned", "not aligned")
CAUGHT(ldmatrix_outside, "isn't in the 1024 bytes of shared memory", "isn't in the 1024 bytes of shared memory")
CAUGHT(wrong_fragment, NULL, NULL)
CAUGHT(unwritten_shared, "never written", NULL)
CAUGHT(unwritten_device, "never written", NULL)
CAUGHT(host_reads_device, "host code", "host code")
CAUGHT(device_reads_host, "host memory", UNSEEN)
CAUGHT(blocks_race, "data race", ORDER)
CAUGHT(ticket_without_fence, "data race", UNSEEN)
CAUGHT(order_of_atomics, ORDER, ORDER)
CAUGHT(stack_overflow, "stack", "stack")
CAUGHT(trap, "__trap", "__trap")
CAUGHT(product_reads_unfenced, "no fence.proxy.async", UNSEEN)
CAUGHT(product_reads_without_barrier, "of shared memory", ORDER) // a race, or not shown to the tensor cores
CAUGHT(product_not_awaited, NULL, NULL)
CAUGHT(product_operands_overwritten, "while a product under way reads it", ORDER)
CAUGHT(product_registers_unfenced, "no wgmma.fence", "no wgmma.fence")
CAUGHT(product_warps_differ, "says another product", "says another product")
CAUGHT(product_tile_misaligned, "multiple of 1024", "multiple of 1024")
CAUGHT(product_on_older_device, "only 9.0 has it", "only 9.0 has it")
CAUGHT(tile_not_awaited, "awaits an asynchronous copy", "mbarrier")
CAUGHT(tile_of_wrong_parity, "awaits an asynchronous copy", "mbarrier")
CAUGHT(tile_of_too_many_bytes, "whose phase doesn't end", "whose phase doesn't end")
CAUGHT(arrivals_begun_without_barrier, "mbarrier", UNSEEN)
CAUGHT(missing_synchronization, NULL, NULL)
CAUGHT(copy_out_of_bounds, "reaches out of bounds", "reaches out of bounds")

// Under many seeds, with repeats.
static void right(bool (*run)(void)) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        emulation_reset();
        emulation_catch(true);
        emulation_set_seed(seed);
        emulation_set_repeats(seed % 4 == 0 ? 3 : 1);
        bool as_expected = run();
        if (emulation_report()) FAIL("seed %d: %s", (int)seed, emulation_report());
        if (!as_expected) FAIL("seed %d: wrong results", (int)seed);
    }
    emulation_reset();
}
#define RIGHT_TEST(name)                                                                                     \
    static void test_##name(void) { right(name); }
RIGHT(RIGHT_TEST)

#define ROW(name) {#name, test_##name},
static const Test tests[] = {PLANTED(ROW) RIGHT(ROW)};
TEST_MAIN(tests)
