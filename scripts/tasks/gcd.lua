-- The greatest common divisor of whole numbers. Level 1: two up to 50; 2: two up to 1,000; 3: three up to 1,000; 4: two up
-- to 100,000. The chain of thought is Euclid's algorithm.
local sizes = { { 2, 50, 12 }, { 2, 1000, 60 }, { 3, 1000, 60 }, { 2, 100000, 500 } } -- numbers, largest, largest common factor

local function euclid(a, b, steps)
  while b > 0 do
    steps[#steps + 1] = a .. " mod " .. b .. " = " .. a % b
    a, b = b, a % b
  end
  return a
end

return {
  about = "the greatest common divisor of two or three numbers",
  levels = #sizes,
  generate = function(level)
    local count, largest, factor = table.unpack(sizes[level])
    local common, numbers = math.random(1, factor), {}
    for i = 1, count do numbers[i] = common * math.random(1, largest // common) end
    local divisor, steps = numbers[1], {}
    for i = 2, count do divisor = euclid(math.max(divisor, numbers[i]), math.min(divisor, numbers[i]), steps) end
    local sorted = table.pack(table.unpack(numbers))
    table.sort(sorted)
    return {
      prompt = "What is the greatest common divisor of " .. table.concat(numbers, ", ", 1, count - 1) .. " and " .. numbers[count] .. "?",
      truth = divisor,
      wrong = divisor + 1,
      demonstration = table.concat(steps, ", ") .. ", so it is " .. divisor .. ".",
      identity = table.concat(sorted, ","),
      row = { numbers = numbers },
    }
  end,
}
