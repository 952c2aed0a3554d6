-- A mixture of experts from scratch, a DeepSeek-V3 in small: latent attention, one dense layer, then layers of 8 experts of
-- which a token goes to 2, and one shared expert. It learns sums from worked examples, then from its own attempts. No loss
-- evens out the load: after each step an expert's correction bias moves against it (optimizer.expert_bias_rate). The report
-- draws the load of the busiest expert; --set optimizer.expert_bias_rate=0 shows it without.
-- Measured: in the second half of the cold start the busiest of 8 experts has 1.14 and 1.18 times the mean load (two layers), in
-- GRPO 1.37 and 1.43; without the bias 2.80 and 1.55, and 2.28 and 1.50. 40 seconds of one core, held-out level 1 at 95 %.

return {
  name = "moe_tiny",
  seed = 7,
  model = {
    layers = 3, width = 96, heads = 4, feed_forward = 256, max_positions = 96, precision = "bf16",
    experts = {count = 8, chosen = 2, feed_forward = 64, shared = 1, dense_layers = 1, latent = 48},
  },
  characters = "0123456789+=,",
  tasks = {{"arithmetic", levels = {1, 2}}},
  held_out = 0.1,
  rewards = {{"correct"}},
  optimizer = {expert_bias_rate = 0.01},
  stages = {
    sft{
      name = "cold start",
      steps = 1200,
      batch = 64,
      modes = {think = 0.5, direct = 0.5},
      optimizer = {learning_rate = 2e-3, schedule = "constant", warmup = 20},
    },
    grpo{
      name = "grpo",
      steps = 40,
      modes = {think = 0.5, direct = 0.5},
      prompts = 16,
      group_size = 8,
      sampling = {temperature = 1, max_tokens = 40},
      algo = {loss = "dapo"},
      optimizer = {learning_rate = 2e-4, schedule = "constant", warmup = 2},
      evaluate_every = 40,
      checkpoint_every = 40,
    },
  },
  evaluate = {items = 100, max_tokens = 40},
  compare = {items = 0},
  run = "runs/moe_tiny",
}
