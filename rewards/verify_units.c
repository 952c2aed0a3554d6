// What may follow a number: units that measure something, which are compared (98 cm is 0.98 m and not 98 m), and
// counters, currencies' names, particles and other words, which say nothing about the value. A word that could change
// the value makes the text no number: digits, signs, and the number words of verify_words.c never get here.
#include "verify_parts.h"
#include <string.h>

enum { LENGTH = 1, MASS, VOLUME, TIME, AREA, CUBE, SPEED, DOLLARS, WON, YEN, DONG, EUROS, POUNDS, CELSIUS, FAHRENHEIT, KELVIN, ANGLE,
       ENERGY, POWER, FORCE, PRESSURE, FREQUENCY, CURRENT, VOLTAGE, BYTES, ACCELERATION, DENSITY, RESISTANCE, RADIANS };

static const struct { const char *name; int dimension; uint32_t above, below; } units[] = {
    {"mm", LENGTH, 1, 1000}, {"cm", LENGTH, 1, 100}, {"dm", LENGTH, 1, 10}, {"m", LENGTH, 1, 1}, {"km", LENGTH, 1000, 1}, {"nm", LENGTH, 1, 1000000000},
    {"meter", LENGTH, 1, 1}, {"meters", LENGTH, 1, 1}, {"metre", LENGTH, 1, 1}, {"metres", LENGTH, 1, 1}, {"centimeter", LENGTH, 1, 100},
    {"centimeters", LENGTH, 1, 100}, {"centimetres", LENGTH, 1, 100}, {"millimeters", LENGTH, 1, 1000}, {"kilometer", LENGTH, 1000, 1},
    {"kilometers", LENGTH, 1000, 1}, {"kilometres", LENGTH, 1000, 1}, {"inch", LENGTH, 254, 10000}, {"inches", LENGTH, 254, 10000},
    {"feet", LENGTH, 3048, 10000}, {"foot", LENGTH, 3048, 10000}, {"ft", LENGTH, 3048, 10000}, {"yard", LENGTH, 9144, 10000},
    {"yards", LENGTH, 9144, 10000}, {"mile", LENGTH, 1609344, 1000}, {"miles", LENGTH, 1609344, 1000}, {"미터", LENGTH, 1, 1},
    {"센티미터", LENGTH, 1, 100}, {"킬로미터", LENGTH, 1000, 1}, {"밀리미터", LENGTH, 1, 1000}, {"メートル", LENGTH, 1, 1}, {"センチメートル", LENGTH, 1, 100},
    {"センチ", LENGTH, 1, 100}, {"キロメートル", LENGTH, 1000, 1}, {"mét", LENGTH, 1, 1},
    {"g", MASS, 1, 1}, {"kg", MASS, 1000, 1}, {"mg", MASS, 1, 1000}, {"gram", MASS, 1, 1}, {"grams", MASS, 1, 1}, {"kilogram", MASS, 1000, 1},
    {"kilograms", MASS, 1000, 1}, {"t", MASS, 1000000, 1}, {"tons", MASS, 1000000, 1}, {"tonnes", MASS, 1000000, 1}, {"lb", MASS, 45359237, 100000},
    {"lbs", MASS, 45359237, 100000}, {"pound", MASS, 45359237, 100000}, {"pounds", MASS, 45359237, 100000}, {"oz", MASS, 45359237, 1600000},
    {"ounces", MASS, 45359237, 1600000}, {"그램", MASS, 1, 1}, {"킬로그램", MASS, 1000, 1}, {"グラム", MASS, 1, 1}, {"キログラム", MASS, 1000, 1},
    {"ml", VOLUME, 1, 1000}, {"mL", VOLUME, 1, 1000}, {"cl", VOLUME, 1, 100}, {"dL", VOLUME, 1, 10}, {"l", VOLUME, 1, 1}, {"L", VOLUME, 1, 1},
    {"liter", VOLUME, 1, 1}, {"liters", VOLUME, 1, 1}, {"litre", VOLUME, 1, 1}, {"litres", VOLUME, 1, 1}, {"milliliters", VOLUME, 1, 1000},
    {"리터", VOLUME, 1, 1}, {"밀리리터", VOLUME, 1, 1000}, {"リットル", VOLUME, 1, 1}, {"lít", VOLUME, 1, 1},
    {"s", TIME, 1, 1}, {"sec", TIME, 1, 1}, {"second", TIME, 1, 1}, {"seconds", TIME, 1, 1}, {"ms", TIME, 1, 1000}, {"min", TIME, 60, 1},
    {"mins", TIME, 60, 1}, {"minute", TIME, 60, 1}, {"minutes", TIME, 60, 1}, {"h", TIME, 3600, 1}, {"hr", TIME, 3600, 1}, {"hrs", TIME, 3600, 1},
    {"hour", TIME, 3600, 1}, {"hours", TIME, 3600, 1}, {"day", TIME, 86400, 1}, {"days", TIME, 86400, 1}, {"week", TIME, 604800, 1},
    {"weeks", TIME, 604800, 1}, {"일", TIME, 86400, 1}, {"日", TIME, 86400, 1}, {"日間", TIME, 86400, 1}, {"ngày", TIME, 86400, 1}, {"주", TIME, 604800, 1}, {"週間", TIME, 604800, 1}, {"tuần", TIME, 604800, 1}, {"초", TIME, 1, 1}, {"분", TIME, 60, 1}, {"시간", TIME, 3600, 1}, {"秒", TIME, 1, 1}, {"分", TIME, 60, 1},
    {"時間", TIME, 3600, 1}, {"giây", TIME, 1, 1}, {"phút", TIME, 60, 1}, {"giờ", TIME, 3600, 1}, {"tiếng", TIME, 3600, 1},
    {"mm^2", AREA, 1, 1000000}, {"cm^2", AREA, 1, 10000}, {"m^2", AREA, 1, 1}, {"km^2", AREA, 1000000, 1}, {"ha", AREA, 10000, 1},
    {"squarecentimeters", AREA, 1, 10000}, {"squaremeters", AREA, 1, 1}, {"sqcm", AREA, 1, 10000}, {"sqm", AREA, 1, 1}, {"제곱미터", AREA, 1, 1},
    {"제곱센티미터", AREA, 1, 10000}, {"平方メートル", AREA, 1, 1}, {"平方センチメートル", AREA, 1, 10000}, {"squarefeet", AREA, 9290304, 100000000},
    {"squareinches", AREA, 64516, 100000000}, {"cm^3", CUBE, 1, 1000000}, {"m^3", CUBE, 1, 1}, {"mm^3", CUBE, 1, 1000000000},
    {"cubiccentimeters", CUBE, 1, 1000000}, {"cubicmeters", CUBE, 1, 1}, {"세제곱센티미터", CUBE, 1, 1000000}, {"세제곱미터", CUBE, 1, 1},
    {"立方センチメートル", CUBE, 1, 1000000},
    {"m/s", SPEED, 1, 1}, {"ms^-1", SPEED, 1, 1}, {"km/h", SPEED, 1000, 3600}, {"kmh^-1", SPEED, 1000, 3600}, {"km/s", SPEED, 1000, 1},
    {"mph", SPEED, 1609344, 3600000}, {"kmph", SPEED, 1000, 3600}, {"kph", SPEED, 1000, 3600}, {"cm/s", SPEED, 1, 100}, {"m/min", SPEED, 1, 60},
    {"m/s^2", ACCELERATION, 1, 1}, {"ms^-2", ACCELERATION, 1, 1},
    {"dollars", DOLLARS, 1, 1}, {"dollar", DOLLARS, 1, 1}, {"USD", DOLLARS, 1, 1}, {"cents", DOLLARS, 1, 100}, {"달러", DOLLARS, 1, 1}, {"ドル", DOLLARS, 1, 1},
    {"won", WON, 1, 1}, {"원", WON, 1, 1}, {"KRW", WON, 1, 1}, {"yen", YEN, 1, 1}, {"円", YEN, 1, 1}, {"엔", YEN, 1, 1}, {"JPY", YEN, 1, 1},
    {"dong", DONG, 1, 1}, {"đồng", DONG, 1, 1}, {"VND", DONG, 1, 1}, {"đ", DONG, 1, 1}, {"euros", EUROS, 1, 1}, {"euro", EUROS, 1, 1}, {"EUR", EUROS, 1, 1},
    {"poundssterling", POUNDS, 1, 1},
    {"°C", CELSIUS, 1, 1}, {"C", CELSIUS, 1, 1}, {"degreesCelsius", CELSIUS, 1, 1}, {"°F", FAHRENHEIT, 1, 1}, {"F", FAHRENHEIT, 1, 1},
    {"degreesFahrenheit", FAHRENHEIT, 1, 1}, {"K", KELVIN, 1, 1}, {"degrees", ANGLE, 1, 1}, {"degree", ANGLE, 1, 1}, {"deg", ANGLE, 1, 1}, {"rad", RADIANS, 1, 1}, {"radian", RADIANS, 1, 1}, {"radians", RADIANS, 1, 1}, {"도", ANGLE, 1, 1},
    {"度", ANGLE, 1, 1}, {"độ", ANGLE, 1, 1}, {"J", ENERGY, 1, 1}, {"kJ", ENERGY, 1000, 1}, {"joules", ENERGY, 1, 1}, {"W", POWER, 1, 1}, {"kW", POWER, 1000, 1},
    {"watts", POWER, 1, 1}, {"N", FORCE, 1, 1}, {"newtons", FORCE, 1, 1}, {"Pa", PRESSURE, 1, 1}, {"kPa", PRESSURE, 1000, 1}, {"Hz", FREQUENCY, 1, 1},
    {"kHz", FREQUENCY, 1000, 1}, {"A", CURRENT, 1, 1}, {"V", VOLTAGE, 1, 1}, {"MB", BYTES, 1000000, 1}, {"GB", BYTES, 1000000000, 1}, {"KB", BYTES, 1000, 1},
    {"bytes", BYTES, 1, 1}, {"g/cm^3", DENSITY, 1, 1}, {"\xCE\xA9", RESISTANCE, 1, 1},
    {"percent", UNIT_PERCENT, 1, 100}, {"percents", UNIT_PERCENT, 1, 100}, {"퍼센트", UNIT_PERCENT, 1, 100}, {"프로", UNIT_PERCENT, 1, 100},
    {"パーセント", UNIT_PERCENT, 1, 100}, {"phầntrăm", UNIT_PERCENT, 1, 100}, {"％", UNIT_PERCENT, 1, 100},
};

