// Fuzzing of what a run reads besides its model: datasets, rows to learn, the state of a checkpoint, the rows of a ledger.
#include "../rl/made_run.h"
#include "checkpoint.h"
#include "data.h"
#include "fuzz.h"
#include "report.h"
#include "tasks_parts.h"
#include "watch.h"

static void told(const Err *err) { // an error that tells where and what
    FUZZ_CHECK(err->code > 0 && err->code != ERR_SOFTWARE && err->where[0] && err->msg[0]);
}

// ---- datasets ------------------------------------------------------------------------------------------------------
static const char *const dataset_words[] = {"{\"prompt\":\"", "\"answer\":\"", "\"answer\":7", "\"messages\":[{\"role\":\"user\",\"content\":\"", "\"level\":3", "\"kind\":\"sum\"", "\"demonstration\":\"", "\n", "\r\n", "\xEF\xBB\xBF", "\\u0000",
                                            "\\ud800", "1e400", "NaN", "[[[[[[[[[[[[[[[[", "\"role\":\"system\"", "\"role\":\"assistant\"", "null", "1000001", "-1", "}\n{", NULL};
static void *dataset_open(FuzzCorpus *seeds) {
    FuzzFile *f = xmalloc(sizeof *f);
    *f = fuzz_file_open("data.jsonl");
    corpus_add_text(seeds, "{\"prompt\":\"1+1=\",\"answer\":\"2\"}\n{\"prompt\":\"2+2=\",\"answer\":4,\"level\":2,\"kind\":\"sum\"}\n");
    corpus_add_text(seeds, "\xEF\xBB\xBF{\"prompt\":\"a\",\"answer\":\"b\",\"demonstration\":\"c\",\"extra\":[1,{\"x\":null}]}\r\n\r\n{\"prompt\":\"\xED\x95\x9C\",\"answer\":\"\\n\\u00e9\"}");
    corpus_add_text(seeds, "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"q\"}],\"answer\":\"a\"}\n");
    return f;
}
static void dataset_fuzz(void *shared, const uint8_t *data, size_t size) {
    FuzzFile *f = shared;
    Dataset d;
    Err err = {0};
    fuzz_file_set(f, data, size);
    if (!dataset_read(f->path, size % 2, 0.25, &d, &err)) {
        told(&err);
        FUZZ_CHECK(err.code == ERR_DATA && strncmp(err.where, f->path, strlen(f->path)) == 0);
    } else {
        FUZZ_CHECK(d.count > 0 && d.train_count + d.held_out_count <= d.count);
        for (int64_t i = 0; i < d.count; i++) FUZZ_CHECK(d.rows[i].group >= 0 && d.rows[i].group < d.group_count && (d.rows[i].item.prompt || d.rows[i].item.messages));
    }
    dataset_free(&d);
}
static void dataset_close(void *shared) {
    fuzz_file_close(shared);
    free(shared);
}

// ---- checkpoints ---------------------------------------------------------------------------------------------------
// A folder of two files. Half of the states get the seal that proves them, so that what lies behind it is reached.
typedef struct CheckpointShared {
    FuzzFile state;
    char *folder;
} CheckpointShared;
static const char *const state_words[] = {"\"files\":[", "\"name\":\"a.bin\"", "\"sections\":[", "\"offset\":0", "\"size\":5", "\"xxh3\":\"", "\"sha256\":\"", "\"step\":", "\"stage_index\":", "\"chain\":\"", "\"recipe\":\"", "\"algo\":{\"kl\":0.1}", "../a.bin", "/etc/passwd",
                                          "state.json", ".", "\"format\":\"" CHECKPOINT_FORMAT "\"", "9223372036854775807", "-1", "null", NULL};
