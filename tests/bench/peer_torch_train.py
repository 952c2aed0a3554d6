"""PyTorch: forward, backward and AdamW on B sequences of N tokens in bfloat16: prints one JSON object.

`weights bf16` keeps weights and moments in bfloat16 (the least work, and not what reckon does: its masters and moments
are float32); `weights fp32` is autocast over float32 weights. The runner takes the faster.
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
    parser.add_argument("--weights", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--steps", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if a.weights == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa")
    model.train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=True)
    tokens = torch.randint(10, model.config.vocab_size, (a.batch, a.new_tokens))

    def step() -> float:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.weights == "fp32"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return time.perf_counter() - begun

    step()
    seconds = sorted(step() for _ in range(a.steps))[a.steps // 2]
    print(json.dumps({
        "tokens_per_second": a.batch * a.new_tokens / seconds,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": f"weights {a.weights}, sdpa, foreach AdamW",
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }))


if __name__ == "__main__":
    main()
