// What `reckon watch` draws: every frame stays within its columns and rows, ASCII stays ASCII, hostile text shows no control character;
// the document it is drawn from; a terminal that is put back. And the step's one line, which stays within its width.
#include "../test.h"
#include "made_run.h"
#include "../../rl/stages.h"
#include "watch.h"
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

static char folder[64];
static const char hostile[] = "\033[2J\033]0;title\007 \xe2\x80\xae" "cba \xc2\x9b" "31m \xea\xb0\x80 \xff";

static void make(int steps, bool ended) {
    Err err = {0};
    Ledger *l;
    snprintf(folder, sizeof folder, "/tmp/reckon-watch-%d", (int)getpid());
    OK(folder_remove(folder, &err));
    OK(folder_make(folder, &err));
    char *path = path_join(folder, "recipe.resolved.json");
    const char *recipe = "{\"name\": \"made\", \"stages\": [{\"name\": \"sft\", \"steps\": 3}, {\"name\": \"grpo\", \"steps\": 60}]}";
    OK(file_write_atomic(path, recipe, strlen(recipe), &err));
    free(path);
    OK(ledger_open(folder, false, &l, &err));
    OK(made_run_facts(l, &err));
    for (int i = 1; i <= steps; i++) {
        Batch b = made_batch(i);
        StepReport s = made_report(&b, i, 1);
        LevelCount levels[] = {{.kind = "arithmetic", .level = 1, .prompts = 3, .samples = 12, .passed = i % 12, .share = NAN}};
        s.levels = (LevelCounts){levels, 1};
        if (i == steps) b.episodes[0].text = arena_strdup(&b.arena, hostile), b.episodes[0].text_size = strlen(hostile);
        OK(ledger_step(l, &s, &b, &err));
        made_free(&b);
        if (i % 5 == 0) {
            json_t *e = made_evaluation(i, "think"), *m = json_object();
            OK(ledger_evaluation(l, i, "greedy think", e, m, &err));
            json_decref(e), json_decref(m);
        }
    }
    json_t *end = json_pack("{s:s}", "how", "finished");
    if (ended) OK(ledger_event(l, "end", end, &err));
    json_decref(end);
    ledger_close(l);
}
static json_t *look(void) {
    Err err = {0};
    json_t *w;
    OK(watch_read(folder, &w, &err));
    return w;
}

static void document(void) {
    make(20, true);
    json_t *w = look(), *panels = json_object_get(w, "panels"), *panel;
    CHECK_STR(json_string_value(json_object_get(w, "state")), "finished");
    CHECK_INT(json_integer_value(json_object_get(w, "step")), 20);
    CHECK_INT(json_integer_value(json_object_get(w, "steps")), 63);
    CHECK_NEAR(json_number_value(json_object_get(w, "seconds_left")), 20.0, 1e-9); // 40 steps of half a second
    static const char *const titles[] = {"reward", "held-out accuracy", "pass rate", "parts of the reward", "length", "entropy", "KL", "cut off"};
    size_t i;
    for (int t = 0; t < COUNT(titles); t++) {
        bool found = false;
        json_array_foreach(panels, i, panel) found |= !strcmp(json_string_value(json_object_get(panel, "title")), titles[t]);
        if (!found) FAIL("no panel '%s'", titles[t]);
    }
    panel = json_array_get(panels, 2);
    json_t *series = json_array_get(json_object_get(panel, "series"), 0), *values = json_object_get(series, "values");
    CHECK_INT(json_array_size(values), 20);
    CHECK_NEAR(json_number_value(json_array_get(values, 4)), 500.0 / 12, 1e-9);
    CHECK_NEAR(json_number_value(json_object_get(series, "now")), 800.0 / 12, 1e-9);
    CHECK_INT(json_array_size(json_object_get(w, "samples")), MADE_PROMPTS);
    json_decref(w);
    Err err = {0};
    OK(folder_remove(folder, &err));
    CHECK(!watch_read(folder, &w, &err) && err.code == ERR_NOINPUT);
}

// Columns of a line of UTF-8; -1 for a control character.
static int columns_of(const char *line, size_t size, bool *ascii) {
    int columns = 0;
    for (size_t at = 0; at < size;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)line + at, (utf8proc_ssize_t)(size - at), &point);
        if (n <= 0 || utf8proc_category(point) == UTF8PROC_CATEGORY_CC || utf8proc_category(point) == UTF8PROC_CATEGORY_CF) return -1;
        *ascii &= point < 0x80;
        columns += utf8proc_charwidth(point), at += (size_t)n;
    }
    return columns;
}
static void frames(void) {
    static const int sizes[][2] = {{80, 24}, {120, 40}, {40, 12}, {20, 5}, {200, 60}, {80, 0}, {1, 1}, {399, 3}};
    make(30, false);
    json_t *w = look();
    CHECK_STR(json_string_value(json_object_get(w, "state")), "not running");
    for (int i = 0; i < COUNT(sizes); i++)
        for (int unicode = 0; unicode < 2; unicode++) {
            Buf out = {0};
            WatchFrame f = {.columns = sizes[i][0], .rows = sizes[i][1], .unicode = unicode};
            watch_draw(w, &f, &out);
            int lines = 0, most = sizes[i][0] < 20 ? 20 : sizes[i][0];
            bool ascii = true;
            for (char *p = out.data, *end; (size_t)(p - out.data) < out.size; p = end + 1, lines++) {
                end = memchr(p, '\n', out.size - (size_t)(p - out.data));
                CHECK(end != NULL);
                int columns = columns_of(p, (size_t)(end - p), &ascii);
                if (columns < 0 || columns > most) FAIL("%dx%d: a line of %d columns: %.*s", sizes[i][0], sizes[i][1], columns, (int)(end - p), p);
            }
            if (sizes[i][1] > 4 && lines > sizes[i][1]) FAIL("%dx%d: %d lines", sizes[i][0], sizes[i][1], lines);
            CHECK(unicode || ascii);
            if (sizes[i][0] == 80) CHECK(strstr(out.data, "reward") && strstr(out.data, "grpo 30/60"));
            buf_free(&out);
        }
    json_decref(w);
    Err err = {0};
    OK(folder_remove(folder, &err));
}

