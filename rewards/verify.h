// Whether two answers are the same number.
#ifndef RECKON_VERIFY_H
#define RECKON_VERIFY_H
#include "reward.h"

// 1 equal numbers, 0 different numbers, -1 if either isn't a number as verify.c reads them.
int verify_numbers(TextSpan a, TextSpan b);
TextSpan text_trim(TextSpan s);

#endif
