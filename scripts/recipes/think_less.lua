-- A model that learns to think shorter, from scratch, in two to three minutes on one core. It is first shown sums in writing
-- (written_sums.lua), most of them with a check that doubles the thinking; then GRPO pays for a right answer and takes a little for
-- every token. The price is small: a wrong answer costs as much as 500 tokens. docs/compare.md has the figures.
return {
  name = "think_less",
  seed = 3,
  model = {layers = 2, width = 96, heads = 3, kv_heads = 3, max_positions = 96, precision = "bf16"},
  characters = "0123456789+=,;",
  tasks = {{"./written_sums.lua", levels = {1, 2}}},
  held_out = 0.2,
  rewards = {{"correct"}, {"cost", value = 0, price = 0.002}}, -- the first says what is right; the second only takes
  stages = {
    sft{
      name = "cold start",
      steps = 900,
      batch = 96,
      modes = {think = 0.9, direct = 0.1},
      optimizer = {learning_rate = 2e-3, schedule = "cosine", warmup = 30, final_share = 0.1},
    },
    grpo{
      name = "think less",
      steps = 80,
      modes = {think = 1},
      prompts = 24,
      group_size = 12,
      sampling = {temperature = 1, max_tokens = 60},
      algo = {loss = "dapo"},
      optimizer = {learning_rate = 1e-4, schedule = "cosine", warmup = 2, final_share = 0.1},
    },
  },
  evaluate = {items = 100, max_tokens = 60},
  compare = {items = 400},
  run = "runs/think_less",
}
