// Uses of the emulated runtime API and libraries, for test_api.c. Each returns NULL, or what was expected and isn't so.
#ifndef RECKON_EMULATION_API_CASES_H
#define RECKON_EMULATION_API_CASES_H
#ifdef __cplusplus
extern "C" {
#endif
#define API_CASES(X)                                                                                         \
    X(memory_limits)                                                                                         \
    X(failing_allocations)                                                                                   \
    X(launch_limits)                                                                                         \
    X(no_device)                                                                                             \
    X(device_properties)                                                                                     \
    X(sticky_errors)                                                                                         \
    X(failing_synchronization)                                                                               \
    X(streams_run_late)                                                                                      \
    X(plain_copies_are_staged)                                                                               \
    X(events_order_streams)                                                                                  \
    X(queries_make_progress)                                                                                 \
    X(host_functions)                                                                                        \
    X(graphs_replay)                                                                                         \
    X(graphs_over_two_streams)                                                                               \
    X(captures_refuse)                                                                                       \
    X(copies_have_directions)                                                                                \
    X(suballocation)                                                                                         \
    X(host_guard)                                                                                            \
    X(same_seed_same_run)                                                                                    \
    X(repeats_keep_results)                                                                                  \
    X(matrix_products)                                                                                       \
    X(matrix_product_refusals)                                                                               \
    X(nvml_counters)                                                                                         \
    X(missing_libraries)
#define DECLARE_CASE(name) const char *case_##name(void);
API_CASES(DECLARE_CASE)
#undef DECLARE_CASE
#ifdef __cplusplus
}
#endif
#endif
