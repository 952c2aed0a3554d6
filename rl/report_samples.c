// Samples to read: a comparison's, the answers that evaluations kept, and completions of training from the first step to the
// last, as JSON for the page's browser. An index of all comes first, a row a sample; their texts follow in blocks, which the page
// reads only when they are looked at:
//
//   index: {"block": samples a block, "names": [strings], "rows": [[set, step, arm, kind, level, outcome, cut off, tokens, group, "preview"]]}
//          set, arm, kind, outcome and group are indices into names. Samples of one group answer the same question.
//   block: [{"p": prompt, "t": truth | null, "x": [pieces], "l": [thousandths of nats | null] | null, "k": pieces that are thinking,
//            "n": [thinking, answer] tokens, "r": reward, "a": advantage, "v": [[part, value]], "w": why | null}]
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PER_BLOCK = 250, LONGEST_TEXT = 6000, LONGEST_PREVIEW = 60, LONGEST_COURSE = 4000 };

typedef struct Samples {
    Report *report;
    SampleBlocks *out;
    int count, left;      // left: how many more are taken
    json_t *ids, *names;  // name -> index, and the list
    Buf *block;
    Buf text, piece, both; // scratch
} Samples;

// One sample, from wherever it comes. Pieces are written by the caller.
typedef struct Record {
    const char *set, *arm, *kind, *outcome;
    char group[160];
    int64_t step, level, tokens, think_tokens, answer_tokens;
    bool cut_off;
    double reward, advantage;
    const char *prompt, *truth, *why; // NULL: none
    size_t prompt_size, truth_size;
    json_t *parts;                    // [[name, value]], or NULL
} Record;

// ---- JSON that is safe inside a page ----------------------------------------------------------------------
// A string of visible text: what could end the block that it stands in is escaped.
static void put_string(Samples *s, Buf *out, const char *text, size_t size) {
    size_t shown = size < LONGEST_TEXT ? size : LONGEST_TEXT;
    while (shown < size && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80) shown--; // at a whole character
    s->text.size = 0;
    text_visible(&s->text, text, shown);
    if (shown < size) buf_printf(&s->text, " [%zu bytes more]", size - shown);
    buf_puts(out, "\"");
    for (size_t i = 0; i < s->text.size; i++) {
        char c = s->text.data[i];
        if (c == '"' || c == '\\') buf_printf(out, "\\%c", c);
        else if (c == '\n') buf_puts(out, "\\n");
        else if (c == '\t') buf_puts(out, "\\t");
        else if (c == '<' || c == '>' || c == '&' || c == '\'') buf_printf(out, "\\u%04x", c);
        else buf_append(out, &c, 1);
    }
    buf_puts(out, "\"");
}
static void put_number(Buf *out, double x) {
    if (isfinite(x)) buf_printf(out, "%.4g", x);
    else buf_puts(out, "null");
}
static int name_index(Samples *s, const char *name) {
    s->text.size = 0;
    text_visible(&s->text, name, strnlen(name, 120));
    const char *visible = s->text.size ? s->text.data : "";
    const json_t *found = json_object_get(s->ids, visible);
    if (found) return (int)json_integer_value(found);
    int index = (int)json_array_size(s->names);
    json_object_set_new(s->ids, visible, json_integer(index));
    json_array_append_new(s->names, json_string(visible));
    return index;
}

// ---- one sample ------------------------------------------------------------------------------------------
static void put_index(Samples *s, const Record *r) {
    Buf *out = &s->out->index;
    buf_printf(out, "%s[%d,%lld,%d,%d,%lld,%d,%d,%lld,%d,", s->count ? ",\n" : "", name_index(s, r->set), (long long)r->step, name_index(s, r->arm),
               name_index(s, r->kind), (long long)r->level, name_index(s, r->outcome), (int)r->cut_off, (long long)r->tokens, name_index(s, r->group));
    size_t shown = r->prompt_size < LONGEST_PREVIEW ? r->prompt_size : LONGEST_PREVIEW;
    while (shown < r->prompt_size && shown > 0 && ((unsigned char)r->prompt[shown] & 0xc0) == 0x80) shown--;
    put_string(s, out, r->prompt ? r->prompt : "", shown);
    buf_puts(out, "]");
}

