"""Models of known shapes with random weights, for measuring: Hugging Face folders without a tokenizer.

    random_model.py NAME FOLDER      makes FOLDER (config.json, model.safetensors in bfloat16) unless it is there

The weights are a function of the name: magnitudes from 2^-7 to 2^-5 with random signs, about what training starts from.
Needs nothing but Python.
"""
import json
import os
import random
import struct
import sys

# layers, width, heads, kv heads, feed-forward, vocabulary; queries, keys and values of qwen2 have biases
SHAPES = {
    "tiny-1m": ("llama", 4, 128, 4, 4, 512, 256),
    "tiny-3m": ("llama", 6, 192, 6, 6, 576, 256),
    "tiny-10m": ("llama", 8, 320, 5, 5, 896, 256),
    "small-30m": ("llama", 8, 512, 8, 8, 1536, 4096),
    "smollm2-135m": ("llama", 30, 576, 9, 3, 1536, 49152),
    "qwen2.5-0.5b": ("qwen2", 24, 896, 14, 2, 4864, 151936),
}
HIGH_BYTES = bytes((0xBC if b & 0x80 else 0x3C) for b in range(256))
ONE = struct.pack("<H", 0x3F80)


def config_of(name: str) -> dict:
    kind, layers, width, heads, kv_heads, feed_forward, vocabulary = SHAPES[name]
    return {"architectures": ["LlamaForCausalLM" if kind == "llama" else "Qwen2ForCausalLM"], "model_type": kind,
            "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "intermediate_size": feed_forward, "vocab_size": vocabulary, "tie_word_embeddings": True, "hidden_act": "silu",
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "initializer_range": 0.02,
            "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}


def tensors_of(name: str) -> list[tuple[str, list[int]]]:
    kind, layers, width, heads, kv_heads, feed_forward, vocabulary = SHAPES[name]
    head = width // heads
    out = [("model.embed_tokens.weight", [vocabulary, width]), ("model.norm.weight", [width])]
    for i in range(layers):
        at = f"model.layers.{i}."
        for part, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
            out.append((f"{at}self_attn.{part}_proj.weight", [rows, width]))
            if kind == "qwen2":
                out.append((f"{at}self_attn.{part}_proj.bias", [rows]))
        out += [(f"{at}self_attn.o_proj.weight", [width, heads * head]), (f"{at}mlp.gate_proj.weight", [feed_forward, width]),
                (f"{at}mlp.up_proj.weight", [feed_forward, width]), (f"{at}mlp.down_proj.weight", [width, feed_forward]),
                (f"{at}input_layernorm.weight", [width]), (f"{at}post_attention_layernorm.weight", [width])]
    return out


def count_of(shape: list[int]) -> int:
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def parameters_of(name: str) -> int:
    return sum(count_of(shape) for _, shape in tensors_of(name))


def values_of(generator: random.Random, name: str, shape: list[int]) -> bytes:
    count = count_of(shape)
    if name.endswith("norm.weight"):
        return ONE * count
    values = bytearray(2 * count)
    values[0::2] = generator.randbytes(count)
    values[1::2] = generator.randbytes(count).translate(HIGH_BYTES)
    return bytes(values)


def make(name: str, folder: str) -> None:
    if os.path.exists(folder):
        return
    os.makedirs(folder + ".part", exist_ok=True)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for tensor, shape in tensors_of(name):
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * count_of(shape)]}
        at += 2 * count_of(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = random.Random(name)
    with open(os.path.join(folder + ".part", "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in tensors_of(name):
            f.write(values_of(generator, tensor, shape))
    with open(os.path.join(folder + ".part", "config.json"), "w") as f:
        json.dump(config_of(name), f, indent=1)
    os.rename(folder + ".part", folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__ + f"\nNAME is one of {', '.join(SHAPES)}")
    make(sys.argv[1], sys.argv[2])
