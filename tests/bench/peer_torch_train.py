"""PyTorch: forward, backward and AdamW on B sequences of N tokens: prints one JSON object.

`weights bf16` keeps weights and moments in bfloat16 (the least work, and not what reckon does: its masters and moments
are float32); `weights autocast` is autocast over float32 weights, `weights fp32` float32 throughout. `compile` hands the
forward and backward passes and AdamW to torch.compile. The runner takes the fastest.
"""
import argparse
import json
import resource
import time

import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", choices=("bf16", "autocast", "fp32"), default="bf16")
    parser.add_argument("--adamw", choices=("foreach", "fused"), default="foreach")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if a.weights == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa")
    model.train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, **{a.adamw: True})
    tokens = torch.randint(0, model.config.vocab_size, (a.batch, a.new_tokens))

    def passes() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=a.weights == "autocast"):
            return model(input_ids=tokens, labels=tokens).loss

    forward = torch.compile(passes) if a.compile else passes
    update = torch.compile(optimizer.step, fullgraph=False) if a.compile and a.adamw == "foreach" else optimizer.step

    def step() -> float:
        begun = time.perf_counter()
        loss = forward()
        loss.backward()
        update()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return time.perf_counter() - begun

    for _ in range(a.warm_up):
        step()
    seconds = sorted(step() for _ in range(a.steps))[a.steps // 2]
    print(json.dumps({
        "tokens_per_second": a.batch * a.new_tokens / seconds,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": f"weights {a.weights}, sdpa, {a.adamw} AdamW, {'torch.compile' if a.compile else 'eager'}",
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }))


if __name__ == "__main__":
    main()
