// Checkpoints: whole or not there, every damaged byte found and its section named, the newest whole one taken.
#include "../test.h"
#include "checkpoint.h"
#include "stages.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Stands for a model: three tensors of a seed's values. Writing slowly gives kills something to hit.
struct Policy {
    int seed;
    bool slow;
};
static bool write_tensors(const char *path, const char *names[3], int seed, Err *err) {
    static const int sizes[3] = {64, 4096, 20000};
    Buf b = {0}, header = {0};
    int at = 0;
    buf_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < 3; i++) {
        buf_printf(&header, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[%d,%d]}", names[i], sizes[i] / 4, at, at + sizes[i]);
        at += sizes[i];
    }
    buf_puts(&header, "}");
    unsigned char length[8] = {(unsigned char)header.size, (unsigned char)(header.size >> 8)};
    buf_append(&b, length, 8);
    buf_append(&b, header.data, header.size);
    Random r = random_start((uint64_t)seed, STREAM_TEST, 0);
    for (int i = 0; i < at; i += 4) {
        uint32_t x = random_next(&r);
        buf_append(&b, &x, 4);
    }
    bool ok = file_write_atomic(path, b.data, b.size, err);
    buf_free(&b), buf_free(&header);
    return ok;
}
bool policy_save(const Policy *p, const char *folder, const char *dtype, Err *err) {
    const char *names[3] = {"model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"};
    char *model = path_join(folder, "model.safetensors"), *config = path_join(folder, "config.json");
    if (strcmp(dtype, "F32")) return fail(err, ERR_SOFTWARE, folder, "dtype %s, expected F32", dtype);
    bool ok = file_write_atomic(config, "{\"model_type\":\"llama\"}", 22, err) && write_tensors(model, names, p->seed, err);
    if (p->slow) usleep(2000);
    free(model), free(config);
    return ok;
}
bool policy_save_optimizer(const Policy *p, const char *path, Err *err) {
    const char *names[3] = {"step", "m", "v"};
    return write_tensors(path, names, p->seed + 1000, err);
}

bool flight_is_empty(const Flight *f) { return !f; }
bool flight_save(const Flight *f, const char *path, Err *err) { return fail(err, ERR_SOFTWARE, path, "%s samples in flight, expected none", f ? "found" : "no"); }

#define RECIPE "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define OTHER_RECIPE "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define CHAIN "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static char folder[64];
static void new_folder(void) {
    strcpy(folder, "/tmp/reckon-checkpoint-XXXXXX");
    CHECK(mkdtemp(folder));
    log_level_set(LOG_QUIET);
}
static void remove_folder(void) {
    Err err = {0};
    OK(folder_remove(folder, &err));
}
static bool save(int64_t step, int seed, Err *err) {
    Policy p = {.seed = seed};
    TrainState s = {.step = step, .stage_index = 1, .stage_step = (int)step / 2, .chain = CHAIN};
    return checkpoint_save(folder, &p, &s, RECIPE, err);
}
static int64_t latest(Err *err) { // -1: none, -2: an error
    TrainState s = {0};
    char *path;
    bool found;
    if (!checkpoint_latest(folder, RECIPE, &s, &path, &found, err)) return -2;
    free(path);
    return found ? s.step : -1;
}

static void saved_is_found(void) {
    Err err = {0};
    TrainState s;
    char *path, recipe[65];
    bool found;
    new_folder();
    CHECK_INT(latest(&err), -1);
    CHECK(!save(-1, 1, &err) && err.code == ERR_SOFTWARE); // a state that couldn't be read again
    OK(save(5, 1, &err));
    OK(save(40, 2, &err));
    OK(save(9, 3, &err));
    OK(checkpoint_latest(folder, RECIPE, &s, &path, &found, &err));
    CHECK(found);
    CHECK_INT(s.step, 40);
    CHECK_INT(s.stage_index, 1);
    CHECK_INT(s.stage_step, 20);
    CHECK_STR(s.chain, CHAIN);
    CHECK(strstr(path, "/checkpoints/step-40"));
    OK(checkpoint_recipe(path, recipe, &err));
    CHECK_STR(recipe, RECIPE);
    free(path);
    OK(save(40, 4, &err)); // the same step again takes the old one's place
    CHECK_INT(latest(&err), 40);
    CHECK(!checkpoint_latest(folder, OTHER_RECIPE, &s, &path, &found, &err) && err.code == ERR_DATA);
    CHECK(strstr(err.msg, "another recipe") && !path && !found);
    remove_folder();
}

static void prune_keeps_what_it_must(void) {
    Err err = {0};
    int64_t *steps, keep[] = {10, 99};
    int count;
    new_folder();
    for (int i = 10; i <= 50; i += 10) OK(save(i, i, &err));
    char *stray = checkpoint_path(folder, 7, ".part"), *foreign = path_join(folder, "checkpoints/mine");
    OK(folder_make(stray, &err));
    OK(folder_make(foreign, &err));
    OK(checkpoint_prune(folder, 2, keep, 2, &err));
    OK(checkpoint_steps(folder, &steps, &count, &err));
    CHECK_INT(count, 3);
    CHECK(steps[0] == 50 && steps[1] == 40 && steps[2] == 10);
    CHECK(!file_exists(stray) && file_exists(foreign));
    free(steps), free(stray), free(foreign);
    remove_folder();
}

