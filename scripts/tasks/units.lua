-- Units. Level 1: to a smaller unit; 2: to a larger one, with decimals; 3: sums of two amounts; 4: speeds, areas and volumes.
local scales = { -- of one kind, each so many of the one before
  { { "millimetres", 1 }, { "centimetres", 10 }, { "metres", 1000 }, { "kilometres", 1000000 } },
  { { "milligrams", 1 }, { "grams", 1000 }, { "kilograms", 1000000 } },
  { { "millilitres", 1 }, { "litres", 1000 } },
  { { "seconds", 1 }, { "minutes", 60 }, { "hours", 3600 }, { "days", 86400 } },
}

local function exact(numerator, denominator) -- as a decimal where it ends, else as a fraction
  if numerator % denominator == 0 then return tostring(numerator // denominator) end
  local tenths = numerator
  for places = 1, 6 do
    tenths = tenths * 10
    if tenths % denominator == 0 then
      local whole = tenths // denominator
      local unit = math.tointeger(10 ^ places)
      return string.format("%d.%0" .. places .. "d", whole // unit, whole % unit)
    end
  end
  return numerator .. "/" .. denominator
end
local function pair()
  local scale = scales[math.random(#scales)]
  local small = math.random(#scale - 1)
  local large = math.random(small + 1, math.min(#scale, small + 2))
  return scale[small], scale[large], scale[large][2] // scale[small][2]
end

local function smaller()
  local small, large, times = pair()
  local n = math.random(2, 200)
  return "How many " .. small[1] .. " are " .. n .. " " .. large[1] .. "?", n * times, n * times * 10, n .. " × " .. times .. " = " .. n * times .. "."
end
local function larger()
  local small, large, times = pair()
  local n = math.random(1, 200) * (times >= 10 and times // 10 or 1)
  local truth = exact(n, times)
  return "How many " .. large[1] .. " are " .. n .. " " .. small[1] .. "?", truth, exact(n * 10, times), n .. " / " .. times .. " = " .. truth .. "."
end
local function sum()
  local small, large, times = pair()
  local a, b = math.random(1, 20), math.random(1, 5 * times)
  local total = a * times + b
  return "How many " .. small[1] .. " are " .. a .. " " .. large[1] .. " and " .. b .. " " .. small[1] .. " together?", total, total + times,
    a .. " × " .. times .. " = " .. a * times .. ", " .. a * times .. " + " .. b .. " = " .. total .. "."
end
local function compound()
  local kind, n = math.random(3), math.random(2, 200)
  if kind == 1 then
    local speed = n * 18
    return "How many metres per second are " .. speed .. " kilometres per hour?", n * 5, n * 18, speed .. " × 1000 / 3600 = " .. n * 5 .. "."
  elseif kind == 2 then
    return "How many square centimetres are " .. n .. " square metres?", n * 10000, n * 100, "100 × 100 = 10000, " .. n .. " × 10000 = " .. n * 10000 .. "."
  end
  return "How many litres are " .. n .. " cubic metres?", n * 1000, n * 100, "A cubic metre has 1000 litres, " .. n .. " × 1000 = " .. n * 1000 .. "."
end

local kinds = { smaller, larger, sum, compound }
return {
  about = "lengths, weights, volumes, times and speeds in other units",
  levels = #kinds,
  generate = function(level)
    local prompt, truth, wrong, demonstration = kinds[level]()
    return { prompt = prompt, truth = truth, wrong = wrong, demonstration = demonstration }
  end,
}