static void *checkpoint_open(FuzzCorpus *seeds) {
    CheckpointShared *s = xcalloc(1, sizeof *s);
    char sha[65], first[17], second[17], chain[65];
    FuzzFile f = fuzz_file_open("step-3/a.bin");
    fuzz_file_set(&f, "hello", 5);
    fuzz_file_close(&f);
    f = fuzz_file_open("step-3/b.bin");
    fuzz_file_set(&f, "headtail", 8);
    fuzz_file_close(&f);
    s->state = fuzz_file_open("step-3/" STATE_FILE);
    s->folder = path_join(fuzz_folder(), "step-3");
    sha256_hex("hello", 5, sha);
    sha256_hex("", 0, chain);
    snprintf(first, sizeof first, "%016llx", (unsigned long long)hash64("head", 4));
    snprintf(second, sizeof second, "%016llx", (unsigned long long)hash64("tail", 4));
    char *state = xasprintf("{\"format\":\"" CHECKPOINT_FORMAT "\",\"version\":\"0.1.0\",\"recipe\":\"ab\",\"step\":3,\"stage_index\":0,\"stage_step\":3,\"chain\":\"%s\",\"files\":[{\"name\":\"a.bin\",\"size\":5,\"sha256\":\"%s\"},"
                            "{\"name\":\"b.bin\",\"size\":8,\"sections\":[{\"name\":\"header\",\"offset\":0,\"size\":4,\"xxh3\":\"%s\"},{\"name\":\"t\",\"offset\":4,\"size\":4,\"xxh3\":\"%s\"}]}],\"algo\":{\"kl\":0.1,\"entropy\":0.0,\"last_entropy\":null}}",
                            chain, sha, first, second);
    corpus_add_text(seeds, state);
    free(state);
    return s;
}
static void checkpoint_fuzz(void *shared, const uint8_t *data, size_t size) {
    CheckpointShared *s = shared;
    TrainState state;
    Err err = {0};
    json_t *json = NULL;
    char seal[65];
    if (size % 16 && json_parse((const char *)data, size, STATE_FILE, 1, &json, &err) && json_is_object(json)) {
        Buf text = {0};
        json_object_del(json, "seal");
        checkpoint_seal(json, seal);
        json_object_set_new(json, "seal", json_string(seal));
        json_write(json, &text);
        fuzz_file_set(&s->state, text.data, text.size);
        buf_free(&text);
    } else {
        fuzz_file_set(&s->state, data, size);
    }
    json_decref(json);
    if (!checkpoint_verify(s->folder, &state, &err)) told(&err);
    else FUZZ_CHECK(state.step >= 0 && state.stage_index >= 0 && strlen(state.chain) == 64);
}
static void checkpoint_close(void *shared) {
    CheckpointShared *s = shared;
    fuzz_file_close(&s->state);
    free(s->folder);
    free(s);
}

