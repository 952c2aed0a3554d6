// What sm_90 alone does: products of a warpgroup whose operands lie in shared memory, and copies of tiles that report to a barrier
// in shared memory (PTX ISA 8, sections 9.7.15, 9.7.9.27 and 9.7.13.15).
//
// A product is issued by each of the four warps by itself, which have to say the same one after the other. Its sums hold NaN
// until a wait for their group; its operands are read either when it is issued or at that wait, as drawn, and nobody may
// write them in between. What a thread wrote by ordinary stores or copies is seen only after its fence.proxy.async and a
// barrier; sums that were touched otherwise need wgmma.fence before the next product.
//
// A tile that is copied is NaN until its copy lands: at once, or when somebody waits for its barrier. Only who has waited may
// read it, or who met such a thread at a barrier since.
#include "internal.h"

namespace emulation {
constexpr int ROWS = 16, DEPTH = 16; // of a warp; of a product

struct Operands {
    float a[ROWS][DEPTH];
    std::vector<float> b; // [columns][DEPTH]
};
struct Sums { // of a chain of products that is under way
    float *d[32];
    uint32_t columns;
    std::vector<float> value; // [32][columns / 2]
};
struct Product {
    size_t sums;
    WgmmaRequest what;
    int group;
    bool early;
    uint32_t time; // when it was issued
    Operands operands;
    const void *place;
};
struct WarpState {
    std::vector<Product> products; // under way
    std::vector<Sums> sums;
    int group; // of the products issued from now on
    bool fenced;
    size_t said; // products issued so far
};
struct Said { // by the warpgroup's foremost warp
    uint64_t a, b;
    uint32_t columns;
    bool add;
};
static std::vector<WarpState> warps;
static std::vector<std::vector<Said>> warpgroups;

// ---- copies of tiles -------------------------------------------------------------------------------------
constexpr uint64_t MAP_MAGIC = 0x7465736e6f72206d;
constexpr unsigned TILE_ROW_BYTES = 128;
constexpr unsigned char BARRIER_BYTE = 0xa5;
struct MapFields {
    uint64_t magic;
    const unsigned char *base;
    uint64_t sizes[3], strides[2]; // columns, rows, matrices; bytes between rows, between matrices
    uint32_t tile_rows;
};
struct TileCopy {
    unsigned char *tile;
    MapFields map;
    int at[3];
};
struct Arrivals {
    const void *barrier;
    int count, left, phase;
    int64_t bytes;   // announced and not yet there; below 0 where they came first
    uint32_t begun, beginner;
    std::vector<TileCopy> copies; // under way
    std::vector<uint32_t> waiting;
};
static std::vector<Arrivals> barriers;

// 16 bytes each: where it goes, where it comes from, how many of them lie inside of the matrix.
static void visit_tile(const TileCopy &c, const std::function<void(unsigned char *, const unsigned char *, int)> &visit) {
    for (uint32_t row = 0; row < c.map.tile_rows; row++)
        for (uint32_t piece = 0; piece < TILE_ROW_BYTES / 16; piece++) {
            int64_t column = c.at[0] + (int64_t)piece * 8, r = c.at[1] + (int64_t)row, matrix = c.at[2];
            bool there = column >= 0 && r >= 0 && matrix >= 0 && r < (int64_t)c.map.sizes[1] && matrix < (int64_t)c.map.sizes[2];
            int64_t inside = there ? ((int64_t)c.map.sizes[0] - column) * 2 : 0;
            visit(c.tile + row * TILE_ROW_BYTES + (piece ^ (row & 7)) * 16,
                  c.map.base + matrix * (int64_t)c.map.strides[1] + r * (int64_t)c.map.strides[0] + column * 2,
                  inside < 0 ? 0 : inside > 16 ? 16 : (int)inside);
        }
}
static Arrivals &arrivals_of(const void *barrier, const void *place) {
    for (Arrivals &a : barriers) {
        if (a.barrier != barrier) continue;
        for (int i = 0; i < 8; i++)
            if (((const unsigned char *)barrier)[i] != BARRIER_BYTE) kernel_failure(cudaErrorLaunchFailure, place, "mbarrier: it was written over");
        checker_begun(a.begun, a.beginner, place);
        return a;
    }
    kernel_failure(cudaErrorLaunchFailure, place, "mbarrier: no mbarrier.init of it in this block");
}
static void end_phase(Arrivals &a) {
    if (a.left == 0 && a.bytes == 0) a.phase++, a.left = a.count;
}
static void land(Arrivals &a) {
    while (!a.copies.empty()) {
        size_t i = block.random.below((uint32_t)a.copies.size());
        TileCopy c = a.copies[i];
        a.copies.erase(a.copies.begin() + (ptrdiff_t)i);
        visit_tile(c, [&](unsigned char *to, const unsigned char *from, int inside) {
            memset(to, 0, 16);
            memcpy(to, from, (size_t)inside);
            checker_tile_landed(to, 16, (size_t)(&a - barriers.data()));
        });
        a.bytes -= c.map.tile_rows * TILE_ROW_BYTES;
        end_phase(a);
    }
}
static void wake(Arrivals &a) {
    for (uint32_t number : a.waiting) thread_ready(number);
    a.waiting.clear();
}
void hopper_tiles_end(const void *place) {
    for (const Arrivals &a : barriers)
        if (!a.copies.empty()) kernel_failure(cudaErrorLaunchFailure, place, "the block exits with cp.async.bulk.tensor under way");
}

// ---- a block ---------------------------------------------------------------------------------------------
void hopper_block_begins() {
    barriers.clear();
    warps.assign(block.warps.size(), WarpState{});
    warpgroups.assign((block.warps.size() + 3) / 4, {});
}

static const WgmmaRequest &request_of(uint32_t warp, uint32_t lane) {
    return *(const WgmmaRequest *)(uintptr_t)block.threads[warp * 32 + lane].request.value;
}

// The 16 bf16 of a row, as the swizzle has them: bits 4 to 6 of an address are changed by bits 7 to 9, or, of rows of 64 bytes, bits
// 4 and 5 by bits 7 and 8.
static bool is_wide(uint64_t descriptor) { return descriptor >> 62 == 1; }
static uint64_t pattern_bits(uint64_t descriptor) { return is_wide(descriptor) ? 7 : 3; }
static void row_of(uint64_t descriptor, uint32_t row, const uint16_t *piece[2]) {
    uint64_t start = (descriptor & 0x3fff) << 4, group = (descriptor >> 32 & 0x3fff) << 4;
    for (uint32_t half = 0; half < 2; half++) {
        uint64_t at = start + row / 8 * group + row % 8 * (is_wide(descriptor) ? 128 : 64) + half * 16;
        piece[half] = (const uint16_t *)shared_pointer((uint32_t)(at ^ (at >> 7 & pattern_bits(descriptor)) << 4));
    }
}
static void check_descriptor(uint64_t descriptor, const char *name, const void *place) {
    uint64_t kind = descriptor >> 62;
    if ((kind != 1 && kind != 2) || (descriptor >> 49 & 7) || (descriptor & ~(3ull << 62 | 0x3fffull << 32 | 0x3fffull << 16 | 0x3fffull)))
        kernel_failure(cudaErrorIllegalInstruction, place,
                       text("wgmma: descriptor of %s is %#llx; only the swizzles of 128 and 64 bytes are known here", name, (unsigned long long)descriptor));
    if ((descriptor & 0x3fff) << 4 & pattern_bits(descriptor) << 7)
        kernel_failure(cudaErrorMisalignedAddress, place,
                       text("wgmma: %s begins at shared address %#llx, whose swizzle doesn't begin at a multiple of %d bytes", name,
                            (unsigned long long)((descriptor & 0x3fff) << 4), is_wide(descriptor) ? 1024 : 512));
}
static void visit_rows(uint64_t descriptor, uint32_t first, uint32_t count, const char *name, const void *place,
                       const std::function<void(uint32_t, const uint16_t *const *)> &visit) {
    for (uint32_t row = 0; row < count; row++) {
        const uint16_t *piece[2];
        row_of(descriptor, first + row, piece);
        for (const uint16_t *p : piece)
            if (!in_shared(p) || !in_shared((const char *)p + 15))
                kernel_failure(cudaErrorIllegalAddress, place,
                               text("wgmma: row %u of %s isn't in the %zu bytes of shared memory", first + row, name, block.shared_bytes));
        visit(row, piece);
    }
}
static void visit_operands(uint32_t warp, const Product &p, const std::function<void(const uint16_t *)> &visit) {
    auto both = [&](uint32_t, const uint16_t *const *piece) { visit(piece[0]), visit(piece[1]); };
    visit_rows(p.what.a, warp % 4 * ROWS, ROWS, "a", p.place, both);
    visit_rows(p.what.b, 0, p.what.columns, "b", p.place, both);
}
static float value_of(const uint16_t *const piece[2], int k) {
    uint32_t bits = (uint32_t)piece[k / 8][k % 8] << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static void read_operands(uint32_t warp, Product *p) {
    Operands &o = p->operands;
    o.b.resize(p->what.columns * DEPTH);
    visit_rows(p->what.a, warp % 4 * ROWS, ROWS, "a", p->place, [&](uint32_t row, const uint16_t *const *piece) {
        for (int k = 0; k < DEPTH; k++) o.a[row][k] = value_of(piece, k);
    });
    visit_rows(p->what.b, 0, p->what.columns, "b", p->place, [&](uint32_t row, const uint16_t *const *piece) {
        for (int k = 0; k < DEPTH; k++) o.b[row * DEPTH + k] = value_of(piece, k);
    });
}

// ---- issue -----------------------------------------------------------------------------------------------
static void check_agreement(uint32_t warp, const void *place) {
    const WgmmaRequest &first = request_of(warp, 0);
    for (uint32_t lane = 1; lane < 32; lane++) {
        const WgmmaRequest &r = request_of(warp, lane);
        if (r.a != first.a || r.b != first.b || r.columns != first.columns || r.add != first.add)
            kernel_failure(cudaErrorLaunchFailure, place, text("wgmma: lanes 0 and %u say different things", lane));
    }
    if (warp / 4 * 4 + 4 > block.warps.size())
        kernel_failure(cudaErrorLaunchFailure, place, text("wgmma: warp %u is in no whole warpgroup", warp));
    std::vector<Said> &said = warpgroups[warp / 4];
    size_t number = warps[warp].said++;
    if (number == said.size()) said.push_back({first.a, first.b, first.columns, first.add});
    const Said &s = said[number];
    if (s.a != first.a || s.b != first.b || s.columns != first.columns || s.add != first.add)
        kernel_failure(cudaErrorLaunchFailure, place, text("wgmma: warp %u says another product than the rest of its warpgroup", warp));
}

static size_t sums_of(uint32_t warp, uint32_t columns, const void *place) {
    WarpState &w = warps[warp];
    float *d = request_of(warp, 0).d;
    for (size_t i = 0; i < w.sums.size(); i++) {
        const Sums &s = w.sums[i];
        if (s.d[0] == d && s.columns == columns) return i;
        if (d < s.d[0] + s.columns / 2 && s.d[0] < d + columns / 2)
            kernel_failure(cudaErrorLaunchFailure, place, "wgmma: some of its sums belong to another product under way");
    }
    Sums s = {{}, columns, {}};
    for (uint32_t lane = 0; lane < 32; lane++) {
        s.d[lane] = request_of(warp, lane).d;
        s.value.insert(s.value.end(), s.d[lane], s.d[lane] + columns / 2);
        memset(s.d[lane], NAN_BYTE, columns / 2 * sizeof(float));
    }
    w.sums.push_back(s);
    return w.sums.size() - 1;
}

void hopper_issue(uint32_t warp, const void *place) {
    WarpState &w = warps[warp];
    int capability = machine.major * 10 + machine.minor;
    if (capability != 90)
        kernel_failure(cudaErrorIllegalInstruction, place, text("wgmma on compute capability %d.%d, only 9.0 has it", machine.major, machine.minor));
    check_agreement(warp, place);
    if (!w.fenced) kernel_failure(cudaErrorLaunchFailure, place, "wgmma: no wgmma.fence since its registers were touched");
    Product p = {0, request_of(warp, 0), w.group, block.random.next() % 2 == 0, 0, {}, place};
    check_descriptor(p.what.a, "a", place);
    check_descriptor(p.what.b, "b", place);
    visit_operands(warp, p, [&](const uint16_t *piece) {
        checker_access(piece, 16, Access::read, place);
        checker_async_read(piece, 16, place);
    });
    p.time = checker_now();
    p.sums = sums_of(warp, p.what.columns, place);
    if (p.early) read_operands(warp, &p);
    w.products.push_back(p);
}
void hopper_fence(uint32_t warp) { warps[warp].fenced = true; }
void hopper_commit(uint32_t warp) { warps[warp].group++; }

// ---- wait ------------------------------------------------------------------------------------------------
// Each sum is a chain in fp32, k ascending, as of mma; hardware adds in another order.
static void complete_product(uint32_t warp, Product *p) {
    visit_operands(warp, *p, [&](const uint16_t *piece) { checker_unchanged(piece, 16, p->time, p->place); });
    if (!p->early) read_operands(warp, p);
    Sums &s = warps[warp].sums[p->sums];
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t i = 0; i < s.columns / 2; i++) {
            uint32_t row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float *value = &s.value[lane * (s.columns / 2) + i], sum = p->what.add ? *value : 0.0f;
            for (int k = 0; k < DEPTH; k++) sum += p->operands.a[row][k] * p->operands.b[column * DEPTH + (uint32_t)k];
            *value = machine.wrong_wgmma && row == 3 && column == 5 ? sum + 1 : sum;
        }
}
void hopper_wait(uint32_t warp, int groups) {
    WarpState &w = warps[warp];
    std::vector<bool> busy(w.sums.size(), false);
    std::vector<Product> left;
    for (Product &p : w.products) {
        if (p.group >= w.group - groups) {
            busy[p.sums] = true;
            left.push_back(std::move(p));
        } else {
            complete_product(warp, &p);
        }
    }
    w.products = std::move(left);
    std::vector<Sums> still;
    std::vector<size_t> renamed(w.sums.size());
    for (size_t i = 0; i < w.sums.size(); i++) {
        Sums &s = w.sums[i];
        if (busy[i]) {
            renamed[i] = still.size();
            still.push_back(std::move(s));
            continue;
        }
        for (uint32_t lane = 0; lane < 32; lane++)
            memcpy(s.d[lane], &s.value[lane * (s.columns / 2)], s.columns / 2 * sizeof(float));
    }
    w.sums = std::move(still);
    for (Product &p : w.products) p.sums = renamed[p.sums];
    if (w.products.empty()) w.fenced = false;
}

void hopper_thread_finished(const Thread *t) {
    if (block.finished == block.count) hopper_tiles_end(NULL);
    const Warp &lanes = block.warps[t->warp];
    if (lanes.finished != lanes.present || warps[t->warp].said == 0) return;
    if (!warps[t->warp].products.empty())
        kernel_failure(cudaErrorLaunchFailure, NULL, text("warp %u exits with wgmma under way", t->warp));
    if (warps[t->warp].said != warpgroups[t->warp / 4].size())
        kernel_failure(cudaErrorLaunchFailure, NULL, text("warp %u exits after %zu wgmma, others of its warpgroup have said %zu", t->warp,
                                                          warps[t->warp].said, warpgroups[t->warp / 4].size()));
}
} // namespace emulation

