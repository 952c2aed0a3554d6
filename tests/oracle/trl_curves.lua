-- The reckon half of tests/oracle/trl_curves; TRL is given the same settings from the resolved recipe. float32, a constant
-- learning rate and no weight decay (TRL and reckon decay different tensors).
return {
  name = "trl_curves",
  model = {path = "given with --set model.path=FOLDER", precision = "fp32"},
  chat = false,
  tasks = {{"arithmetic", levels = {1}}},
  rewards = {{"correct"}},
  stages = {
    grpo{steps = 60, prompts = 16, group_size = 8, modes = {direct = 1.0},
         sampling = {temperature = 1.0, max_tokens = 6},
         algo = {advantage = "group", loss = "dapo", epsilon_low = 0.2, epsilon_high = 0.2, kl = 0.0},
         optimizer = {learning_rate = 3e-4, schedule = "constant", weight_decay = 0.0, max_gradient_norm = 1.0}},
  },
  evaluate = {items = 50, max_tokens = 8},
}