// ---- ledgers ---------------------------------------------------------------------------------------------------------
// An input changes cells: for each a table, a column and a row (a byte each; rows of the same value change too), a kind,
// a length, and the value's bytes.
// Then the ledger is proved, or a part of the report is made of it; the changes are taken back.
static void *ledger_start(FuzzCorpus *seeds) {
    Ledger *l;
    Err err = {0};
    bool ok = ledger_open(fuzz_folder(), false, &l, &err) && made_run_facts(l, &err) && made_evaluate(l, 0, "think", &err) && made_step(l, 1, &err) && made_step(l, 2, &err) && made_evaluate(l, 2, "direct", &err);
    if (!ok) fuzz_broken("%s: %s", err.where, err.msg);
    static const char *const values[] = {"", "1", "-9223372036854775808", "{}", "{\"seconds\":1e308}", "[\"think\"]", "<script>", "\xFF\xFE", "think", "scored", "1e999", "{\"levels\":[{\"kind\":\"x\",\"level\":1,\"items\":-5}]}"};
    for (int i = 0; i < COUNT(values); i++)
        for (int table = 0; table < TABLES; table += 3) {
            uint8_t cell[64] = {(uint8_t)((table + i) % TABLES), (uint8_t)(3 * i), (uint8_t)i, VALUE_TEXT, (uint8_t)strlen(values[i])};
            memcpy(cell + 5, values[i], strlen(values[i]));
            corpus_add(seeds, cell, 5 + strlen(values[i]));
        }
    return l;
}
static void change_cell(Ledger *l, const uint8_t *cell, const uint8_t *value, size_t size) {
    char *sql = xasprintf("SELECT * FROM %s", ledger_tables[cell[0] % TABLES].name), *update;
    sqlite3_stmt *s = NULL;
    double real = 0;
    int64_t whole = 0;
    if (sqlite3_prepare_v2(l->db, sql, -1, &s, NULL) != SQLITE_OK) fuzz_broken("%s: %s", sql, sqlite3_errmsg(l->db));
    const char *column = sqlite3_column_name(s, cell[1] % sqlite3_column_count(s)), *table = ledger_tables[cell[0] % TABLES].name;
    update = xasprintf("UPDATE %s SET %s = ?1 WHERE %s IS (SELECT %s FROM %s LIMIT 1 OFFSET %d)", table, column, column, column, table, cell[2] % 8);
    sqlite3_finalize(s);
    if (sqlite3_prepare_v2(l->db, update, -1, &s, NULL) != SQLITE_OK) fuzz_broken("%s: %s", update, sqlite3_errmsg(l->db));
    memcpy(&real, value, size < 8 ? size : 8);
    memcpy(&whole, value, size < 8 ? size : 8);
    switch (cell[3] % 5) {
    case VALUE_INT: sqlite3_bind_int64(s, 1, whole); break;
    case VALUE_REAL: sqlite3_bind_double(s, 1, real); break;
    case VALUE_TEXT: sqlite3_bind_text(s, 1, (const char *)value, (int)size, SQLITE_STATIC); break;
    case VALUE_BLOB: sqlite3_bind_blob(s, 1, value, (int)size, SQLITE_STATIC); break;
    default: sqlite3_bind_null(s, 1);
    }
    sqlite3_step(s); // constraints may refuse it
    sqlite3_finalize(s);
    free(sql), free(update);
}
static void change_cells(Ledger *l, const uint8_t *data, size_t size) {
    for (size_t at = 0; at + 5 <= size;) {
        size_t n = data[at + 4] < size - at - 5 ? data[at + 4] : size - at - 5;
        change_cell(l, data + at, data + at + 5, n);
        at += 5 + n;
    }
}
// All that a page shows of a ledger: nothing of it is ever markup. The page's own scripts are two.
static bool page_of(Ledger *l, bool samples_alone, Err *err) {
    Report r = {.source = "ledger", .most_samples = 1000, .ledger = l, .name = (char *)(uintptr_t)"ledger", .sections = json_array()};
    SampleBlocks samples = {0};
    Buf page = {0};
    bool ok = samples_alone || (report_verdict(&r, err) && report_curves(&r, err) && report_run(&r, err));
    ok = ok && report_samples(&r, &samples, err);
    for (int i = 0; ok && i <= samples.count; i++) {
        const Buf *block = i < samples.count ? &samples.blocks[i] : &samples.index;
        FUZZ_CHECK(!block->size || !memmem(block->data, block->size, "<script>", 8));
    }
    ok = ok && (samples_alone || report_html(&r, &samples, &page, err));
    int scripts = 0;
    for (const char *at = page.data; at && (at = memmem(at, page.size - (size_t)(at - page.data), "<script>", 8)); at += 8) scripts++;
    FUZZ_CHECK(!page.data || scripts == 2);
    sample_blocks_free(&samples);
    json_decref(r.sections);
    buf_free(&page);
    return ok;
}
static void ledger_fuzz(void *shared, const uint8_t *data, size_t size) {
    Ledger *l = shared;
    Err err = {0};
    LedgerCounts counts;
    sqlite3_exec(l->db, "BEGIN", NULL, NULL, NULL);
    change_cells(l, data, size);
    bool ok = size % 3 == 0 ? ledger_verify(l, &counts, &err) : page_of(l, size % 3 == 1, &err);
    if (!ok) told(&err);
    sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
}
// What is drawn of a ledger is lines without control characters, whatever stands in its cells.
static void *watch_start(FuzzCorpus *seeds) {
    static const char recipe[] = "{\"name\":\"run\",\"stages\":[{\"name\":\"grpo\",\"steps\":9},{\"name\":\"sft\",\"steps\":4}]}";
    FuzzFile f = fuzz_file_open("recipe.resolved.json");
    fuzz_file_set(&f, recipe, sizeof recipe - 1);
    fuzz_file_close(&f);
    return ledger_start(seeds);
}
static void watch_fuzz(void *shared, const uint8_t *data, size_t size) {
    Ledger *l = shared;
    Err err = {0};
    Buf frame = {0};
    json_t *watched = json_object();
    WatchFrame form = {.columns = 20 + (int)(size % 100), .rows = (int)(size % 3) * 20, .unicode = size % 2, .color = false};
    sqlite3_exec(l->db, "BEGIN", NULL, NULL, NULL);
    change_cells(l, data, size);
    if (watch_ledger(l, fuzz_folder(), watched, &err)) watch_draw(watched, &form, &frame);
    else told(&err);
    for (size_t i = 0; i < frame.size; i++) FUZZ_CHECK((unsigned char)frame.data[i] >= 0x20 || frame.data[i] == '\n');
    sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    buf_free(&frame);
    json_decref(watched);
}
static void ledger_stop(void *shared) { ledger_close(shared); }

// ---- rows that are learned -------------------------------------------------------------------------------------------
// Read as a stage opens them, and every row then made an example. In plain text; half of the inputs as in a chat, though without a template.
typedef struct RowsShared {
    FuzzFile file;
    Recipe *recipe;
    Policy *policy;
    Ledger *ledger;
} RowsShared;
static const char *const row_words[] = {"{\"prompt\":\"", "\"completion\":\"1</think>2\"", "\"thinking\":\"", "\"answer\":\"", "\"mode\":\"think\"", "\"mode\":\"direct\"", "\"text\":\"", "\"ids\":[1,2]", "\"ids\":[-3,2147483647]",
                                        "\"messages\":[{\"role\":\"user\",\"content\":\"", "{\"role\":\"assistant\",\"content\":\"", "\"tools\":[]", "\"kind\":\"", "\"tokenizer\":\"", "</think>", "\n", "\\u0000", "\\ud800", "1e400", "null", "}\n{", NULL};
