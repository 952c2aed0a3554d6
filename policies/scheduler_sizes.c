// What a rollout is asked for, looked at before it begins: whether each request can be served, and how many places, pages and rows serve
// them all.
#include "scheduler_parts.h"

// Ids of a kept set that a record has room for: what top-k allows, or what is usual. The host reads them where they were drawn.
static int32_t record_room(const Scheduler *s, const RolloutRequest *r) {
    int32_t room = r->sampling.top_k > 0 && r->sampling.top_k < USUAL_KEPT ? r->sampling.top_k : USUAL_KEPT;
    return s->p->device->is_host ? 0 : room > s->record_room ? room : s->record_room;
}

static bool carried_check(const Policy *p, const RolloutRequest *r, const char *where, Err *err) {
    for (int32_t i = 0; r->carried && i < r->samples; i++) {
        const Completion *c = &r->carried[i];
        if (completion_total(c) > r->sampling.max_tokens || (c->finish == FINISH_PAUSED && completion_total(c) == r->sampling.max_tokens))
            return fail(err, ERR_DATA, where, "sample %d carries %d tokens, expected room for more within max_tokens, %d", i, completion_total(c), r->sampling.max_tokens);
        if (is_truncated(&r->sampling) && c->length > 0 && !c->kept_start)
            return fail(err, ERR_DATA, where, "sample %d carries no kept sets, expected those of %d tokens", i, c->length);
        for (int32_t j = 0; j < completion_total(c); j++)
            if (completion_all(c)[j] < 0 || completion_all(c)[j] >= p->config.vocabulary)
                return fail(err, ERR_DATA, where, "sample %d carries id %d at place %d, expected 0 to %d", i, completion_all(c)[j], j, p->config.vocabulary - 1);
    }
    return true;
}

bool request_check(const Policy *p, const RolloutRequest *r, int32_t index, Err *err) {
    char where[64];
    snprintf(where, sizeof where, "prompt %d", index);
    TRY(carried_check(p, r, where, err));
    if (r->prompt_length < 1 || r->samples < 1) return fail(err, ERR_DATA, where, "is empty, expected at least one token and one sample");
    if (r->sampling.max_tokens < 1) return fail(err, ERR_DATA, where, "max_tokens is %d, expected at least 1", r->sampling.max_tokens);
    int64_t longest = (int64_t)r->prompt_length + r->sampling.max_tokens;
    if (longest > config_context(&p->config))
        return fail(err, ERR_DATA, where, "%d tokens of prompt and max_tokens %d exceed the model's %d positions", r->prompt_length,
                    r->sampling.max_tokens, config_context(&p->config));
    if (rope_limit(&p->config) && longest > rope_limit(&p->config))
        return fail(err, ERR_DATA, where, "%d tokens of prompt and max_tokens %d, expected at most %lld together: beyond, this model's rotary positions "
                    "depend on how long the sequence becomes", r->prompt_length, r->sampling.max_tokens, (long long)rope_limit(&p->config));
    for (int32_t i = 0; i < r->prompt_length; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= p->config.vocabulary)
            return fail(err, ERR_DATA, where, "id %d at place %d, expected 0 to %d", r->prompt[i], i, p->config.vocabulary - 1);
    if (r->sampling.think_tokens > 0 && r->sampling.think_tokens >= r->sampling.max_tokens)
        return fail(err, ERR_DATA, where, "think_tokens is %d, expected less than max_tokens, %d", r->sampling.think_tokens, r->sampling.max_tokens);
    if (r->sampling.think_tokens > 0 && !p->tokenizer) return fail(err, ERR_DATA, where, "think_tokens need a tokenizer, this model has none");
    return !(r->sampling.stop && r->sampling.stop[0]) || p->tokenizer ||
           fail(err, ERR_DATA, where, "stop strings need a tokenizer, this model has none");
}

// A device that knows what it has left bounds how many sequences are decoded at once; the others wait.
static int64_t places_that_fit(const Scheduler *s, int64_t places, int64_t longest) {
    const Policy *p = s->p;
    size_t place = (size_t)longest * page_bytes(p) * (size_t)p->config.layers + place_bytes(&p->config, p->device->is_host, s->truncates);
    size_t room = p->device->available(p->device) / 10 * 9; // the rest: rows in flight, records
    size_t shared = logits_bytes(&p->config, STORED_ROWS);
    if (logit_rows(p->device->is_host, s->truncates, places) == places) place += logits_bytes(&p->config, 1), shared = 0;
    room = room > shared ? room - shared : 0;
    return (size_t)places > room / place ? (int64_t)(room / place) : places;
}

