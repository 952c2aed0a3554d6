// Characters, words and scripts of UTF-8 text. A byte that isn't UTF-8 is a character of its own (code 0xFFFD).
#ifndef RECKON_UNICODE_H
#define RECKON_UNICODE_H
#include "reward.h"

// The next character, taken off the front; false at the end.
bool unicode_next(TextSpan *text, uint32_t *code);
bool unicode_is_blank(uint32_t code);
// The next run between blanks, taken off the front; false at the end.
bool unicode_word(TextSpan *text, TextSpan *word);
// In lower case, as new memory that the caller frees (never NULL); *size may have been text.size before.
char *unicode_lower(TextSpan text, size_t *size);

typedef enum Script { SCRIPT_LATIN, SCRIPT_VIETNAMESE, SCRIPT_HANGUL, SCRIPT_KANA, SCRIPT_HAN, SCRIPT_CYRILLIC, SCRIPT_OTHER, SCRIPTS } Script;
extern const char *const unicode_script_names[SCRIPTS];
// Letters of each script; SCRIPT_VIETNAMESE are Latin letters with marks that Vietnamese has. Digits, marks, signs and
// blanks are of no script.
void unicode_count_scripts(TextSpan text, int64_t letters[SCRIPTS]);
// The share of letters in words of a language, in [0, 1]; 0 where there are no letters. False for an unknown language.
//   ko  Hangul          ja  kana, and Han where there is kana anywhere       zh  Han where there is no kana
//   vi  Latin words with a Vietnamese mark; all Latin words where at least a quarter of them have one
//   en  Latin words without a letter beyond ASCII
bool unicode_language_share(TextSpan text, const char *language, double *out);

#endif
