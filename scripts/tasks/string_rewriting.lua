-- Rewriting a string: the first rule of the list that fits is applied at its first place, again and again, until none fits.
-- Levels 1 to 4: at most 3, 6, 10 and 16 steps. Every rule makes the string shorter or moves letters to their order, so it ends.
local rules = {
  { { "ba", "ab" }, { "aa", "a" }, { "bb", "b" } },
  { { "ab", "c" }, { "ca", "b" }, { "bc", "a" } },
  { { "cb", "bc" }, { "ca", "ac" }, { "ba", "ab" } },
  { { "abc", "" }, { "aa", "b" }, { "bb", "c" }, { "cc", "a" } },
  { { "xy", "z" }, { "yz", "x" }, { "zx", "y" }, { "xx", "" } },
}
local most, least = { 3, 6, 10, 16 }, { 1, 3, 6, 10 }
local lengths = { 4, 6, 9, 12 }

local function rewrite(text, list, limit)
  local steps = { text }
  for _ = 1, limit do
    local changed = false
    for _, rule in ipairs(list) do
      local from, to = text:find(rule[1], 1, true)
      if from then
        text = text:sub(1, from - 1) .. rule[2] .. text:sub(to + 1)
        changed = true
        break
      end
    end
    if not changed then return text, steps end
    steps[#steps + 1] = text
  end
  return nil
end
local function shown(text) return text == "" and "empty" or text end

return {
  about = "a string under rewriting rules",
  levels = #most,
  generate = function(level)
    for _ = 1, 1000 do
      local list = rules[math.random(#rules)]
      local letters, text = list[1][1]:find("[xyz]") and "xyz" or "abc", ""
      for _ = 1, lengths[level] + math.random(0, 1) do
        local i = math.random(3)
        text = text .. letters:sub(i, i)
      end
      local result, steps = rewrite(text, list, most[level])
      if result and #steps > least[level] then
        local told = {}
        for i, rule in ipairs(list) do told[i] = rule[1] .. " -> " .. shown(rule[2]) end
        for i, step in ipairs(steps) do steps[i] = shown(step) end
        return {
          prompt = "Rules: " .. table.concat(told, "; ") .. '. Apply the first rule of the list that fits, at its first place in the string, until none fits. '
            .. 'What remains of "' .. text .. '"? Answer "empty" if nothing does.',
          truth = shown(result),
          wrong = shown(result) .. letters:sub(1, 1),
          demonstration = table.concat(steps, ", ") .. ".",
          row = { rules = list, start = text, steps = #steps - 1 },
        }
      end
    end
    error("no string with so many steps was found")
  end,
  score = function(sample) return sample.answer:gsub("[%s\"'.]", "") == sample.truth and 1 or 0 end,
}
