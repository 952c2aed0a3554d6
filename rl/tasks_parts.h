// What tasks.c and the makers of problems share: generators of procedural problems, and datasets read from files.
#ifndef RECKON_TASKS_PARTS_H
#define RECKON_TASKS_PARTS_H
#include "rl.h"

// One procedural problem, in every form that a task may need.
typedef struct Problem {
    int numbers[8], count;
    int target;              // countdown only
    char plain[96];          // "12+34="
    char words[256];         // "What is 12 + 34?"
    char truth[96];
    char demonstration[256]; // "12+34=46"
    char identity[96];       // the same for problems that differ in the order of commuting operands only
} Problem;

typedef struct Generator {
    const char *kind;
    int levels;                     // 1..levels
    int version;                    // a change of what is drawn changes it: part of tasks_hash
    int64_t (*distinct)(int level); // different problems, -1 if unknown
    void (*draw)(Random *random, int level, Problem *out);
    json_t *(*row)(const Problem *p); // what a reward script sees; the caller owns it
} Generator;
extern const Generator arithmetic_generator, countdown_generator, environment_generator;

// Rows of a file, in memory for the run. Rows with the same kind and level form a group.
typedef struct DatasetRow {
    Item item;    // strings are the dataset's arena's, `row` and `messages` released with it
    int group;
    bool held_out;
} DatasetRow;
typedef struct DatasetGroup {
    const char *kind;
    int level;
    int64_t distinct;
} DatasetGroup;
typedef struct Dataset {
    DatasetRow *rows;
    int64_t count, capacity;
    int64_t *train, train_count;       // rows to train on
    int64_t *held_out, held_out_count; // sorted by group and hash, without repeats
    DatasetGroup *groups;
    int group_count;
    char hash[65]; // SHA-256 of the file
    Arena arena;
} Dataset;

// `chat`: whether rows may hold messages. Errors name file:line:column and what was expected.
bool dataset_read(const char *path, bool chat, double held_out, Dataset *out, Err *err) MUST_CHECK;
void dataset_free(Dataset *d);

// A seeded permutation of 0..count-1, as a function.
uint64_t permuted(uint64_t index, uint64_t count, uint64_t key);
// Whether a problem is kept for evaluation: by a hash of its identity alone, so that no seed moves it.
bool split_held_out(const char *kind, const char *identity, size_t size, double share);

#endif