static void begin_sample(Samples *s, const Record *r) {
    put_index(s, r);
    if (s->count % PER_BLOCK == 0) {
        s->out->blocks = xrealloc(s->out->blocks, (size_t)(s->out->count + 1) * sizeof *s->out->blocks);
        s->out->blocks[s->out->count++] = (Buf){0};
    }
    s->block = &s->out->blocks[s->out->count - 1];
    buf_puts(s->block, s->count % PER_BLOCK ? ",\n{\"p\":" : "[{\"p\":");
    put_string(s, s->block, r->prompt ? r->prompt : "", r->prompt_size);
    buf_puts(s->block, ",\"t\":");
    if (r->truth) put_string(s, s->block, r->truth, r->truth_size);
    else buf_puts(s->block, "null");
    s->count++, s->left--;
}

static void end_sample(Samples *s, const Record *r, int thinking) {
    Buf *out = s->block;
    size_t i;
    json_t *part;
    buf_printf(out, ",\"k\":%d,\"n\":[%lld,%lld],\"r\":", thinking, (long long)r->think_tokens, (long long)r->answer_tokens);
    put_number(out, r->reward);
    buf_puts(out, ",\"a\":");
    put_number(out, r->advantage);
    buf_puts(out, ",\"v\":[");
    json_array_foreach(r->parts, i, part) {
        const char *name = json_string_value(json_array_get(part, 0));
        buf_puts(out, i ? ",[" : "[");
        put_string(s, out, name ? name : "", name ? strlen(name) : 0);
        buf_puts(out, ",");
        put_number(out, json_number_value(json_array_get(part, 1)));
        buf_puts(out, "]");
    }
    buf_puts(out, "],\"w\":");
    if (r->why && r->why[0]) put_string(s, out, r->why, strlen(r->why));
    else buf_puts(out, "null");
    buf_puts(out, "}");
}

// ---- completions as pieces -------------------------------------------------------------------------------
// The whole text, thinking and answer apart, where it can't be cut into tokens.
static int put_whole(Samples *s, const char *text, size_t size, bool think) {
    const char *end = think ? memmem(text, size, "</think>", 8) : NULL;
    size_t thinking = end ? (size_t)(end - text) + 8 : think ? size : 0;
    buf_puts(s->block, ",\"x\":[");
    if (thinking) put_string(s, s->block, text, thinking);
    if (thinking && thinking < size) buf_puts(s->block, ",");
    if (thinking < size) put_string(s, s->block, text + thinking, size - thinking);
    buf_puts(s->block, "],\"l\":null");
    return thinking > 0;
}

typedef enum PieceState { PIECE_UNKNOWN, PIECE_HALF, PIECE_WHOLE } PieceState;
// What ids[from..to) add to the text of the id before them (some decoders treat a first token otherwise), in s->piece. Half:
// the bytes end inside a character.
static PieceState piece_of(Samples *s, const int32_t *ids, int from, int to) {
    const Tokenizer *t = s->report->tokenizer;
    int context = from > 0;
    s->both.size = s->piece.size = 0;
    if (context && !tokenizer_decode(t, ids + from - 1, 1, false, &s->piece, NULL)) return PIECE_UNKNOWN;
    size_t before = s->piece.size;
    if (!tokenizer_decode(t, ids + from - context, to - from + context, false, &s->both, NULL) || s->both.size < before) return PIECE_UNKNOWN;
    s->piece.size = 0;
    if (s->both.size > before) buf_append(&s->piece, s->both.data + before, s->both.size - before);
    bool half = s->both.size > before + 2 && !memcmp(s->both.data + s->both.size - 3, "\xef\xbf\xbd", 3);
    return half ? PIECE_HALF : PIECE_WHOLE;
}

