// A price sheet is small and read strictly: an unknown key, a negative price or one that isn't a number is an error, because a
// price that was overlooked makes a wrong verdict.
#include "prices.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static double stated(double value) { return value > 0 ? value : NAN; }

void prices_of_recipe(const Recipe *r, Prices *out) {
    *out = (Prices){.device_hour = stated(r->price_per_hour), .kwh = stated(r->price_per_kwh), .tokens_in = stated(r->million_tokens_in),
                    .tokens_out = stated(r->million_tokens_out), .watts = stated(r->watts)};
    bool any = isfinite(out->device_hour) || isfinite(out->kwh) || isfinite(out->tokens_in) || isfinite(out->tokens_out);
    if (any) snprintf(out->currency, sizeof out->currency, "%s", r->currency);
    snprintf(out->source, sizeof out->source, "%.255s", r->price_source ? r->price_source : "the recipe");
}

bool prices_read(const char *path, Prices *out, Err *err) {
    static const char *const names[] = {"price_per_hour", "price_per_kwh", "million_tokens_in", "million_tokens_out", "watts"};
    *out = (Prices){0};
    double *const fields[] = {&out->device_hour, &out->kwh, &out->tokens_in, &out->tokens_out, &out->watts};
    for (int i = 0; i < COUNT(fields); i++) *fields[i] = NAN;
    json_t *sheet, *value;
    TRY(json_read_file(path, 1 << 20, &sheet, err));
    bool ok = json_is_object(sheet) || fail(err, ERR_DATA, path, "expected one JSON object of prices");
    const char *key, *text;
    snprintf(out->source, sizeof out->source, "%.255s", path);
    json_object_foreach(sheet, key, value) {
        int i = 0;
        while (i < COUNT(names) && strcmp(key, names[i]) != 0) i++;
        text = json_string_value(value);
        bool words = !strcmp(key, "currency") || !strcmp(key, "source");
        if (!ok) break;
        if (words && (!text || !*text)) ok = fail(err, ERR_DATA, path, "'%s': expected a text", key);
        else if (!strcmp(key, "currency")) snprintf(out->currency, sizeof out->currency, "%s", text);
        else if (!strcmp(key, "source")) snprintf(out->source, sizeof out->source, "%.255s", text);
        else if (i == COUNT(names))
            ok = fail(err, ERR_DATA, path, "found key '%.60s', expected currency, source, price_per_hour, price_per_kwh, million_tokens_in, "
                      "million_tokens_out or watts", key);
        else if (!json_is_number(value) || !(json_number_value(value) >= 0)) ok = fail(err, ERR_DATA, path, "'%s': expected a number from 0 on", key);
        else *fields[i] = json_number_value(value);
    }
    if (ok && !out->currency[0]) ok = fail(err, ERR_DATA, path, "'currency' is missing, expected the prices' currency, such as \"EUR\"");
    json_decref(sheet);
    return ok;
}

json_t *prices_json(const Prices *p) {
    return json_pack("{s:s?,s:s?,s:o,s:o,s:o,s:o,s:o}", "currency", p->currency[0] ? p->currency : NULL, "source",
                     p->currency[0] ? p->source : NULL, "device_hour", json_number_or_name(p->device_hour), "kwh", json_number_or_name(p->kwh),
                     "million_tokens_in", json_number_or_name(p->tokens_in), "million_tokens_out", json_number_or_name(p->tokens_out), "watts",
                     json_number_or_name(p->watts));
}

double money_scale_of(double money) { return fabs(money) >= 0.05 ? 1 : fabs(money) >= 0.00002 || money == 0 ? 1e3 : 1e6; }

static double part(double price, double amount, bool *known) {
    if (!isfinite(price) || !isfinite(amount)) return 0;
    *known = true;
    return price * amount;
}
Bill prices_bill(const Prices *p, bool endpoint, double seconds, double joules, double tokens_in, double tokens_out) {
    Bill b = {0};
    bool by_device = isfinite(p->device_hour) || isfinite(p->kwh);
    if (!endpoint) {
        b.device = part(p->device_hour, seconds / 3600, &b.known);
        b.energy = part(p->kwh, joules / 3.6e6, &b.known);
    }
    if (endpoint || !by_device) b.tokens = part(p->tokens_in, tokens_in / 1e6, &b.known) + part(p->tokens_out, tokens_out / 1e6, &b.known);
    bool uncounted = (isfinite(p->tokens_in) && isnan(tokens_in)) || (isfinite(p->tokens_out) && isnan(tokens_out));
    if (uncounted && (endpoint || !by_device)) b.known = false; // half a bill is none
    return b;
}
