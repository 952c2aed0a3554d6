-- Knights always tell the truth, knaves always lie. Levels 1 to 3: two, three and four people who each say one sentence. A
-- puzzle has exactly one solution. An answer counts where it says of each person what that person is.
local names = { "Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gwen", "Hugo" }

-- Statements are { kind, person, person }; truth of one under an assignment (true: a knight).
local function holds(s, is)
  if s[1] == "knight" then return is[s[2]] end
  if s[1] == "knave" then return not is[s[2]] end
  if s[1] == "and" then return is[s[2]] and is[s[3]] end
  if s[1] == "or" then return not is[s[2]] or not is[s[3]] end
  if s[1] == "same" then return is[s[2]] == is[s[3]] end
  return is[s[2]] ~= is[s[3]] -- different
end
local function said(s, who)
  local a, b = who[s[2]], s[3] and who[s[3]]
  if s[1] == "knight" then return a .. " is a knight" end
  if s[1] == "knave" then return a .. " is a knave" end
  if s[1] == "and" then return a .. " and " .. b .. " are both knights" end
  if s[1] == "or" then return a .. " or " .. b .. " is a knave" end
  if s[1] == "same" then return a .. " and " .. b .. " are of the same kind" end
  return a .. " and " .. b .. " are of different kinds"
end
local function statement(speaker, n)
  local kinds = { "knight", "knave", "and", "or", "same", "different" }
  local kind = kinds[math.random(#kinds)]
  local a = math.random(n)
  if kind == "knight" or kind == "knave" then
    while a == speaker do a = math.random(n) end
    return { kind, a }
  end
  local b = math.random(n)
  while b == a do b = math.random(n) end
  return { kind, math.min(a, b), math.max(a, b) }
end
local function solutions(statements, n)
  local list = {}
  for bits = 0, (1 << n) - 1 do
    local is, fits = {}, true
    for i = 1, n do is[i] = bits >> (i - 1) & 1 == 1 end
    for i, s in ipairs(statements) do fits = fits and holds(s, is) == is[i] end
    if fits then list[#list + 1] = is end
  end
  return list
end
local function told(who, is)
  local parts = {}
  for i, name in ipairs(who) do parts[i] = name .. " is a " .. (is[i] and "knight" or "knave") end
  return table.concat(parts, ", ")
end

return {
  about = "who tells the truth and who lies",
  levels = 3,
  generate = function(level)
    local n, who, pool = level + 1, {}, { table.unpack(names) }
    for i = 1, n do who[i] = table.remove(pool, math.random(#pool)) end
    local statements, found
    repeat
      statements = {}
      for i = 1, n do statements[i] = statement(i, n) end
      found = solutions(statements, n)
    until #found == 1
    local is, sentences, steps, wrong = found[1], {}, {}, {}
    for i, s in ipairs(statements) do
      sentences[i] = who[i] .. ' says: "' .. said(s, who) .. '."'
      steps[i] = who[i] .. "'s sentence is " .. (holds(s, is) and "true" or "false")
      wrong[i] = is[i]
    end
    wrong[1] = not wrong[1]
    return {
      prompt = "Knights always tell the truth, knaves always lie. " .. table.concat(sentences, " ")
        .. " Who is what? Answer in the form: " .. who[1] .. " is a knight, " .. who[2] .. " is a knave" .. (n > 2 and ", ..." or ""),
      truth = told(who, is),
      wrong = told(who, wrong),
      demonstration = "If " .. told(who, is) .. ": " .. table.concat(steps, ", ") .. ", which fits; nothing else does.",
      row = { names = who, solution = is },
    }
  end,
  score = function(sample)
    local row = sample.row or {}
    if not row.names or not row.solution then return nil, "the row has no names and solution" end
    local terms = row.knight_knave_terms or {}
    local knight, knave = (terms.knight or "knight"):lower(), (terms.knave or "knave"):lower()
    local answer = " " .. sample.answer:lower():gsub("[^%w]+", " ") .. " "
    if #answer > 4000 then return 0 end
    for i, name in ipairs(row.names) do
      local at, count = 1, 0
      for role in answer:gmatch(" " .. name:lower() .. " is an? (%w+)") do
        count = count + 1
        if role ~= (row.solution[i] and knight or knave) then return 0 end
      end
      if count ~= 1 then return 0 end
    end
    return 1
  end,
}
