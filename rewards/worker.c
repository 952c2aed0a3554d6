// A worker's life: read a batch, score it, write the reply. It leaves a mark of what it is at in shared memory, so
// that the keeper knows whom to blame when it dies.
#include "environment.h"
#include "worker.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SOCKET = WORKER_SOCKET };

static bool read_exactly(void *out, size_t size) {
    for (char *p = out; size;) {
        ssize_t n = read(SOCKET, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static bool write_exactly(const char *p, size_t size) {
    while (size) {
        ssize_t n = write(SOCKET, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static void begin(void *context, int samples) {
    WorkerStatus *status = context;
    atomic_store(&status->samples, (uint32_t)samples);
    atomic_fetch_add(&status->started, 1);
}

static bool serve_call(const ScoreScripts *scripts, WorkerStatus *status, Reader *r, Buf *reply) {
    EnvironmentCall call;
    EnvironmentReply answer;
    Buf memory[2] = {{0}};
    int script;
    bool ok = read_call(r, &call, &script);
    begin(status, 1);
    if (ok) {
        environment_call(scripts, script, &call, &answer, memory);
        write_reply(reply, &answer, memory[0].size ? memory[0].data : NULL, memory[1].size ? memory[1].data : NULL);
    }
    call_free(&call);
    buf_free(&memory[0]), buf_free(&memory[1]);
    return ok;
}

static bool serve_job(const ScoreScripts *scripts, WorkerStatus *status, Reader *r, Buf *reply) {
    uint32_t tag = read_u32(r), count = read_u32(r);
    bool call = count == ENVIRONMENT_JOB;
    if (r->failed || (!call && (count > MAX_GROUP || count > (size_t)(r->end - r->at) / LEAST_SAMPLE))) return false;
    atomic_store(&status->tag, tag);
    write_u32(reply, tag);
    write_u32(reply, count);
    if (call) return serve_call(scripts, status, r, reply);
    if (count == 0) {
        ScriptsLook look;
        begin(status, 1);
        scripts_look(scripts, &look);
        write_look(reply, &look);
        look_free(&look);
        return true;
    }
    RewardSample *samples = xcalloc(count, sizeof *samples);
    Verdict *verdicts = xcalloc(count, sizeof *verdicts);
    bool ok = true;
    for (uint32_t i = 0; i < count; i++) ok = read_sample(r, &samples[i]) && ok;
    if (ok) scripts_score(scripts, samples, (int)count, verdicts, begin, status);
    for (uint32_t i = 0; i < count; i++) {
        if (ok) write_verdict(reply, &verdicts[i]);
        sample_free(&samples[i]);
    }
    free(samples);
    free(verdicts);
    return ok;
}

// Of the thread, the only one: where a process has a limit on its time, the clock of the process moves in leaps.
static uint64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec : 0;
}

static bool serve_batch(const ScoreScripts *scripts, WorkerStatus *status, Buf *batch, Buf *reply) {
    BatchHeader head;
    if (!read_exactly(&head, sizeof head) || head.magic != BATCH_MAGIC || head.size > MESSAGE_LIMIT) return false;
    if (batch->capacity < head.size) {
        batch->data = xrealloc(batch->data, head.size);
        batch->capacity = head.size;
    }
    if (!read_exactly(batch->data, head.size)) return false;
    uint64_t busy = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    Reader r = {.at = batch->data, .end = batch->data + head.size};
    reply->size = 0;
    BatchHeader answer = {.magic = REPLY_MAGIC, .jobs = head.jobs};
    buf_append(reply, &answer, sizeof answer);
    for (uint32_t i = 0; i < head.jobs; i++)
        if (!serve_job(scripts, status, &r, reply)) return false;
    answer.size = (uint32_t)(reply->size - sizeof answer);
    memcpy(reply->data, &answer, sizeof answer);
    atomic_store(&status->tag, 0);
    atomic_fetch_add(&status->busy, nanoseconds(CLOCK_MONOTONIC) - busy);
    atomic_fetch_add(&status->cpu, nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu);
    return write_exactly(reply->data, reply->size);
}

_Noreturn void worker_run(const ScoreScripts *scripts, WorkerStatus *status) {
    Buf batch = {0}, reply = {0};
    for (int i = 0; i < scripts->count; i++) scripts->list[i].box->program_socket = scripts->programs ? WORKER_PROGRAMS : -1;
    atomic_store(&status->ready, 1);
    while (serve_batch(scripts, status, &batch, &reply)) {}
    _exit(0);
}
