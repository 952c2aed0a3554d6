-- People in houses in a row, with pets and drinks, told by clues that leave one possibility. Level 1: three houses and pets; 2:
-- three houses, pets and drinks; 3: four houses and pets; 4: four houses, pets and drinks. Asked is who has something.
local people = { "Ada", "Bo", "Cy", "Dee", "Eli", "Flo" }
local things = { { "cat", "dog", "fish", "bird", "mouse" }, { "tea", "milk", "juice", "water", "cocoa" } }
local shapes = { { 3, 1 }, { 3, 2 }, { 4, 1 }, { 4, 2 } }

local function shuffled(list, n)
  local pool, out = { table.unpack(list) }, {}
  for i = 1, n do out[i] = table.remove(pool, math.random(#pool)) end
  return out
end
local function permutations(n)
  local all, current, used = {}, {}, {}
  local function go(i)
    if i > n then
      all[#all + 1] = { table.unpack(current) }
      return
    end
    for v = 1, n do
      if not used[v] then
        used[v], current[i] = true, v
        go(i + 1)
        used[v] = false
      end
    end
  end
  go(1)
  return all
end

-- A clue speaks of two things {group, number}: group 0 are the people, whose houses stand in where[0].
local function true_of(clue, where)
  local a = where[clue.a[1]][clue.a[2]]
  if clue.kind == "at" then return a == clue.house end
  local b = where[clue.b[1]][clue.b[2]]
  if clue.kind == "same" then return a == b end
  if clue.kind == "left" then return a == b - 1 end
  return a < b -- before
end
local function clues_of(where, groups, n)
  local all, any = {}, {}
  for g = 0, groups do
    for i = 1, n do any[#any + 1] = { g, i } end
  end
  for _, a in ipairs(any) do
    all[#all + 1] = { kind = "at", a = a, house = where[a[1]][a[2]] }
    for _, b in ipairs(any) do
      local x, y = where[a[1]][a[2]], where[b[1]][b[2]]
      if a[1] < b[1] and x == y then all[#all + 1] = { kind = "same", a = a, b = b } end
      if x == y - 1 then all[#all + 1] = { kind = "left", a = a, b = b } end
      if x < y - 1 then all[#all + 1] = { kind = "before", a = a, b = b } end
    end
  end
  return shuffled(all, #all)
end

return {
  about = "who has what, from clues about houses in a row",
  levels = #shapes,
  generate = function(level)
    local n, groups = table.unpack(shapes[level])
    local who, where, names, orders = shuffled(people, n), {}, {}, permutations(n)
    for g = 0, groups do
      where[g] = orders[math.random(#orders)]
      names[g] = g == 0 and who or shuffled(things[g], n)
    end
    local worlds = {} -- all that is possible before any clue
    for _, p in ipairs(orders) do
      for _, q in ipairs(orders) do
        if groups == 1 then worlds[#worlds + 1] = { [0] = p, q }
        else
          for _, r in ipairs(orders) do worlds[#worlds + 1] = { [0] = p, q, r } end
        end
      end
    end
    local chosen = {}
    for _, clue in ipairs(clues_of(where, groups, n)) do
      local left = {}
      for _, world in ipairs(worlds) do
        if true_of(clue, world) then left[#left + 1] = world end
      end
      if #left < #worlds then chosen[#chosen + 1], worlds = clue, left end
      if #worlds == 1 then break end
    end
    local function owner(t)
      if t[1] == 0 then return names[0][t[2]] end
      return "the person with the " .. names[t[1]][t[2]]
    end
    local said = {}
    for i, c in ipairs(chosen) do
      local a, text = owner(c.a), nil
      if c.kind == "at" then text = a .. " lives in house " .. c.house
      elseif c.kind == "same" then text = a .. " has the " .. names[c.b[1]][c.b[2]]
      elseif c.kind == "left" then text = a .. " lives directly left of " .. owner(c.b)
      else text = a .. " lives somewhere left of " .. owner(c.b) end
      said[i] = text:sub(1, 1):upper() .. text:sub(2) .. "."
    end
    local g = math.random(groups)
    local asked, truth, other, steps = math.random(n), nil, nil, {}
    for i = 1, n do
      if where[0][i] == where[g][asked] then truth = who[i] else other = who[i] end
      for group = 1, groups do
        for k = 1, n do
          if where[group][k] == where[0][i] then steps[#steps + 1] = "house " .. where[0][i] .. ": " .. who[i] .. ", " .. names[group][k] end
        end
      end
    end
    table.sort(steps)
    local listed = {}
    for group = 1, groups do listed[group] = "the " .. table.concat(names[group], ", ") end
    return {
      prompt = "Houses 1 to " .. n .. " stand in a row, from left to right. " .. table.concat(who, ", ", 1, n - 1) .. " and " .. who[n] .. " live in them, one in each. Each has one of " .. table.concat(listed, ", and one of ")
        .. ". " .. table.concat(said, " ") .. " Who has the " .. names[g][asked] .. "?",
      truth = truth,
      wrong = other,
      demonstration = table.concat(steps, "; ") .. ".",
      row = { people = who },
    }
  end,
  score = function(sample)
    local found
    for _, name in ipairs(sample.row and sample.row.people or { sample.truth }) do
      if (" " .. sample.answer:gsub("%W", " ") .. " "):find(" " .. name .. " ", 1, true) then
        if found then return 0 end
        found = name
      end
    end
    return found == sample.truth and 1 or 0
  end,
}