// One file of the newest checkpoint is replaced; it must be refused by name, and the one before be taken.
static void expect_damage(const char *name, const char *data, size_t size, const char *place) {
    Err err = {0};
    char *step = checkpoint_path(folder, 20, NULL), *path = path_join(step, name);
    OK(file_write_atomic(path, data, size, &err));
    err = (Err){0};
    if (checkpoint_verify(step, NULL, &err)) FAIL("%s: damage at %s was not found", name, place);
    if (!strstr(err.where, name)) FAIL("%s: named '%s: %s'", name, err.where, err.msg);
    if (place && !strstr(err.msg, place)) FAIL("%s: '%s' does not name %s", name, err.msg, place);
    free(step), free(path);
}
static Buf contents(const char *name) {
    Err err = {0};
    Buf b;
    char *step = checkpoint_path(folder, 20, NULL), *path = path_join(step, name);
    OK(file_read(path, 1 << 20, &b, &err));
    free(step), free(path);
    return b;
}
static void put_back(const char *name, Buf *b) {
    Err err = {0};
    char *step = checkpoint_path(folder, 20, NULL), *path = path_join(step, name);
    OK(file_write_atomic(path, b->data, b->size, &err));
    OK(checkpoint_verify(step, NULL, &err));
    free(step), free(path);
}

static void every_section_is_guarded(void) {
    Err err = {0};
    new_folder();
    OK(save(10, 1, &err));
    OK(save(20, 2, &err));
    static const struct {
        const char *file, *sections[4];
    } files[] = {{"model.safetensors", {"header", "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"}},
                 {"optimizer.safetensors", {"header", "step", "m", "v"}}};
    for (int i = 0; i < COUNT(files); i++) {
        Buf b = contents(files[i].file);
        size_t header = 8 + (size_t)(unsigned char)b.data[0] + 256 * (size_t)(unsigned char)b.data[1];
        size_t bounds[] = {0, header, header + 64, header + 64 + 4096, b.size};
        for (int s = 0; s < 4; s++) {
            size_t spots[] = {bounds[s], bounds[s] + 1, (bounds[s] + bounds[s + 1]) / 2, bounds[s + 1] - 1};
            for (int k = 0; k < COUNT(spots); k++) { // flipped bits at and inside every boundary
                b.data[spots[k]] ^= (char)(1 << (k + s));
                char place[64];
                snprintf(place, sizeof place, "section %s is damaged", files[i].sections[s]);
                expect_damage(files[i].file, b.data, b.size, place);
                b.data[spots[k]] ^= (char)(1 << (k + s));
            }
            char place[64]; // cut off at the boundary
            snprintf(place, sizeof place, "section %s is cut off", files[i].sections[s]);
            expect_damage(files[i].file, b.data, bounds[s], place);
        }
        size_t size = b.size;
        buf_append(&b, "x", 1);
        expect_damage(files[i].file, b.data, b.size, "1 bytes after the last section");
        b.size = size;
        put_back(files[i].file, &b);
        buf_free(&b);
    }
    CHECK_INT(latest(&err), 20);
    Buf config = contents("config.json");
    config.data[3] ^= 1;
    expect_damage("config.json", config.data, config.size, "SHA-256");
    CHECK_INT(latest(&err), 10); // the one before is taken
    config.data[3] ^= 1;
    put_back("config.json", &config);
    buf_free(&config);
    remove_folder();
}

