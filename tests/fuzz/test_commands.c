// Fuzzing of what commands read: configurations of other programs, in TOML.
#include "../../rl/commands/toml.h"
#include "fuzz.h"
#include <string.h>

static const char *const toml_words[] = {"[a.b]\n", "[[a]]\n", "x = 1\n", "a.b.c = ", "\"\"\"", "'''", "\"\\u00e9\"", "\\U0010FFFF", "0x7fffffffffffffff", "0b1", "1e400", "-inf", "nan", "1979-05-27T07:32:00Z", "07:32:00.5", "{ a = 1, b.c = 2 }",
                                         "[1, [2, 3],]", "true", "# comment\n", "\r\n", "1_000", "\xEF\xBB\xBF", NULL};
static void *toml_open(FuzzCorpus *seeds) {
    corpus_add_text(seeds, "max_steps = 20\n[model]\nname = \"m\" # a comment\n[[orchestrator.train.env]]\nid = 'x'\nargs = { a = 1, b = [1.5, 2e3] }\n[optim]\nlr = 1e-6\n");
    corpus_add_text(seeds, "a.b = 0xff\n\"quoted key\" = \"\"\"\nlines\\\n   joined\"\"\"\nwhen = 1979-05-27 07:32:00-08:00\n[t]\nlist = [\n  true, # one\n  false,\n]\n");
    return seeds;
}
static void toml_fuzz(void *shared, const uint8_t *data, size_t size) {
    json_t *out = NULL;
    Err err = {0};
    Buf text = {0};
    (void)shared;
    if (!toml_parse((const char *)data, size, "a.toml", &out, &err)) {
        FUZZ_CHECK(err.code == ERR_DATA && !strncmp(err.where, "a.toml:", 7) && err.msg[0]);
        return;
    }
    FUZZ_CHECK(json_is_object(out));
    json_write(out, &text); // every text in it is UTF-8
    FUZZ_CHECK(text.size >= 2);
    buf_free(&text);
    json_decref(out);
}

static const FuzzTarget targets[] = {{.name = "toml", .open = toml_open, .run = toml_fuzz, .words = toml_words}};
int main(int argc, char **argv) { return fuzz_main(argc, argv, targets, COUNT(targets)); }
