"""TRL's GRPO step (rollout, reward, forward, backward, AdamW) without a GPU: prints one JSON object.

The settings are those with which it is fastest here: bfloat16 weights, no gradient checkpointing, no reference model,
no second pass for old logprobs. The reward costs nothing and gives every group variance, or all but the first --flat-groups. End of sequence is held back
so that every completion has all its tokens, as on reckon's side.
"""
import argparse
import json
import os
import resource
import tempfile
import time

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
import datasets
import torch
import transformers
import trl


class StepClock(transformers.TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat-groups", type=int, default=0)
    parser.add_argument("--microbatch", type=int, help="samples of one forward and backward pass (all)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    a = parser.parse_args()
    microbatch = a.microbatch or a.prompts * a.group
    torch.set_num_threads(a.threads)
    transformers.utils.logging.set_verbosity_error()

    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16)
    # Prompts that are exactly as long as asked for, whatever the tokenizer merges.
    prompts = []
    for first in range(1000, 1000 + 97 * a.prompts * (a.steps + a.warm_up), 97):
        ids = [first + i for i in range(a.prompt_tokens)]
        while True:
            text = tokenizer.decode(ids)
            again = tokenizer(text)["input_ids"]
            if len(again) <= a.prompt_tokens:
                break
            ids = ids[:-1]
        while len(tokenizer(text)["input_ids"]) < a.prompt_tokens:
            text += " a"
        prompts.append(text)
    clock = StepClock()
    lengths = []

    def reward(completion_ids, **kwargs):
        lengths.extend(len(ids) for ids in completion_ids)
        return [1.0 if i // a.group % a.prompts < a.flat_groups else float(i % 2) for i in range(len(completion_ids))]

    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=True, gradient_checkpointing=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, per_device_train_batch_size=microbatch,
            gradient_accumulation_steps=a.prompts * a.group // microbatch,
            num_generations=a.group, max_completion_length=a.new_tokens, max_steps=a.steps + a.warm_up, learning_rate=1e-6,
            beta=0.0, num_iterations=1, loss_type="dapo", temperature=1.0, optim="adamw_torch",
            generation_kwargs={"min_new_tokens": a.new_tokens}, dataloader_pin_memory=False, seed=0)
        trainer = trl.GRPOTrainer(model=model, processing_class=tokenizer, args=config, reward_funcs=reward,
                                  train_dataset=datasets.Dataset.from_dict({"prompt": prompts}), callbacks=[clock])
        trainer.train()
    if set(lengths) != {a.new_tokens}:
        raise SystemExit(f"completions have lengths {sorted(set(lengths))}, expected {a.new_tokens}")
    measured = sorted(clock.seconds[a.warm_up:])
    print(json.dumps({
        "seconds": measured[len(measured) // 2],
        "all_seconds": clock.seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": f"bf16 weights, {microbatch} samples a pass, no gradient checkpointing, no reference model",
        "program": f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
    }))


if __name__ == "__main__":
    main()
