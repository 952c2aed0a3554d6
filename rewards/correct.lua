-- 1 if the answer equals the truth (numbers, formulas, sets, units, number words: see verify), 0 if not.
return function(sample)
  if not sample.truth then return nil, "the sample has no truth to compare with" end
  return verify.equal(sample.answer, sample.truth) and 1 or 0
end
