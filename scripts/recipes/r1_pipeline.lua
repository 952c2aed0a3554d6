-- DeepSeek-R1's whole pipeline (arXiv 2501.12948, section 2.3) on a model from scratch, in minutes on one core: cold start,
-- GRPO on reasoning, rejection sampling into a data set, fine-tuning of the base on it beside other data, GRPO over all prompts.
-- The base stands for a pretrained model: it has seen worked examples of both modes, too few to be good at either.

return {
  name = "r1_pipeline",
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
    sft{
      name = "cold start",
      steps = 60,
      batch = 64,
      modes = {think = 1},
      optimizer = {learning_rate = 5e-4, schedule = "linear"},
    },
    grpo{
      name = "reasoning",
      steps = 60,
      prompts = 32,
      group_size = 16,
      modes = {think = 1},
      sampling = {max_tokens = 40},
      optimizer = {learning_rate = 1e-4, schedule = "constant", warmup = 2},
    },
    reject{
      name = "samples",
      steps = 40,
      prompts = 64,
      group_size = 4,
      modes = {think = 1},
      sampling = {max_tokens = 40},
      keep = 1,
    },
    sft{
      name = "fine-tuning",
      from = "base",
      data = {"samples"},
      epochs = 3,
      tasks_share = 0.25, -- R1 mixes in data without reasoning: here, answers alone
      modes = {direct = 1},
      batch = 64,
      optimizer = {learning_rate = 1e-3, schedule = "cosine"},
    },
    grpo{
      name = "all prompts",
      steps = 80,
      prompts = 32,
      group_size = 16,
      modes = {think = 0.5, direct = 0.5},
      sampling = {max_tokens = 40},
      optimizer = {learning_rate = 1e-4, schedule = "cosine", warmup = 2, final_share = 0.1},
    },
  },
  evaluate = {items = 100, max_tokens = 40},
  compare = {items = 400},
  run = "runs/r1_pipeline",
}
