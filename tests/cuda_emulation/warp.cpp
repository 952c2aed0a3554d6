// What a warp does together: votes, shuffles, matches, reductions, tensor-core products and their loads; and what one thread
// does beside its plain accesses: asynchronous copies, atomics, fences.
//
// A collective waits until every lane of its mask has arrived with the same mask for the same operation; the last to arrive
// computes for all. Lanes outside of the mask that are read, and lanes that aren't there, give NaN patterns or a report.
// Only __syncwarp and __syncthreads order memory; the other collectives don't (CUDA C++ Programming Guide, 10.22).
#include "internal.h"

namespace emulation {
const char *collective_name(EmulatedCollective kind) {
    static const char *const names[EMULATED_COLLECTIVES] = {
        "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",   "__ballot_sync",
        "__any_sync",        "__all_sync",        "__match_any_sync",  "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
        "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync", "mma",
        "ldmatrix",          "wgmma",             "wgmma.fence",       "wgmma.commit_group", "wgmma.wait_group"};
    return names[kind];
}

static Thread *lane_of(uint32_t warp, uint32_t lane) { return &block.threads[warp * 32 + lane]; }
#define FOR_LANES(lane, mask)                                                                                \
    for (uint32_t lane##_left = (mask), lane;                                                                \
         lane##_left && ((lane = (uint32_t)__builtin_ctz(lane##_left)), true); lane##_left &= lane##_left - 1)

// ---- tensor cores ----------------------------------------------------------------------------------------
static float bf16_value(uint32_t bits) {
    bits <<= 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
struct MmaOperands {
    float *d;
    const uint32_t *a, *b;
};
// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". g = lane / 4, t = lane % 4:
//   a[i]: row g + 8 (i % 2), columns 2t + 8 (i / 2) and the next;  b[i]: rows 2t + 8i and the next, column g;
//   d[i]: row g + 8 (i / 2), column 2t + i % 2.
// Each sum is a chain in fp32, k ascending, that starts from d; hardware adds in another order.
static void mma(uint32_t warp) {
    float a[16][16], b[16][8];
    for (uint32_t lane = 0; lane < 32; lane++) {
        const MmaOperands *o = (const MmaOperands *)(uintptr_t)lane_of(warp, lane)->request.value;
        uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t i = 0; i < 4; i++)
            for (uint32_t h = 0; h < 2; h++) a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + h] = bf16_value(o->a[i] >> 16 * h & 0xffff);
        for (uint32_t i = 0; i < 2; i++)
            for (uint32_t h = 0; h < 2; h++) b[2 * t + 8 * i + h][g] = bf16_value(o->b[i] >> 16 * h & 0xffff);
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        const MmaOperands *o = (const MmaOperands *)(uintptr_t)lane_of(warp, lane)->request.value;
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
            float sum = o->d[i];
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            o->d[i] = sum;
        }
    }
}

struct LdmatrixOperands {
    uint32_t *r;
    const uint16_t *row;
};
// Row i % 8 of matrix i / 8 comes from lane i; lane l receives of each matrix row l / 4, elements 2 (l % 4) and the next,
// or of its transpose.
static void ldmatrix(uint32_t warp, uint32_t matrices, bool transposed, const void *place) {
    const uint16_t *rows[32];
    for (uint32_t i = 0; i < 8 * matrices; i++) {
        Thread *t = lane_of(warp, i), *last = current;
        rows[i] = ((const LdmatrixOperands *)(uintptr_t)t->request.value)->row;
        current = t; // whose access it is
        if ((uintptr_t)rows[i] % 16)
            kernel_failure(cudaErrorMisalignedAddress, place, text("ldmatrix: row address %p isn't a multiple of 16", (const void *)rows[i]));
        if (!in_shared(rows[i]) || !in_shared((const char *)rows[i] + 15))
            kernel_failure(cudaErrorIllegalAddress, place,
                           text("ldmatrix: row address %p isn't in the %zu bytes of shared memory that start at %p",
                                (const void *)rows[i], block.shared_bytes, (void *)shared_base()));
        checker_access(rows[i], 16, Access::read, place);
        current = last;
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        uint32_t *r = ((const LdmatrixOperands *)(uintptr_t)lane_of(warp, lane)->request.value)->r;
        uint32_t high = lane / 4, low = lane % 4 * 2;
        for (uint32_t m = 0; m < matrices; m++) {
            const uint16_t *const *matrix = rows + 8 * m;
            r[m] = transposed ? (uint32_t)matrix[low][high] | (uint32_t)matrix[low + 1][high] << 16
                              : (uint32_t)matrix[high][low] | (uint32_t)matrix[high][low + 1] << 16;
        }
    }
}

