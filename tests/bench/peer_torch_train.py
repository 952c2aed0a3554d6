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
    parser.add_argument("--microbatch", type=int, default=0, help="sequences of a pass; 0: all")
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
    parts = tokens.split(a.microbatch or a.batch)

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=a.weights == "autocast"):
            return model(input_ids=ids, labels=ids).loss * (len(ids) / a.batch)

    forward = torch.compile(loss_of) if a.compile else loss_of
    update = torch.compile(optimizer.step, fullgraph=False) if a.compile and a.adamw == "foreach" else optimizer.step

    def step() -> float:
        begun = time.perf_counter()
        losses = []
        for ids in parts:
            losses.append(forward(ids))
            losses[-1].backward()
        update()
        optimizer.zero_grad(set_to_none=True)
        sum(loss.item() for loss in losses)
        return time.perf_counter() - begun

    for _ in range(a.warm_up):
        step()
    seconds = sorted(step() for _ in range(a.steps))[a.steps // 2]
    print(json.dumps({
        "tokens_per_second": a.batch * a.new_tokens / seconds,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": f"weights {a.weights}, sdpa, {a.adamw} AdamW, {'torch.compile' if a.compile else 'eager'}, {len(parts[0])} sequences a pass",
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }))


if __name__ == "__main__":
    main()