// Particles and endings that follow a unit: 98개입니다, 98円です.
static const char *const endings[] = {"입니다", "이다", "이에요", "예요", "이며", "이고", "개의", "의", "가", "이", "은", "는", "을", "를", "로", "으로", "です", "だ", "である", "になる"};

// Words without the dressing of LaTeX: no braces, backslashes, blanks or formatting commands.
static size_t undress(TextSpan t, char *out, size_t size) {
    static const char *const dropped[] = {"\\text", "\\mathrm", "\\textrm", "\\mbox", "\\operatorname", "\\rm", "\\,", "\\;", "\\:", "\\!", "\\ ",
                                          "\\cdot", "{", "}", "$", "~", "\\left", "\\right", "\\quad", "*", "\\)", "\\]"};
    size_t n = 0;
    while (t.size && n + 4 < size) {
        size_t skip = *t.data == ' ' || *t.data == '\n' || *t.data == '\t';
        for (int i = 0; i < COUNT(dropped) && !skip; i++) {
            size_t k = strlen(dropped[i]);
            if (t.size >= k && memcmp(t.data, dropped[i], k) == 0) skip = k;
        }
        if (!skip && t.size >= 2 && (unsigned char)t.data[0] == 0xC2 && ((unsigned char)t.data[1] == 0xB2 || (unsigned char)t.data[1] == 0xB3)) {
            out[n++] = '^', out[n++] = (unsigned char)t.data[1] == 0xB2 ? '2' : '3'; // ² ³
            skip = 2;
        }
        if (!skip) out[n++] = *t.data, skip = 1;
        t.data += skip, t.size -= skip;
    }
    out[n] = 0;
    return t.size ? 0 : n;
}

