-- Prime factorisation. Levels 1 to 4: numbers up to 100, 400, 5,000 and 100,000. An answer counts where its factors are prime
-- and their product is the number, in any order, with ×, x or * between them.
local largest = { 100, 400, 5000, 100000 }

local function factors_of(n)
  local list, d = {}, 2
  while d * d <= n do
    while n % d == 0 do
      list[#list + 1] = d
      n = n // d
    end
    d = d + 1
  end
  if n > 1 then list[#list + 1] = n end
  return list
end

return {
  about = "the prime factors of a number",
  levels = #largest,
  distinct = { 97, 301, 4601, 95001 },
  generate = function(level)
    local number = math.random(level == 1 and 4 or largest[level - 1], largest[level])
    local factors = factors_of(number)
    local steps, rest = {}, number
    for _, f in ipairs(factors) do
      steps[#steps + 1] = rest .. " = " .. f .. " × " .. rest // f
      rest = rest // f
    end
    return {
      prompt = "Write " .. number .. " as a product of primes, such as 2 × 3 × 3.",
      truth = table.concat(factors, " × "),
      wrong = #factors == 1 and "1 × " .. number or number // factors[#factors] .. " × " .. factors[#factors] + 1,
      demonstration = table.concat(steps, ", ") .. ".",
      row = { number = number, factors = factors },
    }
  end,
  score = function(sample)
    local number = sample.row and math.tointeger(sample.row.number)
    if not number then return nil, "the row has no number" end
    local answer = sample.answer:gsub("×", "*"):gsub("[xX]", "*"):gsub("%s+", "")
    if #answer > 200 or not answer:find("^%d+[%d*]*$") or answer:find("%*%*") or answer:find("%*$") then return 0 end
    local product = 1
    for digits in answer:gmatch("%d+") do
      local f = #digits < 10 and math.tointeger(tonumber(digits))
      if not f or f < 2 or #factors_of(f) ~= 1 or product > number then return 0 end
      product = product * f
    end
    return product == number and 1 or 0
  end,
}
