// Page tables of packed groups. The whole pages of a prompt are shared by its group; the last, partly filled one has a
// copy for every completion, into which the prompt's last tokens are stored as often, so that each sequence goes on in
// a page of its own at absolute positions.
#include "model.h"
#include <stdlib.h>
#include <string.h>

bool packed_check(const Policy *p, const Packed *b, Err *err) {
    for (int32_t t = 0; t < b->token_count; t++)
        if (b->tokens[t] < 0 || b->tokens[t] >= p->config.vocabulary)
            return fail(err, ERR_DATA, "tokens", "id %d at place %d, expected 0 to %d", b->tokens[t], t, p->config.vocabulary - 1);
    for (int32_t r = 0; r < b->target_count; r++)
        if (b->target[r] < 0 || b->target[r] >= p->config.vocabulary || b->row[r] < 0 || b->row[r] >= b->token_count)
            return fail(err, ERR_DATA, "targets", "target %d (id %d, row %d) is out of range", r, b->target[r], b->row[r]);
    for (int g = 0; g < b->group_count; g++) {
        const PackedGroup *group = &b->groups[g];
        if (group->prompt_length < 1) return fail(err, ERR_DATA, "groups", "group %d has an empty prompt", g);
        int64_t longest = group->prompt_length;
        for (int s = 0; s < group->sequence_count; s++) {
            int64_t length = (int64_t)group->prompt_length + b->sequences[group->first_sequence + s].length;
            if (length > longest) longest = length;
        }
        if (longest > config_context(&p->config))
            return fail(err, ERR_DATA, "context", "a sequence of %lld tokens, the model has %d positions", (long long)longest,
                        config_context(&p->config));
    }
    return b->temperature > 0 || fail(err, ERR_DATA, "temperature", "found %g, expected more than 0", b->temperature);
}

// Which rows see a page, as a range: those that store into it and all that come later in the same sequence or group.
static void find_readers(const Packed *b, Paging *out) {
    for (int32_t i = 0; i < out->page_count; i++) out->page_first_row[i] = b->token_count, out->page_last_row[i] = -1;
    for (int32_t t = 0, run = 0; t < b->token_count; t++) {
        run = t > 0 && out->table_start[t] == out->table_start[t - 1] ? run + 1 : 1;
        if (run > out->max_run) out->max_run = run;
        if (out->position[t] > out->max_position) out->max_position = out->position[t];
        out->context += out->position[t] + 1;
        for (int32_t c = 0; c <= out->position[t] / PAGE; c++) {
            int32_t page = out->table[out->table_start[t] + c];
            if (t < out->page_first_row[page]) out->page_first_row[page] = t;
            out->page_last_row[page] = t;
        }
    }
}

// One block for all arrays; it serves the next batch too where that is no larger.
static void paging_reserve(const Packed *b, int64_t tables, int64_t slots, int64_t copies, Paging *out) {
    int64_t T = b->token_count, groups = b->group_count + 1, pages = tables + 1; // every page is in a table
    *out = (Paging){.memory = out->memory, .capacity = out->capacity};
    const struct {
        void *pointer;
        int64_t bytes;
    } arrays[] = {{&out->slot_start, (T + 1) * 8}, {&out->slot, slots * 8}, {&out->position, T * 4}, {&out->table_start, T * 4},
                  {&out->table, tables * 4}, {&out->unit, groups * 4}, {&out->unit_page, groups * 4}, {&out->unit_heads, groups * 4},
                  {&out->own_page, copies * 4}, {&out->page_first_row, pages * 4}, {&out->page_last_row, pages * 4}};
    size_t bytes = 0;
    for (int i = 0; i < COUNT(arrays); i++) bytes += (size_t)(arrays[i].bytes + 7) / 8 * 8;
    if (bytes > out->capacity) {
        free(out->memory);
        out->memory = xmalloc(bytes);
        out->capacity = bytes;
    }
    memset(out->memory, 0, bytes);
    char *at = out->memory;
    for (int i = 0; i < COUNT(arrays); i++) {
        memcpy(arrays[i].pointer, &at, sizeof at);
        at += (size_t)(arrays[i].bytes + 7) / 8 * 8;
    }
}

