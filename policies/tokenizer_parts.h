// What the files of the tokenizer share; nothing outside policies/tokenizer*.c and pretokenizer.c includes it.
//
// A text becomes ids in five stages, in the order and with the meaning of the `tokenizers` package: added tokens that
// are matched in the raw text are cut out; what lies between is normalised; added tokens that are matched in
// normalised text are cut out; the pre-tokenizer splits the rest into words; byte-pair merging turns each word into
// ids. A post-processor may add ids around the whole.
#ifndef RECKON_TOKENIZER_PARTS_H
#define RECKON_TOKENIZER_PARTS_H
#include "tokenizer.h"
#include "template.h"

// ---- Unicode (tokenizer_unicode.c) -----------------------------------------------------------------------
// Kinds of character; a character has at most one of letter, number and space.
enum { KIND_LETTER = 1, KIND_NUMBER = 2, KIND_SPACE = 4, KIND_PUNCTUATION = 8, KIND_WORD = 16 };
typedef struct Char {
    int32_t code;
    int size;      // bytes; 0 at the end of the text
    unsigned kind; // KIND_ bits: \p{L}, \p{N}, White_Space, \p{P}, \w
} Char;
Char char_at(const char *text, size_t size, size_t at);   // the text is valid UTF-8
Char char_before(const char *text, size_t at);            // the character that ends at `at`
bool utf8_valid(const char *text, size_t size, size_t *bad); // *bad: offset of the first byte that isn't
// Appends, with one U+FFFD for each maximal invalid part (the Unicode standard's "substitution of maximal subparts").
void utf8_repair(const char *bytes, size_t size, Buf *out);
int utf8_write(int32_t code, char out[4]);
// Appends the text in normalization form C.
void unicode_nfc(const char *text, size_t size, Buf *out);

// ---- the byte-level alphabet (tokenizer_unicode.c) ---------------------------------------------------------
// GPT-2 writes each byte as one printable character, U+0021 to U+0143.
void bytes_to_alphabet(const char *bytes, size_t size, Buf *out);
// Appends the bytes a token stands for. A token with a character outside the alphabet stands for its own UTF-8.
void alphabet_to_bytes(const char *text, size_t size, Buf *out);

// ---- the pre-tokenizer (pretokenizer.c) --------------------------------------------------------------------
typedef enum Scanner {
    SCAN_WHOLE,       // no split
    SCAN_GPT2,        // the pattern of GPT-2, ByteLevel's own
    SCAN_LLAMA3,      // the pattern of Llama 3
    SCAN_QWEN2,       // the pattern of Qwen2
    SCAN_DIGITS,      // each number character alone
    SCAN_NUMBERS,     // runs of number characters
    SCAN_PUNCTUATION, // runs of punctuation: the first stage of GGUF's "default"
    SCAN_TRIPLES,     // three ASCII digits: its last stage
    SCAN_CHARACTERS,  // each character alone: our own character vocabularies
} Scanner;
typedef struct PreStep {
    Scanner scanner;
    bool prefix_space; // a space is put before a piece that doesn't begin with one
} PreStep;
typedef struct Pretokenizer {
    PreStep steps[8]; // each splits the pieces of the one before; the last one is ByteLevel
    int count;
} Pretokenizer;
typedef bool (*PieceFunction)(void *context, const char *piece, size_t size);
bool pretokenize(const Pretokenizer *p, const char *text, size_t size, PieceFunction piece, void *context) MUST_CHECK;
// Reads tokenizer.json's "pre_tokenizer"; `path` names the file in errors.
bool pretokenizer_from_json(const json_t *json, const char *path, Pretokenizer *out, Err *err) MUST_CHECK;
bool pretokenizer_from_gguf(const char *name, const char *path, Pretokenizer *out, Err *err) MUST_CHECK;
json_t *pretokenizer_to_json(const Pretokenizer *p);

