-- The same training on policy, sampled ahead, and in pieces: what does it reach? A model from scratch, some worked examples, then
-- GRPO; judged greedily on 400 held-out items of each of two levels. tests/proofs/stale runs it.
return {
  name = "stale",
  seed = 3,
  threads = 1,
  model = {preset = "mini", max_positions = 64, precision = "fp32"},
  characters = "0123456789+=,",
  tasks = {{"arithmetic", levels = {1, 2}}},
  held_out = 0.1,
  stages = {
    sft{steps = 450, batch = 64, modes = {think = 1}, optimizer = {learning_rate = 3e-3, schedule = "constant", warmup = 10}},
    grpo{
      steps = 150, prompts = 64, group_size = 16, modes = {think = 1}, max_truncated = 1,
      sampling = {max_tokens = 24},
      optimizer = {learning_rate = 2e-4, schedule = "constant"},
    },
  },
  evaluate = {items = 400, max_tokens = 24},
  compare = {items = 0},
}
