-- An environment: the model may use a calculator between its thoughts. It writes <calc>12*(3+4)</calc>, the script goes on
-- with <result>84</result>, and the model thinks on. 1 if the answer of its last turn equals the truth, minus `price` for
-- each call. Options: calls (at most, 8), price (0).
local calls = options.calls or 8

-- Numbers, + - * / and brackets, by recursive descent; nil and a reason where it isn't that.
local function calculate(source)
  local at, depth = 1, 0
  local function peek()
    at = source:find("[^ ]", at) or #source + 1
    return source:sub(at, at)
  end
  local sum
  local function factor()
    local sign = peek()
    if sign == "-" or sign == "(" then
      at, depth = at + 1, depth + 1
      if depth > 50 then return nil end
      local value
      if sign == "-" then
        value = factor()
        value = value and -value
      else
        value = sum()
        if not value or peek() ~= ")" then return nil end
        at = at + 1
      end
      depth = depth - 1
      return value
    end
    local digits = source:match("^%d+%.?%d*", at)
    if not digits then return nil end
    at = at + #digits
    return math.tointeger(tonumber(digits)) or tonumber(digits)
  end
  local function product()
    local value = factor()
    while value and (peek() == "*" or peek() == "/") do
      local sign = peek()
      at = at + 1
      local other = factor()
      if not other or (sign == "/" and other == 0) then return nil end
      value = sign == "*" and value * other or value / other
    end
    return value
  end
  function sum()
    local value = product()
    while value and (peek() == "+" or peek() == "-") do
      local sign = peek()
      at = at + 1
      local other = product()
      if not other then return nil end
      value = sign == "+" and value + other or value - other
    end
    return value
  end
  local value = sum()
  if not value or peek() ~= "" or value ~= value or math.abs(value) == math.huge then return nil end
  return math.tointeger(value) or value
end

local function reset(_, sample)
  return { truth = sample.truth, question = sample.prompt, thinks = sample.mode == "think", calls = 0 }
end

local function step(state, action, turn)
  if not state.truth then return nil, "the sample has no truth to compare with" end
  local source = action:match("<calc>([^<]*)</calc>$")
  if source and not turn.last and state.calls < calls then
    local value = calculate(source)
    state.calls = state.calls + 1
    state.result = value
    if action:find("</think>", 1, true) then state.thinks = false end
    return state, ("<result>%s</result>"):format(value or "error"), { calls = -(options.price or 0) }, false
  end
  local answer = state.thinks and turn.answer or action
  return state, nil, { correct = verify.equal(answer, state.truth) and 1 or 0 }, true
end

-- A question such as "12*7=" is put into the calculator; its result is the answer.
local function demonstrate(state)
  if state.calls > 0 then return (state.thinks and "</think>" or "") .. (state.result or "?") end
  local source = state.question and state.question:match("^([%d%+%-%*/%(%) %.]+)=$")
  if not source then return nil, "only questions such as 12*7= can be demonstrated" end
  return "<calc>" .. source .. "</calc>"
end

return { reset = reset, step = step, demonstrate = demonstrate, stop = { "</calc>" }, turns = calls + 1 }