// ---- vocabulary and merges (tokenizer_bpe.c) -----------------------------------------------------------------
enum { TOKEN_LIMIT = 1 << 22 }; // ids at and above this are refused
typedef struct Token {
    uint32_t text, text_size;   // in `pool`: as the file writes it
    uint32_t bytes, bytes_size; // in `pool`: what it decodes to
    bool present, added, special;
} Token;
typedef struct MergeSlot {
    uint64_t pair; // left id << 32 | right id; EMPTY_PAIR if free
    int32_t rank, id;
} MergeSlot;
typedef struct Bpe {
    Token *tokens; // [size]
    int32_t size;  // highest id + 1
    Buf pool;
    int32_t *by_text; // open addressing, -1 is free
    size_t by_text_mask;
    MergeSlot *merges; // open addressing
    size_t merges_mask;
    int32_t merge_count;
    int32_t byte_ids[256];  // token of each byte, -1 if none
    int32_t unknown;        // id that stands for a byte without a token; -1: it gives nothing
    bool fuse_unknown;      // neighbouring unknown bytes give one id
    bool ignore_merges;     // a word that is a token is taken whole
    uint32_t longest_token; // bytes
} Bpe;
bool bpe_start(Bpe *b, int32_t size, Err *err) MUST_CHECK;
void bpe_free(Bpe *b);
// `where` names file and place in errors: an id used twice; later, a text used twice.
bool bpe_put(Bpe *b, int32_t id, const char *text, size_t size, const char *where, Err *err) MUST_CHECK;
bool bpe_index(Bpe *b, const char *where, Err *err) MUST_CHECK; // once all tokens are put, before all that follows
int32_t bpe_find(const Bpe *b, const char *text, size_t size);  // -1 if none
bool bpe_merges_start(Bpe *b, size_t count, const char *where, Err *err) MUST_CHECK;
bool bpe_merge_put(Bpe *b, int32_t rank, const char *left, size_t left_size, const char *right, size_t right_size,
                   const char *where, Err *err) MUST_CHECK;
bool bpe_merge_put_line(Bpe *b, int32_t rank, const char *line, size_t size, const char *where, Err *err) MUST_CHECK;
static inline const char *token_text(const Bpe *b, int32_t id) { return b->pool.data + b->tokens[id].text; }

// Working memory of one encoding call, grown to the longest word.
typedef struct BpeScratch {
    void *memory;
    size_t capacity; // word bytes it is good for
    Buf word;
} BpeScratch;
bool bpe_encode(const Bpe *b, const char *word, size_t size, BpeScratch *scratch, Ids *out, Err *err) MUST_CHECK;
void bpe_scratch_free(BpeScratch *s);

// ---- added tokens (tokenizer_added.c) --------------------------------------------------------------------------
typedef struct AddedToken {
    char *text; // as it is matched: normalised if `normalized`
    size_t size;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} AddedToken;
typedef struct AddedTokens {
    AddedToken *list; // sorted by text
    int count;
    int from[257]; // list[from[b]..from[b + 1]) begins with byte b
} AddedTokens;
// Takes over the texts. Of equal texts the first wins.
void added_tokens_make(AddedTokens *a, const AddedToken *list, int count);
void added_tokens_free(AddedTokens *a);
// Calls `token` for each match, `text` for what lies between, in order.
typedef struct AddedVisitor {
    bool (*text)(void *context, const char *text, size_t size);
    void (*token)(void *context, int32_t id);
    void *context;
} AddedVisitor;
bool added_tokens_split(const AddedTokens *a, const char *text, size_t size, AddedVisitor visitor) MUST_CHECK;

// ---- the tokenizer -----------------------------------------------------------------------------------------------
// A file to write: carried over from a folder, or built.
typedef struct TokenizerFile {
    const char *name;
    Buf data;
} TokenizerFile;
enum { TOKENIZER_FILES = 4, TEXT_OF_SEQUENCE = -1 };
extern const char *const tokenizer_file_names[TOKENIZER_FILES];

struct Tokenizer {
    char *path; // of the folder or file it came from; "characters" for a character vocabulary
    Bpe bpe;
    bool nfc;
    Pretokenizer pre;
    bool strict; // a character without a token is an error (character vocabularies)
    AddedTokens raw, normalized;
    AddedToken *added; // all of them, in the file's order, for saving; texts as written
    int added_count;
    int32_t *automatic; // what the post-processor makes: ids, and TEXT_OF_SEQUENCE where the text's ids go
    int automatic_count;
    int32_t bos, eos, padding; // -1 if none
    char *chat_source;         // the chat template; NULL if none
    char *chat_where;          // its file
    Template *chat;            // NULL if there is none, or it is refused
    Err chat_error;            // why it is refused: the tokenizer is good for everything else
    bool carried;              // `files` was read from a folder
    TokenizerFile files[TOKENIZER_FILES];
};

// The readers. They fill a zeroed Tokenizer whose path is set, and may leave it half filled on failure.
bool tokenizer_read_folder(Tokenizer *t, Err *err) MUST_CHECK;
bool tokenizer_read_gguf(Tokenizer *t, Err *err) MUST_CHECK;
bool tokenizer_read_characters(Tokenizer *t, const char *characters, Err *err) MUST_CHECK;
// Takes over `added` ([count], texts too): marks the tokens and makes both matchers. The vocabulary is indexed.
void tokenizer_set_added(Tokenizer *t, AddedToken *added, int count);
// What tokenizer_save writes where nothing was carried over. `out` has TOKENIZER_FILES entries; the caller frees.
void tokenizer_build_files(const Tokenizer *t, TokenizerFile *out);

#endif
