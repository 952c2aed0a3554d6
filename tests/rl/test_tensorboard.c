// TensorBoard's event files, read by a reader of our own: frames and checksums, scalars and their steps; a resumed run cuts what came
// after its checkpoint and a record that was torn; and TensorBoard's own reader agrees, where it is installed.
#include "../test.h"
#include "made_run.h"
#include "tensorboard.h"
#include <math.h>
#include <unistd.h>

static char folder[64], path[128];
static void new_folder(void) {
    Err err = {0};
    snprintf(folder, sizeof folder, "/tmp/reckon-board-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/tensorboard/events.out.tfevents.0.reckon", folder);
    OK(folder_remove(folder, &err));
    OK(folder_make(folder, &err));
}
static void write_steps(int64_t resumed, int64_t from, int64_t to) {
    Err err = {0};
    Board *b;
    OK(board_open(folder, resumed, &b, &err));
    for (int64_t i = from; i <= to; i++) {
        Batch batch = made_batch(i);
        StepReport s = made_report(&batch, i, 1);
        LevelCount levels[] = {{.kind = "gcd", .level = 2, .prompts = 1, .samples = 8, .passed = i % 8, .share = NAN}};
        s.levels = (LevelCounts){levels, 1};
        OK(board_step(b, &s, &err));
        made_free(&batch);
        if (i % 4) continue;
        json_t *e = made_evaluation(i, "think");
        OK(board_evaluation(b, i, "greedy think", e, &err));
        json_decref(e);
    }
    board_close(b);
}

// ---- a reader of our own: one table-driven checksum, one walk over the wire format ---------------------------
static uint32_t checksum(const uint8_t *p, size_t n) {
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    while (n--) crc = table[(crc ^ *p++) & 255] ^ (crc >> 8);
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}
static uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint64_t varint(const uint8_t **p) {
    uint64_t x = 0;
    for (int shift = 0;; shift += 7) {
        x |= (uint64_t)(**p & 127) << shift;
        if (*(*p)++ < 128) return x;
    }
}
typedef struct Seen {
    int records, scalars, steps; // records with a summary
    int64_t last;                // step
    float entropy, pass;         // of the last step
    float held_out;
    bool versioned;
} Seen;
static void see_value(const uint8_t *p, const uint8_t *end, Seen *s) {
    char tag[128] = "";
    float x = NAN;
    while (p < end) {
        uint64_t key = varint(&p);
        if (key == 10) {
            uint64_t n = varint(&p);
            CHECK(n < sizeof tag);
            memcpy(tag, p, n), tag[n] = 0, p += n;
        } else {
            CHECK_INT(key, 21);
            memcpy(&x, p, 4), p += 4;
        }
    }
    CHECK(tag[0] && isfinite(x));
    s->scalars++;
    if (!strcmp(tag, "policy/entropy")) s->entropy = x;
    if (!strcmp(tag, "pass_rate/gcd 2")) s->pass = x;
    if (!strcmp(tag, "held_out/greedy think arithmetic 1")) s->held_out = x;
}
static void see_event(const uint8_t *p, const uint8_t *end, Seen *s) {
    while (p < end) {
        uint64_t key = varint(&p), n = 0;
        if (key == 9) p += 8; // wall_time
        else if (key == 16) {
            int64_t step = (int64_t)varint(&p);
            CHECK(step >= s->last);
            s->last = step;
        } else {
            n = varint(&p);
            if (key == 26) s->versioned = n == 13 && !memcmp(p, "brain.Event:2", 13);
            else CHECK_INT(key, 42);
            for (const uint8_t *v = p; key == 42 && v < p + n;) {
                CHECK_INT(varint(&v), 10);
                uint64_t size = varint(&v);
                see_value(v, v + size, s), v += size;
            }
            s->steps += key == 42, p += n;
        }
    }
    CHECK(p == end);
}
static Seen see(void) {
    Seen s = {0};
    Buf file;
    Err err = {0};
    OK(file_read(path, 1 << 20, &file, &err));
    const uint8_t *p = (const uint8_t *)file.data, *end = p + file.size;
    for (; p < end; s.records++) {
        uint64_t n = u32(p);
        CHECK(u32(p + 4) == 0 && p + n + 16 <= end);
        CHECK(u32(p + 8) == checksum(p, 8) && u32(p + 12 + n) == checksum(p + 12, n));
        see_event(p + 12, p + 12 + n, &s);
        p += n + 16;
    }
    buf_free(&file);
    return s;
}