// ---- a terminal ------------------------------------------------------------------------------------------
static void read_until(int fd, const char *wanted, Buf *seen) {
    double end = clock_seconds() + 20;
    while (clock_seconds() < end && !(seen->data && strstr(seen->data, wanted))) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char text[4096];
        if (poll(&p, 1, 200) <= 0) continue;
        ssize_t n = read(fd, text, sizeof text);
        if (n <= 0) break;
        buf_append(seen, text, (size_t)n);
    }
    if (!seen->data || !strstr(seen->data, wanted)) FAIL("the terminal never showed '%s'", wanted);
}
static void terminal_is_put_back(void) {
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    self[n] = 0;
    for (int i = 0; i < 2; i++) *strrchr(self, '/') = 0;
    char *program = xasprintf("%s/reckon", self);
    make(10, false);
    Err err = {0};
    for (int by_key = 0; by_key < 2; by_key++) {
        int lock, master = posix_openpt(O_RDWR | O_NOCTTY);
        CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
        struct winsize size = {.ws_row = 24, .ws_col = 80};
        CHECK_INT(ioctl(master, TIOCSWINSZ, &size), 0);
        OK(run_lock(folder, &lock, &err)); // as a trainer holds it: the run goes on
        pid_t child = fork();
        if (child == 0) {
            setsid();
            int slave = open(ptsname(master), O_RDWR);
            dup2(slave, 0), dup2(slave, 1);
            setenv("LANG", "C.UTF-8", 1), unsetenv("LC_ALL");
            execl(program, "reckon", "watch", folder, "--interval", "0.2", (char *)NULL);
            _exit(99);
        }
        Buf seen = {0};
        int status;
        read_until(master, "q: leave", &seen);
        CHECK(strstr(seen.data, "\033[?1049h") && strstr(seen.data, "running"));
        size.ws_col = 60, seen.size = 0, seen.data[0] = 0;
        CHECK_INT(ioctl(master, TIOCSWINSZ, &size), 0);
        read_until(master, "\033[2J", &seen);
        CHECK_INT(write(master, by_key ? "q" : "\003", 1), 1);
        read_until(master, "\033[?1049l", &seen);
        CHECK(strstr(seen.data, "\033[?25h") != NULL);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        struct termios now;
        CHECK(tcgetattr(master, &now) == 0 && (now.c_lflag & ICANON) && (now.c_lflag & ECHO));
        buf_free(&seen);
        close(master), run_unlock(lock);
    }
    free(program);
    OK(folder_remove(folder, &err));
}

static void one_line_a_step(void) {
    Batch b = made_batch(7);
    StepReport s = made_report(&b, 7, 1);
    LevelCount levels[] = {{.kind = "gcd", .level = 2, .samples = 4, .passed = 1}, {.kind = "gcd", .level = 1, .samples = 4, .passed = 3}};
    s.levels = (LevelCounts){levels, 2};
    s.clip_share = 0.1, s.clip_low = 0.02, s.clip_high = 0.08, s.verdicts[VERDICT_ERROR] = 2;
    Stage stage = {.kind = STAGE_GRPO, .name = "grpo", .steps = 300};
    Buf line = {0};
    step_line(&stage, &s, 125, &line);
    CHECK(line.size <= 118);
    static const char *const parts[] = {"grpo 7/300: reward ", "pass 1:75 2:25 %", "2 verdicts failed", "2:05 left", "length "};
    for (int i = 0; i < COUNT(parts); i++)
        if (!strstr(line.data, parts[i])) FAIL("the line lacks '%s': %s", parts[i], line.data);
    line.size = 0;
    stage.kind = STAGE_SFT, stage.name = "sft";
    step_line(&stage, &(StepReport){.stage_step = 1, .loss = 2, .kind = STAGE_SFT}, NAN, &line);
    CHECK_STR(line.data, "sft 1/300: loss 2.0000, norm 0.00, 0.00 s");
    buf_free(&line);
    made_free(&b);
}

static const Test tests[] = {
    {"document", document}, {"frames", frames}, {"terminal is put back", terminal_is_put_back}, {"one line a step", one_line_a_step}};
TEST_MAIN(tests)
