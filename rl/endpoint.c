// The client of OpenAI-compatible endpoints (endpoint.h): libcurl's multi interface, one thread, several requests in flight. A try
// that meets a busy or failing server, or a broken connection, waits and is sent again, a bounded number of times; the waits
// double and depend on nothing random. Redirects aren't followed at all: an endpoint that has moved is an error that says
// where to. What a server says in its errors is shown, cut short and tamed, with the key struck out.
#include "endpoint.h"
#include <ctype.h>
#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { URL_BYTES = 2048, KEY_BYTES = 4096, SHOWN_BYTES = 200 };

struct Endpoint {
    char *url, *model, *key; // key: NULL without one
    double timeout, longest_wait;
    int retries, in_flight;
    size_t answer_bytes;
    CURLM *multi;
};

typedef struct Try { // a request on its way
    Endpoint *endpoint;
    const EndpointRequest *request;
    EndpointAnswer *answer;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    Buf received;
    bool too_large, running;
    double after, started; // after: not before that time
} Try;

// ---- open ------------------------------------------------------------------------------------------------
static bool has_scheme(const char *url) { return strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0; }

static bool is_this_machine(const char *url) {
    static const char *const hosts[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    for (int i = 0; i < COUNT(hosts); i++) {
        size_t n = strlen(hosts[i]);
        if (strncmp(url, hosts[i], n) == 0 && (url[n] == ':' || url[n] == '/' || !url[n])) return true;
    }
    return false;
}

static bool read_key(const char *name, char **out, Err *err) {
    *out = NULL;
    if (!name) return true;
    const char *key = getenv(name);
    if (!key || !*key) return fail(err, ERR_NOINPUT, name, "this environment variable is empty, expected the endpoint's key in it");
    for (const char *c = key; *c; c++)
        if (!isgraph((unsigned char)*c) || c - key >= KEY_BYTES)
            return fail(err, ERR_DATA, name, "expected a key of at most %d printable characters in this environment variable", KEY_BYTES);
    *out = xstrdup(key);
    return true;
}

bool endpoint_open(const EndpointOptions *o, Endpoint **out, Err *err) {
    *out = NULL;
    const char *url = o->url ? o->url : "";
    if (!has_scheme(url) || strlen(url) > URL_BYTES || strpbrk(url, " \r\n\t?#@"))
        return fail(err, ERR_DATA, "endpoint", "found the URL '%.200s', expected http:// or https://, a host and a path, without a user, '?' or '#'", url);
    if (!o->model || !*o->model) return fail(err, ERR_DATA, "endpoint", "expected the name of a model");
    char *key;
    TRY(read_key(o->key_env, &key, err));
    if (key && strncmp(url, "http://", 7) == 0 && !is_this_machine(url)) {
        free(key);
        return fail(err, ERR_DATA, url, "a key would go over the network in the clear, expected https://");
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(key);
        return fail(err, ERR_UNAVAILABLE, "libcurl", "can't be started");
    }
    Endpoint *e = *out = xcalloc(1, sizeof *e);
    size_t size = strlen(url);
    while (size > 0 && url[size - 1] == '/') size--;
    e->url = xstrndup(url, size), e->model = xstrdup(o->model), e->key = key;
    e->timeout = o->timeout > 0 ? o->timeout : 120;
    e->longest_wait = o->longest_wait > 0 ? o->longest_wait : 30;
    e->retries = o->retries < 0 ? 4 : o->retries;
    e->in_flight = o->in_flight > 0 ? o->in_flight : 4;
    e->answer_bytes = o->answer_bytes ? o->answer_bytes : 8 << 20;
    e->multi = curl_multi_init();
    if (e->multi) return true;
    endpoint_close(e);
    *out = NULL;
    return fail(err, ERR_UNAVAILABLE, "libcurl", "can't be started");
}

void endpoint_close(Endpoint *e) {
    if (!e) return;
    if (e->multi) curl_multi_cleanup(e->multi);
    if (e->key) explicit_bzero(e->key, strlen(e->key));
    free(e->url), free(e->model), free(e->key);
    free(e);
    curl_global_cleanup();
}

void endpoint_answer_free(EndpointAnswer *a) {
    free(a->text), free(a->reasoning);
    *a = (EndpointAnswer){0};
}

// ---- one try ---------------------------------------------------------------------------------------------
char *endpoint_body(const Endpoint *e, const EndpointRequest *r) {
    json_t *j = json_pack("{s:s,s:i,s:f}", "model", e->model, "max_tokens", r->max_tokens, "temperature", r->temperature);
    if (r->messages) json_object_set(j, "messages", (json_t *)(uintptr_t)r->messages);
    else json_object_set_new(j, "prompt", json_string(r->prompt));
    if (r->top_p < 1 && r->top_p > 0) json_object_set_new(j, "top_p", json_real(r->top_p));
    if (r->seed >= 0) json_object_set_new(j, "seed", json_integer(r->seed));
    json_t *stop = json_array();
    for (int i = 0; r->stop && r->stop[i]; i++) json_array_append_new(stop, json_string(r->stop[i]));
    if (json_array_size(stop)) json_object_set(j, "stop", stop);
    json_decref(stop);
    Buf text = {0};
    json_write(j, &text);
    json_decref(j);
    return text.data;
}

static size_t on_bytes(char *data, size_t size, size_t count, void *context) {
    Try *t = context;
    size_t bytes = size * count; // libcurl: size is 1
    if (t->received.size + bytes > t->endpoint->answer_bytes) {
        t->too_large = true;
        return 0; // stops the transfer
    }
    buf_append(&t->received, data, bytes);
    return bytes;
}

static bool begin_try(Try *t, Err *err) {
    const Endpoint *e = t->endpoint;
    char url[URL_BYTES + 64];
    snprintf(url, sizeof url, "%s%s", e->url, t->request->messages ? "/chat/completions" : "/completions");
    t->received.size = 0, t->too_large = false;
    t->easy = curl_easy_init();
    if (!t->easy) return fail(err, ERR_UNAVAILABLE, "libcurl", "can't make a request");
    t->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (e->key) {
        char *line = xasprintf("Authorization: Bearer %s", e->key);
        t->headers = curl_slist_append(t->headers, line);
        explicit_bzero(line, strlen(line));
        free(line);
    }
    bool ok = curl_easy_setopt(t->easy, CURLOPT_URL, url) == CURLE_OK && curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->body);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(t->body));
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(t->easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(t->easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)(e->timeout * 1000));
    curl_easy_setopt(t->easy, CURLOPT_USERAGENT, "reckon/" RECKON_VERSION);
    t->started = clock_seconds();
    t->running = true;
    t->answer->tries++;
    return (ok && curl_multi_add_handle(e->multi, t->easy) == CURLM_OK) || fail(err, ERR_UNAVAILABLE, "libcurl", "refuses the URL '%.200s'", url);
}
static void end_try(Try *t) {
    if (t->easy) curl_multi_remove_handle(t->endpoint->multi, t->easy), curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    t->easy = NULL, t->headers = NULL, t->running = false;
}