static bool find_unit(Work *w, const char *name, size_t size, Unit *out) {
    Rational below;
    for (int i = 0; i < COUNT(units); i++)
        if (strlen(units[i].name) == size && memcmp(units[i].name, name, size) == 0) {
            out->dimension = units[i].dimension;
            return rational_whole(w, units[i].above, &out->factor) && rational_whole(w, units[i].below, &below) &&
                   rational_divide(w, &out->factor, &below, &out->factor);
        }
    return false;
}

static bool ends_with(const char *s, size_t n, const char *end, size_t *cut) {
    size_t k = strlen(end);
    if (n <= k || memcmp(s + n - k, end, k) != 0) return false;
    *cut = n - k;
    return true;
}

bool unit_read(Work *w, TextSpan text, Unit *out) {
    char name[120];
    *out = (Unit){0};
    if (text.size > 100 || !work_step(w, 4)) return false;
    size_t n = undress(text, name, sizeof name), cut;
    if (!n) return false;
    while (n && strchr(".!?", name[n - 1])) name[--n] = 0;
    if (n > 2 && name[0] == '(' && name[n - 1] == ')') memmove(name, name + 1, n -= 2), name[n] = 0;
    if (!n) return false;
    if (find_unit(w, name, n, out)) return true;
    for (int i = 0; i < COUNT(endings); i++)
        if (ends_with(name, n, endings[i], &cut) && find_unit(w, name, cut, out)) return true;
    // Other words: letters, marks of their own, exponents and slashes of compound units.
    unsigned char first = (unsigned char)name[0];
    bool letters = (first | 32) >= 'a' && (first | 32) <= 'z';
    if (!letters && first < 0x80) return false;
    if (first == 0xE2 || (first == 0xC2 && (unsigned char)name[1] != 0xB0)) return false; // signs of mathematics
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool fine = (c & 0x80) || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("/^-'.,()", c) || (c >= '0' && c <= '9' && i && strchr("^-", name[i - 1]));
        if (!fine) return false;
        if (c == '\\') return false;
    }
    return text.size > 1; // a single letter is a symbol, unless it is a unit
}

