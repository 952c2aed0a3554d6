// Writing checkpoints. A checkpoint is written aside, every file and folder synced, and renamed: a kill, a full disk or
// a power cut at any instant leaves the one before, and a folder named step-N is always whole. What it refuses: a
// safetensors file whose header doesn't account for every byte.
#include "checkpoint.h"
#include "files.h"
#include "stages.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Section {
    const char *name; // owned by the header's JSON
    size_t start, end;
} Section;

static int by_start(const void *a, const void *b) {
    const Section *x = a, *y = b;
    return x->start != y->start ? (x->start < y->start ? -1 : 1) : (x->end > y->end) - (x->end < y->end);
}

static void add_section(json_t *list, const char *name, const uint8_t *data, size_t start, size_t size) {
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash64(data + start, size));
    json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:s}", "name", name, "offset", (json_int_t)start, "size",
                                          (json_int_t)size, "xxh3", hash));
}

// The sections of a safetensors file we have just written: "header", then its tensors in the file's order.
static bool list_sections(const char *path, const MappedFile *f, json_t *list, Err *err) {
    uint64_t header = 0;
    for (int i = 0; i < 8 && (size_t)i < f->size; i++) header |= (uint64_t)f->data[i] << (8 * i);
    if (f->size < 8 || header > f->size - 8) return fail(err, ERR_DATA, path, "the header reaches beyond the file");
    size_t base = 8 + (size_t)header, end = base;
    json_t *j = NULL;
    TRY(json_parse((const char *)f->data + 8, (size_t)header, path, 1, &j, err));
    Section *sections = xcalloc(json_object_size(j) + 1, sizeof *sections);
    int count = 0;
    bool ok = json_is_object(j) || fail(err, ERR_DATA, path, "the header is not an object");
    const char *key;
    json_t *value;
    json_object_foreach(j, key, value) {
        if (!strcmp(key, "__metadata__")) continue;
        json_t *offsets = json_object_get(value, "data_offsets");
        json_int_t from = json_integer_value(json_array_get(offsets, 0)), to = json_integer_value(json_array_get(offsets, 1));
        sections[count++] = (Section){key, base + (size_t)from, base + (size_t)to};
        if (from < 0 || to < from || (uint64_t)to > f->size - base)
            ok = fail(err, ERR_DATA, path, "tensor %s has offsets [%lld, %lld), expected within %zu bytes", key, (long long)from,
                      (long long)to, f->size - base);
    }
    qsort(sections, (size_t)count, sizeof *sections, by_start);
    if (ok) add_section(list, "header", f->data, 0, base);
    for (int i = 0; ok && i < count; i++) {
        if (sections[i].start != end)
            ok = fail(err, ERR_DATA, path, "tensor %s begins at byte %zu, expected %zu", sections[i].name, sections[i].start, end);
        else
            add_section(list, sections[i].name, f->data, sections[i].start, sections[i].end - sections[i].start);
        file_drop_pages(f); // a section at a time counts as this process's memory
        end = sections[i].end;
    }
    if (ok && end != f->size) ok = fail(err, ERR_DATA, path, "%zu bytes follow the last tensor", f->size - end);
    free(sections);
    json_decref(j);
    return ok;
}

static bool sync_file(const char *path, Err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return fail(err, ERR_IO, path, "can't open to sync: %s", strerror(errno));
    int r = fsync(fd), e = errno;
    close(fd);
    return r == 0 || fail(err, ERR_IO, path, "can't sync: %s", strerror(e));
}

static bool list_file(const char *folder, const char *name, json_t *files, Err *err) {
    char *path = path_join(folder, name), hash[65];
    size_t n = strlen(name);
    MappedFile f = {0};
    bool ok = sync_file(path, err) && file_map(path, &f, err);
    if (ok) {
        json_t *entry = json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)f.size);
        if (n > 12 && !strcmp(name + n - 12, ".safetensors")) {
            json_t *sections = json_array();
            ok = list_sections(path, &f, sections, err);
            json_object_set_new(entry, "sections", sections);
        } else {
            sha256_hex(f.data ? (const void *)f.data : "", f.size, hash);
            json_object_set_new(entry, "sha256", json_string(hash));
        }
        json_array_append_new(files, entry);
        file_unmap(&f);
    }
    free(path);
    return ok;
}