// ---- collectives -----------------------------------------------------------------------------------------
static uint64_t shuffled(uint32_t warp, uint32_t lane, const uint64_t values[32]) {
    const Request &r = lane_of(warp, lane)->request;
    uint32_t first = lane & ~(r.width - 1), from;
    if (r.kind == EMULATED_SHUFFLE)
        from = first + (r.operand & (r.width - 1));
    else if (r.kind == EMULATED_SHUFFLE_UP)
        from = lane >= first + r.operand ? lane - r.operand : lane;
    else if (r.kind == EMULATED_SHUFFLE_DOWN)
        from = lane + r.operand < first + r.width ? lane + r.operand : lane;
    else
        from = (lane ^ r.operand) < first + r.width ? lane ^ r.operand : lane;
    return r.mask >> from & 1 ? values[from] : ~0ull;
}

static uint64_t reduced(EmulatedCollective kind, uint32_t warp, uint32_t mask) {
    uint32_t sum = 0, smallest = ~0u, largest = 0, conjunction = ~0u, disjunction = 0, parity = 0;
    int32_t least = INT32_MAX, greatest = INT32_MIN;
    FOR_LANES(lane, mask) {
        uint32_t v = (uint32_t)lane_of(warp, lane)->request.value;
        sum += v, smallest = min(smallest, v), largest = max(largest, v);
        least = min(least, (int32_t)v), greatest = max(greatest, (int32_t)v);
        conjunction &= v, disjunction |= v, parity ^= v;
    }
    switch (kind) {
    case EMULATED_REDUCE_ADD: return sum;
    case EMULATED_REDUCE_MIN: return smallest;
    case EMULATED_REDUCE_MAX: return largest;
    case EMULATED_REDUCE_MIN_SIGNED: return (uint32_t)least;
    case EMULATED_REDUCE_MAX_SIGNED: return (uint32_t)greatest;
    case EMULATED_REDUCE_AND: return conjunction;
    case EMULATED_REDUCE_OR: return disjunction;
    default: return parity;
    }
}

static void complete(EmulatedCollective kind, uint32_t warp, uint32_t mask, const void *place) {
    uint64_t values[32];
    uint32_t votes = 0;
    FOR_LANES(lane, mask) {
        values[lane] = lane_of(warp, lane)->request.value;
        votes |= (uint32_t)(values[lane] != 0) << lane;
    }
    if (kind == EMULATED_SYNCWARP) {
        checker_warp_barrier(warp, mask);
    } else if (kind == EMULATED_MMA) {
        mma(warp);
    } else if (kind == EMULATED_LDMATRIX) {
        ldmatrix(warp, current->request.operand, current->request.width != 0, place);
    } else if (kind == EMULATED_WGMMA) {
        hopper_issue(warp, place);
    } else if (kind == EMULATED_WGMMA_FENCE) {
        hopper_fence(warp);
    } else if (kind == EMULATED_WGMMA_COMMIT) {
        hopper_commit(warp);
    } else if (kind == EMULATED_WGMMA_WAIT) {
        hopper_wait(warp, (int)current->request.operand);
    } else if (kind >= EMULATED_REDUCE_ADD && kind <= EMULATED_REDUCE_XOR) {
        uint64_t result = reduced(kind, warp, mask);
        FOR_LANES(lane, mask) lane_of(warp, lane)->request.value = result;
    } else {
        FOR_LANES(lane, mask) {
            uint64_t *result = &lane_of(warp, lane)->request.value;
            switch (kind) {
            case EMULATED_BALLOT: *result = votes; break;
            case EMULATED_ANY: *result = votes != 0; break;
            case EMULATED_ALL: *result = votes == mask; break;
            case EMULATED_MATCH_ANY: {
                uint32_t same = 0;
                FOR_LANES(other, mask) same |= (uint32_t)(values[other] == values[lane]) << other;
                *result = same;
                break;
            }
            default: *result = shuffled(warp, lane, values);
            }
        }
    }
}

