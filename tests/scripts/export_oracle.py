"""What reckon exports, read by other programs. Called by test_export: RECKON, SMOLLM2, FOLDER, names of the checks."""

import json
import os
import shutil
import subprocess
import sys

import gguf
import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

reckon, smollm2, work = sys.argv[1:4]
totals = {"ok": 0, "FAIL": 0, "skip": 0}
PROMPT = "The little boat drifted away from the harbour, and the old sailor"


def run(*args):
    done = subprocess.run([reckon, *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"reckon {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def path(name):
    return os.path.join(work, name)


def tensors_of_gguf(file):
    """By GGUF's names, rows of q and k as GGUF has them, dequantised by the gguf package."""
    reader = gguf.GGUFReader(file)
    return {t.name: np.asarray(gguf.quants.dequantize(t.data, t.tensor_type)).reshape(t.shape[::-1]) for t in reader.tensors}


def compare(file, folder):
    """The values of a GGUF file and of a folder's safetensors, through reckon's own names."""
    names = {}
    listed = json.loads(run("inspect", folder, "--json"))["tensors"]
    shards = [f for f in os.listdir(folder) if f.endswith(".safetensors")]
    stored = {}
    for shard in shards:
        stored.update(safetensors.numpy.load_file(os.path.join(folder, shard)))
        with safetensors.safe_open(os.path.join(folder, shard), "np") as f:
            assert f.metadata() == {"format": "pt"}, f.metadata()
    assert sorted(stored) == sorted(t["name"] for t in listed)
    config = json.load(open(os.path.join(folder, "config.json"), encoding="utf-8"))
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA if config["model_type"] == "llama" else gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    got = tensors_of_gguf(file)
    for name, values in stored.items():
        own = mapping.get_name(name, try_suffixes=(".weight", ".bias"))
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads")}
        heads = next((h for part, h in heads.items() if part in name), None)
        if heads and config["model_type"] == "llama":  # as the converters of llama.cpp permute
            values = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        assert own in got, own
        assert np.array_equal(got[own], values), f"{name}: other values in {file}"
        names[own] = name
    assert sorted(names) == sorted(got)


def small_models(_):
    for name in ("llama-tied", "qwen2"):
        run("export", f"tests/data/models/{name}", path(name + ".gguf"), "--to", "gguf")
        run("export", path(name + ".gguf"), path(name), "--to", "hf", "--shard-size", "100KB")
        compare(path(name + ".gguf"), path(name))


def smollm2_reads_back(_):
    run("export", smollm2, path("smollm2"), "--to", "hf")
    run("export", path("smollm2"), path("smollm2.gguf"), "--to", "gguf")
    compare(path("smollm2.gguf"), path("smollm2"))
    cases = json.load(open("tests/data/tokenizers/smollm2-135m-texts.json", encoding="utf-8"))
    cases = cases.get("cases") or cases["texts"]
    tokenizer = Tokenizer.from_file(os.path.join(path("smollm2"), "tokenizer.json"))
    for case in cases:
        got = tokenizer.encode(case["text"], add_special_tokens=False).ids
        assert got == case["ids"], f"{case['text']!r}: {got}"


def continued(file, prompt, count):
    """Text and number of tokens that llama.cpp writes greedily behind a prompt, all in fp32."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = file
    p.n_ctx, p.n_parallel, p.n_gpu_layers, p.warmup, p.verbosity = 256, 1, 0, False, -1
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    answer = xllamacpp.Server(p).handle_completions({"prompt": prompt, "n_predict": count, "temperature": 0, "samplers": ["top_k"], "top_k": 1})
    answer = json.loads(answer) if isinstance(answer, str) else answer
    return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]


def same_text(file, prompt, count):
    ours = json.loads(run("generate", file, "--prompt", prompt, "--raw", "--temperature", "0", "--max-tokens", str(count), "--json"))
    ours, (text, tokens) = ours["completions"][0], continued(file, prompt, count)
    ended = ours["finish"] == "stop"  # with a token that llama.cpp may leave out of its count
    assert (len(ours["ids"]) == count or ended) and len(ours["ids"]) - tokens in ((0, 1) if ended else (0,)), (tokens, len(ours["ids"]))
    assert text == ours["text"], f"{file}\nllama.cpp: {text!r}\nreckon: {ours['text']!r}"


def greedy_text(_):
    same_text(path("smollm2.gguf"), PROMPT, 64)


def greedy_mixtures(_):
    """Tiny mixtures of experts, given a vocabulary of single letters."""
    for name in ("mixtral", "qwen3-moe", "deepseek-v2-lite", "deepseek-v3", "deepseek-v3-yarn"):
        folder = path(name)
        shutil.copytree(os.path.join("tests/data/models", name), folder)
        size = json.load(open(os.path.join(folder, "config.json"), encoding="utf-8"))["vocab_size"]
        letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 324))][:size]
        vocabulary = {t: i for i, t in enumerate(letters)} | {f"[{i}]": i for i in range(len(letters), size)}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
                     "model": {"type": "BPE", "unk_token": None, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": []}}
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(tokenizer, f)
        run("export", folder, folder + ".gguf", "--to", "gguf", "--type", "F32")
        same_text(folder + ".gguf", "0123", 24)


for index, (name, check) in enumerate(zip(sys.argv[4:], (small_models, smollm2_reads_back, greedy_text, greedy_mixtures))):
    if index in (1, 2) and not os.path.exists(smollm2):
        verdict, why = "skip", ": scripts/get-model could not bring the model"
    else:
        try:
            check(name)
            verdict, why = "ok", ""
        except Exception as e:  # whatever goes wrong in another program is a failure with its reason
            verdict, why = "FAIL", ": " + " ".join(f"{type(e).__name__}: {e}".split())
    totals[verdict] += 1
    print(f"{verdict:<4} {name}{why}", flush=True)
print(f"{totals['ok']} passed, {totals['FAIL']} failed, {totals['skip']} skipped")
sys.exit(totals["FAIL"] != 0)
