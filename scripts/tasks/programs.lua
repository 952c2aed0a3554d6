-- What a small program prints. Level 1: assignments; 2: a loop; 3: a loop with a condition; 4: nested loops or a function that
-- calls itself. The programs are Lua; the answer is worked out here, not by running them.
local function assignments()
  local a, b, c = math.random(2, 20), math.random(2, 20), math.random(2, 9)
  local x, y = a + b, (a + b) * c
  return "a = " .. a .. "\nb = a + " .. b .. "\nc = b * " .. c .. "\nprint(c - a)", y - a,
    "b = " .. x .. ", c = " .. y .. ", c - a = " .. y - a .. "."
end
local function loop()
  local x, n, q, d = math.random(1, 5), math.random(3, 5), math.random(2, 3), math.random(1, 6)
  local start, steps = x, {}
  for i = 1, n do
    x = x * q - d
    steps[i] = tostring(x)
  end
  return "x = " .. start .. "\nfor i = 1, " .. n .. " do\n  x = x * " .. q .. " - " .. d .. "\nend\nprint(x)", x, "x becomes " .. table.concat(steps, ", ") .. "."
end
local function condition()
  local n, m, d = math.random(5, 12), math.random(2, 4), math.random(2, 9)
  local sum, steps = 0, {}
  for i = 1, n do
    if i % m == 0 then sum = sum + i * d else sum = sum + 1 end
    steps[i] = tostring(sum)
  end
  return "s = 0\nfor i = 1, " .. n .. " do\n  if i % " .. m .. " == 0 then\n    s = s + i * " .. d .. "\n  else\n    s = s + 1\n  end\nend\nprint(s)", sum,
    "s becomes " .. table.concat(steps, ", ") .. "."
end
local function nested()
  local n, m, steps, sum = math.random(3, 6), math.random(2, 6), {}, 0
  for i = 1, n do
    for j = i, m do sum = sum + i * j end
    steps[i] = tostring(sum)
  end
  return "s = 0\nfor i = 1, " .. n .. " do\n  for j = i, " .. m .. " do\n    s = s + i * j\n  end\nend\nprint(s)", sum, "s after each round: " .. table.concat(steps, ", ") .. "."
end
local function recursive()
  local n, d, q = math.random(3, 8), math.random(1, 9), math.random(2, 3)
  local value, steps = d, {}
  for i = 1, n do
    value = value * q + i
    steps[i] = "f(" .. i .. ") = " .. value
  end
  return "function f(n)\n  if n == 0 then return " .. d .. " end\n  return f(n - 1) * " .. q .. " + n\nend\nprint(f(" .. n .. "))", value, table.concat(steps, ", ") .. "."
end

local kinds = { { assignments }, { loop }, { condition }, { nested, recursive } }
return {
  about = "what a small program prints",
  levels = #kinds,
  distinct = { 2888, 180, 192, 128 },
  generate = function(level)
    local code, truth, demonstration = kinds[level][math.random(#kinds[level])]()
    return { prompt = "What does this Lua program print?\n" .. code, truth = truth, wrong = truth + 1, demonstration = demonstration, row = { code = code } }
  end,
}
