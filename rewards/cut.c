// Where thinking ends and the answer begins. The one place that decides it, for scripts, reports and statistics.
#include "extract.h"
#include "verify.h"
#include <string.h>

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
    extract_last_tag(rest, answer);
    *answer = text_trim(*answer);
}
