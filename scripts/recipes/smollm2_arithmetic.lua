-- Half an hour on two cores: SmolLM2-135M-Instruct learns to add. `scripts/get-model smollm2-135m` brings the model.
-- Three-digit plus one-digit numbers, sums of two and of three two-digit numbers, asked in a chat and answered directly; the
-- reward looks at the last number of the answer. Held-out accuracy is measured before and after.

return {
  name = "smollm2-arithmetic",
  seed = 1,
  model = {path = "models/SmolLM2-135M-Instruct.Q4_1.gguf", precision = "bf16"},
  tasks = {{"arithmetic", levels = {1, 2, 3}, style = "words"}},
  held_out = 0.1,
  prompts = {direct = {instruction = "Answer with the number only.", prefix = ""}},
  rewards = {{"./last_number.lua"}},
  stages = {
    grpo{
      name = "grpo",
      steps = 300,
      modes = {direct = 1},
      prompts = 16,
      group_size = 8,
      sampling = {temperature = 1, max_tokens = 16},
      max_truncated = 1, -- at first most answers ramble; one that is cut off scores 0, and they learn to end
      algo = {loss = "dapo", epsilon_low = 0.2, epsilon_high = 0.28},
      optimizer = {learning_rate = 2e-5, schedule = "cosine", warmup = 5},
      checkpoint_every = 100,
    },
  },
  evaluate = {items = 200, samples = 1, max_tokens = 16},
  compare = {items = 0},
  run = "runs/smollm2-arithmetic",
}
