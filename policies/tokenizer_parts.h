// What the files of the tokenizer share; nothing outside policies/tokenizer*.c and pretokenizer.c includes it.
//
// A text becomes ids in five stages, in the order and with the meaning of the `tokenizers` package: added tokens that
// are matched in the raw text are cut out; what lies between is normalised; added tokens that are matched in
// normalised text are cut out; the pre-tokenizer splits the rest into words; the model (byte-pair merging, Unigram,
// WordPiece or WordLevel) turns each word into ids. A post-processor may add ids around the whole. Ids become text by
// the decoder's stages, each from a list of pieces to another.
#ifndef RECKON_TOKENIZER_PARTS_H
#define RECKON_TOKENIZER_PARTS_H
#include "tokenizer.h"
#include "template.h"
#include <stdatomic.h>

// ---- Unicode (tokenizer_unicode.c) -----------------------------------------------------------------------
// Kinds of character, of Unicode 16. A character has at most one of letter, number, space, mark, punctuation and symbol.
enum {
    KIND_LETTER = 1,      // \p{L}
    KIND_NUMBER = 2,      // \p{N}
    KIND_SPACE = 4,       // White_Space
    KIND_PUNCTUATION = 8, // \p{P}
    KIND_WORD = 16,       // \w of Rust's regular expressions
    KIND_MARK = 32,       // \p{M}
    KIND_SYMBOL = 64,     // \p{S}
    KIND_UPPER = 128,     // \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}: may stand in the first part of a cased word
    KIND_LOWER = 256,     // \p{Ll}\p{Lm}\p{Lo}\p{M}: in its second part
    KIND_HAN_KANA = 512,  // [一-龥぀-ゟ゠-ヿ]
};
typedef struct Char {
    int32_t code;
    int size;      // bytes; 0 at the end of the text
    unsigned kind; // KIND_ bits
} Char;
// Characters from first to last; lists of them are sorted.
typedef struct Range {
    int32_t first, last;
} Range;
static inline bool in_ranges(int32_t c, const Range *ranges, int count) {
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= ranges[low].first;
}
Char char_at(const char *text, size_t size, size_t at);   // the text is valid UTF-8
Char char_before(const char *text, size_t at);            // the character that ends at `at`
int32_t code_at(const char *text, size_t at, int *size);  // without its kind; `at` is inside the text
bool utf8_valid(const char *text, size_t size, size_t *bad); // *bad: offset of the first byte that isn't
int utf8_write(int32_t code, char out[4]);
void utf8_append(int32_t code, Buf *out);
bool char_is_digit(Char c);           // what the pre-tokenizer Digits splits off
bool char_is_old_punctuation(Char c); // what Punctuation and BertPreTokenizer split off: Unicode 8 and ASCII

// ---- normal forms (tokenizer_normal_form.c) ------------------------------------------------------------------
typedef enum NormalForm { FORM_C, FORM_D, FORM_KC, FORM_KD } NormalForm;
// Appends the text in a normal form of Unicode 12.1, as the `tokenizers` package has it.
void unicode_normalize(NormalForm form, const char *text, size_t size, Buf *out);
bool unicode_is_normal(NormalForm form, const char *text, size_t size); // false may also mean "not seen at once"
void text_to_lower(const char *text, size_t size, Buf *out);
bool char_is_old_mark(int32_t code);            // what StripAccents takes away
bool char_is_old_nonspacing_mark(int32_t code); // what BertNormalizer takes away
bool char_is_old_other(int32_t code);           // control characters to BertNormalizer

// ---- the byte-level alphabet (tokenizer_unicode.c) ---------------------------------------------------------
// GPT-2 writes each byte as one printable character, U+0021 to U+0143.
void bytes_to_alphabet(const char *bytes, size_t size, Buf *out);
// Appends the bytes a token stands for and returns true. A token with a character outside the alphabet stands for its
// own UTF-8; then it returns false.
bool alphabet_to_bytes(const char *text, size_t size, Buf *out);

