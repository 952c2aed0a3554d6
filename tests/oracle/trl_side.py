"""TRL's half of tests/oracle/trl_curves: GRPO on given prompts, in given order, with given settings.

    trl_side.py MODEL_FOLDER INPUT.json OUTPUT.json

INPUT holds `settings`, `vocabulary` (the text of every token id), `eos`, and `steps`: for each step its prompts as
{"ids", "truth", "mode"}. OUTPUT holds the mean reward of every step. Prompts reach TRL as text, so a tokenizer is made
in which every id is one character of a private plane: what TRL tokenizes are exactly the given ids.
"""
import json
import os
import sys
import tempfile

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
import datasets
import tokenizers
import torch
import transformers
import trl

from reward_twin import correct

PLANE = 0xF0000  # a plane for private use


def private_tokenizer(size: int, eos: int) -> transformers.PreTrainedTokenizerFast:
    names = {chr(PLANE + i): i for i in range(size)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token=chr(PLANE)))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    inner.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=chr(PLANE + eos),
                                                pad_token=chr(PLANE + eos), clean_up_tokenization_spaces=False)


def main() -> None:
    folder, source, target = sys.argv[1:]
    with open(source) as f:
        given = json.load(f)
    settings, vocabulary, eos = given["settings"], given["vocabulary"], given["eos"]
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(settings["threads"])
    tokenizer = private_tokenizer(len(vocabulary), eos)
    prompts = [p for step in given["steps"] for p in step]
    rows = {"prompt": ["".join(chr(PLANE + i) for i in p["ids"]) for p in prompts],
            "truth": [p["truth"] for p in prompts], "mode": [p["mode"] for p in prompts]}
    for text, prompt in zip(rows["prompt"], prompts):
        if tokenizer(text)["input_ids"] != prompt["ids"]:
            raise SystemExit(f"{source}: the ids {prompt['ids']} do not survive the tokenizer")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = eos
    if model.config.vocab_size != len(vocabulary):
        raise SystemExit(f"{folder}: vocab_size is {model.config.vocab_size}, the vocabulary has {len(vocabulary)}")
    curve = []

    def reward(completion_ids, truth, mode, **columns):
        scores = []
        for ids, t, m in zip(completion_ids, truth, mode):
            text = "".join(vocabulary[i] for i in ids if i != eos)
            scores.append(correct(text, m, t))
        curve.append(sum(scores) / len(scores))
        return scores

    group, questions = settings["group_size"], settings["prompts"]
    with tempfile.TemporaryDirectory() as scratch:
        config = trl.GRPOConfig(
            output_dir=scratch, use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=settings["seed"], shuffle_dataset=False,
            per_device_train_batch_size=questions * group, num_generations=group, max_steps=len(given["steps"]),
            max_completion_length=settings["max_tokens"], temperature=settings["temperature"], top_p=1.0, top_k=0,
            learning_rate=settings["learning_rate"], lr_scheduler_type="constant", warmup_steps=0,
            adam_beta1=settings["beta1"], adam_beta2=settings["beta2"], adam_epsilon=settings["eps"],
            weight_decay=settings["weight_decay"], max_grad_norm=settings["max_gradient_norm"], optim="adamw_torch",
            beta=settings["kl"], epsilon=settings["epsilon_low"], epsilon_high=settings["epsilon_high"],
            loss_type=settings["loss"], scale_rewards=settings["advantage"], num_iterations=1,
            mask_truncated_completions=settings["mask_truncated"], dataloader_pin_memory=False)
        trainer = trl.GRPOTrainer(model=model, processing_class=tokenizer, args=config, reward_funcs=reward,
                                  train_dataset=datasets.Dataset.from_dict(rows))
        trainer.train()
    if len(curve) != len(given["steps"]):
        raise SystemExit(f"TRL scored {len(curve)} batches, expected {len(given['steps'])}")
    with open(target, "w") as f:
        json.dump({"reward": curve, "trl": trl.__version__, "transformers": transformers.__version__,
                   "torch": torch.__version__}, f)


if __name__ == "__main__":
    main()
