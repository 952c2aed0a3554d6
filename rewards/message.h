// What the pool and its workers say to each other over a socket: batches of jobs one way, verdicts the other. Both
// run on one machine from one binary, so numbers are in memory order. Every length is checked by the reader; the
// parent trusts nothing that a worker says.
//
// batch:  BatchHeader, then for each job: tag u32, samples u32, samples
// reply:  BatchHeader, then for each job: tag u32, samples u32, verdicts (or one flag byte where samples is 0)
// A job with no samples asks what the scripts are (ScriptsLook). One whose number of samples is ENVIRONMENT_JOB is a call
// of the environment: an EnvironmentCall one way, an EnvironmentReply the other.
#ifndef RECKON_MESSAGE_H
#define RECKON_MESSAGE_H
#include "reward.h"

enum {
    BATCH_MAGIC = 0x52574442, REPLY_MAGIC = 0x52574452, MESSAGE_LIMIT = 1 << 30, MAX_GROUP = 65536, ENVIRONMENT_JOB = 1 << 30,
    LEAST_SAMPLE = 64, MAX_STATE = 1 << 20 // bytes
};

typedef struct BatchHeader {
    uint32_t magic, size, jobs, unused; // size: of what follows
} BatchHeader;

typedef struct Reader {
    const char *at, *end;
    bool failed; // once set, all further reads give zero
} Reader;
uint32_t read_u32(Reader *r);

void write_u32(Buf *b, uint32_t value);
void write_sample(Buf *b, const RewardSample *sample);
// Strings of the sample point into the message; `messages` and `row` are new (sample_free).
bool read_sample(Reader *r, RewardSample *out);
void sample_free(RewardSample *sample);
void write_verdict(Buf *b, const Verdict *verdict);
// False unless it is a verdict that a worker can give, with finite numbers where they belong.
bool read_verdict(Reader *r, Verdict *out);

void write_call(Buf *b, const EnvironmentCall *call, int script);
// As read_sample; `row` and `state` are new (call_free).
bool read_call(Reader *r, EnvironmentCall *out, int *script);
void call_free(EnvironmentCall *call);
// `data` and `said` are JSON texts, NULL where there is nothing.
void write_reply(Buf *b, const EnvironmentReply *reply, const char *data, const char *said);
// False unless it is a reply that a worker can give; *out is to be freed in either case.
bool read_reply(Reader *r, EnvironmentReply *out);

// What a worker finds in the scripts' files. `environments`: how many are one; the facts are the first one's.
typedef struct ScriptsLook {
    bool grouped;
    int environments;
    RewardEnvironment environment;
} ScriptsLook;
enum { MAX_STOPS = 16 };
void write_look(Buf *b, const ScriptsLook *look);
bool read_look(Reader *r, ScriptsLook *out); // free with look_free
void look_free(ScriptsLook *look);

#endif
