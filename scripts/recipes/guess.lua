-- Learns to guess numbers in few questions, from scratch, on the CPU: `reckon train scripts/recipes/guess.lua`.
--
-- rewards/guess.lua is an environment: the model asks "8?", the script says ">" or "<", and so on in one episode. Supervised
-- fine-tuning shows an expert who guesses any number that is still possible; within the four questions that are allowed he
-- finds one of 15 in two cases of three. GRPO, which sees nothing but whether it was found, learns to halve what is left:
-- "8?>12?>14?<13?". Sampled episodes found 39 % at its first step and 92 % at its last; held-out ones, greedy, went from 43 %
-- to 94 %: all but one of the 15 numbers. It takes six minutes on one core that others use too.
return {
  name = "guess",
  seed = 7,
  model = { layers = 2, width = 64, heads = 4, kv_heads = 2, feed_forward = 192, max_positions = 64, precision = "fp32" },
  characters = "0123456789-:?<>",
  tasks = { { "environment", levels = { 2 } } },
  rewards = { { "guess", short = true } },
  evaluate = { items = 400, max_tokens = 32 },
  compare = { items = 0 },
  stages = {
    sft { steps = 200, batch = 64, modes = { direct = 1 }, optimizer = { learning_rate = 3e-3, warmup = 10 } },
    grpo {
      steps = 240, prompts = 32, group_size = 32, modes = { direct = 1 },
      sampling = { max_tokens = 32, turn_tokens = 6 },
      algo = { loss = "dapo", kl = 0 },
      optimizer = { learning_rate = 2e-3 },
      evaluate_every = 60,
    },
  },
}
