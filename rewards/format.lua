-- 1 if the completion has the form its mode asks for, 0 if not.
-- think:  one thinking part, closed once, then an answer that isn't empty (the opening tag may stand in the prompt)
-- direct: no thinking tags, and an answer that isn't empty
return function(sample)
  local opened = text.count(sample.completion, "<think>")
  local closed = text.count(sample.completion, "</think>")
  if sample.answer == "" then return 0 end
  if sample.mode == "direct" then return opened + closed == 0 and 1 or 0 end
  if closed ~= 1 or opened > 1 then return 0 end
  if opened == 1 and not text.starts(text.trim(sample.completion), "<think>") then return 0 end
  return 1
end
