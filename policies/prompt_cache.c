// Keys and values of one sequence that stay between rollouts, for talks: each turn's prompt begins with most of the last
// one's. What is still the same, id by id, isn't computed again; since a row's numbers depend on the ids before it and on
// nothing else, they are bitwise those of a rollout that computes all of it. The last token of a prompt always is
// computed, as the first draw needs what comes out of it. Pages lie in the order of positions: a rollout of one sample takes
// them so.
#include "scheduler_parts.h"
#include <stdlib.h>
#include <string.h>

struct PromptCache {
    Policy *p;
    char *pages; // [layers][page_count + 1]
    int32_t page_count;
    Ids ids;     // whose keys and values are there
};

PromptCache *prompt_cache_open(Policy *p) {
    PromptCache *c = xcalloc(1, sizeof *c);
    c->p = p;
    return c;
}
void prompt_cache_close(PromptCache *c) {
    if (!c) return;
    c->p->device->release(c->p->device, c->pages);
    ids_free(&c->ids);
    free(c);
}

// Room for so many pages, the layers' pages as they are; it grows in steps, so that not every turn moves them.
static bool grow(PromptCache *c, int32_t wanted, Err *err) {
    const Policy *p = c->p;
    const Device *d = p->device;
    int64_t most = (config_context(&p->config) + PAGE - 1) / PAGE, count = 2 * (int64_t)c->page_count;
    void *fresh;
    if (wanted <= c->page_count) return true;
    if (count > most) count = most;
    if (count < wanted) count = wanted;
    TRY(d->allocate(d, (size_t)(count + 1) * page_bytes(p) * (size_t)p->config.layers, "keys and values", &fresh, err));
    for (int layer = 0; c->page_count && layer < p->config.layers; layer++)
        d->copy(d, (char *)fresh + (size_t)layer * (size_t)(count + 1) * page_bytes(p),
                c->pages + (size_t)layer * (size_t)(c->page_count + 1) * page_bytes(p), (size_t)c->page_count * page_bytes(p));
    bool ok = d->finish(d, err);
    d->release(d, c->pages);
    c->pages = fresh;
    c->page_count = (int32_t)count;
    return ok;
}

bool prompt_cache_take(Scheduler *s, Err *err) {
    PromptCache *c = s->options.cache;
    const RolloutRequest *r = s->requests;
    if (s->request_count != 1 || r->samples != 1 || c->p != s->p)
        return fail(err, ERR_SOFTWARE, "rollout", "a cache of a prompt serves one sample of one prompt, of the policy that it was opened for");
    TRY(grow(c, s->total_pages, err));
    int32_t same = 0, most = c->ids.count < r->prompt_length - 1 ? c->ids.count : r->prompt_length - 1;
    while (same < most && c->ids.data[same] == r->prompt[same]) same++;
    c->ids.count = same; // what is behind is overwritten from here on
    s->page_memory = c->pages;
    s->total_pages = c->page_count;
    s->out->kept_tokens = s->kept_rows = same;
    return true;
}
void prompt_cache_put(Scheduler *s) {
    PromptCache *c = s->options.cache;
    const RolloutRequest *r = s->requests;
    const Completion *done = s->out->completions;
    const int32_t *all = completion_all(done);
    for (int32_t i = c->ids.count; i < r->prompt_length; i++) ids_push(&c->ids, r->prompt[i]);
    for (int32_t i = 0; i + 1 < completion_total(done); i++) ids_push(&c->ids, all[i]); // no pass has computed the last one
}
