-- Cosine length scaling (arXiv 2502.03373): a right answer earns less the longer it is, a wrong one loses less, so that
-- hard questions get more thought and easy ones less. Options: max (tokens), and the values at length 0 and at max:
-- right_short (1), right_long (0.5), wrong_short (-1), wrong_long (-0.5).
local max = options.max
assert(math.type(max) and max > 0, "cosine needs the option max, in tokens")
local right_short, right_long = options.right_short or 1, options.right_long or 0.5
local wrong_short, wrong_long = options.wrong_short or -1, options.wrong_long or -0.5

return function(sample)
  if not sample.truth then return nil, "the sample has no truth to compare with" end
  if verify.equal(sample.answer, sample.truth) then return shape.cosine(sample.tokens, max, right_short, right_long) end
  return shape.cosine(sample.tokens, max, wrong_short, wrong_long)
end
