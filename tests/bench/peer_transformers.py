"""transformers' generate, sampling B sequences from one prompt in bfloat16: prints one JSON object."""
import argparse
import json
import resource
import time

import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16).eval()
    prompt = torch.arange(100, 100 + a.prompt_tokens)[None].expand(a.batch, -1).contiguous()

    def generate(new_tokens: int) -> float:
        begun = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_k=0,
                                 min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=0)
        assert out.shape[1] == a.prompt_tokens + new_tokens
        return time.perf_counter() - begun

    generate(min(4, a.new_tokens))
    seconds = generate(a.new_tokens)
    print(json.dumps({
        "tokens_per_second": a.batch * a.new_tokens / seconds,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": "generate, sampling",
        "program": f"transformers {transformers.__version__}, torch {torch.__version__}",
    }))


if __name__ == "__main__":
    main()
