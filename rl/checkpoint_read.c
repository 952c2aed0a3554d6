// Reading checkpoints: listing, proving, choosing and pruning them; and the lock of a run's folder. Everything in a
// checkpoint is hostile: state.json proves itself by its seal, then every listed file is compared section by section,
// and a file that isn't listed is an error too (a model folder with one file more may be another model).
#include "checkpoint.h"
#include "router.h"
#include "files.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATE_LIMIT = 64 << 20 };

// ---- folders ---------------------------------------------------------------------------------------------
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
bool names_read(const char *folder, Names *out, Err *err) {
    *out = (Names){0};
    DIR *d = opendir(folder);
    if (!d) return fail(err, errno == ENOENT ? ERR_NOINPUT : ERR_IO, folder, "can't open the folder: %s", strerror(errno));
    int capacity = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (out->count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            out->names = xrealloc(out->names, (size_t)capacity * sizeof *out->names);
        }
        out->names[out->count++] = xstrdup(e->d_name);
    }
    closedir(d);
    if (out->count) qsort(out->names, (size_t)out->count, sizeof *out->names, by_name);
    return true;
}
void names_free(Names *n) {
    for (int i = 0; i < n->count; i++) free(n->names[i]);
    free(n->names);
    *n = (Names){0};
}

char *checkpoint_path(const char *run_folder, int64_t step, const char *suffix) {
    char *name = xasprintf("checkpoints/%sstep-%lld%s", suffix ? "." : "", (long long)step, suffix ? suffix : "");
    char *path = path_join(run_folder, name);
    free(name);
    return path;
}

static bool parse_step(const char *name, int64_t *step) {
    if (strncmp(name, "step-", 5) || name[5] < '0' || name[5] > '9' || strlen(name) > 20 || (name[5] == '0' && name[6])) return false;
    char *end;
    *step = strtoll(name + 5, &end, 10);
    return *end == 0;
}
static int newest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x > y ? -1 : x < y;
}
bool checkpoint_steps(const char *run_folder, int64_t **steps, int *count, Err *err) {
    char *parent = path_join(run_folder, "checkpoints");
    Names names = {0};
    *steps = NULL, *count = 0;
    bool ok = !file_exists(parent) || names_read(parent, &names, err);
    *steps = xcalloc((size_t)names.count + 1, sizeof **steps);
    for (int i = 0; i < names.count; i++)
        if (parse_step(names.names[i], &(*steps)[*count])) ++*count;
    qsort(*steps, (size_t)*count, sizeof **steps, newest_first);
    names_free(&names);
    free(parent);
    return ok;
}

// ---- proof -----------------------------------------------------------------------------------------------
void checkpoint_seal(const json_t *state, char out[65]) {
    Buf text = {0};
    json_write(state, &text);
    sha256_hex(text.data, text.size, out);
    buf_free(&text);
}

static bool is_hash(const char *s, size_t length) {
    return s && strlen(s) == length && strspn(s, "0123456789abcdef") == length;
}

static bool in_range(const json_t *state, const char *key, int64_t high, const char *path, int64_t *out, Err *err) {
    const json_t *v = json_object_get(state, key);
    *out = json_integer_value(v);
    return (json_is_integer(v) && *out >= 0 && *out <= high) ||
           fail(err, ERR_DATA, path, "'%s' is not an integer from 0 to %lld", key, (long long)high);
}

// Reads state.json and checks its seal and the fields of `out`. The caller owns *state.
static bool read_state(const char *folder, json_t **state, TrainState *out, Err *err) {
    char *path = path_join(folder, STATE_FILE), seal[65];
    int64_t stage_index = 0, stage_step = 0;
    *out = (TrainState){0};
    bool ok = json_read_file(path, STATE_LIMIT, state, err);
    if (ok && !json_is_object(*state)) ok = fail(err, ERR_DATA, path, "is not an object");
    if (ok) {
        const char *format = json_string_value(json_object_get(*state, "format"));
        json_t *stored = json_incref(json_object_get(*state, "seal"));
        json_object_del(*state, "seal");
        checkpoint_seal(*state, seal);
        if (!stored || !json_is_string(stored) || strcmp(json_string_value(stored), seal))
            ok = fail(err, ERR_DATA, path, "its seal does not match its content");
        else if (!format || strcmp(format, CHECKPOINT_FORMAT))
            ok = fail(err, ERR_DATA, path, "'format' is '%.40s', expected '" CHECKPOINT_FORMAT "'", format ? format : "missing");
        json_decref(stored);
    }
    ok = ok && in_range(*state, "step", INT64_MAX / 2, path, &out->step, err) &&
         in_range(*state, "stage_index", 1 << 20, path, &stage_index, err) &&
         in_range(*state, "stage_step", INT32_MAX, path, &stage_step, err);
    const char *chain = ok ? json_string_value(json_object_get(*state, "chain")) : NULL;
    if (ok && !is_hash(chain, 64)) ok = fail(err, ERR_DATA, path, "'chain' is not a hash of 64 hex digits");
    if (ok && !json_is_string(json_object_get(*state, "recipe"))) ok = fail(err, ERR_DATA, path, "'recipe' is not a text");
    if (ok) {
        out->stage_index = (int)stage_index, out->stage_step = (int)stage_step;
        memcpy(out->chain, chain, 65);
        const json_t *algo = json_object_get(*state, "algo"); // coefficients that move, where the stage has any
        if (algo)
            out->algo = (AlgoState){.started = true, .kl = json_number_value(json_object_get(algo, "kl")),
                                    .entropy = json_number_value(json_object_get(algo, "entropy")),
                                    .last_entropy = json_number_value(json_object_get(algo, "last_entropy"))};
    }
    free(path);
    return ok;
}