// ---- regular expressions (tokenizer_regex.c) -------------------------------------------------------------------
// Patterns are written for Oniguruma (Ruby's syntax) and translated for PCRE2. What can't be translated is refused.
typedef struct Regex Regex;
bool regex_make(const char *pattern, size_t size, const char *where, Regex **out, Err *err) MUST_CHECK;
void regex_free(Regex *r);
// Working memory of one call; zeroed at first.
typedef struct RegexScratch {
    void *match; // pcre2_match_data
} RegexScratch;
void regex_scratch_free(RegexScratch *s);
// Matches from left to right; empty ones too, but none right behind the match before.
typedef struct RegexSearch {
    size_t at, last;
    bool any;
    size_t start, stop; // of the match
} RegexSearch;
// *found is false at the end. ERR_DATA where a text would need too many steps.
bool regex_next(const Regex *r, const char *text, size_t size, RegexScratch *scratch, RegexSearch *search, bool *found,
                Err *err) MUST_CHECK;

// ---- what a pattern is to Split and Replace ----------------------------------------------------------------------
typedef struct Pattern {
    char *literal; // or NULL
    size_t size;
    Regex *regex;
} Pattern;
bool pattern_from_json(const json_t *json, const char *where, Pattern *out, Err *err) MUST_CHECK;
void pattern_free(Pattern *p);
bool pattern_next(const Pattern *p, const char *text, size_t size, RegexScratch *scratch, RegexSearch *search, bool *found,
                  Err *err) MUST_CHECK;
bool pattern_replace(const Pattern *p, const char *by, size_t by_size, const char *text, size_t size, RegexScratch *scratch,
                     Buf *out, Err *err) MUST_CHECK;

// ---- the normaliser (tokenizer_normalizer.c) -----------------------------------------------------------------------
typedef struct NormalizerStep NormalizerStep;
typedef struct Normalizer {
    NormalizerStep *steps;
    int count;
} Normalizer;
bool normalizer_from_json(const json_t *json, const char *path, Normalizer *out, Err *err) MUST_CHECK;
void normalizer_free(Normalizer *n);
typedef struct NormalizerScratch {
    Buf now, next;
    RegexScratch regex;
} NormalizerScratch;
// A stretch of text, and whether it begins where the original text does (Metaspace asks).
typedef struct Stretch {
    const char *text;
    size_t size;
    bool first;
} Stretch;
// *s becomes the normalised stretch: itself, or in `scratch` until its next use.
bool normalizer_apply(const Normalizer *n, Stretch *s, NormalizerScratch *scratch, Err *err) MUST_CHECK;

// SentencePiece's precompiled map (tokenizer_charsmap.c).
typedef struct CharsMap CharsMap;
bool charsmap_make(const char *base64, size_t size, const char *where, CharsMap **out, Err *err) MUST_CHECK;
void charsmap_free(CharsMap *m);
void charsmap_apply(const CharsMap *m, const char *text, size_t size, Buf *out);

// ---- scanners of known patterns (tokenizer_scanners.c) ---------------------------------------------------------------
typedef enum Scanner {
    SCAN_NONE,
    SCAN_GPT2,       // the pattern of GPT-2, ByteLevel's own
    SCAN_LLAMA3,     // the pattern of Llama 3
    SCAN_QWEN2,      // the pattern of Qwen2
    SCAN_QWEN35,     // the pattern of Qwen 3.5: marks count as letters
    SCAN_O200K,      // the pattern of GPT-4o and Llama 4: words split by case
    SCAN_TEKKEN,     // the pattern of Mistral's Tekken
    SCAN_DEEPSEEK3,  // the last pattern of DeepSeek-V3
    SCAN_HAN_KANA,   // DeepSeek-V3's runs of Chinese and Japanese
    SCAN_NUMBER,     // \p{N}
    SCAN_NUMBERS,    // \p{N}+
    SCAN_NUMBERS_3,  // \p{N}{1,3}
    SCAN_DIGIT,      // Digits, each alone
    SCAN_DIGITS,     // Digits, in runs
    SCAN_TRIPLES,    // [0-9][0-9][0-9]
    SCAN_LINE_ENDS,  // \s+$
    SCAN_CHARACTERS, // each character alone: our own character vocabularies
    SCAN_SPACE,      // each white space character
    SCAN_OLD_PUNCTUATION,
    SCAN_WORDS,      // \w+|[^\w\s]+ of Rust's regular expressions
    SCAN_LITERAL,    // the others search; they have no scanner here
    SCAN_REGEX,
} Scanner;
Scanner scanner_of_pattern(const char *pattern); // SCAN_NONE if it isn't known
// The end of the piece that begins at `at`, and whether it is a match. Pieces cover the text.
size_t scan(Scanner scanner, const char *text, size_t size, size_t at, bool *match);

