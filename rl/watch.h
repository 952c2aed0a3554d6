// A run as it goes, from its ledger alone: read into one JSON document (watch_read.c), drawn as text (watch_draw.c).
#ifndef RECKON_WATCH_H
#define RECKON_WATCH_H
#include "rl.h"

// {"name", "state": "running"|"finished"|"stopped"|"failed"|"not running", "step", "steps", "stage": {"name", "step", "steps"},
// "seconds_left" (of the stage; null: not known), "step_seconds", "verdicts": {..}, "tokens_per_second",
// "panels": [{"title", "unit", "series": [{"name", "from", "to", "now", "values": [..]}]}],
// "samples": [{"step", "prompt", "truth", "completion", "reward", "verdict", "finish"}]}. Values are means over at most
// WATCH_POINTS stretches of [from, to], null where there is none. Only reads; the caller owns *out.
enum { WATCH_POINTS = 240 };
bool watch_read(const char *run_folder, json_t **out, Err *err) MUST_CHECK;
// The same of a ledger that is open, into an object.
bool watch_ledger(const Ledger *l, const char *run_folder, json_t *out, Err *err) MUST_CHECK;

typedef struct WatchFrame {
    int columns, rows; // rows 0: as many as it takes
    bool unicode;      // else ASCII alone
    bool color;
} WatchFrame;
// Lines end with "\n" and are at most `columns` wide. Text of the ledger shows no control or invisible character.
void watch_draw(const json_t *watched, const WatchFrame *frame, Buf *out);

#endif
