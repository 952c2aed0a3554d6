#include "files.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

static bool open_regular(const char *path, int *fd, size_t *size, Err *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // NONBLOCK: a FIFO must not hang us
    if (*fd < 0)
        return fail(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOINPUT : ERR_IO, path, "can't open: %s",
                    strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        bool folder = S_ISDIR(st.st_mode);
        close(*fd);
        return fail(err, ERR_NOINPUT, path, "is %s, expected a regular file", folder ? "a folder" : "a special file");
    }
    *size = (size_t)st.st_size;
    return true;
}

bool file_map(const char *path, MappedFile *out, Err *err) {
    int fd;
    *out = (MappedFile){0};
    TRY(open_regular(path, &fd, &out->size, err));
    if (out->size) {
        void *p = mmap(NULL, out->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int e = errno;
            close(fd);
            return fail(err, ERR_IO, path, "can't map: %s", strerror(e));
        }
        out->data = p;
    }
    close(fd);
    return true;
}
void file_unmap(MappedFile *f) {
    if (f->owned) free((void *)(uintptr_t)f->data);
    else if (f->data) munmap((void *)(uintptr_t)f->data, f->size);
    *f = (MappedFile){0};
}

static const uint64_t DECOMPRESSED_LIMIT = (uint64_t)4 << 30;
static bool decompress(const char *path, const MappedFile *packed, Buf *out, Err *err) {
    ZSTD_DCtx *context = ZSTD_createDCtx();
    size_t chunk = ZSTD_DStreamOutSize(), left = 1;
    char *memory = xmalloc(chunk);
    ZSTD_inBuffer in = {packed->data, packed->size, 0};
    bool ok = true;
    bool full = false; // the last piece may have left more behind
    while (ok && (in.pos < in.size || full)) {
        ZSTD_outBuffer piece = {memory, chunk, 0};
        left = ZSTD_decompressStream(context, &piece, &in);
        if (ZSTD_isError(left)) ok = fail(err, ERR_DATA, path, "isn't whole zstd data: %s at byte %zu", ZSTD_getErrorName(left), in.pos);
        else if (out->size + piece.pos > DECOMPRESSED_LIMIT) ok = fail(err, ERR_DATA, path, "holds more than the 4 GiB of text allowed");
        else buf_append(out, memory, piece.pos);
        full = piece.pos == piece.size;
    }
    if (ok && left != 0) ok = fail(err, ERR_DATA, path, "isn't whole zstd data: it ends within a frame");
    free(memory);
    ZSTD_freeDCtx(context);
    return ok;
}

bool file_map_text(const char *path, MappedFile *out, Err *err) {
    size_t n = strlen(path);
    MappedFile packed;
    Buf text = {0};
    if (n < 4 || strcmp(path + n - 4, ".zst") != 0) return file_map(path, out, err);
    *out = (MappedFile){0};
    TRY(file_map(path, &packed, err));
    bool ok = decompress(path, &packed, &text, err);
    file_unmap(&packed);
    if (!ok) buf_free(&text);
    else *out = (MappedFile){.data = (const uint8_t *)text.data, .size = text.size, .owned = true};
    return ok;
}

void file_drop_pages(const MappedFile *f) {
    if (f->data && !f->owned) madvise((void *)(uintptr_t)f->data, f->size, MADV_DONTNEED); // advice: nothing depends on it
}

void file_fetch_pages(const void *data, size_t size) {
#if defined(MADV_POPULATE_READ)
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)data & ~(page - 1);
    if (size) madvise((void *)from, (uintptr_t)data + size - from, MADV_POPULATE_READ);
#else
    (void)data, (void)size;
#endif
}

bool file_read(const char *path, size_t limit, Buf *out, Err *err) {
    int fd;
    size_t size;
    *out = (Buf){0};
    TRY(open_regular(path, &fd, &size, err));
    char chunk[65536];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || out->size + (size_t)n > limit) {
            int e = errno;
            close(fd);
            buf_free(out);
            if (n < 0) return fail(err, ERR_IO, path, "can't read: %s", strerror(e));
            return fail(err, ERR_DATA, path, "is larger than the %zu bytes allowed", limit);
        }
        if (n == 0) break;
        buf_append(out, chunk, (size_t)n);
    }
    close(fd);
    if (!out->data) buf_append(out, "", 0);
    return true;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }
