// The pool as the trainer sees it: samples in, verdicts out. It never forks after it is open and never blocks while
// submitting; batches wait in memory until a worker takes them.
//
// A sample (a group, where a script scores groups) is a job. When a worker dies, the keeper says which job it was at:
// that one is tried once more, alone, and is `killed` at its second death; the batch's other jobs just go again. As a
// script's state starts from the same bytes each time, none of this can be seen in a score.
#include "pool.h"
#include "cores.h"
#include "message.h"
#include "worker.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH_JOBS = 64, BATCH_BYTES = 4 << 20, BATCHES_AHEAD = 2, SAMPLE_LIMIT = 256 << 20 };

typedef struct Job {
    struct Job *next;
    uint32_t tag, samples;
    int deaths;
    Verdict **out; // [samples]
    EnvironmentReply *reply; // of a call of the environment, whose `samples` is ENVIRONMENT_JOB
    Buf data;      // the samples as a worker reads them; kept until the verdict is there
} Job;

typedef struct Queue {
    Job *head, **tail;
    int count;
} Queue;

typedef struct Slot {
    int fd; // -1 while there is no worker
    pid_t pid;
    int batches;  // on their way
    int last_batch[BATCHES_AHEAD]; // jobs in each, oldest first
    Queue sent;   // jobs without a verdict, in order
    Buf out, in;
    size_t out_done;
} Slot;

struct RewardPool {
    int workers;
    Slot slots[MAX_WORKERS];
    WorkerStatus *status;
    pid_t keeper;
    int control;
    bool grouped; // some script scores groups
    ScriptsLook look;
    Job *open;    // the group being collected
    int32_t open_group;
    Queue waiting;
    uint32_t next_tag;
    int64_t unfinished, deaths, not_replayable;
    char not_replayable_why[256]; // of the first
    bool keeper_lost;
    char hash[65];
};

// ---- queues --------------------------------------------------------------------------------------------------------------
static void queue_init(Queue *q) { *q = (Queue){.tail = &q->head}; }
static void queue_push(Queue *q, Job *j) {
    j->next = NULL;
    *q->tail = j;
    q->tail = &j->next;
    q->count++;
}
static Job *queue_pop(Queue *q) {
    Job *j = q->head;
    q->head = j->next;
    if (!q->head) q->tail = &q->head;
    q->count--;
    return j;
}
static void queue_push_front(Queue *q, Job *j) {
    j->next = q->head;
    if (!q->head) q->tail = &j->next;
    q->head = j;
    q->count++;
}

static Job *job_new(RewardPool *p) {
    Job *j = xcalloc(1, sizeof *j);
    if (++p->next_tag == 0) p->next_tag = 1;
    j->tag = p->next_tag;
    return j;
}
static void job_free(Job *j) {
    buf_free(&j->data);
    free(j->out);
    free(j);
}
static void queue_free(Queue *q) {
    while (q->head) job_free(queue_pop(q));
}

// ---- sending -------------------------------------------------------------------------------------------------------------
static void send_batch(RewardPool *p, Slot *s, int most) {
    BatchHeader head = {.magic = BATCH_MAGIC};
    size_t start = s->out.size;
    buf_append(&s->out, &head, sizeof head);
    while (p->waiting.head && (int)head.jobs < most && s->out.size - start < BATCH_BYTES) {
        Job *j = p->waiting.head;
        if (j->deaths && (head.jobs || s->sent.count)) break; // one that killed its worker goes alone
        queue_pop(&p->waiting);
        write_u32(&s->out, j->tag);
        write_u32(&s->out, j->samples);
        buf_append(&s->out, j->data.data, j->data.size);
        queue_push(&s->sent, j);
        head.jobs++;
        if (j->deaths) break;
    }
    head.size = (uint32_t)(s->out.size - start - sizeof head);
    memcpy(s->out.data + start, &head, sizeof head);
    s->last_batch[s->batches++] = (int)head.jobs;
}

