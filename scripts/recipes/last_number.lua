-- 1 if the last number of the answer is the truth. A model that wraps its answer in a sentence is not punished for it; one
-- that doesn't come to an end is, or it would learn to go on until it is cut off.
return function(sample)
  if sample.finish == "length" then return 0 end
  local last
  for number in sample.answer:gmatch("%-?%d+") do last = number end
  return last and verify.equal(last, sample.truth) and 1 or 0
end