void paging_build(const Packed *b, int32_t heads, Paging *out) {
    int64_t slots = 0, tables = 0, most_copies = 1;
    for (int g = 0; g < b->group_count; g++) {
        const PackedGroup *group = &b->groups[g];
        int copies = group->sequence_count > 1 ? group->sequence_count : 1;
        most_copies = copies > most_copies ? copies : most_copies;
        slots += group->prompt_length + (int64_t)copies * PAGE;
        tables += (group->sequence_count ? 1 : 2) * (int64_t)pages_for(group->prompt_length);
        for (int s = 0; s < group->sequence_count; s++) {
            int32_t length = b->sequences[group->first_sequence + s].length;
            slots += length;
            tables += pages_for(group->prompt_length + length);
        }
    }
    paging_reserve(b, tables, slots, most_copies, out);
    int32_t page = 0, table = 0;
    int64_t slot = 0;
    for (int g = 0; g < b->group_count; g++) {
        const PackedGroup *group = &b->groups[g];
        int32_t P = group->prompt_length, whole = P / PAGE, first_page = page, rest = P % PAGE;
        int copies = group->sequence_count > 1 ? group->sequence_count : 1;
        out->unit[g] = group->prompt_start;
        out->unit_page[g] = first_page;
        page += whole;
        // Tables: the prompt's own goes on in the first completion's copy of the partly filled page.
        int32_t prompt_table = table, *own_page = out->own_page;
        for (int32_t i = 0; i < whole; i++) out->table[table++] = first_page + i;
        if (rest) out->table[table++] = page;
        for (int s = 0; s < copies; s++) {
            int32_t length = group->sequence_count ? b->sequences[group->first_sequence + s].length : 0;
            int32_t own = pages_for(P + length) - whole, start = table;
            own_page[s] = page;
            for (int32_t i = 0; i < whole; i++) out->table[table++] = first_page + i;
            for (int32_t i = 0; i < own; i++) out->table[table++] = page + i;
            for (int32_t i = 0; i < length; i++) {
                int32_t t = b->sequences[group->first_sequence + s].start + i;
                out->position[t] = P + i;
                out->table_start[t] = start;
            }
            page += own;
        }
        // Slots, token after token in packed order: the prompt, then the completions.
        for (int32_t i = 0; i < P; i++) {
            int32_t t = group->prompt_start + i;
            out->position[t] = i;
            out->table_start[t] = prompt_table;
            out->slot_start[t] = slot;
            if (i < whole * PAGE) {
                out->slot[slot++] = ((int64_t)first_page + i / PAGE) * PAGE + i % PAGE;
            } else {
                for (int s = 0; s < copies; s++) out->slot[slot++] = (int64_t)own_page[s] * PAGE + i % PAGE;
            }
        }
        for (int s = 0; s < group->sequence_count; s++) {
            const PackedSequence *sequence = &b->sequences[group->first_sequence + s];
            for (int32_t i = 0; i < sequence->length; i++) {
                int32_t position = P + i;
                out->slot_start[sequence->start + i] = slot;
                out->slot[slot++] = ((int64_t)own_page[s] + position / PAGE - whole) * PAGE + position % PAGE;
            }
        }
    }
    out->slot_start[b->token_count] = slot;
    out->slot_count = slot;
    out->table_count = table;
    out->unit[b->group_count] = b->token_count;
    for (int g = 0; g <= b->group_count; g++) out->unit_heads[g] = out->unit[g] * heads;
    out->unit_page[b->group_count] = page;
    out->page_count = page;
    find_readers(b, out);
}

void paging_free(Paging *paging) {
    free(paging->memory);
    *paging = (Paging){0};
}
