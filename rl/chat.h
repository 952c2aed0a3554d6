// A talk with a model: its text made safe for a terminal and taken apart into thinking and answer as it comes, and prompts
// from a whole talk. `reckon chat` is made of these.
#ifndef RECKON_CHAT_H
#define RECKON_CHAT_H
#include "rl.h"

// ---- text as it comes (chat_text.c) ------------------------------------------------------------------------
// Takes pieces of a model's text, cut anywhere between characters. Control characters, escape sequences, and marks that
// reverse the direction of writing are dropped: a terminal must not obey a model. "<think>" and "</think>" aren't part of
// either text.
typedef struct ChatText {
    Buf think, answer; // all of it so far
    bool thinking;     // what comes next
    bool plain;        // the tags mean nothing
    Buf held;          // what may be the beginning of a tag
    int escape;        // of an escape sequence: how many characters it has had so far, 0 outside
    char escape_kind;  // '[' ends with a letter, ']' with a bell or a string terminator
    bool blank;        // of this part nothing but white space has come, which is dropped
} ChatText;
// What became of a piece: a part of the text, in the order of the text.
typedef void (*ChatPart)(void *context, bool thinking, const char *data, size_t size);
void chat_text_start(ChatText *c, bool thinking); // `thinking`: the prompt ends with "<think>"
void chat_text_push(ChatText *c, const char *data, size_t size, ChatPart part, void *context);
// A tag that is one token and isn't part of the text.
void chat_text_tag(ChatText *c, bool opens, ChatPart part, void *context);
void chat_text_end(ChatText *c, ChatPart part, void *context); // nothing more comes: what is held is text
void chat_text_free(ChatText *c);

// ---- prompts (prompt.c) ----------------------------------------------------------------------------------------
enum { MODE_TEMPLATE = MODES }; // the template's and the model's own way
// A template that shows the date shows one day to all runs, or a prompt would depend on when it was made.
enum { DAY_OF_PROMPTS = 1721952000 }; // 26 July 2024
// A talk as it is put to a model: with the style's system message in front where it has none, and its instruction behind the last
// question. The caller's.
json_t *chat_styled(const json_t *messages, const PromptStyle *style);
// The ids that continue a talk, behind `prefix` (NULL: the mode's usual one). *thinking tells whether they end inside of the
// thinking. The date that a template shows is today's.
bool chat_prompt(const Tokenizer *t, const json_t *messages, int mode, const char *prefix, Ids *out, bool *thinking, Err *err) MUST_CHECK;

#endif
