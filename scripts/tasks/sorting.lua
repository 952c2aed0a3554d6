-- Sorting a list, up or down. Levels 1 to 3: 4, 7 and 12 whole numbers; 4: six numbers with decimals, some negative; 5: six
-- words. The answer is the list with commas between; quotes and brackets around it don't matter.
local words = {
  "apple", "river", "stone", "cloud", "lemon", "tiger", "paper", "music", "garden", "winter", "silver", "candle", "bridge", "forest",
  "rabbit", "yellow", "orange", "planet", "window", "basket", "doctor", "engine", "finger", "hammer", "island", "jacket", "kettle", "ladder",
}
local sizes = { 4, 7, 12, 6, 6 }

local function items_of(level)
  local items, taken = {}, {}
  while #items < sizes[level] do
    local item
    if level == 5 then item = words[math.random(#words)]
    elseif level == 4 then item = string.format("%.2f", math.random(-9999, 9999) / 100)
    else item = tostring(math.random(0, level == 1 and 99 or 999)) end
    if not taken[item] then
      taken[item] = true
      items[#items + 1] = item
    end
  end
  return items
end

local function sorted_copy(items, down)
  local copy, numbers = { table.unpack(items) }, tonumber(items[1]) ~= nil
  table.sort(copy, function(a, b)
    if numbers then a, b = tonumber(a), tonumber(b) end
    if down then a, b = b, a end
    return a < b
  end)
  return copy
end

local function list_of(text)
  local list = {}
  for item in (text:gsub("[%[%]{}'\"“”‘’]", "") .. ","):gmatch("%s*(.-)%s*,") do list[#list + 1] = item end
  return list
end

return {
  about = "a list in order: numbers, decimals, words",
  levels = #sizes,
  generate = function(level)
    local items, down = items_of(level), math.random(2) == 2
    local sorted = sorted_copy(items, down)
    local steps, left = {}, { table.unpack(items) }
    for i, item in ipairs(sorted) do steps[i] = (i == 1 and "first " or "then ") .. item end
    local wrong = { table.unpack(sorted) }
    wrong[1], wrong[2] = wrong[2], wrong[1]
    local direction = down and "descending" or "ascending"
    return {
      prompt = "Sort in " .. direction .. " order, with commas between: " .. table.concat(left, ", "),
      truth = table.concat(sorted, ", "),
      wrong = table.concat(wrong, ", "),
      demonstration = table.concat(steps, ", ") .. ".",
      identity = direction .. table.concat(sorted_copy(items), ","),
      row = { items = items, direction = direction, sorted = sorted },
    }
  end,
  score = function(sample)
    local row = sample.row or {}
    local want = row.sorted or row.sorted_numbers or row.sorted_words
    if not want then return nil, "the row has no sorted list" end
    if #sample.answer > 4000 then return 0 end
    local got = list_of(sample.answer)
    if #got ~= #want then return 0 end
    for i, item in ipairs(want) do
      local a, b = tonumber(got[i]), tonumber(item)
      if got[i] ~= tostring(item) and not (a and b and a == b) then return 0 end
    end
    return 1
  end,
}