// ---- the pre-tokenizer (pretokenizer.c) --------------------------------------------------------------------
typedef enum Behavior { ISOLATED, REMOVED, CONTIGUOUS, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT } Behavior;
typedef enum Prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } Prepend;
typedef struct PreStep {
    Scanner scanner; // SCAN_NONE: no split
    Behavior behavior;
    bool invert;
    Pattern pattern;    // of SCAN_LITERAL and SCAN_REGEX
    bool prefix_space;  // ByteLevel: a space is put before a piece that doesn't begin with one
    bool alphabet;      // afterwards each byte is written as a letter of the byte-level alphabet
    char replacement[8]; // Metaspace: of spaces; empty if none
    Prepend prepend;
} PreStep;
enum { PRE_STEPS = 16 };
typedef struct Pretokenizer {
    PreStep steps[PRE_STEPS]; // each splits the pieces of the one before
    int count;
    bool bytes; // pieces are raw bytes: the alphabet of a last ByteLevel is left to the model
} Pretokenizer;
typedef struct PreScratch {
    Buf text[PRE_STEPS + 1][2]; // one for each step that changes text
    RegexScratch regex;
    Err *err;
} PreScratch;
void pre_scratch_free(PreScratch *s);
typedef bool (*PieceFunction)(void *context, const char *piece, size_t size);
bool pretokenize(const Pretokenizer *p, Stretch s, PreScratch *scratch, PieceFunction piece, void *context) MUST_CHECK;
// Reads tokenizer.json's "pre_tokenizer"; `path` names the file in errors.
bool pretokenizer_from_json(const json_t *json, const char *path, Pretokenizer *out, Err *err) MUST_CHECK;
void pretokenizer_free(Pretokenizer *p);
// GGUF names a pre-tokenizer (tokenizer_gguf_names.c). *normalizer is NULL if none; both are tokenizer.json's texts.
typedef struct GgufPre {
    const char *pre_tokenizer, *normalizer;
    bool ignore_merges, begins;
} GgufPre;
// The name of what a tokenizer.json says, NULL if none; and all names.
const char *gguf_pre_name(const json_t *pre_tokenizer, const json_t *normalizer, bool ignore_merges);
void gguf_pre_list(Buf *out);
bool gguf_pre_find(const char *name, const char *path, GgufPre *out, Err *err) MUST_CHECK;

// ---- vocabulary (tokenizer_vocabulary.c) ---------------------------------------------------------------------------
enum { TOKEN_LIMIT = 1 << 22 }; // ids at and above this are refused
#define SHOWN(size) ((size) < 60 ? (int)(size) : 60) // of a text in a message, as the precision of %.*s
typedef struct Token {
    uint32_t text, text_size;   // in `pool`: as the file writes it
    uint32_t bytes, bytes_size; // in `pool`: what it stands for in the byte-level alphabet
    uint32_t shown, shown_size; // in `pool`: what decoding starts from: the text, normalised for some added tokens
    bool present, added, special;
    bool model;   // the model's own vocabulary has it
    bool letters; // `bytes` differ from the text, or it has only letters that stand for themselves
} Token;
typedef struct Vocabulary {
    Token *tokens; // [size]
    int32_t size;  // highest id + 1
    Buf pool;
    int32_t *by_text; // open addressing, -1 is free
    size_t by_text_mask;
    int32_t *by_bytes; // the model's tokens in the byte-level alphabet; NULL unless asked for
    size_t by_bytes_mask;
    uint32_t longest_token; // bytes of text
} Vocabulary;
bool vocabulary_start(Vocabulary *v, int32_t size, Err *err) MUST_CHECK;
void vocabulary_free(Vocabulary *v);
// `where` names file and place in errors: an id used twice; later, a text used twice.
bool vocabulary_put(Vocabulary *v, int32_t id, const char *text, size_t size, bool model, const char *where,
                    Err *err) MUST_CHECK;
