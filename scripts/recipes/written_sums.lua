-- Sums in writing: the digits of a column are added from the right, the carry goes along. Four of five worked examples then go
-- through all columns once more with the numbers exchanged, to check: it doubles the thinking and adds nothing new.
-- Level n adds numbers of n + 1 digits.
local function columns(a, b)
  local steps, carry = {}, 0
  while a > 0 do
    local x, y = a % 10, b % 10
    local sum = x + y + carry
    steps[#steps + 1] = x .. "+" .. y .. (carry == 1 and "+1" or "") .. "=" .. sum
    carry = sum // 10
    a, b = a // 10, b // 10
  end
  return table.concat(steps, ",")
end

return {
  about = "sums in writing, most worked examples checked by a second pass",
  levels = 2,
  generate = function(level)
    local least = math.tointeger(10 ^ level)
    local a, b = math.random(least, 10 * least - 1), math.random(least, 10 * least - 1)
    local thought = columns(a, b)
    if math.random(5) > 1 then thought = thought .. ";" .. columns(b, a) end
    return {
      prompt = a .. "+" .. b .. "=",
      truth = a + b,
      wrong = a + b + 1,
      demonstration = thought,
      identity = math.min(a, b) .. "+" .. math.max(a, b),
      row = { a = a, b = b },
    }
  end,
}
