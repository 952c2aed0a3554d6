-- The common start of tests/oracle/trl_curves: a tiny model that has seen some worked examples, so that GRPO finds
-- right answers to learn from and has much left to learn.
return {
  name = "trl_curves_base",
  model = {preset = "mini", max_positions = 64, precision = "fp32"},
  characters = "0123456789+*=,",
  tasks = {{"arithmetic", levels = {1}}},
  rewards = {{"correct"}},
  stages = {
    sft{steps = 250, batch = 64, modes = {direct = 1.0},
        optimizer = {learning_rate = 2e-3, schedule = "cosine", warmup = 10}},
  },
  evaluate = {items = 50, max_tokens = 8},
}
