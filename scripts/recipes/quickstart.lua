-- The quickstart: a model of 0.9 M parameters from scratch learns arithmetic, first from examples in both modes, then by
-- group-relative policy optimisation in think mode and in direct mode; `compare` says where thinking pays.
-- Levels: 1 three-digit plus one digit; 2, 3, 4 sums of two, three, five two-digit numbers; 5 products of two.

local hard = {3, 4, 5} -- where thinking has something to win

return {
  name = "quickstart",
  seed = 7,
  model = {preset = "tiny", max_positions = 128, precision = "bf16"},
  characters = "0123456789+*=,",
  tasks = {{"arithmetic", levels = {1, 2, 3, 4, 5}}},
  held_out = 0.1,
  rewards = {{"correct"}},
  stages = {
    sft{
      name = "cold start",
      steps = 1000,
      batch = 128,
      modes = {think = 0.5, direct = 0.5},
      optimizer = {learning_rate = 1e-3, schedule = "cosine", warmup = 50, final_share = 0.05},
    },
    grpo{
      name = "grpo think",
      steps = 60,
      modes = {think = 1},
      levels = hard,
      prompts = 32,
      group_size = 16,
      sampling = {temperature = 1, max_tokens = 72},
      algo = {loss = "dapo"},
      optimizer = {learning_rate = 5e-5, schedule = "constant", warmup = 5},
    },
    grpo{
      name = "grpo direct",
      steps = 20,
      modes = {direct = 1},
      prompts = 32,
      group_size = 16,
      sampling = {temperature = 1, max_tokens = 12},
      algo = {loss = "dapo"},
      optimizer = {learning_rate = 2e-5, schedule = "constant", warmup = 5},
    },
  },
  evaluate = {items = 100, max_tokens = 72},
  compare = {items = 400},
  run = "runs/quickstart",
}