static std::string lane_name(const Thread *t) {
    return text("lane %u (thread %u) waits in %s with mask %#x\n  at ", t->lane, t->number, collective_name(t->request.kind),
                t->request.mask) +
           place_name(t->request.place);
}

// Lanes that wait and this one must agree where each names the other; otherwise one may still go on alone.
static void check_agreement(const Thread *me) {
    const Warp &w = block.warps[me->warp];
    const Request &r = me->request;
    if (!w.waiting) return;
    const Request &leader = lane_of(me->warp, w.leader)->request;
    if (leader.mask == r.mask && leader.kind == r.kind && leader.mask == 0xffffffffu) return;
    FOR_LANES(lane, w.waiting) {
        const Thread *other = lane_of(me->warp, lane);
        bool related = (r.mask >> lane & 1) && (other->request.mask >> me->lane & 1);
        if (!related || (other->request.mask == r.mask && other->request.kind == r.kind)) continue;
        kernel_failure(cudaErrorLaunchFailure, r.place,
                       text("wrong mask: this lane (%u) is in %s with mask %#x, but ", me->lane, collective_name(r.kind), r.mask) +
                           lane_name(other));
    }
}

static void check_mask(const Thread *me) {
    const Warp &w = block.warps[me->warp];
    const Request &r = me->request;
    const char *name = collective_name(r.kind);
    if (!(r.mask >> me->lane & 1))
        kernel_failure(cudaErrorLaunchFailure, r.place,
                       text("wrong mask: %s with mask %#x, which lacks the calling lane %u", name, r.mask, me->lane));
    if (r.mask & ~w.present)
        kernel_failure(cudaErrorLaunchFailure, r.place,
                       text("wrong mask: %s with mask %#x, but this warp has only lanes %#x", name, r.mask, w.present));
    if (r.kind != EMULATED_SYNCWARP && (r.mask & w.finished))
        kernel_failure(cudaErrorLaunchFailure, r.place,
                       text("%s with mask %#x: lanes %#x have exited", name, r.mask, r.mask & w.finished));
    if ((r.kind == EMULATED_MMA || r.kind == EMULATED_LDMATRIX) ? false : r.width == 0 || r.width > 32 || (r.width & (r.width - 1)))
        kernel_failure(cudaErrorLaunchFailure, r.place, text("%s with width %u", name, r.width));
}

// Makes the lanes of the mask ready, but the one that runs.
static void release(uint32_t warp, uint32_t mask) {
    Warp *w = &block.warps[warp];
    w->waiting &= ~mask;
    if (w->waiting) w->leader = (uint32_t)__builtin_ctz(w->waiting);
    uint32_t turn = block.random.next() % 32;
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t lane = (i + turn) % 32;
        if ((mask >> lane & 1) && lane_of(warp, lane)->state == State::in_collective) thread_ready(warp * 32 + lane);
    }
}

// Whether all lanes of `awaited` wait in this collective; other lanes may wait in others meanwhile.
static bool all_wait(uint32_t warp, EmulatedCollective kind, uint32_t mask, uint32_t awaited) {
    if ((block.warps[warp].waiting & awaited) != awaited) return false;
    FOR_LANES(lane, awaited) {
        const Request &r = lane_of(warp, lane)->request;
        if (r.kind != kind || r.mask != mask) return false;
    }
    return true;
}

static void collective(EmulatedCollective kind, uint32_t mask, uint64_t value, uint32_t operand, uint32_t width, const void *place) {
    Thread *me = current;
    Warp *w = &block.warps[me->warp];
    me->request = Request{kind, mask, operand, width, value, place};
    check_mask(me);
    check_agreement(me);
    if (!w->waiting) w->leader = me->lane;
    w->waiting |= 1u << me->lane;
    uint32_t awaited = mask & ~w->finished;
    if (!all_wait(me->warp, kind, mask, awaited)) {
        thread_wait(State::in_collective);
        return;
    }
    complete(kind, me->warp, awaited, place);
    release(me->warp, mask);
    thread_yield();
}

