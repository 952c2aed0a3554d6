-- Where thinking pays for a real model: SmolLM2-135M-Instruct on word problems of one and two steps, in English, in half an hour
-- on two cores. `scripts/get-model smollm2-135m` brings the model. It is shown worked examples with the thinking (a calculation) and
-- without, and then learns from its own attempts in both modes. What came of it: docs/compare.md.
-- Levels: 1 an addition or a subtraction; 2 an addition and a subtraction; 3 a product and a subtraction.

return {
  name = "smollm2_word_problems",
  seed = 1,
  model = {path = "models/SmolLM2-135M-Instruct.Q4_1.gguf", precision = "bf16"},
  tasks = {{"word_problems", language = "en", levels = {1, 2, 3}}},
  held_out = 0.2,
  prompts = {
    think = {system = "Think, then answer with a number.", prefix = "<think>"},
    direct = {system = "Answer with a number.", prefix = ""},
  },
  rewards = {{"correct"}},
  stages = {
    sft{
      name = "worked examples",
      steps = 240,
      batch = 16,
      modes = {think = 0.5, direct = 0.5},
      optimizer = {learning_rate = 1e-4, schedule = "linear", warmup = 8, final_share = 0.2},
      checkpoint_every = 10,
    },
    grpo{
      name = "grpo",
      steps = 120,
      modes = {think = 0.5, direct = 0.5},
      prompts = 24,
      group_size = 8,
      sampling = {temperature = 1, max_tokens = 64},
      algo = {loss = "dapo", epsilon_low = 0.2, epsilon_high = 0.28},
      optimizer = {learning_rate = 1e-5, schedule = "cosine", warmup = 4, final_share = 0.1},
      checkpoint_every = 10,
    },
  },
  evaluate = {items = 60, max_tokens = 64},
  compare = {items = 300},
  run = "runs/smollm2_word_problems",
}