static void scalars_come_back(void) {
    CHECK(crc32c("123456789", 9) == 0xe3069283u); // RFC 3720
    new_folder();
    write_steps(0, 1, 10);
    Seen s = see();
    CHECK(s.versioned && s.last == 10 && s.records == 1 + 10 + 2 && s.steps == 12);
    Batch b = made_batch(10);
    CHECK_NEAR(s.entropy, (float)made_report(&b, 10, 1).entropy, 0);
    made_free(&b);
    CHECK_NEAR(s.pass, 2.0 / 8, 0);
    CHECK_NEAR(s.held_out, (float)0.48, 0);
    Err err = {0};
    OK(board_step(NULL, &(StepReport){0}, &err)); // not asked for
    OK(folder_remove(folder, &err));
}

static void resumes_append(void) {
    Err err = {0};
    new_folder();
    write_steps(0, 1, 10);
    Seen whole = see();
    write_steps(6, 7, 10); // as after a kill at step 10 with a checkpoint at 6
    Seen again = see();
    CHECK(again.records == whole.records && again.scalars == whole.scalars && again.last == 10);
    Buf file;
    for (int torn = 1; torn < 40; torn += 7) { // the last record was cut off
        OK(file_read(path, 1 << 20, &file, &err));
        CHECK_INT(truncate(path, (off_t)file.size - torn), 0);
        buf_free(&file);
        write_steps(10, 11, 11);
        CHECK(see().last == 11);
        write_steps(9, 10, 10);
        CHECK(see().last == 10);
    }
    OK(file_write_atomic(path, "not an event file at all", 24, &err));
    write_steps(3, 4, 4);
    CHECK(see().records == 3);
    OK(folder_remove(folder, &err));
}

static void tensorboard_agrees(void) {
    const char *oracles = getenv("RECKON_ORACLES"), *home = getenv("HOME");
    char *python = oracles ? xasprintf("%s/bin/python", oracles) : xasprintf("%s/.cache/reckon-oracles/bin/python", home ? home : "");
    char *probe = xasprintf("'%s' -c 'import tensorboard' >/dev/null 2>&1", python);
    bool there = system(probe) == 0;
    free(probe);
    if (!there) {
        free(python);
        SKIP("the package tensorboard isn't installed in $RECKON_ORACLES");
    }
    Err err = {0};
    new_folder();
    write_steps(0, 1, 10), write_steps(6, 7, 12);
    char *script = xasprintf("%s/read.py", folder), *command = xasprintf("'%s' '%s' '%s/tensorboard' 2>/dev/null", python, script, folder);
    static const char text[] =
        "import sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "a = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})\na.Reload()\n"
        "s = a.Scalars('pass_rate/gcd 2')\n"
        "assert [e.step for e in s] == list(range(1, 13)), s\n"
        "assert [e.value for e in s] == [i % 8 / 8 for i in range(1, 13)]\n"
        "assert [e.step for e in a.Scalars('held_out/greedy think arithmetic 1')] == [4, 8, 12]\n"
        "assert {'reward/mean', 'reward_parts/format', 'policy/kl', 'train/loss', 'time/step'} <= set(a.Tags()['scalars'])\n";
    OK(file_write_atomic(script, text, sizeof text - 1, &err));
    CHECK_INT(system(command), 0);
    free(script), free(command), free(python);
    OK(folder_remove(folder, &err));
}

static const Test tests[] = {{"scalars come back", scalars_come_back}, {"resumes append", resumes_append}, {"tensorboard agrees", tensorboard_agrees}};
TEST_MAIN(tests)