// ---- what came back --------------------------------------------------------------------------------------
// A part of what the server said, on one line, without the key.
static void show(const Try *t, char out[SHOWN_BYTES + 1]) {
    const char *key = t->endpoint->key, *data = t->received.data;
    size_t size = data ? t->received.size : 0, n = 0;
    for (size_t i = 0; i < size && n < SHOWN_BYTES; i++) {
        unsigned char c = (unsigned char)data[i];
        if (key && size - i >= strlen(key) && memcmp(data + i, key, strlen(key)) == 0) {
            out[n++] = '*';
            i += strlen(key) - 1;
            continue;
        }
        out[n++] = c < 0x20 || c >= 0x7f ? ' ' : (char)c;
    }
    out[n] = 0;
}

static bool wrong(const Try *t, const char *expected, Err *err) {
    char said[SHOWN_BYTES + 1];
    show(t, said);
    return fail(err, ERR_DATA, t->endpoint->url, "expected %s, found: %s", expected, said);
}

static int64_t count_in(const json_t *usage, const char *key) {
    const json_t *v = json_object_get(usage, key);
    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

static bool read_answer(const Try *t, const json_t *j, Err *err) {
    EndpointAnswer *a = t->answer;
    const json_t *choice = json_array_get(json_object_get(j, "choices"), 0), *message = json_object_get(choice, "message");
    const json_t *text = t->request->messages ? json_object_get(message, "content") : json_object_get(choice, "text");
    const json_t *reasoning = json_object_get(message, "reasoning_content");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    if (!json_is_object(choice)) return wrong(t, "\"choices\" with one element at least", err);
    bool none = t->request->messages && json_is_null(text) && json_is_string(reasoning); // all went into thinking
    if (!json_is_string(text) && !none) return wrong(t, t->request->messages ? "a text as \"message.content\"" : "a text as \"text\"", err);
    a->size = json_string_length(text);
    a->text = xstrndup(none ? "" : json_string_value(text), a->size);
    if (strlen(a->text) != a->size) return wrong(t, "a text without NUL characters", err);
    if (json_is_string(reasoning)) a->reasoning = xstrdup(json_string_value(reasoning));
    a->finish = !finish ? ENDPOINT_OTHER : strcmp(finish, "stop") == 0 ? ENDPOINT_STOP : strcmp(finish, "length") == 0 ? ENDPOINT_LENGTH : ENDPOINT_OTHER;
    a->prompt_tokens = count_in(json_object_get(j, "usage"), "prompt_tokens");
    a->new_tokens = count_in(json_object_get(j, "usage"), "completion_tokens");
    a->reasoning_tokens = count_in(json_object_get(json_object_get(j, "usage"), "completion_tokens_details"), "reasoning_tokens");
    return true;
}

static bool parse_answer(const Try *t, Err *err) {
    json_t *j = NULL;
    Err why;
    if (!t->received.size || !json_parse(t->received.data, t->received.size, "answer", 1, &j, &why)) return wrong(t, "an answer in JSON", err);
    bool ok = json_is_object(j) ? read_answer(t, j, err) : wrong(t, "an object in JSON", err);
    json_decref(j);
    return ok;
}

// True: done, for good or bad. False: worth another try.
static bool judge(Try *t, CURLcode code, double *asked) {
    const Endpoint *e = t->endpoint;
    EndpointAnswer *a = t->answer;
    char said[SHOWN_BYTES + 1];
    long status = 0;
    curl_off_t after = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &after);
    *asked = (double)after;
    if (t->too_large) {
        fail(&a->error, ERR_DATA, e->url, "its answer is larger than %zu bytes", e->answer_bytes);
        return true;
    }
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_SSL_CACERT_BADFILE) {
        fail(&a->error, ERR_UNAVAILABLE, e->url, "%s", curl_easy_strerror(code));
        return true;
    }
    show(t, said);
    if (code != CURLE_OK) fail(&a->error, code == CURLE_OPERATION_TIMEDOUT ? ERR_TEMPFAIL : ERR_UNAVAILABLE, e->url, "%s", curl_easy_strerror(code));
    else if (status >= 300 && status < 400) fail(&a->error, ERR_UNAVAILABLE, e->url, "answers %ld, a redirect, which isn't followed; give the address itself", status);
    else if (status != 200) fail(&a->error, status == 429 ? ERR_TEMPFAIL : ERR_UNAVAILABLE, e->url, "answers %ld: %s", status, said);
    else a->ok = parse_answer(t, &a->error);
    if (a->ok) a->seconds = clock_seconds() - t->started;
    return code == CURLE_OK && status != 408 && status != 429 && status < 500;
}

