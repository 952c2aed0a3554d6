"""PyTorch and transformers on a CUDA device, for scripts/gpu-check: prints one JSON object with "figure" and "settings".

    peer_gpu.py decode --config config.json --batch 256 --prompt-tokens 256 --new-tokens 64     tokens per second of generate
    peer_gpu.py train --config config.json --batch 8 --new-tokens 1024                          tokens per second, with AdamW
    peer_gpu.py gemm --batch 64 --columns 9728 --depth 896                                      TFLOP/s of x w^T in bf16
    peer_gpu.py attention --batch 8 --new-tokens 1024 --heads 14 --kv-heads 2 --width 64        TFLOP/s, causal

Weights are random in the configuration's shape. Each works with its fastest ordinary settings: bf16, scaled_dot_product
attention, fused AdamW. Training and attention alone may use flash attention only (PyTorch's own or cuDNN's): where neither takes the
shape they fail, and no figure stands for one.
"""
import argparse
import json
import time

import torch
import torch.nn.functional
from torch.nn.attention import SDPBackend, sdpa_kernel

FLASH = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def timed(work, least_seconds: float = 1.0, most: int = 1000) -> float:
    """Seconds of one call: the median over about a second of calls, each waited for."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    taken = []
    while len(taken) < 5 or (sum(taken) < least_seconds and len(taken) < most):
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[len(taken) // 2]


def model_of(a):
    import transformers

    with open(a.config) as f:
        config = transformers.AutoConfig.for_model(**json.load(f))
    torch.manual_seed(0)
    with torch.device("cuda"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")


def decode(a) -> tuple[float, str]:
    import transformers

    model = model_of(a).eval()
    prompt = torch.arange(100, 100 + a.prompt_tokens, device="cuda")[None].expand(a.batch, -1).contiguous()

    def generate(count: int) -> float:
        begun = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_k=0, pad_token_id=0,
                                 min_new_tokens=count, max_new_tokens=count)
        torch.cuda.synchronize()
        assert out.shape[1] == a.prompt_tokens + count
        return time.perf_counter() - begun

    generate(4)
    # What the prompt costs is in both and drops out.
    few = generate(4)
    return a.batch * (a.new_tokens - 4) / (generate(a.new_tokens) - few), f"transformers {transformers.__version__} generate, sdpa"


def train(a) -> tuple[float, str]:
    model = model_of(a).train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    tokens = torch.randint(10, model.config.vocab_size, (a.batch, a.new_tokens), device="cuda")

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with sdpa_kernel(FLASH):
        return a.batch * a.new_tokens / timed(step), f"torch {torch.__version__}, bf16 weights, flash attention, fused AdamW"


def gemm(a) -> tuple[float, str]:
    x = torch.randn(a.batch, a.depth, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(a.columns, a.depth, device="cuda", dtype=torch.bfloat16)
    graph = torch.cuda.CUDAGraph()  # 20 calls without the host between them
    for _ in range(3):
        x @ w.T
    with torch.cuda.graph(graph):
        for _ in range(20):
            y = x @ w.T
    seconds = timed(graph.replay) / 20
    assert y.shape == (a.batch, a.columns)
    return 2e-12 * a.batch * a.columns * a.depth / seconds, f"torch {torch.__version__}, cuBLAS"


def attention(a) -> tuple[float, str]:
    def states(heads: int) -> torch.Tensor:
        return torch.randn(a.batch, heads, a.new_tokens, a.width, device="cuda", dtype=torch.bfloat16, requires_grad=a.backward)

    q, k, v = states(a.heads), states(a.kv_heads), states(a.kv_heads)
    call = torch.nn.functional.scaled_dot_product_attention
    flops = 2e-12 * a.batch * a.heads * a.width * a.new_tokens * (a.new_tokens + 1)  # half of the square, two products
    with sdpa_kernel(FLASH):
        y = call(q, k, v, is_causal=True, enable_gqa=True)
        if not a.backward:
            return flops / timed(lambda: call(q, k, v, is_causal=True, enable_gqa=True)), f"torch {torch.__version__}, flash attention forward"
    dy = torch.randn_like(y)
    seconds = timed(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
    return 2.5 * flops / seconds, f"torch {torch.__version__}, flash attention backward"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = {"decode": decode, "train": train, "gemm": gemm, "attention": attention}
    parser.add_argument("kind", choices=works)
    parser.add_argument("--config")
    for name, value in (("batch", 8), ("prompt-tokens", 256), ("new-tokens", 1024), ("columns", 9728), ("depth", 896), ("heads", 14), ("kv-heads", 2),
                        ("width", 64), ("backward", 0)):
        parser.add_argument("--" + name, type=int, default=value)
    a = parser.parse_args()
    a.backward = bool(a.backward)
    figure, settings = works[a.kind](a)
    print(json.dumps({"figure": figure, "settings": settings, "peak_device_bytes": torch.cuda.max_memory_allocated()}))


if __name__ == "__main__":
    main()
