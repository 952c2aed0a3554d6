-- DeepSeek-R1-Zero (arXiv 2501.12948, section 2.2) on a model from scratch: GRPO alone, no fine-tuning before it. The base stands
-- for a pretrained model: most of what it has seen are answers alone, and little is thinking. It is the same base as that of
-- r1_pipeline.lua, and GRPO draws as many samples as both of its stages there, so that the two can be compared.

return {
  name = "r1_zero",
  seed = 11,
  model = {layers = 3, width = 96, heads = 3, kv_heads = 3, max_positions = 96, precision = "bf16"},
  characters = "0123456789+*=,",
  tasks = {{"arithmetic", levels = {1, 2, 3}}},
  rewards = {{"correct"}},
  stages = {
    sft{
      name = "base",
      steps = 800,
      batch = 64,
      modes = {think = 0.2, direct = 0.8},
      optimizer = {learning_rate = 2e-3, schedule = "cosine", warmup = 20, final_share = 0.1},
    },
    grpo{
      name = "zero",
      steps = 330,
      prompts = 64,
      group_size = 16,
      modes = {think = 0.5, direct = 0.5},
      curriculum = {by = "pass_rate", floor = 0.1},
      sampling = {max_tokens = 40},
      algo = {minibatches = 2},
      optimizer = {learning_rate = 2e-4, schedule = "cosine", warmup = 4, final_share = 0.1},
    },
  },
  evaluate = {items = 100, max_tokens = 40},
  compare = {items = 400},
  run = "runs/r1_zero",
}