static void state_proves_itself(void) {
    Err err = {0};
    new_folder();
    OK(save(20, 2, &err));
    Buf b = contents("state.json");
    for (size_t i = 0; i < b.size; i++) { // every bit position of every byte, one of them each time
        b.data[i] ^= (char)(1 << (i % 8));
        expect_damage("state.json", b.data, b.size, NULL);
        b.data[i] ^= (char)(1 << (i % 8));
    }
    for (size_t i = 0; i < b.size; i += 7) expect_damage("state.json", b.data, i, NULL);
    // Sealed, but hostile: names that leave the folder, numbers out of range, sections that overlap.
    static const char *const hostile[] = {
        "{\"chain\":\"" CHAIN "\",\"files\":[{\"name\":\"../x\",\"sha256\":\"" CHAIN "\",\"size\":1}]", "{\"chain\":\"" CHAIN "\",\"files\":7",
        "{\"chain\":\"x\",\"files\":[]", "{\"chain\":\"" CHAIN "\",\"files\":[{\"name\":\"config.json\",\"sections\":[{\"name\":\"a\",\"offset\":-1,\"size\":9,\"xxh3\":\"0\"}]}]",
        "{\"chain\":\"" CHAIN "\",\"files\":[{\"name\":\"config.json\",\"sections\":[{\"name\":\"a\",\"offset\":0,\"size\":9223372036854775807,\"xxh3\":\"0123456789abcdef\"}]}]"};
    char *step = checkpoint_path(folder, 20, NULL), *path = path_join(step, "state.json");
    for (int i = 0; i < COUNT(hostile); i++) {
        Buf text = {0};
        json_t *j;
        char seal[65];
        buf_printf(&text, "%s,\"format\":\"" CHECKPOINT_FORMAT "\",\"recipe\":\"a\",\"stage_index\":0,\"stage_step\":1,\"step\":20}", hostile[i]);
        OK(json_parse(text.data, text.size, "hostile", 1, &j, &err));
        checkpoint_seal(j, seal);
        json_object_set_new(j, "seal", json_string(seal));
        text.size = 0;
        json_write(j, &text);
        OK(file_write_atomic(path, text.data, text.size, &err));
        err = (Err){0};
        CHECK(!checkpoint_verify(step, NULL, &err));
        CHECK_INT(err.code, ERR_DATA);
        buf_free(&text);
        json_decref(j);
    }
    put_back("state.json", &b);
    char *extra = path_join(step, "model.safetensors.index.json"); // a file more may be another model
    OK(file_write_atomic(extra, "{}", 2, &err));
    CHECK(!checkpoint_verify(step, NULL, &err) && err.code == ERR_DATA);
    unlink(extra);
    char *optimizer = path_join(step, "optimizer.safetensors");
    unlink(optimizer);
    CHECK(!checkpoint_verify(step, NULL, &err) && strstr(err.where, "optimizer") && strstr(err.msg, "missing"));
    CHECK_INT(latest(&err), -1);
    free(extra), free(optimizer), free(step), free(path);
    buf_free(&b);
    remove_folder();
}

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status;
}
static void kills_leave_the_last_one(void) {
    Err err = {0};
    Random r = random_start(5, STREAM_TEST, 0);
    new_folder();
    int64_t before = -1;
    for (int i = 0; i < 20; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            Policy p = {.seed = i, .slow = true};
            for (TrainState s = {.step = before < 0 ? 1 : before, .chain = CHAIN};; s.step += random_below(&r, 2))
                if (!checkpoint_save(folder, &p, &s, RECIPE, &err) || !checkpoint_prune(folder, 2, NULL, 0, &err)) _exit(1);
        }
        // On a slow machine a writer that never gets anything done proves nothing: it is given longer.
        usleep((5000 + random_below(&r, 40000)) << (before > 0 ? 0 : i / 4));
        kill(pid, SIGKILL);
        CHECK(WIFSIGNALED(wait_for(pid)));
        int64_t now = latest(&err);
        if (now < before) FAIL("kill %d: the latest is step %lld, before it was %lld", i, (long long)now, (long long)before);
        before = now;
        int64_t *steps;
        int count;
        OK(checkpoint_steps(folder, &steps, &count, &err));
        for (int k = 0; k < count; k++) { // what has the name is whole
            char *path = checkpoint_path(folder, steps[k], NULL);
            OK(checkpoint_verify(path, NULL, &err));
            free(path);
        }
        free(steps);
        for (int skip = (int)random_below(&r, 9); skip > 0; skip--) (void)random_next(&r); // the next child differs
    }
    CHECK(before > 0);
    remove_folder();
}

static void full_disk(void) {
    Err err = {0};
    new_folder();
    OK(save(1, 1, &err));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {10000, 10000};
        setrlimit(RLIMIT_FSIZE, &limit);
        bool saved = save(2, 2, &err);
        char *aside = checkpoint_path(folder, 2, ".part");
        _exit(saved ? 1 : err.code != ERR_IO ? 2 : file_exists(aside) ? 3 : 0);
    }
    CHECK_INT(WEXITSTATUS(wait_for(pid)), 0);
    CHECK_INT(latest(&err), 1);
    remove_folder();
}

static void one_writer(void) {
    Err err = {0};
    int fd, pipes[2];
    new_folder();
    CHECK(pipe(pipes) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = run_lock(folder, &fd, &err);
        fflush(stdout);
        if (fork() == 0) { // a worker that outlives the holder does not keep the lock
            sleep(2);
            _exit(0);
        }
        if (write(pipes[1], ok ? "y" : "n", 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    char c = 0;
    CHECK(read(pipes[0], &c, 1) == 1 && c == 'y');
    CHECK(!run_lock(folder, &fd, &err));
    CHECK_INT(err.code, ERR_TEMPFAIL);
    char named[32];
    snprintf(named, sizeof named, "pid %ld", (long)pid);
    if (!strstr(err.msg, named)) FAIL("'%s' does not name %s", err.msg, named);
    kill(pid, SIGKILL);
    wait_for(pid);
    OK(run_lock(folder, &fd, &err));
    run_unlock(fd);
    close(pipes[0]), close(pipes[1]);
    remove_folder();
}

static const Test tests[] = {
    {"saved_is_found", saved_is_found},
    {"prune_keeps_what_it_must", prune_keeps_what_it_must},
    {"every_section_is_guarded", every_section_is_guarded},
    {"state_proves_itself", state_proves_itself},
    {"kills_leave_the_last_one", kills_leave_the_last_one},
    {"full_disk", full_disk},
    {"one_writer", one_writer},
};
TEST_MAIN(tests)