static const char rows_recipe[] = "return {model={preset='mini', max_positions=64}, characters='0123456789=+ab{}', tasks={{'arithmetic', levels={1}}}, "
                                  "stages={sft{steps=1, batch=4}}}";
static void *rows_open(FuzzCorpus *seeds) {
    RowsShared *s = xcalloc(1, sizeof *s);
    Tokenizer *t;
    Err err = {0};
    FuzzFile recipe = fuzz_file_open("rows/recipe.lua");
    fuzz_file_set(&recipe, rows_recipe, sizeof rows_recipe - 1);
    s->file = fuzz_file_open("rows/rows.jsonl");
    char *folder = xstrndup(recipe.path, (size_t)(strrchr(recipe.path, '/') - recipe.path));
    bool ok = recipe_read(recipe.path, NULL, &s->recipe, &err) && tokenizer_from_characters(s->recipe->characters, &t, &err);
    if (ok) {
        ModelConfig c = s->recipe->config;
        c.vocabulary = tokenizer_size(t), c.stop_ids[0] = tokenizer_eos(t), c.stop_count = 1;
        ok = policy_create(&c, t, 1, &(PolicyOptions){.precision = PRECISION_FP32, .threads = 1}, &s->policy, &err);
    }
    ok = ok && ledger_open(folder, false, &s->ledger, &err) && made_run_facts(s->ledger, &err);
    if (!ok) fuzz_broken("%s: %s", err.where, err.msg);
    corpus_add_text(seeds, "{\"prompt\":\"1+1=\",\"completion\":\"a</think>2\"}\n{\"prompt\":\"2+2=\",\"answer\":\"4\",\"mode\":\"direct\",\"kind\":\"sum\"}\n");
    corpus_add_text(seeds, "{\"prompt\":\"1=\",\"thinking\":\"b\",\"answer\":\"1\",\"ids\":[1,2,-3,0],\"tokenizer\":\"ab\"}\n{\"text\":\"0123\"}\n");
    corpus_add_text(seeds, "{\"messages\":[{\"role\":\"user\",\"content\":\"1\"},{\"role\":\"assistant\",\"content\":\"2\"}],\"tools\":null,\"mode\":\"think\"}\n");
    fuzz_file_close(&recipe);
    free(folder);
    return s;
}
static void rows_fuzz(void *shared, const uint8_t *data, size_t size) {
    RowsShared *s = shared;
    const char *sources[] = {s->file.path, NULL};
    Stage stage = {.kind = STAGE_SFT, .name = (char[]){"sft"}, .data = sources, .batch = 4, .steps = 1};
    Trainer t = {.recipe = s->recipe, .policy = s->policy, .ledger = s->ledger};
    Arena arena = {0};
    Data *d = NULL;
    Err err = {0};
    s->recipe->chat = size % 2;
    fuzz_file_set(&s->file, data, size);
    bool ok = data_open(&t, &stage, &d, &err);
    for (uint64_t i = 0; ok && i < (uint64_t)data_count(d); i++) {
        Ids prompt = {0};
        Completion c = {0};
        ok = data_example(&t, &stage, d, i, &arena, &prompt, &c, &err);
        int32_t all = completion_total(&c), vocabulary = policy_config(s->policy)->vocabulary;
        for (int32_t k = 0; ok && k < all; k++) FUZZ_CHECK(completion_all(&c)[k] >= 0 && completion_all(&c)[k] < vocabulary);
        FUZZ_CHECK(!ok || (prompt.count > 0 && prompt.count + all <= 64));
        ids_free(&prompt);
    }
    if (!ok) told(&err);
    data_close(d);
    arena_reset(&arena);
}
static void rows_close(void *shared) {
    RowsShared *s = shared;
    ledger_close(s->ledger), policy_close(s->policy), recipe_free(s->recipe);
    fuzz_file_close(&s->file);
    free(s);
}

static const FuzzTarget targets[] = {
    {.name = "dataset", .open = dataset_open, .run = dataset_fuzz, .close = dataset_close, .words = dataset_words},
    {.name = "checkpoint", .open = checkpoint_open, .run = checkpoint_fuzz, .close = checkpoint_close, .words = state_words},
    {.name = "ledger", .open = ledger_start, .run = ledger_fuzz, .close = ledger_stop, .rarely = 20},
    {.name = "watch", .open = watch_start, .run = watch_fuzz, .close = ledger_stop, .rarely = 80},
    {.name = "rows", .open = rows_open, .run = rows_fuzz, .close = rows_close, .words = row_words, .rarely = 10},
};
int main(int argc, char **argv) { return fuzz_main(argc, argv, targets, COUNT(targets)); }
