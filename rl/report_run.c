// What was run, and how to run it again: recipe, hashes, versions, machine, models of a comparison, what happened by the clock.
#include "report_comparison.h"
#include "data.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_SOURCE = 1 << 20, MOST_EVENTS = 100 };

static json_t *facts_add(json_t *blocks, const char *title) {
    json_t *block = block_add(blocks, "facts"), *facts = json_array();
    json_object_set_new(block, "title", json_string(title));
    json_object_set_new(block, "facts", facts);
    return facts;
}
static void fact(json_t *facts, const char *name, const json_t *value) {
    Buf text = {0}, words = {0};
    if (!value || json_is_null(value)) return;
    if (json_is_real(value)) buf_printf(&text, "%.12g", json_real_value(value)); // as it was stated
    else text_json(&text, value);
    text_visible(&words, name, strlen(name));
    for (size_t i = 0; i < words.size; i++)
        if (words.data[i] == '_') words.data[i] = ' ';
    json_array_append_new(facts, json_pack("[s,s]", words.data ? words.data : "", text.data ? text.data : ""));
    buf_free(&text), buf_free(&words);
}
static void fact_text(json_t *facts, const char *name, const char *text) {
    json_t *value = visible_string(text);
    fact(facts, name, value);
    json_decref(value);
}

static void facts_of(json_t *blocks, const char *title, const json_t *object) {
    const char *key;
    json_t *value;
    if (json_object_size(object) == 0) return;
    json_t *facts = facts_add(blocks, title);
    json_object_foreach((json_t *)(uintptr_t)object, key, value) fact(facts, key, value);
}

// ---- a run -----------------------------------------------------------------------------------------------
static void replay_facts(const Report *r, json_t *blocks) {
    json_t *facts = facts_add(blocks, say(r, "to replay"));
    char steps[32];
    snprintf(steps, sizeof steps, "%lld", (long long)r->step);
    char *replay = xasprintf("reckon train %s/recipe.lua --run replayed", r->source), *audit = xasprintf("reckon audit %s", r->source);
    fact_text(facts, say(r, "steps"), steps);
    fact_text(facts, say(r, "head"), r->head);
    fact_text(facts, say(r, "replay"), replay);
    fact_text(facts, say(r, "compare heads"), "reckon audit replayed --head");
    fact_text(facts, say(r, "prove"), audit);
    free(replay), free(audit);
}

static void source_add(const Report *r, json_t *blocks, const char *file, const char *title) {
    Buf text;
    char *path = path_join(r->source, file);
    if (file_read(path, LONGEST_SOURCE, &text, NULL)) {
        json_t *block = block_add(blocks, "source");
        json_object_set_new(block, "title", json_string(title));
        json_object_set_new(block, "text", visible_json(text.data ? text.data : "", text.size));
        buf_free(&text);
    }
    free(path);
}

// What happened besides steps and evaluations: starts, resumes, checkpoints, warnings.
static bool happenings(const Report *r, json_t *blocks, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT at, kind, detail FROM (SELECT * FROM events WHERE kind NOT IN ('step', 'evaluation', 'repeated', 'answer') ORDER "
                              "BY seq DESC LIMIT ?) ORDER BY seq";
    bool ok = ledger_query(r->ledger, sql, MOST_EVENTS, 0, &s, err), more = true;
    json_t *sheet = sheet_add(blocks, "events", say(r, "what happened"));
    sheet_column(sheet, "at", say(r, "at"), "text");
    sheet_column(sheet, "kind", say(r, "what"), "text");
    sheet_column(sheet, "detail", say(r, "detail"), "text");
    json_object_set_new(sheet, "folded", json_true());
    while (ok && (ok = ledger_next(r->ledger, s, &more, err)) && more) {
        json_t *row = sheet_row(sheet);
        for (int i = 0; i < 3; i++) cell_text(row, column_string(s, i));
    }
    sqlite3_finalize(s);
    return ok;
}

// Whether verdicts that a clock decided make a replay come out otherwise.
static bool replay_note(const Report *r, json_t *blocks, Err *err) {
    int64_t times = 0;
    TRY(ledger_integer(r->ledger, "SELECT count(*) FROM events WHERE kind = '" NOT_REPLAYABLE "'", 0, 0, &times, err));
    paragraph_add(blocks, json_string(say(r, times ? "not replayable" : "replayable")));
    return true;
}

// ---- a comparison ----------------------------------------------------------------------------------------
static void comparison_facts(const Report *r, json_t *blocks) {
    const json_t *replayable = replayable_of(r), *measured = measured_of(r);
    static const char *const keys[] = {"recipe", "seed", "step", "before_step", "confidence", "resamples", "margin"};
    size_t i;
    json_t *model;
    json_t *facts = facts_add(blocks, say(r, "the comparison"));
    for (int k = 0; k < COUNT(keys); k++) fact(facts, keys[k], json_object_get(replayable, keys[k]));
    fact(facts, "energy", json_object_get(measured, "energy"));
    fact(facts, "worth", json_object_get(measured, "worth"));
    facts_of(blocks, say(r, "prices"), json_object_get(measured, "prices"));
    json_array_foreach(json_object_get(replayable, "models"), i, model) {
        json_t *of_model = facts_add(blocks, say(r, "model")), *value;
        const char *key;
        json_object_foreach(model, key, value) fact(of_model, key, value);
        json_object_foreach(json_array_get(json_object_get(measured, "models"), i), key, value) {
            if (strcmp(key, "name")) fact(of_model, key, value);
        }
    }
}

// What stages made of their samples: how many there were, what became of the others.
static bool data_made(const Report *r, json_t *blocks, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(r->ledger, "SELECT replayable FROM evaluations WHERE name = '" DATA_RECORD "' ORDER BY step", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(r->ledger, s, &more, err)) && more) {
        json_t *record = column_object(s, 0);
        facts_of(blocks, say(r, "data made"), record);
        json_decref(record);
    }
    sqlite3_finalize(s);
    return ok;
}

bool report_run(Report *r, Err *err) {
    json_t *blocks = section_add(r, "run", "what was run", NULL);
    if (r->ledger) {
        TRY(replay_note(r, blocks, err));
        replay_facts(r, blocks);
        TRY(data_made(r, blocks, err));
        facts_of(blocks, say(r, "facts"), r->facts);
        facts_of(blocks, say(r, "machine"), r->machine);
    }
    if (json_array_size(json_object_get(replayable_of(r), "arms")) > 0) comparison_facts(r, blocks);
    if (!r->ledger) return true;
    source_add(r, blocks, "recipe.lua", say(r, "recipe"));
    source_add(r, blocks, "recipe.resolved.json", say(r, "settings"));
    return happenings(r, blocks, err);
}
