// Looking things up in a comparison's document (its form is told in docs/compare.md). A document may come from anyone: whatever
// is missing or of another type reads as absent.
#ifndef RECKON_REPORT_COMPARISON_H
#define RECKON_REPORT_COMPARISON_H
#include "report.h"

// All items, or one kind, or one level.
typedef enum ScopeKind { SCOPE_ALL, SCOPE_KIND, SCOPE_LEVEL } ScopeKind;
typedef struct Scope {
    ScopeKind kind;
    size_t index;
} Scope;

const json_t *replayable_of(const Report *r); // {} or more
const json_t *measured_of(const Report *r);
const json_t *scoped(const json_t *holder, Scope s); // of an arm, a pair or their measured halves
const json_t *arm_named(const Report *r, const char *name);
const json_t *arm_cost(const Report *r, const char *name);
const json_t *pair_cost(const Report *r, const json_t *pair);
// The pair that the verdict is about: think and direct of the first model; otherwise the first pair; NULL: none.
const json_t *main_pair(const Report *r);
bool is_modes(const json_t *pair);
double mean_of(const json_t *result, const char *key); // of a SPREAD
size_t scope_count(const Report *r, ScopeKind kind);
void scope_name(const Report *r, Scope s, char out[128]); // "arithmetic 4"
const char *arm_tone(const json_t *arm); // "think", "direct" or ""
const char *currency_of(const Report *r); // "" if none is stated
// Of so many answers money is told: of one, a thousand or a million, so that it can be read.
double money_scale(const Report *r);
char *money_scale_text(const Report *r, char out[40]);
// What the difference of two arms comes to, in a sentence, and its tone.
json_t *verdict_sentence(const Report *r, const json_t *pair, const json_t *difference);
json_t *verdict_headline(const Report *r, const json_t *pair, const json_t *difference);
const char *verdict_tone(const json_t *pair, const json_t *difference);
// In two or three words, for a cell.
const char *verdict_words(const Report *r, const json_t *pair, const json_t *difference);

#endif
