// math: Lua's own where C is exact (floor, fmod, sqrt), our exact functions where libm picks a variant by CPU, and
// random numbers that are a function of the sample's seed. Left out: asin, acos, atan, randomseed.
#include "script.h"
#include <math.h>

static int math_exp(lua_State *L) {
    lua_pushnumber(L, exact_exp(luaL_checknumber(L, 1)));
    return 1;
}

// log(1000, 10) is 3, as it should be: a quotient that is nearly whole is whole if the base's power says so.
static int math_log(lua_State *L) {
    double x = luaL_checknumber(L, 1), result = exact_log(x);
    if (!lua_isnoneornil(L, 2)) {
        double base = luaL_checknumber(L, 2), whole;
        result /= exact_log(base);
        whole = rint(result);
        if (fabs(result - whole) < 1e-9 && fabs(whole) < 1100) {
            double power = 1;
            for (int i = 0; i < (int)fabs(whole); i++) power *= base;
            if ((whole < 0 ? 1 / power : power) == x) result = whole;
        }
    }
    lua_pushnumber(L, result);
    return 1;
}

static double check_angle(lua_State *L) {
    double x = luaL_checknumber(L, 1);
    luaL_argcheck(L, !(fabs(x) > 0x1p30), 1, "angle beyond 2^30");
    return x;
}
static int math_sin(lua_State *L) {
    double x = check_angle(L);
    lua_pushnumber(L, isnan(x) ? x : exact_sin(x));
    return 1;
}
static int math_cos(lua_State *L) {
    double x = check_angle(L);
    lua_pushnumber(L, isnan(x) ? x : exact_cos(x));
    return 1;
}
static int math_tan(lua_State *L) {
    double x = check_angle(L);
    lua_pushnumber(L, isnan(x) ? x : exact_sin(x) / exact_cos(x));
    return 1;
}

static uint64_t random_64(Random *r) {
    uint64_t high = random_next(r);
    return high << 32 | random_next(r);
}

// As in Lua: random() in [0, 1), random(m) in [1, m], random(m, n), random(0) all bits.
static int math_random(lua_State *L) {
    Random *r = &sandbox_of(L)->random;
    lua_Integer low = 1, high;
    switch (lua_gettop(L)) {
    case 0: lua_pushnumber(L, random_double(r)); return 1;
    case 1:
        high = luaL_checkinteger(L, 1);
        if (high == 0) {
            lua_pushinteger(L, (lua_Integer)random_64(r));
            return 1;
        }
        break;
    case 2:
        low = luaL_checkinteger(L, 1);
        high = luaL_checkinteger(L, 2);
        break;
    default: return luaL_error(L, "wrong number of arguments");
    }
    luaL_argcheck(L, low <= high, lua_gettop(L), "interval is empty");
    uint64_t range = (uint64_t)high - (uint64_t)low, mask = range, x;
    for (int shift = 1; shift < 64; shift *= 2) mask |= mask >> shift;
    do x = random_64(r) & mask;
    while (x > range);
    lua_pushinteger(L, (lua_Integer)((uint64_t)low + x));
    return 1;
}

void library_math(lua_State *L) {
    static const char *const taken[] = {"abs", "ceil", "floor", "fmod", "max", "min", "modf", "sqrt", "tointeger",
                                        "type", "ult", "deg", "rad", "pi", "huge", "maxinteger", "mininteger", NULL};
    static const luaL_Reg own[] = {{"exp", math_exp}, {"log", math_log}, {"sin", math_sin}, {"cos", math_cos},
                                   {"tan", math_tan}, {"random", math_random}, {NULL, NULL}};
    lua_pushcfunction(L, luaopen_math);
    lua_call(L, 0, 1);
    lua_newtable(L);
    library_take(L, -2, taken);
    luaL_setfuncs(L, own, 0);
    lua_setglobal(L, "math");
    lua_pop(L, 1);
}
