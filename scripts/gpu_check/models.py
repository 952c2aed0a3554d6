"""Random weights in the shapes of real models, where no weights are at hand: Hugging Face folders in bfloat16.

Figures of speed don't depend on the values as long as they are ordinary numbers: here of both signs, 0.0001 to 0.03, norms 1,
biases 0. The same bytes every time.
"""
import json
import os
import random
import struct

SHAPES = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
             "tie_word_embeddings": True},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "tie_word_embeddings": True},
}
SHARED = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
          "rope_theta": 1000000.0, "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 151643, "eos_token_id": 151645,
          "initializer_range": 0.02, "use_sliding_window": False, "attention_dropout": 0.0}
# The upper byte of a bfloat16: sign and seven bits of exponent. 0x3c is 0.0078 to 0.031, 0x3b a quarter of that.
UPPER = bytes((0x80 if i & 1 else 0) | (0x3c, 0x3c, 0x3b, 0x3b, 0x3b, 0x3a, 0x3a, 0x39)[i >> 1 & 7] for i in range(256))


def tensors(shape: dict) -> list[tuple[str, list[int]]]:
    C, F, V = shape["hidden_size"], shape["intermediate_size"], SHARED["vocab_size"]
    D = C // shape["num_attention_heads"]
    KV = shape["num_key_value_heads"] * D
    out = [("model.embed_tokens.weight", [V, C]), ("model.norm.weight", [C])]
    for layer in range(shape["num_hidden_layers"]):
        place = f"model.layers.{layer}."
        out += [(place + "input_layernorm.weight", [C]), (place + "post_attention_layernorm.weight", [C])]
        for name, rows in (("q", C), ("k", KV), ("v", KV)):
            out += [(f"{place}self_attn.{name}_proj.weight", [rows, C]), (f"{place}self_attn.{name}_proj.bias", [rows])]
        out += [(place + "self_attn.o_proj.weight", [C, C]), (place + "mlp.gate_proj.weight", [F, C]), (place + "mlp.up_proj.weight", [F, C]),
                (place + "mlp.down_proj.weight", [C, F])]
    return out


def values(name: str, count: int, generator: random.Random) -> bytes:
    if name.endswith("norm.weight"):
        return struct.pack("<H", 0x3f80) * count
    if name.endswith(".bias"):
        return bytes(2 * count)
    out = bytearray(2 * count)
    out[0::2] = generator.randbytes(count)
    out[1::2] = generator.randbytes(count).translate(UPPER)
    return bytes(out)


def random_model(folder: str, size: str) -> str:
    """The folder of a model of this size, made where it isn't there yet."""
    target = os.path.join(folder, f"random-{size}")
    if os.path.exists(os.path.join(target, "config.json")):
        return target
    os.makedirs(target, exist_ok=True)
    header, at = {}, 0
    for name, shape in tensors(SHAPES[size]):
        count = 1
        for n in shape:
            count *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = random.Random(1)
    with open(os.path.join(target, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            f.write(values(name, (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2, generator))
    with open(os.path.join(target, "config.json"), "w") as f:  # last: it says that the rest is whole
        json.dump({**SHARED, **SHAPES[size]}, f, indent=1)
    return target
