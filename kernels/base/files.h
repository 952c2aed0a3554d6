// Files in and out. Reading maps; writing goes aside, is synced, then renamed, so that a reader sees the old file
// or the whole new one and a crash loses neither.
#ifndef RECKON_FILES_H
#define RECKON_FILES_H
#include "base.h"

// A read-only mapping of a regular file. `data` is NULL for an empty file.
typedef struct MappedFile {
    const uint8_t *data;
    size_t size;
    bool owned; // memory of ours instead of a mapping
} MappedFile;
bool file_map(const char *path, MappedFile *out, Err *err) MUST_CHECK;
// The same, but a file whose name ends in ".zst" is decompressed (zstd, RFC 8878): at most 4 GiB of text.
bool file_map_text(const char *path, MappedFile *out, Err *err) MUST_CHECK;
void file_unmap(MappedFile *f);
void file_fetch_pages(const void *data, size_t size); // of a mapping, so that reading meets no page fault; advice
void file_drop_pages(const MappedFile *f); // its pages leave this process's memory until they are read again

// The whole file, at most `limit` bytes (an error beyond). The buffer is the caller's.
bool file_read(const char *path, size_t limit, Buf *out, Err *err) MUST_CHECK;
bool file_exists(const char *path);
bool file_is_folder(const char *path);

// Writes aside, fsyncs, renames over `path`, fsyncs the folder. On failure the old file stays.
bool file_write_atomic(const char *path, const void *data, size_t size, Err *err) MUST_CHECK;
// Makes the folder and its parents; fine if it is there.
bool folder_make(const char *path, Err *err) MUST_CHECK;
bool folder_sync(const char *path, Err *err) MUST_CHECK; // fsync of the folder itself
bool folder_remove(const char *path, Err *err) MUST_CHECK; // with all that is in it; never follows links
// write() until all is written, through EINTR and short writes.
bool write_all(int fd, const void *data, size_t size, const char *path, Err *err) MUST_CHECK;
// "a/b" from parts; the caller frees.
char *path_join(const char *folder, const char *name);

// SHA-256 as 64 hex digits and a NUL.
void sha256_hex(const void *data, size_t size, char out[65]);
// The same of what comes in pieces; sha256_end frees.
typedef struct Sha256 Sha256;
Sha256 *sha256_start(void);
void sha256_add(Sha256 *s, const void *data, size_t size);
void sha256_end(Sha256 *s, char out[65]);
bool sha256_file(const char *path, char out[65], Err *err) MUST_CHECK;
// 64-bit xxHash (XXH3) of a big section.
uint64_t hash64(const void *data, size_t size);

#endif
