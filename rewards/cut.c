// Where thinking ends and the answer begins. The one place that decides it, for scripts, reports and statistics.
#include "verify.h"
#include <string.h>

// The last <answer>X</answer> whose X holds no answer tag; false if there is none. One pass from the left keeps the
// place after the latest opening tag; a closing tag with nothing open pairs with nothing.
static bool last_answer(TextSpan text, TextSpan *out) {
    const char *p = text.data, *end = text.data + text.size, *open = NULL;
    bool found = false;
    while (p < end && (p = memchr(p, '<', (size_t)(end - p)))) {
        if (end - p >= 8 && memcmp(p, "<answer>", 8) == 0) {
            open = p += 8;
        } else if (end - p >= 9 && memcmp(p, "</answer>", 9) == 0) {
            if (open) *out = (TextSpan){open, (size_t)(p - open)}, found = true;
            open = NULL;
            p += 9;
        } else {
            p++;
        }
    }
    return found;
}

void completion_cut(const char *completion, size_t size, bool think_mode, TextSpan *think, TextSpan *answer) {
    static const char close_tag[] = "</think>";
    TextSpan rest = {completion, size};
    *think = (TextSpan){completion, 0};
    if (think_mode) {
        const char *close = size ? memmem(completion, size, close_tag, sizeof close_tag - 1) : NULL;
        think->size = close ? (size_t)(close - completion) : size;
        size_t skip = close ? think->size + sizeof close_tag - 1 : size;
        rest = (TextSpan){completion + skip, size - skip};
    }
    *answer = rest;
    last_answer(rest, answer);
    *answer = text_trim(*answer);
}