using namespace emulation;

// ---- what ptx.h names --------------------------------------------------------------------------------------
uint32_t shared_address(const void *p) {
    if (!in_shared(p))
        kernel_failure(cudaErrorIllegalAddress, __builtin_return_address(0),
                       text("the address %p isn't in the %zu bytes of shared memory", p, block.shared_bytes));
    return shared_number(p);
}
void fence_proxy_async(void) { checker_proxy_fence(); }
void arrival_begin(uint64_t *barrier, int arrivals) {
    const void *place = __builtin_return_address(0);
    if ((uintptr_t)barrier % 8 || !in_shared(barrier) || !in_shared((char *)barrier + 7))
        kernel_failure(cudaErrorMisalignedAddress, place, text("mbarrier.init at %p: not 8 aligned bytes of shared memory", (void *)barrier));
    if (arrivals < 1) kernel_failure(cudaErrorLaunchFailure, place, text("mbarrier.init for %d arrivals", arrivals));
    checker_access(barrier, 8, Access::write, place);
    for (const Arrivals &a : barriers)
        if (a.barrier == barrier) kernel_failure(cudaErrorLaunchFailure, place, "mbarrier.init of a barrier that is in use");
    barriers.push_back(Arrivals{barrier, arrivals, arrivals, 0, 0, checker_now(), current->number, {}, {}});
    memset(barrier, BARRIER_BYTE, 8);
}
void arrival_expect(uint64_t *barrier, int bytes) {
    const void *place = __builtin_return_address(0);
    Arrivals &a = arrivals_of(barrier, place);
    if (a.left == 0) kernel_failure(cudaErrorLaunchFailure, place, "mbarrier: more threads arrive than it was made for");
    a.left--, a.bytes += bytes;
    end_phase(a);
    wake(a);
}
void arrival_wait(uint64_t *barrier, int parity) {
    const void *place = __builtin_return_address(0);
    for (uint32_t turns = block.random.next() % 3; turns; turns--) thread_yield();
    for (;;) {
        Arrivals &a = arrivals_of(barrier, place);
        if ((a.phase & 1) == parity) land(a);
        if ((a.phase & 1) != parity) break;
        a.waiting.push_back(current->number);
        thread_wait(State::at_arrivals);
    }
    checker_observed((size_t)(&arrivals_of(barrier, place) - barriers.data()));
}
void copy_tile(void *tile, const void *map, int column, int row, int matrix, uint64_t *barrier) {
    const void *place = __builtin_return_address(0);
    Arrivals &a = arrivals_of(barrier, place);
    TileCopy c = {(unsigned char *)tile, *(const MapFields *)map, {column, row, matrix}};
    int bytes = (int)(c.map.tile_rows * TILE_ROW_BYTES);
    if (c.map.magic != MAP_MAGIC) kernel_failure(cudaErrorLaunchFailure, place, "cp.async.bulk.tensor: this is no tensor map");
    if (!in_shared(tile) || !in_shared((char *)tile + bytes - 1))
        kernel_failure(cudaErrorIllegalAddress, place,
                       text("cp.async.bulk.tensor of %d bytes to %p, which isn't in the %zu bytes of shared memory", bytes, tile, block.shared_bytes));
    if (shared_number(tile) % 1024)
        kernel_failure(cudaErrorMisalignedAddress, place,
                       text("cp.async.bulk.tensor to shared address %#x, whose swizzle doesn't begin at a multiple of 1024 bytes", shared_number(tile)));
    visit_tile(c, [&](unsigned char *to, const unsigned char *from, int inside) {
        checker_access(to, 16, Access::write, place);
        checker_copy_issued(to, 16, place);
        if (!inside) return;
        const Allocation *whole = allocation_of(from);
        if (!whole || from + inside > whole->data + whole->bytes)
            kernel_failure(cudaErrorIllegalAddress, place, "cp.async.bulk.tensor from " + address_name(from));
        checker_access(from, (size_t)inside, Access::read, place);
    });
    memset(tile, NAN_BYTE, (size_t)bytes);
    a.copies.push_back(c);
    if (block.random.next() % 4 == 0) land(a); // at once, or when somebody waits
    wake(a);
}

// The driver's.
static int tensor_map_encode(void *map, int type, uint32_t rank, void *base, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                             const uint32_t *element_strides, int interleave, int swizzle, int, int outside) {
    constexpr int INVALID = 1;
    if ((uintptr_t)map % 64 || type != 9 || rank != 3 || (uintptr_t)base % 16 || interleave || swizzle != 3 || outside) return INVALID;
    for (int i = 0; i < 3; i++)
        if (!sizes[i] || sizes[i] > 1ull << 32 || !box[i] || box[i] > 256 || element_strides[i] != 1) return INVALID;
    for (int i = 0; i < 2; i++)
        if (!strides[i] || strides[i] % 16 || strides[i] >> 40) return INVALID;
    if (box[0] * 2 != TILE_ROW_BYTES || box[2] != 1) return INVALID;
    MapFields fields = {MAP_MAGIC, (const unsigned char *)base, {sizes[0], sizes[1], sizes[2]}, {strides[0], strides[1]}, box[1]};
    memcpy(map, &fields, sizeof fields);
    return 0;
}
void *emulation::driver_symbol(const char *name) { return strcmp(name, "cuTensorMapEncodeTiled") ? NULL : (void *)tensor_map_encode; }
