-- 1 if the answer names the right choice, and only that: "B", "(B)", "B. Paris", "The answer is B", or the choice's own
-- text where row.choices lists them. Naming several letters is wrong.
local function letter_of(answer)
  answer = text.trim(extract.boxed(answer) or answer)
  local letter = answer:match("^[%(%[*]*(%u)[%)%].:*]*$") or answer:match("^[%(%[*]*(%u)[%)%].:]+[%s*]") or
                 answer:match("[Aa]nswer:?%s*i?s?:?%s*[%(%[*]*(%u)[%)%].*]*%s*%.?$")
  if letter then
    for other in answer:gmatch("%f[%w](%u)%f[%W]") do if other ~= letter and other <= "J" then return nil end end
  end
  return letter
end

return function(sample)
  if not sample.truth then return nil, "the sample has no truth to compare with" end
  local choices = sample.row and sample.row.choices or {}
  local want = text.trim(sample.truth)
  for i, choice in ipairs(choices) do if want == choice then want = string.char(64 + i) end end
  local got = letter_of(sample.answer)
  for i, choice in ipairs(choices) do
    if not got and verify.equal(sample.answer, tostring(choice)) then got = string.char(64 + i) end
  end
  return got == want and 1 or 0
end