// Pieces of whole characters with their logprobs. `course`: a given id as -1 - id. Returns how many of them are thinking; -1 where
// the tokenizer doesn't know an id, with nothing written.
static int put_pieces(Samples *s, const int32_t *course, int count, const double *nats, int64_t think_tokens) {
    int32_t *ids = xcalloc((size_t)count + 1, sizeof *ids);
    Buf logprobs = {0};
    int pieces = 0, thinking = 0, sampled = 0, at = 0;
    size_t start = s->block->size;
    for (int i = 0; i < count; i++) ids[i] = course[i] < 0 ? -1 - course[i] : course[i];
    if (count > 0 && ids[count - 1] == tokenizer_eos(s->report->tokenizer)) count--;
    buf_puts(s->block, ",\"x\":[");
    while (at < count) {
        int end = at + 1;
        bool given = course[at] < 0;
        double sum = 0;
        PieceState state;
        while ((state = piece_of(s, ids, at, end)) == PIECE_HALF && end < count && end - at < 4) end++;
        if (state == PIECE_UNKNOWN) break;
        for (int i = at; i < end; i++)
            if (course[i] >= 0) sum += nats[sampled++];
        buf_puts(s->block, pieces ? "," : "");
        put_string(s, s->block, s->piece.data ? s->piece.data : "", s->piece.size);
        if (given || !isfinite(sum)) buf_puts(&logprobs, pieces ? ",null" : "null");
        else buf_printf(&logprobs, "%s%.0f", pieces ? "," : "", sum == 0 ? 0.0 : 1000 * sum);
        pieces++;
        if (sampled <= think_tokens && think_tokens > 0) thinking = pieces;
        at = end;
    }
    free(ids);
    if (at < count) {
        s->block->size = start;
        buf_free(&logprobs);
        return -1;
    }
    buf_puts(s->block, "],\"l\":[");
    buf_append(s->block, logprobs.data ? logprobs.data : "", logprobs.size);
    buf_puts(s->block, "]");
    buf_free(&logprobs);
    return thinking;
}

// ---- from training ---------------------------------------------------------------------------------------
enum { S_STEP, S_SAMPLE, S_PROMPT, S_FINISH, S_TOKENS, S_THINK, S_ANSWER, S_VERDICT, S_REWARD, S_WHY, S_ADVANTAGE, S_COMPLETION, S_IDS, S_LOGPROBS, S_COURSE,
       S_KIND, S_LEVEL, S_MODE, S_TEXT, S_MESSAGES, S_TRUTH };
static const char samples_sql[] =
    "SELECT s.step, s.sample, s.prompt, s.finish, s.tokens, s.think_tokens, s.answer_tokens, s.verdict, s.reward, s.why, s.advantage, s.completion, s.ids, "
    "s.logprobs, s.course, p.kind, p.level, p.mode, p.text, p.messages, p.truth FROM samples AS s JOIN prompts AS p USING (step, prompt) "
    "WHERE s.step = ? ORDER BY s.sample";

// The state of an unscored sample; of the scored ones whether the reward beat its group.
static const char *outcome(const char *verdict, double advantage) {
    static const char *const states[] = {"abstained", "error", "budget", "killed"};
    for (int i = 0; i < COUNT(states); i++)
        if (!strcmp(verdict, states[i])) return states[i];
    return advantage > 0 ? "better" : advantage < 0 ? "worse" : "equal";
}

static int trained_pieces(Samples *s, sqlite3_stmt *row, int64_t think_tokens, bool think) {
    Value course = value_column(row, S_COURSE), logprobs = value_column(row, S_LOGPROBS), text = value_column(row, S_COMPLETION);
    if (course.kind != VALUE_BLOB) course = value_column(row, S_IDS);
    int count = (int)(course.size / sizeof(int32_t)), sampled = (int)(logprobs.size / sizeof(float)), thinking = -1, wanted = 0;
    if (s->report->tokenizer && course.kind == VALUE_BLOB && logprobs.kind == VALUE_BLOB && count <= LONGEST_COURSE) {
        int32_t *ids = xcalloc((size_t)count + 1, sizeof *ids);
        double *nats = xcalloc((size_t)sampled + 1, sizeof *nats);
        memcpy(ids, course.data, (size_t)count * sizeof *ids);
        for (int i = 0; i < count; i++) wanted += ids[i] >= 0;
        for (int i = 0; i < sampled; i++) {
            float nat;
            memcpy(&nat, (const char *)logprobs.data + (size_t)i * sizeof nat, sizeof nat);
            nats[i] = nat;
        }
        if (wanted == sampled) thinking = put_pieces(s, ids, count, nats, think ? think_tokens : 0);
        free(ids), free(nats);
    }
    if (thinking >= 0) return thinking;
    if (text.kind != VALUE_TEXT && text.kind != VALUE_BLOB) text = value_bytes("", 0, VALUE_TEXT);
    return put_whole(s, text.data, text.size, think);
}

