-- DAPO's soft overlong punishment (arXiv 2503.14476, equation 13): 0 up to max - cache tokens, then falling in a
-- straight line to -1 at max tokens, -1 beyond. Options: max (tokens), cache (tokens).
local max, cache = options.max, options.cache
assert(math.type(max) and math.type(cache), "length needs the options max and cache, in tokens")
assert(cache >= 0 and max >= cache, "length needs 0 <= cache <= max")

return function(sample) return shape.soft_overlong(sample.tokens, max, cache) end
