// Kernels with a planted bug, and right ones, for test_emulation.c. A planted run launches its kernel and waits for it; it
// returns whether the results were right.
#ifndef RECKON_EMULATION_PLANTED_H
#define RECKON_EMULATION_PLANTED_H
#include <stdbool.h>
#ifdef __cplusplus
extern "C" {
#endif
#define PLANTED(X)                                                                                           \
    X(missing_barrier)                                                                                       \
    X(missing_second_barrier)                                                                                \
    X(missing_warp_barrier)                                                                                  \
    X(mask_lacks_caller)                                                                                     \
    X(mask_names_absent_lane)                                                                                \
    X(masks_differ)                                                                                          \
    X(lane_exits)                                                                                            \
    X(lane_at_barrier)                                                                                       \
    X(collectives_differ)                                                                                    \
    X(read_before_wait)                                                                                      \
    X(wait_for_too_few)                                                                                      \
    X(wait_without_barrier)                                                                                  \
    X(shared_read_out_of_bounds)                                                                             \
    X(shared_write_out_of_bounds)                                                                            \
    X(device_read_out_of_bounds)                                                                             \
    X(device_write_out_of_bounds)                                                                            \
    X(device_write_far_out_of_bounds)                                                                        \
    X(device_use_after_free)                                                                                 \
    X(local_array_out_of_bounds)                                                                             \
    X(null_pointer)                                                                                          \
    X(divergent_barrier)                                                                                     \
    X(two_barriers)                                                                                          \
    X(exit_before_barrier)                                                                                   \
    X(misaligned_vector)                                                                                     \
    X(misaligned_ldmatrix)                                                                                   \
    X(misaligned_async_copy)                                                                                 \
    X(ldmatrix_outside)                                                                                      \
    X(wrong_fragment)                                                                                        \
    X(unwritten_shared)                                                                                      \
    X(unwritten_device)                                                                                      \
    X(host_reads_device)                                                                                     \
    X(device_reads_host)                                                                                     \
    X(blocks_race)                                                                                           \
    X(ticket_without_fence)                                                                                  \
    X(order_of_atomics)                                                                                      \
    X(stack_overflow)                                                                                        \
    X(trap)                                                                                                  \
    X(product_reads_unfenced)                                                                                \
    X(product_reads_without_barrier)                                                                         \
    X(product_not_awaited)                                                                                   \
    X(product_operands_overwritten)                                                                          \
    X(product_registers_unfenced)                                                                            \
    X(product_warps_differ)                                                                                  \
    X(product_tile_misaligned)                                                                               \
    X(product_on_older_device)                                                                               \
    X(tile_not_awaited)                                                                                      \
    X(tile_of_wrong_parity)                                                                                  \
    X(tile_of_too_many_bytes)                                                                                \
    X(arrivals_begun_without_barrier)                                                                        \
    X(missing_synchronization)                                                                               \
    X(copy_out_of_bounds)
#define RIGHT(X)                                                                                             \
    X(right_reduction)                                                                                       \
    X(right_shuffles)                                                                                        \
    X(right_votes)                                                                                           \
    X(right_partial_masks)                                                                                   \
    X(right_warp_staging)                                                                                    \
    X(right_async_copies)                                                                                    \
    X(right_matrix_product)                                                                                  \
    X(right_transposed_loads)                                                                                \
    X(right_warpgroup_product)                                                                               \
    X(right_ticket)                                                                                          \
    X(right_atomics)                                                                                         \
    X(right_barrier_votes)                                                                                   \
    X(right_three_dimensions)                                                                                \
    X(right_conversions)                                                                                     \
    X(right_vectors)
#define DECLARE(name) bool name(void);
PLANTED(DECLARE)
RIGHT(DECLARE)
#undef DECLARE
#ifdef __cplusplus
}
#endif
#endif
