-- The quickstart: a model of 0.9 M parameters from scratch learns arithmetic, first from worked examples in both modes,
-- then from its own attempts: GRPO on prompts of both modes side by side, so that neither mode forgets what the other
-- learns. `compare` then says where thinking pays.
-- Levels: 1 three-digit plus one digit; 2, 3, 4 sums of two, three, five two-digit numbers; 5 products of two.
--
-- The examples end at a constant learning rate: the model is unfinished there, and GRPO has something to win.

return {
  name = "quickstart",
  seed = 7,
  model = {preset = "tiny", max_positions = 128, precision = "bf16"},
  characters = "0123456789+*=,",
  tasks = {{"arithmetic", levels = {1, 2, 3, 4, 5}}},
  held_out = 0.1,
  rewards = {{"correct"}},
  stages = {
    sft{
      name = "cold start",
      steps = 900,
      batch = 128,
      modes = {think = 0.5, direct = 0.5},
      optimizer = {learning_rate = 1e-3, schedule = "constant", warmup = 50},
    },
    grpo{
      name = "grpo",
      steps = 330,
      modes = {think = 0.55, direct = 0.45},
      prompts = 48,
      group_size = 16,
      sampling = {temperature = 1, max_tokens = 72},
      algo = {loss = "dapo"},
      optimizer = {learning_rate = 1e-4, schedule = "cosine", warmup = 2, final_share = 0.1},
      evaluate_every = 60,
      checkpoint_every = 60,
    },
  },
  evaluate = {items = 100, max_tokens = 72},
  compare = {items = 400},
  cost = {price_per_hour = 0.10, currency = "USD"}, -- stated here, not measured: what two cores are rented for
  run = "runs/quickstart",
}
