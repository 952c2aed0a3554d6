-- How often a letter stands in a text. Level 1: one word; 2: three words; 3: six; 4: twelve.
local words = {
  "strawberry", "banana", "committee", "parallel", "mississippi", "balloon", "coffee", "address", "necessary", "tomorrow", "raspberry",
  "success", "occurrence", "embarrass", "millennium", "possession", "cinnamon", "accommodate", "bookkeeper", "grasshopper", "settlement",
  "umbrella", "sunflower", "elephant", "vegetable", "anniversary", "restaurant", "temperature", "calendar", "university", "mountain",
}
local counts = { 1, 3, 6, 12 }

return {
  about = "how often a letter occurs in a text",
  levels = #counts,
  generate = function(level)
    local span, steps, total = {}, {}, 0
    for i = 1, counts[level] do span[i] = words[math.random(#words)] end
    local from = span[math.random(#span)]
    local at = math.random(#from)
    local letter = from:sub(at, at)
    for i, word in ipairs(span) do
      local _, n = word:gsub(letter, "")
      total = total + n
      steps[i] = word .. " " .. n
    end
    local text = table.concat(span, " ")
    return {
      prompt = 'How many times does the letter "' .. letter .. '" appear in the text: "' .. text .. '"?',
      truth = total,
      wrong = total + 1,
      demonstration = table.concat(steps, ", ") .. (#span > 1 and ", together " .. total .. "." or "."),
      row = { span = span, target_letter = letter },
    }
  end,
}