static void settle(Try *t, CURLcode code, int *done) {
    double asked, wait = 0.5;
    bool finished = judge(t, code, &asked);
    const Endpoint *e = t->endpoint;
    end_try(t);
    if (finished || t->answer->tries > e->retries) {
        buf_free(&t->received);
        free(t->body);
        t->body = NULL;
        ++*done;
        return;
    }
    for (int i = 1; i < t->answer->tries && wait < e->longest_wait; i++) wait *= 2;
    if (asked > wait) wait = asked;
    t->after = clock_seconds() + fmin(wait, e->longest_wait);
}

// ---- all of them -----------------------------------------------------------------------------------------
static bool begin_some(Endpoint *e, Try *tries, int count, Err *err) {
    int running = 0;
    double now = clock_seconds();
    for (int i = 0; i < count; i++) running += tries[i].running;
    for (int i = 0; i < count && running < e->in_flight; i++) {
        if (tries[i].running || !tries[i].body || tries[i].after > now) continue;
        TRY(begin_try(&tries[i], err));
        running++;
    }
    return true;
}

static bool pump(Endpoint *e, Try *tries, int count, bool (*progress)(void *, int), void *context, Err *err) {
    int done = 0;
    while (done < count) {
        int running, left, before = done;
        const CURLMsg *m;
        TRY(begin_some(e, tries, count, err));
        if (curl_multi_perform(e->multi, &running) != CURLM_OK) return fail(err, ERR_UNAVAILABLE, e->url, "libcurl can't go on");
        while ((m = curl_multi_info_read(e->multi, &left))) {
            char *owner = NULL;
            CURLcode code = m->data.result;
            if (m->msg != CURLMSG_DONE) continue;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &owner);
            settle((Try *)(void *)owner, code, &done);
        }
        if (progress && !progress(context, done)) return fail(err, ERR_INTERRUPTED, e->url, "stopped");
        // Not where something was done: its seconds would count the wait.
        if (done == before && curl_multi_poll(e->multi, NULL, 0, 100, NULL) != CURLM_OK) return fail(err, ERR_UNAVAILABLE, e->url, "libcurl can't go on");
    }
    return true;
}

bool endpoint_ask(Endpoint *e, const EndpointRequest *requests, int count, EndpointAnswer *answers, bool (*progress)(void *context, int done),
                  void *context, Err *err) {
    Try *tries = xcalloc((size_t)count + 1, sizeof *tries);
    for (int i = 0; i < count; i++) {
        answers[i] = (EndpointAnswer){.prompt_tokens = -1, .new_tokens = -1, .reasoning_tokens = -1};
        tries[i] = (Try){.endpoint = e, .request = &requests[i], .answer = &answers[i], .body = endpoint_body(e, &requests[i])};
    }
    bool ok = pump(e, tries, count, progress, context, err);
    for (int i = 0; i < count; i++) {
        end_try(&tries[i]);
        buf_free(&tries[i].received);
        free(tries[i].body);
        if (!ok) endpoint_answer_free(&answers[i]);
    }
    free(tries);
    return ok;
}