// Decoding starts from another text than the token's.
void vocabulary_show(Vocabulary *v, int32_t id, const char *text, size_t size);
// Once all tokens are put, before all that follows. With `repeats`, of equal texts the last counts.
bool vocabulary_index(Vocabulary *v, bool repeats, const char *where, Err *err) MUST_CHECK;
bool vocabulary_index_bytes(Vocabulary *v, Err *err) MUST_CHECK;
int32_t vocabulary_find(const Vocabulary *v, const char *text, size_t size);       // -1 if none
int32_t vocabulary_find_model(const Vocabulary *v, const char *text, size_t size); // added tokens are none
int32_t vocabulary_find_bytes(const Vocabulary *v, const char *bytes, size_t size);
int32_t vocabulary_byte_token(const Vocabulary *v, int byte); // "<0x41>"; -1 if none
static inline const char *token_text(const Vocabulary *v, int32_t id) { return v->pool.data + v->tokens[id].text; }
static inline const char *token_shown(const Vocabulary *v, int32_t id) { return v->pool.data + v->tokens[id].shown; }
static inline const char *token_bytes(const Vocabulary *v, int32_t id) { return v->pool.data + v->tokens[id].bytes; }

// ---- byte-pair merging (tokenizer_bpe.c) ---------------------------------------------------------------------------
typedef struct MergeSlot {
    uint64_t pair; // left id << 32 | right id; EMPTY_PAIR if free
    int32_t rank, id;
} MergeSlot;
enum { CHARACTER_IDS = 0x10000, SEAM_BITS = 1 << 20 };
typedef struct Bpe {
    const Vocabulary *v;
    MergeSlot *merges; // open addressing
    size_t merges_mask;
    int32_t merge_count;
    int32_t last_joined;   // by the merge that was put last
    bool bytes;            // words are raw bytes
    int32_t byte_ids[256]; // token of each byte in the byte-level alphabet, -1 if none
    int32_t *character_ids; // [CHARACTER_IDS] token of each character below, -1 if none; NULL if words are bytes
    int32_t fallback_ids[256]; // "<0x41>"; used with byte_fallback
    uint64_t *seams;       // [SEAM_BITS / 64] hashed pairs of characters that some merge joins; NULL if never split
    int32_t unknown;       // id that stands for a character without a token; -1: it gives nothing
    bool fuse_unknown;     // neighbouring unknown characters give one id
    bool ignore_merges;    // a word that is a token is taken whole
    bool byte_fallback;    // an unknown character gives the tokens of its bytes, if all are there
    char *prefix, *suffix; // of characters inside a word, and of the last one; NULL if none
    uint64_t short_tokens; // bit n: there may be a whole token of n bytes
    atomic_uchar *whole;   // [size of the vocabulary] what encoding has found out (tokenizer_bpe.c); NULL where short_tokens is 0
} Bpe;
void bpe_free(Bpe *b);
bool bpe_merges_start(Bpe *b, size_t count, const char *where, Err *err) MUST_CHECK;
bool bpe_merge_put(Bpe *b, int32_t rank, const char *left, size_t left_size, const char *right, size_t right_size,
                   const char *where, Err *err) MUST_CHECK;
bool bpe_merge_put_line(Bpe *b, int32_t rank, const char *line, size_t size, const char *where, Err *err) MUST_CHECK;
// SentencePiece's rule: any two tokens whose joined text is a token merge, the one with the higher score first.
bool bpe_merges_from_scores(Bpe *b, const double *scores, const char *where, Err *err) MUST_CHECK;
// Once the merges are put and the options set.
bool bpe_finish(Bpe *b, Err *err) MUST_CHECK;
// Working memory of one encoding call, grown to the longest word.
typedef struct ModelScratch {
    void *memory;
    size_t capacity; // bytes
    Buf word;
} ModelScratch;
void model_scratch_free(ModelScratch *s);
bool model_scratch_grow(ModelScratch *s, size_t count, size_t each, Err *err) MUST_CHECK;
bool bpe_encode(const Bpe *b, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) MUST_CHECK;

// ---- the other models (tokenizer_unigram.c, tokenizer_words.c) -------------------------------------------------------
typedef struct TrieNode {
    uint32_t first;  // its children are nodes[first..first + count), in the order of their bytes
    uint16_t count;
    uint8_t byte;
    int32_t token; // -1 if none ends here
} TrieNode;
typedef struct Unigram {
    const Vocabulary *v;
    double *scores; // [v->size]
    double unknown_score;
    TrieNode *nodes; // [node_count], breadth first
    uint8_t *labels; // [node_count] the nodes' bytes, for a fast search
    size_t node_count;
    int32_t unknown; // -1 if none: an unknown character is an error
    bool byte_fallback;
    int32_t fallback_ids[256];
} Unigram;
void unigram_free(Unigram *u);
bool unigram_finish(Unigram *u, Err *err) MUST_CHECK; // once the scores are there
bool unigram_encode(const Unigram *u, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) MUST_CHECK;

