-- What an answer is worth less what it cost: `value` (1) if it is right, minus `price` a token. The two parts stand
-- apart on the ledger. Options: price (0.001), value.
local price, value = options.price or 0.001, options.value or 1

return function(sample)
  if not sample.truth then return nil, "the sample has no truth to compare with" end
  return { right = verify.equal(sample.answer, sample.truth) and value or 0, cost = -price * sample.tokens }
end
