// Data that stages make and read: JSON Lines with what to complete, the completion, and where it came from.
//
//   {"prompt" or "messages", "completion", "thinking", "answer", "truth", "kind", "level", "mode", "ids", "tokenizer",
//    "origin": {"model","recipe","seed","stage","step","prompt","sample","score","parts"}}
//
// Of a teacher that was asked over HTTP `model` is null, "endpoint": {"host","model"} stands beside it, and `ids` are its text's.
// `ids` are the completion's own, a token that was given to it as -1 - id; they hold for the tokenizer whose hash stands beside
// them. Text that came from a model is encoded again only where that tokenizer is another one.
//
//   {"messages", "tools", "mode"}    a conversation whose last message is the assistant's
//   {"text"}
//
// are learned as they stand.
#ifndef RECKON_DATA_H
#define RECKON_DATA_H
#include "stages.h"

#define DATA_RECORD "data" // name of the evaluation that records such a file on the ledger

typedef struct Data Data;
// All rows of the stage's sources: a file of an earlier stage must have the hash that is on the ledger.
bool data_open(const Trainer *t, const Stage *stage, Data **out, Err *err) MUST_CHECK;
void data_close(Data *d); // NULL is fine
int64_t data_count(const Data *d); // rows
// How many rows a step takes; fewer in the last one of the last epoch.
int data_rows_of_step(const Data *d, const Stage *stage, int stage_step);
// Row number `index` of all epochs, each of which is a permutation of its own, as what to complete and with what. The arrays are the arena's.
bool data_example(const Trainer *t, const Stage *stage, const Data *d, uint64_t index, Arena *arena, Ids *prompt, Completion *out,
                  Err *err) MUST_CHECK;
// Steps of the stages that go by epochs, as far as their sources are there: files, and what the ledger (may be NULL) knows of
// earlier stages.
bool stages_count_steps(Recipe *r, const Ledger *ledger, Err *err) MUST_CHECK;
// The same for the run in the recipe's folder, whose ledger it reads.
bool run_count_steps(Recipe *r, Err *err) MUST_CHECK;
// Before the run: as many steps as it could come to.
int64_t stage_steps_at_most(const Recipe *r, const Stage *stage);
// SHA-256 over the files that stages read, "" where there are none: a fact of the run.
bool stages_data_hash(const Recipe *r, char out[65], Err *err) MUST_CHECK;
// The ledger's record of the file that a stage made, *out NULL where there is none; the caller's.
bool data_record(const Ledger *l, const char *stage, json_t **out, Err *err) MUST_CHECK;
// data/N-NAME.jsonl, within the run's folder; the caller frees.
char *data_file_name(const Recipe *r, const Stage *stage);

// ---- rows that are learned as they stand (data_whole.c) --------------------------------------------------
typedef struct Conversation {
    const json_t *messages; // [{"role","content"}], the last one the assistant's
    const json_t *tools;    // as templates take them; NULL: none
    int mode;               // sets the template's switch for thinking; MODE_TEMPLATE: its own way
    bool last_turn;         // which of the assistant's turns is learned; false: all
} Conversation;
// Appends what stands before the first learned token, and what follows to the last one, given tokens as -1 - id: together the ids of
// the template's text of the whole, without what it writes after the last turn's end. Errors name the place within the row.
bool conversation_encode(const Tokenizer *t, const Conversation *talk, Ids *prompt, Ids *rest, Err *err) MUST_CHECK;
// The same for text, all of which is learned, with an end-of-sequence token behind it.
bool text_encode(const Tokenizer *t, const char *text, Ids *prompt, Ids *rest, Err *err) MUST_CHECK;

// ---- near-duplicates (near_duplicates.c) -----------------------------------------------------------------
typedef struct NearDuplicates NearDuplicates;
NearDuplicates *near_duplicates_open(int ngram, double similarity);
void near_duplicates_close(NearDuplicates *n);
// Whether both texts are as similar as that to those of a pair that was added before; if not, this pair is added.
bool near_duplicates_has(NearDuplicates *n, const char *question, const char *completion);

#endif
