// Where a completion says its answer. All look only at what stands after the thinking; the results are parts of the
// text that was given, without blanks around them.
#ifndef RECKON_EXTRACT_H
#define RECKON_EXTRACT_H
#include "reward.h"

// What follows the last "</think>", or the whole text if it holds no tag of thinking. False if thinking begins and
// doesn't end: nothing after that is an answer.
bool extract_after_thinking(TextSpan text, TextSpan *out);
// Each is false if there is none; of several the last one counts.
bool extract_answer_tag(TextSpan text, TextSpan *out); // inside of <answer>..</answer> that holds no answer tag
bool extract_last_tag(TextSpan text, TextSpan *out);   // the same in all of `text`; else *out is left as it is
bool extract_boxed(TextSpan text, TextSpan *out);      // inside of \boxed{..} with balanced braces; may be empty
bool extract_hash(TextSpan text, TextSpan *out);       // after "####", to the end of the line
bool extract_number(TextSpan text, TextSpan *out);     // digits with sign, separators of thousands and a point
bool extract_code(TextSpan text, const char *language, TextSpan *out); // a closed fence ```; language NULL: any
bool extract_json(TextSpan text, TextSpan *out);       // a balanced {..} or [..], preferably in a code block; not parsed
TextSpan extract_trim(TextSpan text);                  // the blanks of Unicode too

#endif
