// reckon watch: a run in the terminal, redrawn while it goes on. Owns the terminal while it draws: the alternate screen, no cursor,
// no line mode; whatever ends it (the run's end, q, a signal, an error) puts the terminal back first. Only reads the run.
#include "watch.h"
#include "command.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// The only mutable globals: a handler can be handed nothing else.
static volatile sig_atomic_t signal_seen, resized;
static void on_signal(int number) { signal_seen = number; }
static void on_resize(int number) { resized = number; }

static bool takes_unicode(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < COUNT(names); i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
    }
    return false;
}

static WatchFrame frame_of(bool terminal) {
    struct winsize size = {0};
    const char *columns = getenv("COLUMNS");
    bool known = terminal && ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    const char *term = getenv("TERM");
    return (WatchFrame){.columns = known ? size.ws_col : columns && atoi(columns) > 0 ? atoi(columns) : 80, .rows = known ? size.ws_row : 0,
                        .unicode = takes_unicode(), .color = terminal && !getenv("NO_COLOR") && !(term && !strcmp(term, "dumb"))};
}

static bool write_all(const Buf *text, Err *err) {
    for (size_t at = 0; at < text->size;) {
        ssize_t n = write(1, text->data + at, text->size - at);
        if (n < 0) return fail(err, ERR_IO, "stdout", "can't write");
        at += (size_t)n;
    }
    return true;
}

static bool print_once(const json_t *watched, bool terminal, Err *err) {
    WatchFrame f = frame_of(terminal);
    Buf text = {0};
    f.rows = 0, f.color = f.color && terminal;
    watch_draw(watched, &f, &text);
    bool ok = write_all(&text, err);
    buf_free(&text);
    return ok;
}

typedef struct Screen {
    struct termios before;
    bool raw;
} Screen;
static void screen_open(Screen *s) {
    struct sigaction stop = {.sa_handler = on_signal}, size = {.sa_handler = on_resize};
    int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    for (int i = 0; i < COUNT(stops); i++) sigaction(stops[i], &stop, NULL);
    sigaction(SIGWINCH, &size, NULL);
    s->raw = isatty(0) && tcgetattr(0, &s->before) == 0;
    if (s->raw) {
        struct termios now = s->before;
        now.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        now.c_cc[VMIN] = 0, now.c_cc[VTIME] = 0;
        s->raw = tcsetattr(0, TCSANOW, &now) == 0;
    }
    Buf text = {0};
    Err ignored;
    buf_puts(&text, "\033[?1049h\033[?25l\033[2J");
    if (!write_all(&text, &ignored)) signal_seen = SIGHUP;
    buf_free(&text);
}
static void screen_close(Screen *s) {
    Buf text = {0};
    Err ignored;
    buf_puts(&text, "\033[0m\033[?25h\033[?1049l");
    if (!write_all(&text, &ignored)) signal_seen = SIGHUP; // the terminal is gone: nothing to put back
    buf_free(&text);
    if (s->raw) tcsetattr(0, TCSANOW, &s->before);
}

// Each line is cleared to its end and the rest of the screen below, so that nothing flickers and a resize leaves nothing behind.
static bool draw_screen(const json_t *watched, Err *err) {
    WatchFrame f = frame_of(true);
    Buf drawn = {0}, text = {0};
    f.rows--; // the last line is for keys
    watch_draw(watched, &f, &drawn);
    buf_puts(&text, resized ? "\033[2J\033[H" : "\033[H");
    resized = 0;
    for (size_t i = 0; i < drawn.size; i++)
        if (drawn.data[i] == '\n') buf_puts(&text, "\033[K\r\n");
        else buf_append(&text, drawn.data + i, 1);
    buf_puts(&text, "q: leave\033[K\033[J");
    bool ok = write_all(&text, err);
    buf_free(&drawn), buf_free(&text);
    return ok;
}

// Until the interval is over, a key, a signal or a resize; true: leave.
static bool wait_for_key(double seconds) {
    struct pollfd keys = {.fd = 0, .events = POLLIN};
    bool has_keys = isatty(0);
    char key;
    int r = poll(&keys, has_keys ? 1 : 0, (int)(1000 * seconds));
    if (signal_seen) return true;
    return r > 0 && (read(0, &key, 1) != 1 || key == 'q' || key == 'Q' || key == 4);
}

static bool is_over(const json_t *watched) {
    const char *state = json_string_value(json_object_get(watched, "state"));
    return state && strcmp(state, "running") != 0;
}

static bool follow(const char *run_folder, double interval, json_t **watched, Err *err) {
    Screen screen = {0};
    signal_seen = resized = 0;
    screen_open(&screen);
    bool ok = draw_screen(*watched, err), leave = false;
    while (ok && !leave && !is_over(*watched)) {
        leave = wait_for_key(interval);
        if (leave) break;
        json_t *next;
        if (!(ok = watch_read(run_folder, &next, err))) break;
        json_decref(*watched);
        *watched = next;
        ok = draw_screen(next, err);
    }
    screen_close(&screen);
    TRY(ok);
    if (signal_seen && signal_seen != SIGINT) return fail(err, ERR_TERMINATED, run_folder, "no longer watched: stopped by a signal");
    return print_once(*watched, true, err);
}

static bool run(const Args *args, Err *err) {
    const char *folder = args->positional[0];
    json_t *watched;
    TRY(watch_read(folder, &watched, err));
    bool ok, terminal = isatty(1);
    if (args_flag(args, "json")) ok = print_json(watched, err);
    else if (args_flag(args, "once") || !terminal || is_over(watched)) ok = print_once(watched, terminal, err);
    else ok = follow(folder, args_number(args, "interval", 2), &watched, err);
    json_decref(watched);
    return ok;
}

static const Option options[] = {
    {.name = "interval", .letter = 'n', .kind = OPTION_NUMBER, .value = "SECONDS", .help = "between two looks at the run (2)", .low = 0.1, .high = 3600},
    {.name = "once", .kind = OPTION_FLAG, .help = "print one summary and end"},
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END,
};
const Command command_watch = {
    .name = "watch",
    .summary = "draw a run in the terminal while it goes on",
    .usage = "RUN [--interval SECONDS] [--once] [--json]",
    .detail = "Curves of the reward and its parts, held-out accuracy, pass rates by level, lengths, entropy, KL and what was cut off,\n"
              "the newest samples, and when the stage will be done. Only reads; may be started and left at any time, and ends with\n"
              "the run, on q or control-C. Without a terminal it prints one summary. Without UTF-8 in LANG it draws in ASCII;\n"
              "NO_COLOR is honoured.",
    .example = "reckon watch runs/quickstart",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