static bool write_state(const char *folder, const TrainState *s, const char *recipe_hash, Err *err) {
    Names names = {0};
    json_t *files = json_array();
    bool ok = names_read(folder, &names, err);
    for (int i = 0; ok && i < names.count; i++) ok = list_file(folder, names.names[i], files, err);
    names_free(&names);
    json_t *state = json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:s, s:o}", "format", CHECKPOINT_FORMAT, "version", RECKON_VERSION,
                              "recipe", recipe_hash, "step", (json_int_t)s->step, "stage_index", s->stage_index, "stage_step",
                              s->stage_step, "chain", s->chain, "files", files);
    if (s->algo.started)
        json_object_set_new(state, "algo", json_pack("{s:o,s:o,s:o}", "kl", json_number_or_name(s->algo.kl), "entropy",
                                                     json_number_or_name(s->algo.entropy), "last_entropy", json_number_or_name(s->algo.last_entropy)));
    if (s->curriculum) json_object_set_new(state, "curriculum", json_deep_copy(s->curriculum));
    char seal[65];
    checkpoint_seal(state, seal);
    json_object_set_new(state, "seal", json_string(seal));
    Buf text = {0};
    json_write(state, &text);
    char *path = path_join(folder, STATE_FILE);
    ok = ok && file_write_atomic(path, text.data, text.size, err);
    free(path);
    buf_free(&text);
    json_decref(state);
    return ok;
}

// An older folder of the same step (a damaged one, or of a run that was rewound) changes places with the new one in
// one operation, so that there is always one of them under the name.
static bool put_in_place(const char *aside, const char *final, Err *err) {
    if (rename(aside, final) == 0) return true;
    if (errno != EEXIST && errno != ENOTEMPTY) return fail(err, ERR_IO, final, "can't rename: %s", strerror(errno));
    if (renameat2(AT_FDCWD, aside, AT_FDCWD, final, RENAME_EXCHANGE) != 0) {
        if (errno != EINVAL && errno != ENOSYS) return fail(err, ERR_IO, final, "can't exchange: %s", strerror(errno));
        TRY(folder_remove(final, err)); // a file system without exchange
        return rename(aside, final) == 0 || fail(err, ERR_IO, final, "can't rename: %s", strerror(errno));
    }
    return folder_remove(aside, err);
}

bool checkpoint_save(const char *run_folder, const Policy *p, const TrainState *state, const char *recipe_hash, Err *err) {
    if (state->step < 0 || state->stage_index < 0 || state->stage_step < 0 || strlen(state->chain) != 64)
        return fail(err, ERR_SOFTWARE, run_folder, "a checkpoint of step %lld, stage %d, stage step %d, chain '%s'",
                    (long long)state->step, state->stage_index, state->stage_step, state->chain);
    char *aside = checkpoint_path(run_folder, state->step, ".part"), *final = checkpoint_path(run_folder, state->step, NULL),
         *parent = path_join(run_folder, "checkpoints"), *optimizer = path_join(aside, "optimizer.safetensors"),
         *flight = path_join(aside, FLIGHT_FILE);
    bool ok = folder_make(parent, err) && folder_sync(run_folder, err) && folder_remove(aside, err) && folder_make(aside, err) &&
              (flight_is_empty(state->flight) || flight_save(state->flight, flight, err)) && policy_save(p, aside, "F32", err) && policy_save_optimizer(p, optimizer, err) &&
              write_state(aside, state, recipe_hash, err) && folder_sync(aside, err) && put_in_place(aside, final, err) &&
              folder_sync(parent, err);
    if (!ok) {
        Err ignored;
        if (!folder_remove(aside, &ignored)) log_line(LOG_WARN, "%s could not be removed: %s", aside, ignored.msg);
    }
    free(aside), free(final), free(parent), free(optimizer), free(flight);
    return ok;
}
