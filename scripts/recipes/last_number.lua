-- 1 if the last number of the answer is the truth. A model that wraps its answer in a sentence is not punished for it.
return function(sample)
  local last
  for number in sample.answer:gmatch("%-?%d+") do last = number end
  return last and verify.equal(last, sample.truth) and 1 or 0
end
