// Bytes <-> token ids, and chat messages -> prompt. A tokenizer comes from tokenizer.json, from GGUF metadata, or
// from a character vocabulary given in a recipe. It is immutable once made and may be shared between threads.
#ifndef RECKON_TOKENIZER_H
#define RECKON_TOKENIZER_H
#include "json.h"
#include "template.h"

typedef struct Tokenizer Tokenizer;

// `path`: a model folder with tokenizer.json (tokenizer_config.json is read for the chat template and special
// tokens) or a .gguf file. ERR_NOINPUT if the folder has no tokenizer.
bool tokenizer_open(const char *path, Tokenizer **out, Err *err) MUST_CHECK;
// A model from scratch: each UTF-8 character of `characters` is a token, in order, after the special ones
// ("<eos>", "<think>", "</think>"; ids 0, 1, 2). Duplicate characters are an error. Encoding a character outside is
// an error that names it.
bool tokenizer_from_characters(const char *characters, Tokenizer **out, Err *err) MUST_CHECK;
void tokenizer_close(Tokenizer *t);

int32_t tokenizer_size(const Tokenizer *t); // highest id + 1
// Id of a token written exactly so, special and added ones included; -1 if none.
int32_t tokenizer_id(const Tokenizer *t, const char *token);
int32_t tokenizer_eos(const Tokenizer *t); // -1 if none

// Appends ids. Special tokens written in the text are always recognised; `special` adds the post-processor's
// automatic begin and end tokens. Text may hold NUL; invalid UTF-8 is an error that names the byte offset.
bool tokenizer_encode(const Tokenizer *t, const char *text, size_t size, bool special, Ids *out, Err *err) MUST_CHECK;
// Appends bytes; ids out of range are an error. With `skip_special`, special tokens give nothing.
bool tokenizer_decode(const Tokenizer *t, const int32_t *ids, int32_t count, bool skip_special, Buf *out,
                      Err *err) MUST_CHECK;

// Streaming decode (special tokens skipped): one id in, text out where whole characters are ready.
typedef struct TokenStream TokenStream;
TokenStream *token_stream_open(const Tokenizer *t);
void token_stream_close(TokenStream *s);
// *ready is false where nothing is written yet; otherwise `piece` was replaced by the new text.
bool token_stream_push(TokenStream *s, int32_t id, bool *ready, Buf *piece, Err *err) MUST_CHECK;

// Chat messages ([{"role","content"}]) to the prompt's text, by the tokenizer's chat template. A template that is refused, or
// that refuses the messages, is an error that names its file and line.
bool tokenizer_chat(const Tokenizer *t, const json_t *messages, bool add_generation_prompt, Buf *out, Err *err) MUST_CHECK;
// The same with tools, documents and variables; `bos` and `eos` of the request are the tokenizer's own.
bool tokenizer_chat_render(const Tokenizer *t, const ChatRequest *request, Buf *out, Err *err) MUST_CHECK;
// Whether the template reads this variable, such as "enable_thinking".
bool tokenizer_chat_reads(const Tokenizer *t, const char *variable);
bool tokenizer_has_chat(const Tokenizer *t);

// Writes tokenizer.json and its companions into a folder: carried over byte for byte where they were read from one,
// otherwise built so that the `tokenizers` package reads it and gives the same ids.
bool tokenizer_save(const Tokenizer *t, const char *folder, Err *err) MUST_CHECK;
// SHA-256 of what defines it, for the ledger.
void tokenizer_hash(const Tokenizer *t, char out[65]);

// Whether the same token stands behind every id of both; otherwise *id is the first that differs.
bool tokenizer_same_ids(const Tokenizer *a, const Tokenizer *b, int32_t *id);

// Appends, with one U+FFFD for each maximal invalid part (the Unicode standard's "substitution of maximal subparts").
void utf8_repair(const char *bytes, size_t size, Buf *out);

#endif