uint32_t lanes_missing(const Thread *t) {
    uint32_t missing = t->request.mask & ~block.warps[t->warp].waiting;
    FOR_LANES(lane, t->request.mask & ~missing) {
        const Request &r = lane_of(t->warp, lane)->request;
        if (r.kind != t->request.kind || r.mask != t->request.mask) missing |= 1u << lane;
    }
    return missing;
}
void warp_thread_finished(Thread *t) {
    Warp *w = &block.warps[t->warp];
    FOR_LANES(lane, w->waiting) {
        Thread *other = lane_of(t->warp, lane);
        if (!(other->request.mask >> t->lane & 1)) continue;
        if (other->request.kind != EMULATED_SYNCWARP)
            kernel_failure(cudaErrorLaunchFailure, NULL, text("lane %u exits, but ", t->lane) + lane_name(other));
        // An exited lane isn't waited for in __syncwarp: it may have been the last.
        uint32_t mask = other->request.mask, awaited = mask & ~w->finished;
        if (!all_wait(t->warp, EMULATED_SYNCWARP, mask, awaited)) continue;
        checker_warp_barrier(t->warp, awaited);
        release(t->warp, mask);
        return warp_thread_finished(t);
    }
}
} // namespace emulation

using namespace emulation;

uint64_t emulation_collective(EmulatedCollective kind, uint32_t mask, uint64_t value, uint32_t operand, uint32_t width) {
    Thread *me = current;
    collective(kind, mask, value, operand, width, __builtin_return_address(0));
    return me->request.value;
}
// CUDA promises the calling lane and no other.
uint32_t emulation_activemask(void) { return 1u << current->lane; }

void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    MmaOperands operands = {d, a, b};
    collective(EMULATED_MMA, ~0u, (uint64_t)(uintptr_t)&operands, 0, 0, __builtin_return_address(0));
}
// Of warpgroups (hopper.cpp), warp by warp.
void emulation_wgmma(float *d, uint64_t a, uint64_t b, int columns, int add) {
    WgmmaRequest request = {d, a, b, (uint32_t)columns, add != 0};
    collective(EMULATED_WGMMA, ~0u, (uint64_t)(uintptr_t)&request, 0, 32, __builtin_return_address(0));
}
void wgmma_fence(void) { collective(EMULATED_WGMMA_FENCE, ~0u, 0, 0, 32, __builtin_return_address(0)); }
void wgmma_commit(void) { collective(EMULATED_WGMMA_COMMIT, ~0u, 0, 0, 32, __builtin_return_address(0)); }
void emulation_wgmma_wait(int groups) { collective(EMULATED_WGMMA_WAIT, ~0u, 0, (uint32_t)groups, 32, __builtin_return_address(0)); }
// `width` says whether transposed, so that lanes that differ in form are told apart by the operand.
#define LDMATRIX(name, matrices, transposed)                                                                 \
    void name(uint32_t r[matrices], const void *row) {                                                       \
        LdmatrixOperands operands = {r, (const uint16_t *)row};                                              \
        collective(EMULATED_LDMATRIX, ~0u, (uint64_t)(uintptr_t)&operands, matrices, transposed,             \
                   __builtin_return_address(0));                                                             \
    }
LDMATRIX(ldmatrix_x4, 4, false)
LDMATRIX(ldmatrix_x4_trans, 4, true)
LDMATRIX(ldmatrix_x2, 2, false)
LDMATRIX(ldmatrix_x2_trans, 2, true)