bool file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool write_all(int fd, const void *data, size_t size, const char *path, Err *err) {
    const char *p = data;
    while (size) {
        ssize_t n = write(fd, p, size < (1u << 30) ? size : (1u << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(err, ERR_IO, path, "can't write: %s", strerror(errno));
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

bool folder_sync(const char *path, Err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail(err, ERR_IO, path, "can't open the folder: %s", strerror(errno));
    int r = fsync(fd), e = errno;
    close(fd);
    return r == 0 || fail(err, ERR_IO, path, "can't sync the folder: %s", strerror(e));
}

bool file_write_atomic(const char *path, const void *data, size_t size, Err *err) {
    char *aside = xasprintf("%s.part.%ld", path, (long)getpid()), *folder = parent_of(path);
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool ok = fd >= 0 || fail(err, ERR_CANTCREAT, path, "can't create: %s", strerror(errno));
    ok = ok && write_all(fd, data, size, path, err);
    ok = ok && (fsync(fd) == 0 || fail(err, ERR_IO, path, "can't sync: %s", strerror(errno)));
    if (fd >= 0 && close(fd) != 0 && ok) ok = fail(err, ERR_IO, path, "can't close: %s", strerror(errno));
    ok = ok && (rename(aside, path) == 0 || fail(err, ERR_IO, path, "can't rename: %s", strerror(errno)));
    if (!ok && fd >= 0) unlink(aside);
    ok = ok && folder_sync(folder, err);
    free(aside);
    free(folder);
    return ok;
}

bool folder_make(const char *path, Err *err) {
    if (file_is_folder(path)) return true;
    char *parent = parent_of(path);
    bool ok = strcmp(parent, path) == 0 || folder_make(parent, err);
    if (ok && mkdir(path, 0755) != 0 && !(errno == EEXIST && file_is_folder(path)))
        ok = fail(err, ERR_CANTCREAT, path, "can't make the folder: %s", strerror(errno));
    free(parent);
    return ok;
}

bool folder_remove(const char *path, Err *err) {
    DIR *d = opendir(path);
    if (!d) return errno == ENOENT || fail(err, ERR_IO, path, "can't open the folder: %s", strerror(errno));
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *child = path_join(path, e->d_name);
        struct stat st;
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            ok = folder_remove(child, err);
        else if (unlink(child) != 0 && errno != ENOENT)
            ok = fail(err, ERR_IO, child, "can't remove: %s", strerror(errno));
        free(child);
    }
    closedir(d);
    return ok && (rmdir(path) == 0 || fail(err, ERR_IO, path, "can't remove the folder: %s", strerror(errno)));
}

char *path_join(const char *folder, const char *name) {
    if (name[0] == '/' || !folder[0]) return xstrdup(name);
    return xasprintf("%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name);
}

static void to_hex(const unsigned char *digest, char out[65]) {
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
void sha256_hex(const void *data, size_t size, char out[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL);
    to_hex(digest, out);
}
struct Sha256 {
    EVP_MD_CTX *context;
};
Sha256 *sha256_start(void) {
    Sha256 *s = xcalloc(1, sizeof *s);
    s->context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(s->context, EVP_sha256(), NULL);
    return s;
}
void sha256_add(Sha256 *s, const void *data, size_t size) { EVP_DigestUpdate(s->context, data, size); }
void sha256_end(Sha256 *s, char out[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_DigestFinal_ex(s->context, digest, NULL);
    to_hex(digest, out);
    EVP_MD_CTX_free(s->context);
    free(s);
}
bool sha256_file(const char *path, char out[65], Err *err) {
    MappedFile f;
    TRY(file_map(path, &f, err));
    sha256_hex(f.data ? (const void *)f.data : "", f.size, out);
    file_unmap(&f);
    return true;
}
uint64_t hash64(const void *data, size_t size) { return XXH3_64bits(data, size); }