bool checkpoint_curriculum(const char *folder, json_t **out, Err *err) {
    json_t *state = NULL;
    TrainState ignored;
    bool ok = read_state(folder, &state, &ignored, err);
    *out = ok ? json_incref(json_object_get(state, "curriculum")) : NULL;
    json_decref(state);
    return ok;
}

bool checkpoint_recipe(const char *folder, char out[65], Err *err) {
    json_t *state = NULL;
    TrainState ignored;
    bool ok = read_state(folder, &state, &ignored, err);
    if (ok) snprintf(out, 65, "%s", json_string_value(json_object_get(state, "recipe")));
    json_decref(state);
    return ok;
}

static bool verify_sections(const char *path, const MappedFile *f, const json_t *sections, Err *err) {
    size_t end = 0, i;
    json_t *section;
    json_array_foreach(sections, i, section) {
        const char *name = json_string_value(json_object_get(section, "name"));
        const char *hash = json_string_value(json_object_get(section, "xxh3"));
        json_int_t offset = json_integer_value(json_object_get(section, "offset"));
        json_int_t size = json_integer_value(json_object_get(section, "size"));
        char now[17];
        if (!name || !is_hash(hash, 16) || offset < 0 || size < 0 || (uint64_t)offset != end)
            return fail(err, ERR_DATA, path, "section %zu of " STATE_FILE " is not as it should be", i);
        if ((uint64_t)size > f->size - end)
            return fail(err, ERR_DATA, path, "section %s is cut off: the file has %zu bytes, the section ends at %lld", name,
                        f->size, (long long)offset + (long long)size);
        snprintf(now, sizeof now, "%016llx", (unsigned long long)hash64(f->data + end, (size_t)size));
        if (strcmp(now, hash))
            return fail(err, ERR_DATA, path, "section %s is damaged: its checksum is %s, expected %s", name, now, hash);
        end += (size_t)size;
        file_drop_pages(f);
    }
    return end == f->size || fail(err, ERR_DATA, path, "%zu bytes after the last section", f->size - end);
}

static bool verify_file(const char *folder, const json_t *entry, Err *err) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *sha = json_string_value(json_object_get(entry, "sha256"));
    const json_t *sections = json_object_get(entry, "sections");
    if (!name || !name[0] || strchr(name, '/') || name[0] == '.')
        return fail(err, ERR_DATA, folder, STATE_FILE " names a file '%.60s', expected a plain name", name ? name : "");
    char *path = path_join(folder, name), now[65];
    MappedFile f = {0};
    struct stat st;
    bool ok = (lstat(path, &st) == 0 || fail(err, ERR_DATA, path, "is missing")) &&
              (S_ISREG(st.st_mode) || fail(err, ERR_DATA, path, "is not a regular file")) && file_map(path, &f, err);
    if (ok && json_is_array(sections)) {
        ok = verify_sections(path, &f, sections, err);
    } else if (ok) {
        sha256_hex(f.data ? (const void *)f.data : "", f.size, now);
        if (!is_hash(sha, 64) || strcmp(now, sha)) ok = fail(err, ERR_DATA, path, "is damaged: its SHA-256 is %s", now);
    }
    file_unmap(&f);
    free(path);
    return ok;
}

bool checkpoint_verify(const char *folder, TrainState *out, Err *err) {
    json_t *state = NULL;
    Names names = {0};
    TrainState read;
    bool ok = read_state(folder, &state, &read, err) && names_read(folder, &names, err);
    const json_t *files = ok ? json_object_get(state, "files") : NULL;
    size_t i;
    json_t *entry;
    json_array_foreach(files, i, entry) ok = ok && verify_file(folder, entry, err);
    size_t later = 0; // a router is fitted after the checkpoint is made, and has a seal of its own
    for (int k = 0; ok && k < names.count; k++) later += !strcmp(names.names[k], ROUTER_FILE);
    if (ok && json_array_size(files) + 1 + later != (size_t)names.count) // all listed are there, so one there isn't listed
        ok = fail(err, ERR_DATA, folder, "holds %d files, expected %zu and " STATE_FILE, names.count, json_array_size(files));
    names_free(&names);
    json_decref(state);
    if (ok && out) *out = read;
    return ok;
}

