// A client of OpenAI-compatible endpoints: completions of another program's model, over HTTP. Owns the connection, its limits and
// its retries; refuses redirects to other hosts, certificates that don't verify, answers that are too large, and JSON that
// isn't what the interface says. All that an endpoint answers is hostile. The key comes from an environment variable that the
// caller names and is written nowhere: not to the ledger, not to errors, not to logs.
#ifndef RECKON_ENDPOINT_H
#define RECKON_ENDPOINT_H
#include "json.h"

typedef struct Endpoint Endpoint;

typedef struct EndpointOptions {
    const char *url;     // base, "https://host/v1": "/chat/completions" or "/completions" is put behind it. http, too
    const char *model;   // as the endpoint names it
    const char *key_env; // name of the environment variable with the key; NULL: no key
    double timeout;      // seconds of one try, 0: 120
    int retries;         // further tries after a busy or failing answer (408, 429, 5xx) or a broken connection; below 0: 4
    double longest_wait; // seconds between two tries at most: they double from 0.5 s, and Retry-After is heeded up to this; 0: 30
    int in_flight;       // requests at once, 0: 4
    size_t answer_bytes; // largest answer that is read, 0: 8 MiB
} EndpointOptions;

typedef struct EndpointRequest {
    const json_t *messages; // a chat: [{"role","content"}], borrowed; or
    const char *prompt;     // a text to be continued
    double temperature, top_p; // top_p 1: not sent
    int max_tokens;
    const char *const *stop; // NULL-terminated; may be NULL
    int64_t seed;            // below 0: not sent
} EndpointRequest;

typedef enum EndpointFinish { ENDPOINT_STOP, ENDPOINT_LENGTH, ENDPOINT_OTHER } EndpointFinish;

typedef struct EndpointAnswer {
    bool ok;          // false: `error` says why, after all tries
    Err error;
    char *text;       // [size] and a NUL behind it; UTF-8
    size_t size;
    char *reasoning;  // of programs that hand thinking out apart ("reasoning_content"); NULL: none
    EndpointFinish finish;
    int64_t prompt_tokens, new_tokens; // as the endpoint counts; -1: it doesn't say
    int64_t reasoning_tokens;          // of these new ones; -1: the same
    int tries;
    double seconds;   // measured, of the try that succeeded
} EndpointAnswer;

bool endpoint_open(const EndpointOptions *options, Endpoint **out, Err *err) MUST_CHECK;
void endpoint_close(Endpoint *e); // NULL is fine
// Sends all of them, several at a time; answers [count] come in the order of the requests, each the caller's to free. An answer
// that failed doesn't fail the others. False: the endpoint as such can't be used (bad URL, no memory), or `progress` stopped it.
bool endpoint_ask(Endpoint *e, const EndpointRequest *requests, int count, EndpointAnswer *answers,
                  bool (*progress)(void *context, int done), void *context, Err *err) MUST_CHECK;
void endpoint_answer_free(EndpointAnswer *a);
// What is sent of a request, as JSON: the same text for the same request. The caller frees it.
char *endpoint_body(const Endpoint *e, const EndpointRequest *r);

#endif
