-- Language consistency (DeepSeek-R1): the share of letters of the thinking and the answer that are of one language.
-- A text without letters, such as bare arithmetic, is of no language: 0. Option: lang (ko, ja, zh, vi, en).
local lang = options.lang
assert(lang, "language needs the option lang: ko, ja, zh, vi or en")

return function(sample)
  local think = text.trim(sample.think)
  if text.starts(think, "<think>") then think = think:sub(8) end -- the tag is of no language
  return text.language(think .. "\n" .. sample.answer, lang)
end