static void training_sample(Samples *s, sqlite3_stmt *row, json_t *parts) {
    const char *verdict = column_string(row, S_VERDICT), *mode = column_string(row, S_MODE);
    Value question = value_column(row, sqlite3_column_type(row, S_TEXT) == SQLITE_TEXT ? S_TEXT : S_MESSAGES), truth = value_column(row, S_TRUTH);
    Record r = {.set = "training", .arm = mode, .kind = column_string(row, S_KIND), .step = column_int(row, S_STEP), .level = column_int(row, S_LEVEL),
                .tokens = column_int(row, S_TOKENS), .think_tokens = column_int(row, S_THINK), .answer_tokens = column_int(row, S_ANSWER),
                .cut_off = !strcmp(column_string(row, S_FINISH), "length"), .reward = column_real(row, S_REWARD), .advantage = column_real(row, S_ADVANTAGE),
                .why = column_string(row, S_WHY), .parts = parts};
    r.outcome = outcome(verdict, r.advantage);
    if (question.kind == VALUE_TEXT) r.prompt = question.data, r.prompt_size = question.size;
    if (truth.kind == VALUE_TEXT) r.truth = truth.data, r.truth_size = truth.size;
    snprintf(r.group, sizeof r.group, "%lld/%lld", (long long)r.step, (long long)column_int(row, S_PROMPT));
    begin_sample(s, &r);
    end_sample(s, &r, trained_pieces(s, row, r.think_tokens, !strcmp(mode, "think")));
}

// Samples of one step with the parts of their rewards, which lie in another table in the same order.
static bool training_step(Samples *s, int64_t step, Err *err) {
    const Ledger *l = s->report->ledger;
    sqlite3_stmt *row = NULL, *part = NULL;
    bool ok = ledger_query(l, samples_sql, step, 0, &row, err) &&
              ledger_query(l, "SELECT sample, name, value FROM parts WHERE step = ? ORDER BY sample, position", step, 0, &part, err), more = true, left = true;
    if (ok) ok = ledger_next(l, part, &left, err);
    while (ok && s->left > 0 && (ok = ledger_next(l, row, &more, err)) && more) {
        json_t *parts = json_array();
        int64_t sample = column_int(row, S_SAMPLE);
        for (; ok && left && column_int(part, 0) <= sample; ok = ledger_next(l, part, &left, err)) {
            double value = column_real(part, 2);
            if (column_int(part, 0) == sample)
                json_array_append_new(parts, json_pack("[o,o]", visible_string(column_string(part, 1)), json_number_or_name(value)));
        }
        training_sample(s, row, parts);
        json_decref(parts);
    }
    sqlite3_finalize(row), sqlite3_finalize(part);
    return ok;
}

// The first and the last step that have samples and as many between, evenly, as there is room for.
static bool training_samples(Samples *s, Err *err) {
    const Ledger *l = s->report->ledger;
    int64_t steps, samples, step;
    TRY(ledger_integer(l, "SELECT count(DISTINCT step) FROM samples", 0, 0, &steps, err));
    TRY(ledger_integer(l, "SELECT count(*) FROM samples", 0, 0, &samples, err));
    if (steps == 0 || s->left <= 0) return true;
    int64_t chosen = samples <= s->left ? steps : s->left * steps / samples;
    if (chosen < 2) chosen = steps < 2 ? steps : 2;
    for (int64_t i = 0; i < chosen && s->left > 0; i++) {
        int64_t index = chosen > 1 ? i * (steps - 1) / (chosen - 1) : 0;
        if (chosen == 2 && i == 0 && s->left > 1) { // two steps that are larger than the room: half for each
            int whole = s->left;
            s->left = whole / 2;
            TRY(ledger_integer(l, "SELECT DISTINCT step FROM samples ORDER BY step LIMIT 1", 0, 0, &step, err) && training_step(s, step, err));
            s->left += whole - whole / 2;
            continue;
        }
        TRY(ledger_integer(l, "SELECT DISTINCT step FROM samples ORDER BY step LIMIT 1 OFFSET ?", index, 0, &step, err) && training_step(s, step, err));
    }
    return true;
}