static void hand_out(RewardPool *p, bool draining) {
    for (int round = 0; round < BATCHES_AHEAD; round++)
        for (int i = 0; i < p->workers; i++) {
            Slot *s = &p->slots[i];
            int waiting = p->waiting.count, share = (waiting + 2 * p->workers - 1) / (2 * p->workers);
            if (s->fd < 0 || s->batches != round || waiting == 0) continue;
            if (!draining && waiting < BATCH_JOBS) return;
            if (s->sent.head && s->sent.head->deaths) continue; // it works on one that goes alone
            if (p->waiting.head->deaths && s->sent.count) continue;
            send_batch(p, s, share > BATCH_JOBS ? BATCH_JOBS : share < 1 ? 1 : share);
        }
}

// ---- receiving -----------------------------------------------------------------------------------------------------------
static void finish_job(RewardPool *p, Job *j) {
    p->unfinished--;
    for (uint32_t i = 0; i < (j->reply ? 1 : j->samples); i++) {
        const char *why = j->reply ? j->reply->why : j->out[i]->why;
        if ((j->reply ? j->reply->not_replayable : j->out[i]->not_replayable) && p->not_replayable++ == 0)
            snprintf(p->not_replayable_why, sizeof p->not_replayable_why, "%s", why[0] ? why : "a program was ended by the clock");
    }
    job_free(j);
}

// One whole reply. False if it isn't what this worker owes.
static bool take_reply(RewardPool *p, Slot *s, Reader *r, uint32_t jobs) {
    if (s->batches == 0 || (uint32_t)s->last_batch[0] != jobs) return false;
    for (uint32_t i = 0; i < jobs; i++) {
        Job *j = s->sent.head;
        uint32_t tag = read_u32(r), samples = read_u32(r);
        if (r->failed || !j || tag != j->tag || samples != j->samples) return false;
        if (samples == 0) {
            look_free(&p->look);
            if (!read_look(r, &p->look)) return false;
        }
        if (j->reply) {
            EnvironmentReply answer;
            bool good = read_reply(r, &answer);
            if (!good) {
                environment_reply_free(&answer);
                return false;
            }
            *j->reply = answer;
            j->reply->arrived = true;
            samples = 0;
        }
        for (uint32_t k = 0; k < samples; k++) {
            Verdict v;
            if (!read_verdict(r, &v)) return false;
            *j->out[k] = v;
        }
        finish_job(p, queue_pop(&s->sent));
    }
    memmove(s->last_batch, s->last_batch + 1, sizeof s->last_batch - sizeof s->last_batch[0]);
    s->batches--;
    return r->at == r->end;
}

static bool take_replies(RewardPool *p, Slot *s) {
    size_t used = 0;
    BatchHeader head;
    bool ok = true;
    while (ok && s->in.size - used >= sizeof head) {
        memcpy(&head, s->in.data + used, sizeof head);
        if (head.magic != REPLY_MAGIC || head.size > MESSAGE_LIMIT) return false;
        if (s->in.size - used - sizeof head < head.size) break;
        Reader r = {.at = s->in.data + used + sizeof head};
        r.end = r.at + head.size;
        ok = take_reply(p, s, &r, head.jobs);
        used += sizeof head + head.size;
    }
    if (used) memmove(s->in.data, s->in.data + used, s->in.size - used);
    s->in.size -= used;
    return ok;
}

// Stops using the worker; its jobs stay with the slot until the keeper tells how it ended.
static void drop_worker(Slot *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}
static void accuse_worker(RewardPool *p, Slot *s) {
    KeeperOrder order = {.slot = (int32_t)(s - p->slots)};
    drop_worker(s);
    if (send(p->control, &order, sizeof order, MSG_NOSIGNAL) < 0) p->keeper_lost = true;
}

static void receive(RewardPool *p, Slot *s) {
    char chunk[65536];
    while (s->fd >= 0) {
        ssize_t n = read(s->fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            drop_worker(s);
            return;
        }
        buf_append(&s->in, chunk, (size_t)n);
        if (!take_replies(p, s)) accuse_worker(p, s);
    }
}

