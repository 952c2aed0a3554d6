-- Numbers from one base to another, digits above 9 as letters. Level 1: from binary to decimal, up to 255; 2: between bases 2,
-- 8, 10 and 16, up to 255; 3: any bases from 2 to 16, up to 4,095; 4: any from 2 to 36, up to 100,000.
local digits = "0123456789abcdefghijklmnopqrstuvwxyz"
local levels = { { 255, { 2, 10 } }, { 255, { 2, 8, 10, 16 } }, { 4095 }, { 100000 } }

local function written(n, base)
  local text = ""
  repeat
    local d = n % base + 1
    text, n = digits:sub(d, d) .. text, n // base
  until n == 0
  return text
end

local function pick(level)
  local bases = levels[level][2]
  if level == 1 then return 2, 10 end
  local from, to
  repeat
    if bases then
      from, to = bases[math.random(#bases)], bases[math.random(#bases)]
    else
      from, to = math.random(2, level == 3 and 16 or 36), math.random(2, level == 3 and 16 or 36)
    end
  until from ~= to
  return from, to
end

local function plain(text) return (text:lower():gsub("%s", ""):gsub("^0+(.)", "%1")) end

return {
  about = "a number in another base",
  levels = #levels,
  distinct = { 255, -1, -1, -1 },
  generate = function(level)
    local from, to = pick(level)
    local n = math.random(1, levels[level][1])
    local source, target, sum = written(n, from), written(n, to), {}
    for i = 1, #source do
      sum[i] = digits:find(source:sub(i, i), 1, true) - 1 .. " × " .. math.tointeger(from ^ (#source - i))
    end
    return {
      prompt = "Convert " .. source .. " from base " .. from .. " to base " .. to .. ". Write digits above 9 as lowercase letters.",
      truth = target,
      wrong = written(n + 1, to),
      demonstration = table.concat(sum, " + ") .. " = " .. n .. (to == 10 and "." or " in base 10, which is " .. target .. " in base " .. to .. "."),
      row = { decimal_value = n, source_base = from, target_base = to, source_repr = source, target_repr = target },
    }
  end,
  score = function(sample)
    local target = sample.row and sample.row.target_repr or sample.truth
    if not target then return nil, "the row has no target_repr" end
    return #sample.answer < 200 and plain(sample.answer) == plain(target) and 1 or 0
  end,
}