// Whether activations are kept, with so many pages for all that is sampled.
static bool keeps_activations(const Scheduler *s, int64_t pages) {
    bool plain = !s->truncates && !s->options.int8 && !s->options.cache && s->options.complete == 0 && pages < INT32_MAX / PAGE;
    for (int32_t i = 0; plain && i < s->request_count; i++) plain = !s->requests[i].carried;
    return plain && retain_wanted(s->p, s->options.retain, pages * PAGE);
}

bool scheduler_sizes(Scheduler *s, Err *err) {
    // prompt: rows of one sample in one pass; together: of all, as far as it is known
    int64_t samples = 0, most_pages = 0, most_samples = 0, longest = 0, prompt = 0, together = 0, most_together = policy_prefill_rows(s->p->device->is_host);
    for (int32_t i = 0; i < s->request_count; i++) {
        const RolloutRequest *r = &s->requests[i];
        TRY(request_check(s->p, r, i, err));
        s->first[i] = (int32_t)samples;
        samples += r->samples;
        if (samples > INT32_MAX / 2) return fail(err, ERR_DATA, "rollout", "too many samples");
        if (r->samples > most_samples) most_samples = r->samples;
        if (r->prompt_length > prompt) prompt = r->prompt_length;
        if (s->options.turn_ended && r->carried) return fail(err, ERR_SOFTWARE, "rollout", "a sample that takes turns can't be carried over");
        if ((s->options.turn_ended || r->carried || r->sampling.think_tokens > 0) && r->sampling.max_tokens > prompt) prompt = r->sampling.max_tokens;
        together += s->options.turn_ended || s->options.next_request || r->carried || r->sampling.think_tokens > 0 ? most_together : r->prompt_length;
        if (r->prompt_length > s->longest_prompt) s->longest_prompt = r->prompt_length;
        if (r->sampling.max_tokens > s->most_tokens) s->most_tokens = r->sampling.max_tokens;
        int64_t pages = pages_for((int64_t)r->prompt_length + r->sampling.max_tokens);
        if (pages > longest) longest = pages;
        if (request_pages(r) > most_pages) most_pages = request_pages(r);
        if (is_truncated(&r->sampling)) s->truncates = true, s->kept_room = kept_room(s, r), s->record_room = record_room(s, r);
    }
    s->most_samples = (int32_t)most_samples;
    if (s->options.next_request && s->options.longest_prompt > s->longest_prompt) {
        int64_t room = config_context(&s->p->config) - s->most_tokens;
        s->longest_prompt = (int32_t)(s->options.longest_prompt < room ? s->options.longest_prompt : room > s->longest_prompt ? room : s->longest_prompt);
        if (s->longest_prompt > prompt) prompt = s->longest_prompt;
        if (pages_for(s->longest_prompt + s->most_tokens) > longest) longest = pages_for(s->longest_prompt + s->most_tokens);
    }
    int64_t more = s->options.next_request ? s->options.more_requests : 0, more_pages = (longest + 1) * most_samples;
    samples += more * most_samples;
    if (samples > INT32_MAX / 2) return fail(err, ERR_DATA, "rollout", "too many samples");
    if (more && more_pages > most_pages) most_pages = more_pages; // whose prompts aren't known yet
    int64_t places = s->options.max_sequences > 0 ? s->options.max_sequences : policy_places(s->p->device->is_host);
    places = places_that_fit(s, places, longest);
    if (places < most_samples) places = most_samples; // a group is admitted whole
    if (places > samples) places = samples;
    // Pages for as many places as there are, each with the longest course; at least the largest group.
    int64_t pages = places * longest, all = more * more_pages;
    for (int32_t i = 0; i < s->request_count; i++) all += request_pages(&s->requests[i]);
    s->retains = keeps_activations(s, all);
    if (pages > all || s->retains) pages = all;
    if (pages < most_pages) pages = most_pages;
    s->capacity = (int32_t)places;
    s->total_pages = (int32_t)pages;
    s->table_capacity = (int32_t)longest;
    s->row_capacity = (int32_t)(places > prompt ? places : prompt) + (int32_t)(together < most_together ? together : most_together);
    return true;
}
