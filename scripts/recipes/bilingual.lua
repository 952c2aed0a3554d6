-- A language reward turns the thinking of a bilingual model into Korean: `reckon train scripts/recipes/bilingual.lua`.
--
-- Word problems in English and in Korean. Supervised fine-tuning shows chains of thought in either language, by chance and
-- whatever the question's language is ("12 plus 30 = 42", "12 더하기 30 = 42"); GRPO is then rewarded for right answers and,
-- with a small weight, for thinking in Korean. Figures: docs/algorithms.md.
return {
  name = "bilingual",
  seed = 5,
  model = { layers = 3, width = 96, heads = 4, kv_heads = 2, feed_forward = 256, max_positions = 192, precision = "fp32" },
  characters = " ,.0123456789=?HLMSTabcdefghiklmnoprstuvwy가감개고곱과그기까나남누는니다더데두딸를몇모민받빼사서수습아았어었우은음입있자주준지진하호",
  tasks = {
    { "word_problems", levels = { 1 }, language = "en", thinking = "either" },
    { "word_problems", levels = { 1 }, language = "ko", thinking = "either" },
  },
  rewards = { { "correct" }, { "language", lang = "ko", weight = 0.3 } },
  evaluate = { items = 400, max_tokens = 40 },
  compare = { items = 0 },
  stages = {
    sft {
      steps = 1200, batch = 48, modes = { think = 1 },
      optimizer = { learning_rate = 2e-3, warmup = 20, schedule = "linear", final_share = 0.1 },
      evaluate_every = 400,
    },
    grpo {
      steps = 60, prompts = 32, group_size = 16,
      sampling = { max_tokens = 40 },
      algo = { loss = "dapo" },
      optimizer = { learning_rate = 2e-4, schedule = "constant" },
    },
  },
}
