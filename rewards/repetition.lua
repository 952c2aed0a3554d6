-- Minus the share of n-grams of words that were there before, times `penalty`: 0 for a text that never repeats itself.
-- Options: n (3), penalty (1).
local n, penalty = options.n or 3, options.penalty or 1
assert(math.type(n) == "integer" and n >= 1, "repetition needs a whole n of at least 1")

return function(sample) return -penalty * shape.repetition(sample.completion, n) end
