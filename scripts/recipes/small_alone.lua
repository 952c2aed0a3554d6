-- What distill_small.lua's model becomes without a teacher: the same model, seed, prompts a step and learning rates, for as many
-- steps, on worked examples alone.

return {
  name = "small_alone",
  seed = 7,
  model = {layers = 4, width = 64, heads = 4, kv_heads = 4, feed_forward = 192, max_positions = 128, precision = "bf16"},
  characters = "0123456789+*=,",
  tasks = {{"arithmetic", levels = {1, 2, 3, 4, 5}}},
  rewards = {{"correct"}},
  stages = {
    sft{
      name = "cold start",
      steps = 250,
      batch = 128,
      modes = {think = 1},
      optimizer = {learning_rate = 2e-3, schedule = "constant", warmup = 20},
    },
    sft{
      name = "examples",
      steps = 600,
      batch = 64,
      modes = {think = 1},
      optimizer = {learning_rate = 2e-3, schedule = "cosine", warmup = 20, final_share = 0.05},
      evaluate_every = 200,
    },
    sft{
      name = "refinement",
      steps = 300,
      batch = 64,
      modes = {think = 1},
      optimizer = {learning_rate = 1.5e-3, schedule = "cosine", warmup = 20, final_share = 0.05},
    },
  },
  evaluate = {items = 100, max_tokens = 72},
  compare = {items = 0},
  run = "runs/small_alone",
}
