-- DeepSeek-R1-Zero (arXiv 2501.12948, section 2.2) on a model from scratch: GRPO alone, no fine-tuning before it. The base stands
-- for a pretrained model that can answer at all: it has seen worked examples of both modes, too few to be good at either. It is
-- the same base as that of r1_pipeline.lua, so that both can be compared.

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
      steps = 1200,
      batch = 64,
      modes = {think = 0.5, direct = 0.5},
      optimizer = {learning_rate = 2e-3, schedule = "constant", warmup = 20},
    },
    grpo{
      name = "zero",
      steps = 140,
      prompts = 32,
      group_size = 16,
      modes = {think = 0.5, direct = 0.5},
      sampling = {max_tokens = 40},
      optimizer = {learning_rate = 1e-4, schedule = "cosine", warmup = 2, final_share = 0.1},
    },
  },
  evaluate = {items = 100, max_tokens = 40},
  compare = {items = 400},
  run = "runs/r1_zero",
}
