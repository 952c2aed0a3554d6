-- The next number of a sequence. Level 1: adding a number; 2: multiplying, or adding two numbers in turn; 3: differences that
-- grow, or the sum of the two before; 4: multiplying and adding, or two sequences interleaved.
local function adding() local a, d = math.random(-20, 50), math.random(2, 15) * (math.random(2) * 2 - 3)
  return function(i) return a + d * (i - 1) end, "add " .. d end
local function multiplying() local a, q = math.random(1, 9), math.random(2, 4)
  return function(i) return a * math.tointeger(q ^ (i - 1)) end, "multiply by " .. q end
local function in_turn() local a, d, e = math.random(0, 30), math.random(1, 9), math.random(10, 20)
  return function(i) return a + (i // 2) * d + ((i - 1) // 2) * e end, "add " .. d .. " and " .. e .. " in turn" end
local function growing() local a, d, g = math.random(0, 20), math.random(1, 6), math.random(1, 5)
  return function(i) return a + d * (i - 1) + g * (i - 1) * (i - 2) // 2 end, "the differences grow by " .. g end
local function two_before() local a, b = math.random(1, 9), math.random(1, 9)
  return function(i)
    local x, y = a, b
    for _ = 2, i do x, y = y, x + y end
    return x
  end, "add the two numbers before" end
local function affine() local a, q, d = math.random(1, 6), math.random(2, 3), math.random(1, 7)
  return function(i)
    local x = a
    for _ = 2, i do x = x * q + d end
    return x
  end, "multiply by " .. q .. " and add " .. d end
local function interleaved() local f = adding() local g = growing()
  return function(i) return i % 2 == 1 and f((i + 1) // 2) or g(i // 2) end, "every other number is of the same sequence" end

local kinds = { { adding }, { multiplying, in_turn }, { growing, two_before }, { affine, interleaved } }
return {
  about = "the next number of a sequence",
  levels = #kinds,
  generate = function(level)
    local at, rule = kinds[level][math.random(#kinds[level])]()
    local shown, list = level == 4 and 8 or 6, {}
    for i = 1, shown do list[i] = at(i) end
    local sequence = { table.unpack(list) }
    sequence[shown + 1] = at(shown + 1)
    return {
      prompt = "What comes next: " .. table.concat(list, ", ") .. ", ?",
      truth = at(shown + 1),
      wrong = at(shown + 1) + 1,
      demonstration = "The rule: " .. rule .. ".",
      row = { sequence = sequence, rule = rule },
    }
  end,
}
