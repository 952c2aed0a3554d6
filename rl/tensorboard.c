// Event files that TensorBoard reads: records in TFRecord's frame (length, its masked CRC-32C, data, its masked CRC-32C), each an
// Event in protobuf's wire format with a summary of scalars. Written here because it is this small; nothing of the run depends on
// these files, the ledger tells the same and more. A value that is not known (NaN) is left out, never 0.
#include "tensorboard.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct Board {
    int fd;
    char *path;
};

// ---- frames ----------------------------------------------------------------------------------------------
uint32_t crc32c(const void *data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= ((const uint8_t *)data)[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}
static uint32_t masked(const void *data, size_t size) {
    uint32_t crc = crc32c(data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}
static void put_little(uint8_t *out, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(x >> (8 * i));
}
static uint64_t get_little(const uint8_t *in, int bytes) {
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++) x |= (uint64_t)in[i] << (8 * i);
    return x;
}

static bool write_record(Board *b, const Buf *event, Err *err) {
    Buf record = {0};
    uint8_t head[12], tail[4];
    put_little(head, event->size, 8);
    put_little(head + 8, masked(head, 8), 4);
    put_little(tail, masked(event->data, event->size), 4);
    buf_append(&record, head, 12), buf_append(&record, event->data, event->size), buf_append(&record, tail, 4);
    bool ok = true;
    for (size_t at = 0; ok && at < record.size;) {
        ssize_t n = write(b->fd, record.data + at, record.size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) ok = fail(err, ERR_IO, b->path, "can't write: %s", strerror(errno));
        else at += (size_t)n;
    }
    buf_free(&record);
    return ok;
}

// The record at `*at`: false at the end, or where it isn't whole.
static bool next_record(const uint8_t *data, size_t size, size_t *at, const uint8_t **event, size_t *length) {
    if (size - *at < 16 || get_little(data + *at + 8, 4) != masked(data + *at, 8)) return false;
    uint64_t n = get_little(data + *at, 8);
    if (n > size - *at - 16 || get_little(data + *at + 12 + n, 4) != masked(data + *at + 12, (size_t)n)) return false;
    *event = data + *at + 12, *length = (size_t)n;
    *at += (size_t)n + 16;
    return true;
}

// ---- protobuf --------------------------------------------------------------------------------------------
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
static void put_varint(Buf *out, uint64_t x) {
    uint8_t byte;
    for (; x >= 0x80; x >>= 7) byte = (uint8_t)(x | 0x80), buf_append(out, &byte, 1);
    byte = (uint8_t)x;
    buf_append(out, &byte, 1);
}
static void put_key(Buf *out, int field, int wire) { put_varint(out, (uint64_t)(field << 3 | wire)); }
static void put_bytes(Buf *out, int field, const void *data, size_t size) {
    put_key(out, field, WIRE_BYTES), put_varint(out, size), buf_append(out, data, size);
}
static bool get_varint(const uint8_t *in, size_t size, size_t *at, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && *at < size; shift += 7) {
        uint8_t byte = in[(*at)++];
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}
// Event.step, field 2; 0 where it isn't given.
static int64_t step_of(const uint8_t *in, size_t size) {
    uint64_t key, value;
    for (size_t at = 0; at < size && get_varint(in, size, &at, &key);) {
        size_t skip = (key & 7) == WIRE_64 ? 8 : (key & 7) == WIRE_32 ? 4 : 0;
        if ((key & 7) == WIRE_VARINT || (key & 7) == WIRE_BYTES) {
            if (!get_varint(in, size, &at, &value)) return 0;
            if (key == (2 << 3 | WIRE_VARINT)) return (int64_t)value;
            skip = (key & 7) == WIRE_BYTES ? (value < size ? (size_t)value : size) : 0;
        } else if (skip == 0) return 0;
        if (skip > size - at) return 0;
        at += skip;
    }
    return 0;
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
static void start_event(Buf *event, int64_t step) {
    struct timespec now;
    uint8_t bytes[8];
    uint64_t bits;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    memcpy(&bits, &seconds, 8), put_little(bytes, bits, 8);
    put_key(event, 1, WIRE_64), buf_append(event, bytes, 8);
    put_key(event, 2, WIRE_VARINT), put_varint(event, (uint64_t)step);
}
// Summary { repeated Value value = 1; } Value { string tag = 1; float simple_value = 2; }
static void put_scalar(Buf *summary, const char *tag, double x) {
    if (!isfinite(x)) return;
    Buf value = {0};
    float single = (float)x;
    uint32_t bits;
    uint8_t bytes[4];
    memcpy(&bits, &single, 4), put_little(bytes, bits, 4);
    put_bytes(&value, 1, tag, strlen(tag));
    put_key(&value, 2, WIRE_32), buf_append(&value, bytes, 4);
    put_bytes(summary, 1, value.data, value.size);
    buf_free(&value);
}
static void put_named(Buf *summary, const char *group, const char *name, double x) {
    char tag[128];
    snprintf(tag, sizeof tag, "%s/%.100s", group, name);
    put_scalar(summary, tag, x);
}
static bool write_summary(Board *b, int64_t step, Buf *summary, Err *err) {
    Buf event = {0};
    start_event(&event, step);
    put_bytes(&event, 5, summary->data, summary->size);
    bool ok = summary->size == 0 || write_record(b, &event, err);
    buf_free(&event), buf_free(summary);
    return ok;
}

// ---- the file --------------------------------------------------------------------------------------------
// Bytes of whole records up to the last that is of `step` or before; of a file that isn't ours from its start: 0.
static size_t kept_bytes(const uint8_t *data, size_t size, int64_t step) {
    const uint8_t *event;
    size_t at = 0, kept = 0, length;
    while (next_record(data, size, &at, &event, &length) && step_of(event, length) <= step) kept = at;
    return kept;
}

static bool cut(Board *b, int64_t step, bool *empty, Err *err) {
    MappedFile f;
    TRY(file_map(b->path, &f, err));
    size_t kept = f.size ? kept_bytes(f.data, f.size, step) : 0;
    file_unmap(&f);
    *empty = kept == 0;
    return (ftruncate(b->fd, (off_t)kept) == 0 && lseek(b->fd, 0, SEEK_END) >= 0) || fail(err, ERR_IO, b->path, "can't cut: %s", strerror(errno));
}

bool board_open(const char *run_folder, int64_t step, Board **out, Err *err) {
    static const char version[] = "brain.Event:2";
    char *folder = path_join(run_folder, "tensorboard");
    Board *b = xcalloc(1, sizeof *b);
    bool empty = true, ok = folder_make(folder, err);
    b->path = path_join(folder, "events.out.tfevents.0.reckon");
    b->fd = ok ? open(b->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644) : -1;
    if (ok && b->fd < 0) ok = fail(err, ERR_CANTCREAT, b->path, "can't open: %s", strerror(errno));
    ok = ok && cut(b, step, &empty, err);
    if (ok && empty) {
        Buf event = {0};
        start_event(&event, 0);
        put_bytes(&event, 3, version, sizeof version - 1);
        ok = write_record(b, &event, err);
        buf_free(&event);
    }
    free(folder);
    *out = ok ? b : NULL;
    if (!ok) board_close(b);
    return ok;
}
void board_close(Board *b) {
    if (!b) return;
    if (b->fd >= 0) close(b->fd);
    free(b->path);
    free(b);
}

// ---- what is told ----------------------------------------------------------------------------------------
static void put_sampled(Buf *out, const StepReport *s) {
    put_scalar(out, "reward/mean", s->reward_mean), put_scalar(out, "reward/deviation", s->reward_std);
    for (int i = 0; i < s->part_count; i++) put_named(out, "reward_parts", s->part_name[i], s->part_mean[i]);
    for (int i = 0; i < s->levels.count; i++) {
        const LevelCount *c = &s->levels.rows[i];
        char name[80];
        snprintf(name, sizeof name, "%s %d", c->kind, c->level);
        if (c->samples > 0) put_named(out, "pass_rate", name, (double)c->passed / (double)c->samples);
        put_named(out, "curriculum", name, c->share);
    }
    put_scalar(out, "length/completion", s->length_mean), put_scalar(out, "length/thinking", s->think_mean);
    put_scalar(out, "length/answer", s->answer_mean), put_scalar(out, "length/truncated", s->truncated_share);
    put_scalar(out, "policy/entropy", s->entropy), put_scalar(out, "policy/kl", s->kl), put_scalar(out, "policy/ratio_max", s->ratio_max);
    put_scalar(out, "policy/clip_low", s->clip_low), put_scalar(out, "policy/clip_high", s->clip_high);
    if (s->groups > 0) put_scalar(out, "groups/without_variance", (double)s->groups_without_variance / s->groups);
    for (int i = 0; i < VERDICT_STATES; i++) put_named(out, "verdicts", verdict_state_names[i], s->verdicts[i]);
    put_scalar(out, "time/rollout", s->measured.rollout), put_scalar(out, "time/reward", s->measured.reward);
    if (s->measured.rollout > 0) put_scalar(out, "speed/new_tokens_per_second", (double)s->new_tokens / s->measured.rollout);
}

bool board_step(Board *b, const StepReport *s, Err *err) {
    Buf summary = {0};
    if (!b) return true;
    double training = s->measured.train + s->measured.optimizer;
    if (s->groups > 0 || s->new_tokens > 0) put_sampled(&summary, s);
    put_scalar(&summary, "train/loss", s->loss), put_scalar(&summary, "train/learning_rate", s->learning_rate);
    put_scalar(&summary, "train/gradient_norm", s->gradient_norm);
    put_scalar(&summary, "time/step", s->measured.seconds), put_scalar(&summary, "time/training", training);
    if (training > 0) put_scalar(&summary, "speed/trained_tokens_per_second", (double)s->trained_tokens / training);
    return write_summary(b, s->step, &summary, err);
}

bool board_evaluation(Board *b, int64_t step, const char *name, const json_t *evaluation, Err *err) {
    Buf summary = {0};
    const json_t *level;
    size_t i;
    if (!b) return true;
    json_array_foreach(json_object_get(evaluation, "levels"), i, level) {
        char of_level[100];
        const char *kind = json_string_value(json_object_get(level, "kind"));
        const json_t *accuracy = json_object_get(level, "accuracy");
        snprintf(of_level, sizeof of_level, "%.30s %.48s %lld", name, kind ? kind : "", (long long)json_integer_value(json_object_get(level, "level")));
        if (json_is_number(accuracy)) put_named(&summary, "held_out", of_level, json_number_value(accuracy));
    }
    return write_summary(b, step, &summary, err);
}
