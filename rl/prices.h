// What a comparison's answers cost: a price sheet, from the recipe's `cost` or a file of the same keys. NaN: not stated.
#ifndef RECKON_PRICES_H
#define RECKON_PRICES_H
#include "rl.h"

typedef struct Prices {
    char currency[24];       // empty: no price is stated
    char source[256];        // "the recipe", or the file
    double device_hour;      // of the machine
    double kwh;              // of energy
    double tokens_in, tokens_out; // a million of a prompt's, and of new ones
    double watts;            // drawn while computing, where nothing measures it
} Prices;

void prices_of_recipe(const Recipe *r, Prices *out);
// {"currency", "source", "price_per_hour", "price_per_kwh", "million_tokens_in", "million_tokens_out", "watts"}, all but the
// currency may stay out. What the file doesn't say isn't taken from the recipe.
bool prices_read(const char *path, Prices *out, Err *err) MUST_CHECK;
json_t *prices_json(const Prices *p);

// A price of one thing is told for one, a thousand or a million of them, so that it can be read: 1, 1e3 or 1e6.
double money_scale_of(double money);

// What one answer takes. A device is paid by the hour and by its energy, an endpoint by its tokens; where only tokens have a
// price, that is what every answer pays.
typedef struct Bill {
    double device, energy, tokens; // 0: nothing to pay; `known` says whether any price applied
    bool known;
} Bill;
Bill prices_bill(const Prices *p, bool endpoint, double seconds, double joules, double tokens_in, double tokens_out);

#endif
