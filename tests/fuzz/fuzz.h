// A small fuzzer that runs inside the test suite: seeds, one engine of mutations, and targets that read hostile bytes.
//
// An execution takes at most 4 KiB and must not crash, read beyond its bytes, leave memory behind, take more than a
// second of CPU time or hold more than 256 MiB. What breaks one of these is written to a file, and the failure names
// it: `build/tests/fuzz_test_ROOM --file TARGET FILE` runs it again.
//
// Inputs are a function of (target, seed, number of the execution), so a failure comes back with the same command.
// Options of a program of targets, all optional:
//   TARGET...            only those whose names contain one of these words
//   --executions N       for each target
//   --minutes M          for each target, instead of a number; with coverage (see tests/fuzz/run) what finds new paths is kept
//   --seed N             another sequence
//   --keep FOLDER        writes the smallest set of inputs that reaches all that was reached, as FOLDER/TARGET.corpus
//   --file TARGET FILE   that one input only
#ifndef RECKON_FUZZ_H
#define RECKON_FUZZ_H
#include "base.h"

enum { FUZZ_INPUT = 4096 };

typedef struct FuzzInput {
    uint8_t *data;
    size_t size;
} FuzzInput;
typedef struct FuzzCorpus {
    FuzzInput *inputs;
    int count, capacity;
} FuzzCorpus;
void corpus_add(FuzzCorpus *c, const void *data, size_t size); // copied; cut at 4 KiB
void corpus_add_text(FuzzCorpus *c, const char *text);
void corpus_add_file(FuzzCorpus *c, const char *path); // must be there
// A packed file: for each input its size (2 bytes, little-endian), then its bytes. Nothing if it isn't there.
void corpus_read(FuzzCorpus *c, const char *path);
void corpus_free(FuzzCorpus *c);

typedef struct FuzzTarget {
    const char *name;
    const char *const *words; // pieces worth inserting, NULL-terminated; may be NULL
    // Adds seeds and makes what all executions share; NULL if there is nothing to share.
    void *(*open)(FuzzCorpus *seeds);
    void (*run)(void *shared, const uint8_t *data, size_t size);
    void (*close)(void *shared); // may be NULL
    // Makes lengths and counts fit again after a mutation, so that what lies behind them is reached; may be NULL.
    // `data` has room for 4 KiB; returns the new size.
    size_t (*repair)(uint8_t *data, size_t size);
    int rarely; // a dear one: executed 1/rarely as often; 0: as often as others
} FuzzTarget;
int fuzz_main(int argc, char **argv, const FuzzTarget *targets, int count);

// Ends the execution as failed: a property that must hold, doesn't.
_Noreturn void fuzz_broken(const char *format, ...) PRINTF_LIKE(1, 2);
#define FUZZ_CHECK(condition)                                                                                \
    do {                                                                                                     \
        if (!(condition)) fuzz_broken("%s:%d: expected %s", __FILE__, __LINE__, #condition);                 \
    } while (0)

// A new folder in memory where the system has one (/dev/shm), and a file in it that is rewritten for each execution.
// Folders are removed when the program ends.
const char *fuzz_folder(void); // of this process
typedef struct FuzzFile {
    char *path;
    int fd;
} FuzzFile;
FuzzFile fuzz_file_open(const char *name); // inside of fuzz_folder; `name` may hold one folder, which is made
void fuzz_file_set(const FuzzFile *f, const void *data, size_t size);
void fuzz_file_copy(const char *name, const char *from); // a file that stays as it is
void fuzz_file_close(FuzzFile *f);

// ---- the engine (mutate.c) ---------------------------------------------------------------------------------
// Fills `out` [FUZZ_INPUT] with a changed copy of one of the corpus and returns its size.
size_t fuzz_mutate(Random *random, const FuzzCorpus *corpus, const char *const *words, uint8_t *out);

// ---- what an execution holds (memory.c) --------------------------------------------------------------------
size_t fuzz_memory_live(void);       // bytes of malloc and its like, now
void fuzz_memory_watch(size_t most); // from here on a failure beyond `live now + most`

// ---- coverage (coverage.c): nothing unless built with RECKON_FUZZ_COVERAGE -----------------------------------
bool coverage_built(void);
void coverage_start(void);   // of an execution
int coverage_new(void);      // edges (by how often, roughly) that no execution reached before; remembers them
void coverage_forget(void);

#endif