bool checkpoint_latest(const char *run_folder, const char *recipe_hash, TrainState *state, char **folder, bool *found, Err *err) {
    int64_t *steps;
    int count;
    *folder = NULL, *found = false;
    bool ok = checkpoint_steps(run_folder, &steps, &count, err);
    for (int i = 0; ok && i < count && !*found; i++) {
        char *path = checkpoint_path(run_folder, steps[i], NULL), recipe[65];
        Err damage = {0};
        *found = checkpoint_verify(path, state, &damage);
        if (*found && state->step != steps[i])
            *found = fail(&damage, ERR_DATA, path, STATE_FILE " says step %lld", (long long)state->step);
        if (!*found) {
            log_line(LOG_WARN, "checkpoint step-%lld is damaged and left aside: %s: %s", (long long)steps[i], damage.where,
                     damage.msg);
        } else if (recipe_hash) {
            ok = checkpoint_recipe(path, recipe, err);
            if (ok && strcmp(recipe, recipe_hash))
                ok = fail(err, ERR_DATA, path, "was made with another recipe (hash %.12s, expected %.12s): continue with the "
                          "recipe it was started with, or choose another run folder", recipe, recipe_hash);
        }
        if (*found && ok) *folder = path;
        else free(path);
    }
    if (!ok) *found = false;
    free(steps);
    return ok;
}

bool model_find(const char *path, char **out, Err *err) {
    char *resolved = path_join(path, "recipe.resolved.json");
    bool run = file_exists(resolved), found = false;
    free(resolved);
    *out = run ? NULL : xstrdup(path);
    if (!run) return true;
    TrainState state;
    TRY(checkpoint_latest(path, NULL, &state, out, &found, err));
    return found || fail(err, ERR_NOINPUT, path, "this run has no checkpoint yet");
}

// ---- pruning ---------------------------------------------------------------------------------------------
// A folder loses its name first: what is half removed is never taken for a checkpoint.
static bool remove_checkpoint(const char *run_folder, int64_t step, Err *err) {
    char *path = checkpoint_path(run_folder, step, NULL), *aside = checkpoint_path(run_folder, step, ".old");
    bool ok = folder_remove(aside, err) &&
              (rename(path, aside) == 0 || fail(err, ERR_IO, path, "can't rename: %s", strerror(errno))) &&
              folder_remove(aside, err);
    free(path), free(aside);
    return ok;
}

bool checkpoint_prune(const char *run_folder, int keep, const int64_t *keep_steps, int keep_step_count, Err *err) {
    int64_t *steps;
    int count;
    bool ok = checkpoint_steps(run_folder, &steps, &count, err);
    for (int i = keep < 0 ? 0 : keep; ok && i < count; i++) {
        bool kept = false;
        for (int k = 0; k < keep_step_count; k++) kept |= keep_steps[k] == steps[i];
        if (!kept) ok = remove_checkpoint(run_folder, steps[i], err);
    }
    free(steps);
    // What a kill left behind: folders that never became a checkpoint, or were being removed.
    char *parent = path_join(run_folder, "checkpoints");
    Names names = {0};
    ok = ok && (!file_exists(parent) || names_read(parent, &names, err));
    for (int i = 0; ok && i < names.count; i++) {
        if (strncmp(names.names[i], ".step-", 6)) continue;
        char *path = path_join(parent, names.names[i]);
        ok = folder_remove(path, err);
        free(path);
    }
    names_free(&names);
    free(parent);
    return ok;
}

// ---- the lock of a run's folder --------------------------------------------------------------------------
// A POSIX lock: unlike flock's it is not inherited by forked workers, so that it ends with the process itself even where
// a worker outlives it, and the kernel knows the holder's pid. It would end too if this process opened and closed the
// file a second time: nothing else opens it.
bool run_lock(const char *run_folder, int *fd, Err *err) {
    char *path = path_join(run_folder, "lock");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    bool ok = *fd >= 0 || fail(err, ERR_CANTCREAT, path, "can't open: %s", strerror(errno));
    if (ok && fcntl(*fd, F_SETLK, &lock) != 0) {
        int e = errno;
        bool known = (e == EACCES || e == EAGAIN) && fcntl(*fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
        char holder[40] = "";
        if (known) snprintf(holder, sizeof holder, " (pid %ld)", (long)lock.l_pid);
        ok = e == EACCES || e == EAGAIN
                 ? fail(err, ERR_TEMPFAIL, run_folder, "another process%s is writing to this run: wait for it, or choose another "
                        "run folder", holder)
                 : fail(err, ERR_IO, path, "can't lock: %s", strerror(e));
    }
    if (!ok && *fd >= 0) close(*fd);
    if (!ok) *fd = -1;
    free(path);
    return ok;
}

bool run_is_locked(const char *run_folder) {
    char *path = path_join(run_folder, "lock");
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool held = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    free(path);
    return held;
}

void run_unlock(int fd) {
    if (fd >= 0) close(fd);
}
