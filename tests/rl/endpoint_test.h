// The small server that stands for an endpoint: a process of its own on this machine (endpoint_server), ended by closing its input.
#ifndef RECKON_ENDPOINT_TEST_H
#define RECKON_ENDPOINT_TEST_H
#include "../test.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Server {
    pid_t pid;
    int in; // closed: it ends
    char url[64];
} Server;

static inline Server start_server(void) {
    int in[2], out[2];
    Server s = {0};
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    s.pid = fork();
    if (s.pid == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execlp("python3", "python3", TEST_DATA "/../rl/endpoint_server", (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    s.in = in[1];
    char port[16] = "";
    ssize_t n = read(out[0], port, sizeof port - 1);
    close(out[0]);
    if (n <= 1) SKIP("there is no python3 to answer");
    snprintf(s.url, sizeof s.url, "http://127.0.0.1:%d/v1", atoi(port));
    return s;
}
static inline void stop_server(Server *s) {
    close(s->in);
    waitpid(s->pid, NULL, 0);
}

#endif