static void transmit(Slot *s) {
    while (s->fd >= 0 && s->out_done < s->out.size) {
        ssize_t n = send(s->fd, s->out.data + s->out_done, s->out.size - s->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; // full, or dead: reading will tell
        s->out_done += (size_t)n;
    }
    s->out.size = s->out_done = 0;
}

// ---- deaths --------------------------------------------------------------------------------------------------------------
static void give_up(RewardPool *p, Job *j, const WorkerNews *news) {
    char why[sizeof((Verdict *)0)->why];
    if (news->by_clock)
        snprintf(why, sizeof why, "ended by the clock, twice: too much CPU time");
    else
        snprintf(why, sizeof why, "its worker died twice (signal %d)", news->signal);
    for (uint32_t i = 0; !j->reply && i < j->samples; i++) {
        *j->out[i] = (Verdict){.state = VERDICT_KILLED, .score = NAN, .not_replayable = true};
        memcpy(j->out[i]->why, why, sizeof why);
    }
    if (j->reply) {
        *j->reply = (EnvironmentReply){.arrived = true, .state = VERDICT_KILLED, .not_replayable = true};
        memcpy(j->reply->why, why, sizeof why);
    }
    finish_job(p, j);
}

static void bury(RewardPool *p, Slot *s, const WorkerNews *news) {
    Queue back;
    Job *guilty = NULL;
    queue_init(&back);
    p->deaths++;
    for (Job *j = s->sent.head; j; j = j->next)
        if (j->tag == news->dead_tag) guilty = j;
    if (!guilty) guilty = s->sent.head; // it died reading the batch, or writing the reply
    while (s->sent.head) queue_push(&back, queue_pop(&s->sent));
    // Back to the front of the line in their old order, the guilty one at its very start.
    Job *all[BATCH_JOBS * BATCHES_AHEAD];
    int count = 0;
    while (back.head) all[count++] = queue_pop(&back);
    while (count-- > 0)
        if (all[count] != guilty) queue_push_front(&p->waiting, all[count]);
    if (guilty && ++guilty->deaths >= 2)
        give_up(p, guilty, news);
    else if (guilty)
        queue_push_front(&p->waiting, guilty);
    s->batches = 0;
    s->out.size = s->out_done = s->in.size = 0;
}

static void hear_keeper(RewardPool *p) {
    for (;;) {
        WorkerNews news = {0};
        struct iovec part = {.iov_base = &news, .iov_len = sizeof news};
        union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } attached = {0};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = attached.space,
                           .msg_controllen = sizeof attached.space};
        ssize_t n = recvmsg(p->control, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
        if (n != (ssize_t)sizeof news || !c || c->cmsg_type != SCM_RIGHTS || news.slot < 0 || news.slot >= p->workers) {
            p->keeper_lost = true;
            return;
        }
        Slot *s = &p->slots[news.slot];
        if (s->fd >= 0) receive(p, s); // what the dead one had still sent
        drop_worker(s);
        if (news.had_predecessor) bury(p, s, &news);
        memcpy(&s->fd, CMSG_DATA(c), sizeof s->fd);
        fcntl(s->fd, F_SETFL, O_NONBLOCK);
        s->pid = news.pid;
    }
}