// ---- asynchronous copies ---------------------------------------------------------------------------------
static void async_copy(void *shared, const void *global, bool valid, int bytes, const void *place) {
    if ((uintptr_t)shared % (unsigned)bytes || (valid && (uintptr_t)global % (unsigned)bytes))
        kernel_failure(cudaErrorMisalignedAddress, place,
                       text("cp.async of %d bytes from %p to %p: not aligned to its size", bytes, global, shared));
    if (!in_shared(shared) || !in_shared((char *)shared + bytes - 1))
        kernel_failure(cudaErrorIllegalAddress, place,
                       text("cp.async to %p, which isn't in the %zu bytes of shared memory", shared, block.shared_bytes));
    if (valid) {
        const Allocation *a = allocation_of(global);
        if (!a || (const unsigned char *)global + bytes > a->data + a->bytes)
            kernel_failure(cudaErrorIllegalAddress, place, text("cp.async of %d bytes from ", bytes) + address_name(global));
        checker_access(global, (size_t)bytes, Access::read, place);
    }
    checker_access(shared, (size_t)bytes, Access::write, place);
    checker_copy_issued(shared, (size_t)bytes, place);
    memset(shared, NAN_BYTE, (size_t)bytes);
    current->copies.push_back({(unsigned char *)shared, valid ? (const unsigned char *)global : NULL, bytes, current->copy_group});
}
void cp_async_16(void *shared, const void *global, bool valid) { async_copy(shared, global, valid, 16, __builtin_return_address(0)); }
void cp_async_4(void *shared, const void *global, bool valid) { async_copy(shared, global, valid, 4, __builtin_return_address(0)); }
void cp_async_commit(void) { current->copy_group++; }
// Groups are numbered from 0; all but the latest `groups` committed ones land now, and no sooner.
void emulation_async_wait(int groups) {
    const void *place = __builtin_return_address(0);
    std::vector<AsyncCopy> &copies = current->copies;
    size_t left = 0;
    for (const AsyncCopy &copy : copies) {
        if (copy.group >= current->copy_group - groups) {
            copies[left++] = copy;
            continue;
        }
        checker_copy_landed(copy.to, (size_t)copy.bytes);
        if (copy.from)
            memcpy(copy.to, copy.from, (size_t)copy.bytes);
        else
            memset(copy.to, 0, (size_t)copy.bytes);
        checker_access(copy.to, (size_t)copy.bytes, Access::write, place);
    }
    copies.resize(left);
}

// ---- atomics and fences ----------------------------------------------------------------------------------
uint64_t emulation_atomic(EmulatedAtomic kind, void *p, size_t size, uint64_t value, uint64_t compare) {
    const void *place = __builtin_return_address(0);
    if ((uintptr_t)p % size) kernel_failure(cudaErrorMisalignedAddress, place, text("an atomic at the misaligned address %p", p));
    if (!in_shared(p) && !allocation_of(p)) kernel_failure(cudaErrorIllegalAddress, place, "an atomic at " + address_name(p));
    if (block.random.next() % 8 == 0) thread_yield(); // another may come first
    checker_access(p, size, Access::atomic, place);
    uint64_t keep = size == 4 ? 0xffffffffu : ~0ull, old = 0, result;
    memcpy(&old, p, size);
    value &= keep, compare &= keep;
    bool less = size == 4 ? (int32_t)old < (int32_t)value : (int64_t)old < (int64_t)value;
    switch (kind) {
    case EMULATED_ATOMIC_ADD: result = old + value; break;
    case EMULATED_ATOMIC_MIN: result = old < value ? old : value; break;
    case EMULATED_ATOMIC_MAX: result = old > value ? old : value; break;
    case EMULATED_ATOMIC_MIN_SIGNED: result = less ? old : value; break;
    case EMULATED_ATOMIC_MAX_SIGNED: result = less ? value : old; break;
    case EMULATED_ATOMIC_AND: result = old & value; break;
    case EMULATED_ATOMIC_OR: result = old | value; break;
    case EMULATED_ATOMIC_XOR: result = old ^ value; break;
    case EMULATED_ATOMIC_EXCHANGE: result = value; break;
    default: result = old == compare ? value : old;
    }
    memcpy(p, &result, size);
    return old;
}
void emulation_fence(void) { checker_fence(); }

// ---- conversions -----------------------------------------------------------------------------------------
// ex2.approx.ftz.f32: denormals count as zero and come out as zero.
float exp2_approx(float x) {
    if (fabsf(x) < 0x1p-126f) x = 0;
    float y = exp2f(x);
    return fabsf(y) < 0x1p-126f ? 0.0f : y;
}
uint32_t emulation::bf16_nearest(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
uint32_t pack_bf16x2(float low, float high) { return bf16_nearest(low) | bf16_nearest(high) << 16; }
