// What the pool and its workers say to each other over a socket: batches of jobs one way, verdicts the other. Both
// run on one machine from one binary, so numbers are in memory order. Every length is checked by the reader; the
// parent trusts nothing that a worker says.
//
// batch:  BatchHeader, then for each job: tag u32, samples u32, samples
// reply:  BatchHeader, then for each job: tag u32, samples u32, verdicts (or one flag byte where samples is 0)
// A job with no samples asks whether any script has a group function.
#ifndef RECKON_MESSAGE_H
#define RECKON_MESSAGE_H
#include "reward.h"

enum { BATCH_MAGIC = 0x52574442, REPLY_MAGIC = 0x52574452, MESSAGE_LIMIT = 1 << 30, MAX_GROUP = 65536, LEAST_SAMPLE = 64 }; // LEAST_SAMPLE: bytes

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

#endif
