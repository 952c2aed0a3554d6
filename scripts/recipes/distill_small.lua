-- A model of 0.2 M parameters learns from one of 0.9 M, the quickstart's: first a few worked examples, then the teacher's
-- distributions, in half of the steps on its own samples and in half on the teacher's. Make the teacher first:
--
--   build/reckon train scripts/recipes/quickstart.lua
--   build/reckon train scripts/recipes/distill_small.lua
--   build/reckon eval runs/quickstart --mode think --items 400
--   build/reckon eval runs/distill_small --mode think --items 400
--
-- No worked example is used after the first stage, and no reward is: those that are reported change nothing.

return {
  name = "distill_small",
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
    distill{
      name = "distillation",
      teacher = "runs/quickstart",
      steps = 600,
      prompts = 64,
      beta = 0,
      on_policy = 0.5,
      off_policy = "teacher",
      modes = {think = 1},
      sampling = {max_tokens = 72},
      optimizer = {learning_rate = 2e-3, schedule = "cosine", warmup = 20, final_share = 0.05},
      evaluate_every = 200,
    },
    distill{
      name = "refinement",
      teacher = "runs/quickstart",
      steps = 300,
      prompts = 64,
      beta = 0,
      on_policy = 0.5,
      off_policy = "teacher",
      modes = {think = 1},
      sampling = {max_tokens = 72},
      optimizer = {learning_rate = 1.5e-3, schedule = "cosine", warmup = 20, final_share = 0.05},
    },
  },
  evaluate = {items = 100, max_tokens = 72},
  compare = {items = 0},
  run = "runs/distill_small",
}
