// The client of endpoints beside a small server on this machine, which answers well or badly as the model's name asks.
#include "endpoint.h"
#include "endpoint_test.h"
#include <stdlib.h>

static EndpointAnswer ask(const char *url, const char *model, bool chat, EndpointOptions o) {
    Err err = {0};
    Endpoint *e;
    EndpointAnswer a = {0};
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "hello");
    o.url = url, o.model = model;
    if (o.longest_wait == 0) o.longest_wait = 0.01;
    OK(endpoint_open(&o, &e, &err));
    EndpointRequest r = {.messages = chat ? messages : NULL, .prompt = chat ? NULL : "go on", .temperature = 0.5, .top_p = 1, .max_tokens = 7, .seed = -1};
    bool ok = endpoint_ask(e, &r, 1, &a, NULL, NULL, &err);
    endpoint_close(e);
    json_decref(messages);
    OK(ok);
    return a;
}

static void good_answers(void) {
    Server s = start_server();
    EndpointAnswer a = ask(s.url, "any", true, (EndpointOptions){0}), b = ask(s.url, "any", false, (EndpointOptions){0});
    CHECK(a.ok && b.ok);
    CHECK_STR(a.text, "HELLO");
    CHECK_STR(b.text, "GO ON");
    CHECK(a.finish == ENDPOINT_STOP && b.finish == ENDPOINT_LENGTH && a.prompt_tokens == 5 && a.new_tokens == 7 && a.tries == 1 && a.seconds > 0);
    endpoint_answer_free(&a), endpoint_answer_free(&b);
    char *slash = xasprintf("%s///", s.url);
    a = ask(slash, "paths", false, (EndpointOptions){0});
    free(slash);
    CHECK_STR(a.text, "/v1/completions");
    endpoint_answer_free(&a);
    a = ask(s.url, "thinks", true, (EndpointOptions){0});
    CHECK(a.ok && a.size == 0 && a.prompt_tokens == -1 && a.new_tokens == -1);
    CHECK_STR(a.reasoning, "hm");
    endpoint_answer_free(&a);
    setenv("RECKON_TEST_KEY", "secret-of-the-test", 1);
    a = ask(s.url, "key", true, (EndpointOptions){.key_env = "RECKON_TEST_KEY"});
    CHECK(a.ok);
    endpoint_answer_free(&a);
    stop_server(&s);
}

static void bad_answers(void) {
    static const struct {
        const char *model, *problem; // NULL: it comes right in the end
        int tries;
        EndpointOptions options;
    } cases[] = {
        {"busy", NULL, 3, {.retries = 4}},
        {"closes", NULL, 2, {.retries = 2}},
        {"always-500", "answers 500: on fire", 3, {.retries = 2}},
        {"slow", "imeout", 2, {.retries = 1, .timeout = 0.2}},
        {"huge", "larger than 65536 bytes", 1, {.answer_bytes = 65536, .retries = 3}},
        {"not-json", "expected an answer in JSON, found: <html> [31mhello", 1, {.retries = 3}},
        {"wrong-json", "expected a text as \"message.content\"", 1, {.retries = 3}},
        {"no-choices", "\"choices\" with one element", 1, {.retries = 3}},
        {"list", "expected an answer in JSON", 1, {.retries = 3}},
        {"nul", "without NUL", 1, {.retries = 3}},
        {"redirect", "a redirect, which isn't followed", 1, {.retries = 3}},
        {"key", "answers 401: no", 1, {.retries = 3}},
        {"repeats-key", "answers 400: you sent Bearer *", 1, {.retries = 3, .key_env = "RECKON_TEST_KEY"}},
    };
    Server s = start_server();
    setenv("RECKON_TEST_KEY", "secret-of-the-test", 1);
    for (int i = 0; i < COUNT(cases); i++) {
        EndpointAnswer a = ask(s.url, cases[i].model, true, cases[i].options);
        if (cases[i].problem ? a.ok || !strstr(a.error.msg, cases[i].problem) : !a.ok)
            FAIL("%s: found '%s', expected '%s'", cases[i].model, a.ok ? "an answer" : a.error.msg, cases[i].problem ? cases[i].problem : "an answer");
        if (a.tries != cases[i].tries) FAIL("%s: found %d tries, expected %d", cases[i].model, a.tries, cases[i].tries);
        CHECK(!strstr(a.error.msg, "secret"));
        endpoint_answer_free(&a);
    }
    stop_server(&s);
    EndpointAnswer a = ask(s.url, "any", true, (EndpointOptions){.retries = 1}); // nobody listens any more
    CHECK(!a.ok && a.tries == 2 && a.error.code == ERR_UNAVAILABLE);
    endpoint_answer_free(&a);
}

static bool stop_at_two(void *context, int done) {
    (void)context;
    return done < 2;
}
// Answers stand in the order of their requests, whoever comes first; and stopping stops.
static void many_at_once(void) {
    enum { MANY = 24 };
    Err err = {0};
    Server s = start_server();
    Endpoint *e;
    EndpointRequest r[MANY];
    EndpointAnswer a[MANY];
    char texts[MANY][24];
    OK(endpoint_open(&(EndpointOptions){.url = s.url, .model = "any", .in_flight = 6}, &e, &err));
    for (int i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof texts[i], "NUMBER %d", i);
        r[i] = (EndpointRequest){.prompt = texts[i], .top_p = 1, .max_tokens = 1 + i, .seed = i};
    }
    OK(endpoint_ask(e, r, MANY, a, NULL, NULL, &err));
    for (int i = 0; i < MANY; i++) {
        CHECK_STR(a[i].text, texts[i]);
        CHECK_INT(a[i].new_tokens, 1 + i);
        endpoint_answer_free(&a[i]);
    }
    CHECK(!endpoint_ask(e, r, MANY, a, stop_at_two, NULL, &err));
    CHECK_INT(err.code, ERR_INTERRUPTED);
    endpoint_close(e);
    stop_server(&s);
}

static void options_that_can_not_be(void) {
    static const struct {
        EndpointOptions o;
        const char *problem;
    } cases[] = {
        {{.url = "file:///etc/passwd", .model = "m"}, "expected http:// or https://"},
        {{.url = "host", .model = "m"}, "expected http:// or https://"},
        {{.url = "https://user@host/v1", .model = "m"}, "without a user"},
        {{.url = "https://host/v1"}, "name of a model"},
        {{.url = "https://host/v1", .model = "m", .key_env = "RECKON_NO_SUCH_KEY"}, "is empty"},
        {{.url = "http://host/v1", .model = "m", .key_env = "RECKON_TEST_KEY"}, "in the clear"},
        {{.url = "http://localhost.else/v1", .model = "m", .key_env = "RECKON_TEST_KEY"}, "in the clear"},
        {{.url = "https://host/v1", .model = "m", .key_env = "RECKON_BAD_KEY"}, "printable"},
    };
    setenv("RECKON_TEST_KEY", "secret-of-the-test", 1);
    setenv("RECKON_BAD_KEY", "a\r\nHost: other", 1);
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Endpoint *e;
        if (endpoint_open(&cases[i].o, &e, &err) || !strstr(err.msg, cases[i].problem)) FAIL("case %d: found '%s', expected '%s'", i, err.msg, cases[i].problem);
    }
}

static const Test tests[] = {
    {"good answers", good_answers},
    {"bad answers", bad_answers},
    {"many at once", many_at_once},
    {"options that can not be", options_that_can_not_be},
};
TEST_MAIN(tests)
