-- 1 if the answer is the truth (as a number where both are numbers, else as text), 0 if not.
return function(sample)
  if not sample.truth then return nil, "the sample has no truth to compare with" end
  return verify.equal(sample.answer, sample.truth) and 1 or 0
end
