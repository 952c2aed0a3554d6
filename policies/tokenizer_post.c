// The post-processor: which ids stand around those of a text. It reads tokenizer.json's "post_processor" into a list of
// ids with one place for the text's.
#include "tokenizer_reader.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The ids that a template puts in the place of one special token.
static bool put_special(Reader *r, const json_t *specials, const char *name, Ids *out) {
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    if (!json_array_size(ids))
        return fail(r->err, ERR_DATA, at(r, "post_processor.special_tokens"), "lacks '%.60s', which the template uses", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= r->t->vocabulary.size || !r->t->vocabulary.tokens[id].present)
            return fail(r->err, ERR_DATA, at(r, "post_processor.special_tokens"),
                        "'%.60s' has the id %lld, which no token has", name, (long long)id);
        ids_push(out, (int32_t)id);
    }
    return true;
}

static bool read_template(Reader *r, const json_t *j) {
    Ids now = {0};
    const json_t *single = get(j, "single"), *specials = get(j, "special_tokens");
    bool ok = json_array_size(single) <= 64 ||
              fail(r->err, ERR_DATA, at(r, "post_processor.single"), "found more than 64 items");
    for (size_t i = 0; ok && i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *special = get_text(get(item, "SpecialToken"), "id"), *sequence = get_text(get(item, "Sequence"), "id");
        if (special)
            ok = put_special(r, specials, special, &now);
        else if (sequence && strcmp(sequence, "A") == 0)
            ids_append(&now, r->t->automatic, r->t->automatic_count);
        else
            ok = fail(r->err, ERR_DATA, at(r, "post_processor.single[%zu]", i), "expected a SpecialToken or the Sequence A");
        if (ok && now.count > 1024) ok = fail(r->err, ERR_DATA, at(r, "post_processor"), "makes more than 1024 tokens");
    }
    if (!ok) {
        ids_free(&now);
        return false;
    }
    free(r->t->automatic);
    r->t->automatic = now.data;
    r->t->automatic_count = now.count;
    return true;
}

// BERT's and RoBERTa's: "cls" before, "sep" after, each a text and its id.
static bool read_around(Reader *r, const json_t *j) {
    static const char *const keys[] = {"cls", "sep"};
    int32_t ids[2];
    for (int i = 0; i < 2; i++) {
        const json_t *id = json_array_get(get(j, keys[i]), 1);
        json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
        if (n < 0 || n >= r->t->vocabulary.size || !r->t->vocabulary.tokens[n].present)
            return fail(r->err, ERR_DATA, at(r, "post_processor.%s", keys[i]), "expected a text and the id of a token");
        ids[i] = (int32_t)n;
    }
    Ids now = {0};
    ids_push(&now, ids[0]);
    ids_append(&now, r->t->automatic, r->t->automatic_count);
    ids_push(&now, ids[1]);
    free(r->t->automatic);
    r->t->automatic = now.data;
    r->t->automatic_count = now.count;
    return true;
}

static bool read_postprocessor(Reader *r, const json_t *j) {
    if (!j || type_is(j, "ByteLevel")) return true; // ByteLevel changes offsets only
    if (type_is(j, "TemplateProcessing")) return read_template(r, j);
    if (type_is(j, "BertProcessing") || type_is(j, "RobertaProcessing")) return read_around(r, j);
    const json_t *list = get(j, "processors");
    if (!type_is(j, "Sequence") || !json_is_array(list)) {
        const char *type = get_text(j, "type");
        return fail(r->err, ERR_DATA, at(r, "post_processor"),
                    "found %.40s, which is not supported; supported are ByteLevel, TemplateProcessing, BertProcessing, "
                    "RobertaProcessing and a sequence of these",
                    type ? type : "no type");
    }
    if (json_array_size(list) > 16) return fail(r->err, ERR_DATA, at(r, "post_processor"), "found more than 16 stages");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (type_is(item, "Sequence")) return fail(r->err, ERR_DATA, at(r, "post_processor"), "holds a sequence in a sequence");
        TRY(read_postprocessor(r, item));
    }
    return true;
}

bool tokenizer_read_post(Tokenizer *t, const json_t *json, const char *path, Err *err) {
    Reader r = {.t = t, .path = path, .err = err};
    return read_postprocessor(&r, json);
}