typedef struct WordPiece {
    const Vocabulary *v;
    int32_t unknown; // -1 if none: an unknown word is an error
    char *prefix;    // of what follows the first piece; NULL for WordLevel, whose words are tokens or unknown
    size_t longest;  // words of more characters are unknown
} WordPiece;
bool wordpiece_encode(const WordPiece *w, const char *word, size_t size, ModelScratch *scratch, Ids *out,
                      Err *err) MUST_CHECK;

// ---- the decoder (tokenizer_decoder.c) -------------------------------------------------------------------------------
typedef struct DecoderStep DecoderStep;
typedef struct Decoder {
    DecoderStep *steps;
    int count;       // 0: pieces are joined with spaces
    bool byte_level; // nothing but ByteLevel: the common case
} Decoder;
bool decoder_from_json(const json_t *json, const char *path, Decoder *out, Err *err) MUST_CHECK;
void decoder_free(Decoder *d);
// Pieces of text, one after the other.
typedef struct Pieces {
    Buf text;
    size_t *ends;
    size_t count, capacity;
} Pieces;
void pieces_add(Pieces *p, const char *text, size_t size);
void pieces_free(Pieces *p);
// Appends the text; `pieces` is used up.
bool decoder_run(const Decoder *d, Pieces *pieces, Buf *out, Err *err) MUST_CHECK;

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
    bool (*text)(void *context, Stretch s);
    void (*token)(void *context, int32_t id);
    void *context;
} AddedVisitor;
bool added_tokens_split(const AddedTokens *a, Stretch s, AddedVisitor visitor) MUST_CHECK;

// ---- the tokenizer -----------------------------------------------------------------------------------------------
// A file to write: carried over from a folder, or built.
typedef struct TokenizerFile {
    const char *name;
    Buf data;
} TokenizerFile;
enum { TOKENIZER_FILES = 4, TEXT_OF_SEQUENCE = -1 };
extern const char *const tokenizer_file_names[TOKENIZER_FILES];
typedef enum ModelKind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE } ModelKind;

struct Tokenizer {
    char *path; // of the folder or file it came from; "characters" for a character vocabulary
    Vocabulary vocabulary;
    ModelKind model;
    Bpe bpe;
    Unigram unigram;
    WordPiece wordpiece;
    Normalizer normalizer;
    Pretokenizer pre;
    Decoder decoder;
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
    char *normalizer_text, *pretokenizer_text, *decoder_text; // as tokenizer.json has them, for saving; NULL is null
};

// The readers. They fill a zeroed Tokenizer whose path is set, and may leave it half filled on failure.
bool tokenizer_read_folder(Tokenizer *t, Err *err) MUST_CHECK;
bool tokenizer_read_gguf(Tokenizer *t, Err *err) MUST_CHECK;
bool tokenizer_read_characters(Tokenizer *t, const char *characters, Err *err) MUST_CHECK;
// The stages of a tokenizer that isn't read from a folder, from tokenizer.json's texts.
bool tokenizer_set_stages(Tokenizer *t, const char *normalizer, const char *pretokenizer, const char *decoder,
                          Err *err) MUST_CHECK;
bool tokenizer_read_stages(Tokenizer *t, const json_t *normalizer, const json_t *pretokenizer, const json_t *decoder,
                           const char *path, Err *err) MUST_CHECK;
// Fills t->automatic from tokenizer.json's "post_processor" (tokenizer_post.c); the vocabulary is indexed.
bool tokenizer_read_post(Tokenizer *t, const json_t *json, const char *path, Err *err) MUST_CHECK;
// Once merges and options are read: whether words are raw bytes, and the tables that follow from it.
bool tokenizer_finish_bpe(Tokenizer *t, Err *err) MUST_CHECK;
// Takes over `added` ([count], texts too): marks the tokens and makes both matchers. The vocabulary is indexed.
bool tokenizer_set_added(Tokenizer *t, AddedToken *added, int count, Err *err) MUST_CHECK;
// What tokenizer_save writes where nothing was carried over. `out` has TOKENIZER_FILES entries; the caller frees.
void tokenizer_build_files(const Tokenizer *t, TokenizerFile *out);

#endif