TextSpan without_ending(TextSpan t) {
    size_t cut;
    while (t.size && (strchr(" .\n*", t.data[t.size - 1]) || (t.size > 3 && memcmp(t.data + t.size - 3, "。", 3) == 0))) t.size -= t.data[t.size - 1] & 0x80 ? 3 : 1;
    for (int i = 0; i < COUNT(endings); i++)
        if (ends_with(t.data, t.size, endings[i], &cut)) return (TextSpan){t.data, cut};
    return t;
}

bool unit_is_letter_unit(TextSpan word) {
    static const char *const known[] = {"m", "g", "s", "h", "L", "l", "t", "J", "W", "N", "K", "C", "F", "A", "V", "cm", "mm", "km", "kg", "mg", "ml",
                                        "mL", "dL", "ft", "in", "lb", "lbs", "oz", "hr", "hrs", "min", "sec", "ms", "kJ", "kW", "Hz", "kHz", "Pa",
                                        "kPa", "MB", "GB", "KB", "mph", "kph", "won", "yen", "USD", "KRW", "JPY", "VND", "EUR", "ha", "day", "deg", "sq", "mol"};
    for (int i = 0; i < COUNT(known); i++)
        if (word.size == strlen(known[i]) && memcmp(word.data, known[i], word.size) == 0) return true;
    return false;
}
