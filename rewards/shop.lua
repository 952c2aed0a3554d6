-- An environment: a small shop with tools in JSON. The model is told what to buy and how much money there is; each of its
-- turns is one call: {"tool": "look"}, {"tool": "price", "item": "pear"}, {"tool": "buy", "item": "pear", "count": 2} or
-- {"tool": "done"}. The score is 1 if the basket is then what was asked for, and 0.1 less for each call that made no sense.
-- Options: calls (at most, 12), things (different ones to buy, 2).
local goods = { "apple", "bread", "cheese", "lemon", "pear", "rice", "soap", "tea" }
local calls = options.calls or 12

local function reset(row)
  local state = { prices = {}, basket = {}, wish = row.wish or {}, errors = 0 }
  local left = {}
  for i, name in ipairs(goods) do
    left[i] = name
    state.prices[name] = math.random(1, 9)
  end
  if not row.wish then
    for _ = 1, options.things or 2 do state.wish[table.remove(left, math.random(#left))] = math.random(1, 3) end
  end
  local wishes, cost = {}, 0
  for name, count in pairs(state.wish) do
    wishes[#wishes + 1] = ("%d %s"):format(count, name)
    cost = cost + count * state.prices[name]
  end
  state.money = cost + math.random(0, 3)
  return state, { {
    role = "user",
    content = ("You are in a shop. Buy exactly %s; you have %d coins. Answer with one call in JSON at a time: "
      .. '{"tool": "look"}, {"tool": "price", "item": ITEM}, {"tool": "buy", "item": ITEM, "count": N}, {"tool": "done"}.')
      :format(table.concat(wishes, " and "), state.money),
  } }
end

local function say(state, value, reward, done)
  return state, { { role = "user", content = json.encode(value) } }, reward or 0, done or false
end

local tools = {}
function tools.look(state) return say(state, { items = goods, money = state.money }) end
function tools.price(state, call)
  local price = state.prices[call.item]
  return price and say(state, { item = call.item, price = price })
end
function tools.buy(state, call)
  local price, count = state.prices[call.item], math.tointeger(call.count)
  if not price or not count or count < 1 or count > 99 then return nil end
  if price * count > state.money then return say(state, { error = "not enough money", money = state.money }) end
  state.money = state.money - price * count
  state.basket[call.item] = (state.basket[call.item] or 0) + count
  return say(state, { bought = call.item, count = count, money = state.money })
end

local function right(state)
  for _, name in ipairs(goods) do
    if (state.basket[name] or 0) ~= (state.wish[name] or 0) then return 0 end
  end
  return 1
end

local function step(state, action, turn)
  local answer = turn.mode == "think" and turn.answer or action
  local call = json.decode(extract.json(answer) or answer)
  if type(call) ~= "table" then call = {} end
  if call.tool == "done" or turn.last then return say(state, {}, { right = right(state), errors = -0.1 * state.errors }, true) end
  local tool = type(call.tool) == "string" and tools[call.tool]
  local known = type(call.item) == "string" or call.item == nil
  if tool and known then
    local new, words, reward, done = tool(state, call)
    if new then return new, words, reward, done end
  end
  state.errors = state.errors + 1
  return say(state, { error = "no such tool or item" })
end

local function demonstrate(state)
  for name, count in pairs(state.wish) do
    if not state.basket[name] then return json.encode({ tool = "buy", item = name, count = count }) end
  end
  return '{"tool": "done"}'
end

return { reset = reset, step = step, demonstrate = demonstrate, turns = calls }
