// Stacks and the switch between them. Stacks are kept for reuse, each above a page that may not be touched; their tops are
// staggered so that the frames of waiting threads don't share cache sets. On x86-64 the switch is eight instructions of
// pushes and pops; elsewhere it is ucontext. The address sanitizer is told about every switch.
#include "internal.h"
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {
constexpr size_t STACK_BYTES = EMULATION_ASAN ? 256 << 10 : 128 << 10, GUARD_BYTES = 4096;
constexpr size_t SPAN = STACK_BYTES + GUARD_BYTES;
constexpr int MAX_FIBERS = MAX_THREADS + 8;

struct Fiber {
    void *stack_pointer;
    unsigned char *stack; // its low end, above the guard
    size_t bytes;
    void *fake_stack; // the address sanitizer's
    void (*entry)();
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};
static Fiber fibers[MAX_FIBERS], main_one;
static int fiber_count;
static std::vector<Fiber *> idle;
static unsigned char *region;
static Fiber *previous, *present = &main_one;

Fiber *main_fiber() { return &main_one; }

#if defined(__x86_64__)
// Keeps what a call must keep on the old stack and returns on the new one.
extern "C" void emulation_switch_stacks(void **old_pointer, void *new_pointer);
__asm__(".text\n"
        ".globl emulation_switch_stacks\n"
        ".type emulation_switch_stacks, @function\n"
        "emulation_switch_stacks:\n"
        "  endbr64\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size emulation_switch_stacks, .-emulation_switch_stacks\n");
#endif

static void arrived([[maybe_unused]] void *fake_stack) {
#if EMULATION_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    if (previous == &main_one) main_one.stack = (unsigned char *)bottom, main_one.bytes = bytes;
#endif
}

static void begin() {
    arrived(NULL);
    present->entry();
    abort(); // entries never return
}

static void prepare(Fiber *f, void (*entry)()) {
    f->entry = entry;
    f->fake_stack = NULL;
#if defined(__x86_64__)
    size_t stagger = (size_t)(f - fibers) % 61 * 64;
    void **top = (void **)(f->stack + f->bytes - stagger);
    *--top = NULL;          // begin() finds no caller
    *--top = (void *)begin; // where the switch returns to, with the stack as after a call
    for (int i = 0; i < 6; i++) *--top = NULL;
    f->stack_pointer = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->bytes;
    f->context.uc_link = NULL;
    makecontext(&f->context, begin, 0);
#endif
}

Fiber *fiber_take(void (*entry)()) {
    Fiber *f;
    if (!idle.empty()) {
        f = idle.back();
        idle.pop_back();
    } else {
        if (!region) {
            void *p = mmap(NULL, SPAN * MAX_FIBERS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (p == MAP_FAILED) {
                perror("cuda emulation: stacks");
                abort();
            }
            region = (unsigned char *)p;
        }
        if (fiber_count == MAX_FIBERS) abort(); // more than a block has threads
        f = &fibers[fiber_count];
        f->stack = region + SPAN * (size_t)fiber_count++ + GUARD_BYTES;
        f->bytes = STACK_BYTES;
        if (mprotect(f->stack, f->bytes, PROT_READ | PROT_WRITE) != 0) {
            perror("cuda emulation: a stack");
            abort();
        }
    }
    ASAN_UNPOISON_MEMORY_REGION(f->stack, f->bytes);
    prepare(f, entry);
    return f;
}

void fiber_give_back(Fiber *f) { idle.push_back(f); }

void fiber_switch(Fiber *from, Fiber *to) {
    previous = from, present = to;
#if EMULATION_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->bytes);
#endif
#if defined(__x86_64__)
    emulation_switch_stacks(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
    arrived(from->fake_stack);
}

bool on_fiber_stack(const void *p) {
    const unsigned char *q = (const unsigned char *)p;
    return region && q >= region && q < region + SPAN * MAX_FIBERS;
}
bool in_fiber_guard(const void *p) {
    return on_fiber_stack(p) && (size_t)((const unsigned char *)p - region) % SPAN < GUARD_BYTES;
}
} // namespace emulation