// ---- the turn ------------------------------------------------------------------------------------------------------------
// Moves what can be moved; waits up to `timeout` milliseconds for something to happen (-1: as long as it takes).
static bool turn(RewardPool *p, bool draining, int timeout, Err *err) {
    struct pollfd fds[MAX_WORKERS + 1];
    hand_out(p, draining);
    for (int i = 0; i < p->workers; i++) {
        transmit(&p->slots[i]);
        fds[i] = (struct pollfd){.fd = p->slots[i].fd, .events = POLLIN};
        if (p->slots[i].out.size) fds[i].events |= POLLOUT;
    }
    fds[p->workers] = (struct pollfd){.fd = p->control, .events = POLLIN};
    int n = poll(fds, (nfds_t)p->workers + 1, timeout);
    if (n < 0 && errno != EINTR) return fail(err, ERR_SOFTWARE, "rewards", "poll: %s", strerror(errno));
    if (n <= 0) return true;
    for (int i = 0; i < p->workers; i++)
        if (fds[i].revents && p->slots[i].fd == fds[i].fd) receive(p, &p->slots[i]);
    if (fds[p->workers].revents) hear_keeper(p);
    if (p->keeper_lost) return fail(err, ERR_UNAVAILABLE, "rewards", "the process that keeps the reward workers ended");
    return true;
}

static void close_open_job(RewardPool *p) {
    if (p->open) queue_push(&p->waiting, p->open);
    p->open = NULL;
}

bool reward_pool_submit(RewardPool *p, const RewardSample *sample, Verdict *out, Err *err) {
    const char *where = sample->id ? sample->id : "rewards";
    if (p->open && (!p->grouped || sample->group != p->open_group || p->open->samples >= MAX_GROUP)) close_open_job(p);
    Job *j = p->open ? p->open : job_new(p);
    size_t before = j->data.size;
    write_sample(&j->data, sample);
    if (j->data.size - before > SAMPLE_LIMIT || j->data.size > MESSAGE_LIMIT / 2) {
        size_t size = j->data.size - before;
        j->data.size = before;
        if (!p->open) job_free(j);
        return fail(err, ERR_DATA, where, "a sample of %zu bytes is too large to score", size);
    }
    if (j->samples == 0) p->unfinished++;
    j->out = xrealloc(j->out, (j->samples + 1) * sizeof *j->out);
    j->out[j->samples++] = out;
    p->open = j;
    p->open_group = sample->group;
    if (!p->grouped) close_open_job(p);
    if (p->waiting.count < BATCH_JOBS) return true;
    return turn(p, false, 0, err);
}

bool reward_pool_start(RewardPool *p, Err *err) {
    close_open_job(p);
    return turn(p, true, 0, err);
}

bool reward_pool_call(RewardPool *p, const EnvironmentCall *call, EnvironmentReply *out, Err *err) {
    *out = (EnvironmentReply){0};
    if (p->look.environments == 0) return fail(err, ERR_DATA, call->id ? call->id : "rewards", "none of the scripts is an environment");
    close_open_job(p);
    Job *j = job_new(p);
    write_call(&j->data, call, p->look.environment.script);
    if (j->data.size > MESSAGE_LIMIT / 2) {
        size_t size = j->data.size;
        job_free(j);
        return fail(err, ERR_DATA, call->id ? call->id : "rewards", "a call of %zu bytes is too large", size);
    }
    j->samples = ENVIRONMENT_JOB;
    j->reply = out;
    p->unfinished++;
    queue_push(&p->waiting, j);
    return turn(p, true, 0, err);
}

bool reward_pool_poll(RewardPool *p, bool wait, Err *err) {
    return p->unfinished == 0 || turn(p, true, wait ? -1 : 0, err);
}

const RewardEnvironment *reward_pool_environment(const RewardPool *p) { return p->look.environments ? &p->look.environment : NULL; }

bool reward_pool_finish(RewardPool *p, Err *err) {
    close_open_job(p);
    while (p->unfinished > 0) TRY(turn(p, true, -1, err));
    return true;
}

int64_t reward_pool_deaths(const RewardPool *p) { return p->deaths; }
void reward_pool_counts(const RewardPool *p, RewardCounts *out) {
    *out = (RewardCounts){.workers = p->workers, .not_replayable = p->not_replayable};
    memcpy(out->why, p->not_replayable_why, sizeof out->why);
    for (int i = 0; i < p->workers; i++) {
        out->busy += 1e-9 * (double)atomic_load(&p->status[i].busy);
        out->cpu += 1e-9 * (double)atomic_load(&p->status[i].cpu);
    }
}
void reward_pool_hash(const RewardPool *p, char out[65]) { memcpy(out, p->hash, sizeof p->hash); }

