-- An environment: guess a number in few questions. The model writes a guess that ends in "?", the script says whether the
-- number is higher or lower. 1 if it was found within as many questions as halving the range takes, else 0.
-- Level L (row.level) has the numbers 1 to 2^(L+2)-1. Options: high (largest number), questions (allowed), short (answers
-- are ">" and "<"), expert ("halve": demonstrations always halve what is left; else they guess any number that is).
local words = options.short and { higher = ">", lower = "<" } or { higher = " higher\n", lower = " lower\n" }

local bits
function bits(n) return n < 1 and 0 or 1 + bits(n >> 1) end

local function reset(row)
  local level = math.tointeger(row.level) or 1
  local high = options.high or (1 << (level + 2)) - 1
  local allowed = options.questions or bits(high)
  local state = { secret = row.secret or math.random(high), low = 1, high = high, left = allowed }
  return state, options.short and ("1-%d:"):format(high)
    or ("I think of a whole number from 1 to %d. Find it with at most %d guesses, each a number and a question mark.\n"):format(high, allowed)
end

local function step(state, action, turn)
  local guess = tonumber(extract.number(action))
  state.left = state.left - 1
  if guess == state.secret then return state, nil, 1, true end
  if not guess or turn.last or state.left <= 0 then return state, nil, 0, true end
  if guess < state.secret then
    state.low = math.max(state.low, math.floor(guess) + 1)
    return state, words.higher, 0, false
  end
  state.high = math.min(state.high, math.ceil(guess) - 1)
  return state, words.lower, 0, false
end

-- What is known after the answers so far is in `low` and `high`: the expert never asks outside of them.
local function demonstrate(state)
  local guess = options.expert == "halve" and (state.low + state.high) // 2 or math.random(state.low, state.high)
  return guess .. "?"
end

return { reset = reset, step = step, demonstrate = demonstrate, stop = { "?" }, turns = 32 }
