-- Checks an answer to a countdown problem: an expression over + - * / and brackets that uses each of the row's numbers at
-- most once and equals the target exactly. It is parsed and computed in fractions here; nothing of it is ever run.
-- Score 1 or 0. A row without numbers and target makes it abstain.

local LONGEST = 200 -- bytes; five numbers need far less

-- The expression's value as numerator and denominator, or nil if it isn't one.
local function value_of(text, numbers)
  local at, left = 1, {}
  for _, n in ipairs(numbers) do left[n] = (left[n] or 0) + 1 end

  local function peek()
    at = text:find("[^ ]", at) or #text + 1
    return text:sub(at, at)
  end

  local sum

  local function factor()
    if peek() == "(" then
      at = at + 1
      local a, b = sum()
      if not a or peek() ~= ")" then return nil end
      at = at + 1
      return a, b
    end
    local digits = text:match("^%d+", at)
    local n = digits and #digits <= 9 and math.tointeger(tonumber(digits))
    if not n or (left[n] or 0) == 0 then return nil end
    left[n] = left[n] - 1
    at = at + #digits
    return n, 1
  end

  local function product()
    local a, b = factor()
    while a do
      local sign = peek()
      if sign ~= "*" and sign ~= "/" then break end
      at = at + 1
      local c, d = factor()
      if not c or (sign == "/" and c == 0) then return nil end
      if sign == "/" then c, d = d, c end
      a, b = a * c, b * d
    end
    return a, b
  end

  function sum()
    local a, b = product()
    while a do
      local sign = peek()
      if sign ~= "+" and sign ~= "-" then break end
      at = at + 1
      local c, d = product()
      if not c then return nil end
      if sign == "-" then c = -c end
      a, b = a * d + c * b, b * d
    end
    return a, b
  end

  local a, b = sum()
  if not a or peek() ~= "" then return nil end
  return a, b
end

return function(sample)
  local row, answer = sample.row, sample.answer
  if not row or not row.numbers or not row.target then return nil, "the row has no numbers and target" end
  if not answer or #answer > LONGEST then return 0 end
  local a, b = value_of(answer, row.numbers)
  return (a and a == row.target * b) and 1 or 0
end
