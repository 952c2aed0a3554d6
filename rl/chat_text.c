// A model's text as it comes: first what a terminal would obey is dropped, then the tags of thinking are looked for. A tag may
// come in pieces, so what could be its beginning is held back until it is one or isn't.
#include "chat.h"
#include <string.h>

enum { ESCAPE_LIMIT = 256 }; // a sequence that goes on for longer is taken for text again

void chat_text_start(ChatText *c, bool thinking) {
    chat_text_free(c);
    *c = (ChatText){.thinking = thinking, .blank = true};
}
void chat_text_free(ChatText *c) { buf_free(&c->think), buf_free(&c->answer), buf_free(&c->held); }

// ---- parts -------------------------------------------------------------------------------------------------------
static bool is_blank(char ch) { return ch == ' ' || ch == '\n' || ch == '\t'; }
static void give(ChatText *c, const char *data, size_t size, ChatPart part, void *context) {
    while (c->blank && size && is_blank(*data)) data++, size--;
    if (!size) return;
    c->blank = false;
    buf_append(c->thinking ? &c->think : &c->answer, data, size);
    if (part) part(context, c->thinking, data, size);
}
static void give_held(ChatText *c, ChatPart part, void *context) {
    give(c, c->held.data, c->held.size, part, context);
    c->held.size = 0;
}
void chat_text_tag(ChatText *c, bool opens, ChatPart part, void *context) {
    give_held(c, part, context);
    if (c->thinking != opens) c->blank = true;
    c->thinking = opens;
}
// One byte of safe text.
static void take(ChatText *c, char byte, ChatPart part, void *context) {
    static const char *const tags[] = {"</think>", "<think>"};
    buf_append(&c->held, &byte, 1);
    while (c->held.size) {
        bool begins = false;
        for (int i = 0; i < 2 && !c->plain; i++) {
            size_t size = strlen(tags[i]);
            if (c->held.size > size || memcmp(c->held.data, tags[i], c->held.size) != 0) continue;
            begins = true;
            if (c->held.size < size) continue;
            c->held.size = 0;
            chat_text_tag(c, i == 1, part, context);
            return;
        }
        if (begins) return;
        size_t n = 1; // up to the next place where a tag could begin
        while (n < c->held.size && c->held.data[n] != '<') n++;
        give(c, c->held.data, n, part, context);
        memmove(c->held.data, c->held.data + n, c->held.size - n);
        c->held.size -= n;
    }
}

// ---- what a terminal would obey -------------------------------------------------------------------------------------
// Whether this byte belongs to an escape sequence.
static bool escaped(ChatText *c, char byte) {
    unsigned char u = (unsigned char)byte;
    if (!c->escape) {
        c->escape = byte == 0x1B;
        c->escape_kind = 0;
        return c->escape;
    }
    c->escape++;
    bool string = c->escape_kind && c->escape_kind != '[', continues = (u & 0xC0) == 0x80, over;
    if ((u >= 0x80 && !string) || (c->escape > ESCAPE_LIMIT && !continues)) { // no sequence at all
        c->escape = 0;
        return false;
    }
    if (c->escape == 2 && !c->escape_kind) { // the byte behind ESC tells the kind
        c->escape_kind = byte && strchr("[]PX^_", byte) ? byte : 0;
        over = !c->escape_kind && !(u >= 0x20 && u <= 0x2F);
    } else {
        over = string ? byte == 0x07 || byte == '\\' : u >= 0x40 || u < 0x20;
    }
    if (over) c->escape = 0;
    return true;
}
// Characters of two and three bytes that are dropped: C1 controls, and those that change the direction of writing.
static size_t dropped(const char *p, size_t left) {
    const unsigned char *u = (const unsigned char *)p;
    if (left >= 2 && u[0] == 0xC2 && u[1] >= 0x80 && u[1] <= 0x9F) return 2;
    if (left < 3 || u[0] != 0xE2) return 0;
    bool embedding = u[1] == 0x80 && ((u[2] >= 0xAA && u[2] <= 0xAE) || u[2] == 0x8E || u[2] == 0x8F);
    bool isolate = u[1] == 0x81 && u[2] >= 0xA6 && u[2] <= 0xA9;
    return embedding || isolate ? 3 : 0;
}
void chat_text_push(ChatText *c, const char *data, size_t size, ChatPart part, void *context) {
    for (size_t i = 0; i < size;) {
        size_t skip = dropped(data + i, size - i);
        if (skip) {
            if (skip == 2 && (unsigned char)data[i + 1] == 0x9B) c->escape = 2, c->escape_kind = '['; // ESC [ in one
            i += skip;
            continue;
        }
        char byte = data[i++];
        bool control = ((unsigned char)byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
        if (!escaped(c, byte) && !control) take(c, byte, part, context);
    }
}
void chat_text_end(ChatText *c, ChatPart part, void *context) { give_held(c, part, context); }