// ---- from evaluations: what evaluate_answers.c kept -------------------------------------------------------
static int answer_pieces(Samples *s, const json_t *answer, bool think, int64_t think_tokens, const char *text) {
    const json_t *ids = json_object_get(answer, "ids"), *millinats = json_object_get(answer, "millinats");
    size_t count = json_array_size(ids), sampled = json_array_size(millinats), wanted = 0;
    int thinking = -1;
    if (s->report->tokenizer && count <= LONGEST_COURSE && sampled <= count) {
        int32_t *course = xcalloc(count + 1, sizeof *course);
        double *nats = xcalloc(sampled + 1, sizeof *nats);
        for (size_t i = 0; i < count; i++) course[i] = (int32_t)json_integer_value(json_array_get(ids, i)), wanted += course[i] >= 0;
        for (size_t i = 0; i < sampled; i++) nats[i] = json_number_value(json_array_get(millinats, i)) / 1000;
        if (wanted == sampled && count) thinking = put_pieces(s, course, (int)count, nats, think ? think_tokens : 0);
        free(course), free(nats);
    }
    return thinking >= 0 ? thinking : put_whole(s, text, strlen(text), think);
}

static void evaluation_answer(Samples *s, int64_t step, const json_t *evaluation, const json_t *answer) {
    size_t level = (size_t)json_integer_value(json_object_get(answer, "level"));
    const json_t *of_level = json_array_get(json_object_get(evaluation, "levels"), level);
    const char *mode = json_text_or(evaluation, "mode", ""), *text = json_text_or(answer, "completion", "");
    Record r = {.set = "held out", .arm = mode, .kind = json_text_or(of_level, "kind", ""), .step = step,
                .level = json_integer_value(json_object_get(of_level, "level")), .tokens = json_integer_value(json_object_get(answer, "tokens")),
                .think_tokens = json_integer_value(json_object_get(answer, "think_tokens")), .cut_off = !strcmp(json_text_or(answer, "finish", ""), "length"),
                .outcome = json_is_true(json_object_get(answer, "correct")) ? "right" : "wrong", .reward = NAN, .advantage = NAN,
                .prompt = json_text_or(answer, "prompt", ""), .truth = json_text_or(answer, "truth", NULL)};
    r.prompt_size = strlen(r.prompt), r.truth_size = r.truth ? strlen(r.truth) : 0, r.answer_tokens = r.tokens - r.think_tokens;
    snprintf(r.group, sizeof r.group, "held out %.20s %zu %lld", mode, level, (long long)json_integer_value(json_object_get(answer, "item")));
    begin_sample(s, &r);
    end_sample(s, &r, answer_pieces(s, answer, !strcmp(mode, "think"), r.think_tokens, text));
}

static bool evaluation_answers_of(Samples *s, Err *err) {
    sqlite3_stmt *row;
    static const char sql[] = "SELECT step, replayable FROM evaluations WHERE name NOT IN ('compare', 'model') AND name NOT LIKE 'sampled %' ORDER BY step, position";
    bool ok = ledger_query(s->report->ledger, sql, 0, 0, &row, err), more = true;
    while (ok && (ok = ledger_next(s->report->ledger, row, &more, err)) && more) {
        json_t *evaluation = column_object(row, 1), *answer;
        size_t i;
        json_array_foreach(json_object_get(evaluation, "answers"), i, answer) {
            if (s->left > 0) evaluation_answer(s, column_int(row, 0), evaluation, answer);
        }
        json_decref(evaluation);
    }
    sqlite3_finalize(row);
    return ok;
}

