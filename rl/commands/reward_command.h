// What the actions of `reckon reward` share: cases from a file, options of a script, and the score of samples through the
// same worker processes as training.
#ifndef RECKON_REWARD_COMMAND_H
#define RECKON_REWARD_COMMAND_H
#include "command.h"
#include "reward.h"

typedef struct Case {
    json_t *row; // the whole line; strings of the sample point into it
    char *truth; // as text where the line has a number
    char id[64];
    bool expects;
    double number;      // expected score, if state is scored
    VerdictState state; // expected
    Verdict verdict;
    double seconds; // there and back, alone; NaN if it wasn't alone
    RewardSample sample;
    const json_t *actions;     // of an episode in an environment; NULL: one text
    json_t *said;              // what the environment said
    EnvironmentResult episode;
} Case;

typedef struct Cases {
    const char *path;
    Case *list;
    int count;
} Cases;

// Reads JSON Lines; free with cases_free, also after a failure.
bool cases_read(const char *path, Cases *out, Err *err) MUST_CHECK;
void cases_free(Cases *c);
// The script named on the command line with its --option, --fuel, --memory, --seconds; free spec->options.
bool reward_arguments(const Args *args, RewardSpec *spec, RewardLimits *limits, json_t **options, Err *err) MUST_CHECK;
// Copies with what a terminal would obey made visible; returns `out`.
const char *visible(const char *text, char *out, size_t size);

bool reward_probe(const Args *args, Err *err) MUST_CHECK;
bool reward_bench(const Args *args, Err *err) MUST_CHECK;
bool reward_new(const Args *args, Err *err) MUST_CHECK;

#endif