int reward_pool_pids(const RewardPool *p, pid_t *out, int max) {
    int n = 0;
    for (int i = 0; i < p->workers && n < max; i++)
        if (p->slots[i].fd >= 0) out[n++] = p->slots[i].pid;
    return n;
}

// ---- opening and closing -------------------------------------------------------------------------------------------------
static bool start_keeper(RewardPool *p, const ScoreScripts *scripts, Err *err) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return fail(err, ERR_SOFTWARE, "rewards", "socketpair: %s", strerror(errno));
    // jansson seeds its tables once per process, from a file that workers can't open.
    json_object_seed(0);
    fflush(NULL);
    p->keeper = fork();
    if (p->keeper == 0) {
        KeeperSetup setup = {.scripts = scripts, .status = p->status, .workers = p->workers, .control = pair[1]};
        keeper_run(&setup);
    }
    close(pair[1]);
    p->control = pair[0];
    return p->keeper > 0 || fail(err, ERR_UNAVAILABLE, "rewards", "fork: %s", strerror(errno));
}

// A job without samples asks a worker whether the scripts score groups; its answer also shows that workers start.
static bool look_at_scripts(RewardPool *p, Err *err) {
    Job *j = job_new(p);
    p->unfinished++;
    queue_push(&p->waiting, j);
    TRY(reward_pool_finish(p, err));
    p->grouped = p->look.grouped;
    return p->look.environments < 2 || fail(err, ERR_DATA, "rewards", "%d of the scripts are environments, expected one at most", p->look.environments);
}

bool reward_pool_open(const RewardSpec *specs, int spec_count, int workers, const RewardLimits *limits, RewardPool **out,
                      Err *err) {
    ScoreScripts scripts;
    *out = NULL;
    if (spec_count < 1) return fail(err, ERR_USAGE, "rewards", "found no reward, expected at least one");
    if (!limits->unsafe && !walls_have_seccomp())
        return fail(err, ERR_UNAVAILABLE, "rewards", "this system has no seccomp to shut reward scripts in; "
                                                     "--unsafe-rewards runs them without");
    bool ok = scripts_open(specs, spec_count, limits, &scripts, err);
    RewardPool *p = xcalloc(1, sizeof *p);
    p->control = -1;
    p->workers = workers > 0 ? workers : cores_find().usable;
    if (p->workers > MAX_WORKERS) p->workers = MAX_WORKERS;
    if (p->workers < 1) p->workers = 1;
    queue_init(&p->waiting);
    for (int i = 0; i < p->workers; i++) {
        p->slots[i].fd = -1;
        queue_init(&p->slots[i].sent);
    }
    memcpy(p->hash, scripts.hash, sizeof p->hash);
    if (ok) {
        size_t size = (size_t)p->workers * sizeof *p->status;
        p->status = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p->status == MAP_FAILED) {
            p->status = NULL;
            ok = fail(err, 71, "rewards", "out of memory");
        }
    }
    ok = ok && start_keeper(p, &scripts, err) && look_at_scripts(p, err);
    scripts_close(&scripts); // the keeper has its own copy
    if (ok)
        *out = p;
    else
        reward_pool_close(p);
    return ok;
}

void reward_pool_close(RewardPool *p) {
    if (!p) return;
    if (p->control >= 0) close(p->control);
    for (int i = 0; i < p->workers; i++) {
        Slot *s = &p->slots[i];
        drop_worker(s);
        queue_free(&s->sent);
        buf_free(&s->out);
        buf_free(&s->in);
    }
    if (p->keeper > 0) {
        while (waitpid(p->keeper, NULL, 0) < 0 && errno == EINTR) {}
    }
    if (p->open) job_free(p->open);
    look_free(&p->look);
    queue_free(&p->waiting);
    if (p->status) munmap(p->status, (size_t)p->workers * sizeof *p->status);
    free(p);
}
