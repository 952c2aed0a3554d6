-- Half an hour on two cores: SmolLM2-135M answers arithmetic questions. `scripts/get-model smollm2-135m` brings the model.
-- Sums of two and three numbers, asked in a chat; a right answer counts 1, the right form a little, so that the model
-- learns to stop after its answer before it learns to be right.

return {
  name = "smollm2-arithmetic",
  seed = 1,
  model = {path = "models/SmolLM2-135M-Instruct.Q4_1.gguf", precision = "bf16"},
  tasks = {{"arithmetic", levels = {1, 2, 3}, style = "words"}},
  held_out = 0.1,
  prompts = {
    think = {
      instruction = "Think step by step, write </think>, then give the result as a number alone.",
      prefix = "<think>",
    },
    direct = {instruction = "Give the result as a number alone.", prefix = "<think></think>"},
  },
  rewards = {{"correct"}, {"format", weight = 0.1}},
  stages = {
    grpo{
      name = "grpo",
      steps = 60,
      modes = {direct = 1},
      prompts = 8,
      group_size = 8,
      sampling = {temperature = 1, max_tokens = 16},
      algo = {loss = "dapo", epsilon_low = 0.2, epsilon_high = 0.28},
      optimizer = {learning_rate = 1e-5, schedule = "constant", warmup = 5},
      checkpoint_every = 20,
    },
  },
  evaluate = {items = 100, max_tokens = 16},
  compare = {items = 200},
  run = "runs/smollm2-arithmetic",
}