// ---- from a comparison -----------------------------------------------------------------------------------
static int compared_pieces(Samples *s, const json_t *sample, bool think, int64_t think_tokens) {
    const json_t *pieces = json_object_get(sample, "pieces"), *logprobs = json_object_get(sample, "logprobs");
    const char *text = json_text_or(sample, "text", "");
    size_t n = json_array_size(pieces), i;
    json_t *piece;
    if (n == 0 || n != json_array_size(logprobs)) return put_whole(s, text, strlen(text), think);
    buf_puts(s->block, ",\"x\":[");
    json_array_foreach(pieces, i, piece) {
        if (i) buf_puts(s->block, ",");
        put_string(s, s->block, json_is_string(piece) ? json_string_value(piece) : "", json_string_length(piece));
    }
    buf_puts(s->block, "],\"l\":[");
    json_array_foreach(logprobs, i, piece) {
        if (i) buf_puts(s->block, ",");
        if (json_is_number(piece)) buf_printf(s->block, "%.0f", fmax(-1e6, 1000 * json_number_value(piece)));
        else buf_puts(s->block, "null");
    }
    buf_puts(s->block, "]");
    return think && think_tokens > 0 ? (int)(think_tokens < (int64_t)n ? think_tokens : (int64_t)n) : 0;
}

static void compared_sample(Samples *s, const json_t *sample) {
    size_t level = (size_t)json_integer_value(json_object_get(sample, "level"));
    const json_t *of_level = json_array_get(json_object_get(json_object_get(s->report->comparison, "replayable"), "levels"), level);
    const char *verdict = json_text_or(sample, "verdict", "scored"), *text = json_text_or(sample, "prompt", ""), *arm = json_text_or(sample, "arm", "");
    bool right = json_is_true(json_object_get(sample, "correct"));
    Record r = {.set = "comparison", .arm = arm, .kind = json_text_or(of_level, "kind", ""), .level = json_integer_value(json_object_get(of_level, "level")),
                .think_tokens = json_integer_value(json_object_get(sample, "think_tokens")),
                .answer_tokens = json_integer_value(json_object_get(sample, "answer_tokens")), .cut_off = !strcmp(json_text_or(sample, "finish", ""), "length"),
                .outcome = strcmp(verdict, "scored") ? outcome(verdict, 0) : right ? "right" : "wrong", .reward = NAN, .advantage = NAN, .prompt = text,
                .prompt_size = strlen(text), .truth = json_text_or(sample, "truth", NULL)};
    r.truth_size = r.truth ? strlen(r.truth) : 0, r.tokens = r.think_tokens + r.answer_tokens;
    snprintf(r.group, sizeof r.group, "comparison %zu %lld", level, (long long)json_integer_value(json_object_get(sample, "item")));
    begin_sample(s, &r);
    end_sample(s, &r, compared_pieces(s, sample, r.think_tokens > 0, r.think_tokens));
}

// ---- all of them -----------------------------------------------------------------------------------------
bool report_samples(Report *report, SampleBlocks *out, Err *err) {
    Samples s = {.report = report, .out = out, .left = report->most_samples, .ids = json_object(), .names = json_array()};
    size_t i;
    json_t *sample;
    *out = (SampleBlocks){0};
    buf_printf(&out->index, "{\"block\":%d,\"rows\":[", PER_BLOCK);
    json_array_foreach(json_object_get(report->comparison, "samples"), i, sample) {
        if (s.left > 0) compared_sample(&s, sample);
    }
    bool ok = !report->ledger || (evaluation_answers_of(&s, err) && training_samples(&s, err));
    buf_puts(&out->index, "],\"names\":[");
    json_array_foreach(s.names, i, sample) {
        if (i) buf_puts(&out->index, ",");
        put_string(&s, &out->index, json_string_value(sample), json_string_length(sample));
    }
    buf_puts(&out->index, "]}");
    for (int k = 0; k < out->count; k++) buf_puts(&out->blocks[k], "]");
    json_decref(s.ids), json_decref(s.names);
    buf_free(&s.text), buf_free(&s.piece), buf_free(&s.both);
    if (!ok) sample_blocks_free(out);
    return ok;
}

void sample_blocks_free(SampleBlocks *b) {
    for (int i = 0; i < b->count; i++) buf_free(&b->blocks[i]);
    free(b->blocks);
    buf_free(&b->index);
    *b = (SampleBlocks){0};
}
