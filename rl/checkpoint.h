// What the writing and the reading half of the checkpoints share: the layout of state.json and of the folder.
//
//   checkpoints/step-N/        a Hugging Face model folder, optimizer.safetensors, and
//     state.json               {"format", "version", "recipe", "step", "stage_index", "stage_step", "chain",
//                               "files": [{"name", "size", "sha256"} or {"name", "size", "sections":
//                               [{"name", "offset", "size", "xxh3"}]}], "seal"}
// A safetensors file is listed by section (its header, then each tensor), every other file by its SHA-256. `seal` is
// the SHA-256 of the canonical text of all else, so that state.json proves itself.
#ifndef RECKON_CHECKPOINT_H
#define RECKON_CHECKPOINT_H
#include "rl.h"

#define CHECKPOINT_FORMAT "reckon checkpoint 1"
#define STATE_FILE "state.json"

// state.json's `seal` for an object without one.
void checkpoint_seal(const json_t *state, char out[65]);
// All names in a folder but "." and "..", sorted; the caller frees with names_free.
typedef struct Names {
    char **names;
    int count;
} Names;
bool names_read(const char *folder, Names *out, Err *err) MUST_CHECK;
void names_free(Names *n);
// RUN/checkpoints/step-N, or with a suffix its hidden neighbour checkpoints/.step-N.part; the caller frees.
char *checkpoint_path(const char *run_folder, int64_t step, const char *suffix);
// Steps of all checkpoints there, newest first, whole or not; the caller frees *steps.
bool checkpoint_steps(const char *run_folder, int64_t **steps, int *count, Err *err) MUST_CHECK;
// The recipe's hash that a checkpoint's (whole) state names.
bool checkpoint_recipe(const char *folder, char out[65], Err *err) MUST_CHECK;

#endif
