// Shaping: rewards made of lengths, repetition and form rather than of an answer. Each function follows the program or
// paper it names to the last detail; scripts reach them as `shape` (library_shape.c), `reckon calc shaping` compares.
#ifndef RECKON_SHAPING_H
#define RECKON_SHAPING_H
#include "reward.h"

// DAPO's soft overlong punishment (arXiv 2503.14476, equation 13; TRL): 0 up to max - cache, a line down to -1 at max,
// -1 beyond.
double shape_soft_overlong(double length, double max, double cache);
// verl's: what is added to a score; not floored beyond `max`. OpenRLHF's: the same, floored at -factor.
double shape_overlong_verl(double length, double max, double buffer, double factor);
double shape_overlong_openrlhf(double length, double max, double buffer, double factor);
// OpenRLHF: the score of a cut-off answer times `coefficient`, or `coefficient` itself where that is negative.
double shape_stop_properly(double score, bool truncated, double coefficient);

// Cosine length scaling (arXiv 2502.03373; TRL and open-r1): from `start` at length 0 to `end` at max along half a
// cosine. For a right answer start is the larger value, for a wrong one the smaller. Capped at max (TRL) or not (open-r1).
double shape_cosine(double length, double max, double start, double end, bool capped);
// Kimi k1.5's length reward over the samples of a prompt: 0.5 - (length - shortest) / (longest - shortest), at most 0
// where wrong; all 0 where all are of one length.
void shape_kimi(const double *lengths, const bool *correct, int count, double *out); // each [count]

// 1 - unique n-grams / n-grams; 0 where there are fewer than n items. Words are split at blanks, without regard to case.
double shape_repetition_ids(const int32_t *ids, int64_t count, int n); // [count]
double shape_repetition_words(TextSpan text, int n);

// 1 or 0. TRL: begins with <think>, has no other one, and a </think>. open-r1: both parts on lines of their own.
double shape_think_format(TextSpan text);
double shape_think_answer_format(TextSpan text);
double shape_tag_count(TextSpan text);       // open-r1: a quarter for each of four tags that stands there once
double shape_reasoning_steps(TextSpan text); // open-r1: marks of steps such as "Step 1:" and "First,"; three give 1

#endif
