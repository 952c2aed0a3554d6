"""llama.cpp decoding B sequences that share a prompt, in one process, one setting: prints one JSON object.

Nothing is sampled: the tokens fed are arbitrary, so only the model's own passes are timed, which is to the peer's
advantage. The prompt is computed once and its keys and values are copied to the other sequences. The figure counts what
`reckon bench decode` counts: the prompt, whose last logits give each sequence its first new token, and a pass for each
further one.
"""
import argparse
import ctypes
import json
import os
import resource
import time

import llama_cpp


def decode(context, batch, tokens, positions, sequences) -> None:
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences)):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = 1
    status = llama_cpp.llama_decode(context, batch)
    if status != 0:
        raise SystemExit(f"llama_decode gave {status}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash", choices=("on", "off"), default="on")
    parser.add_argument("--kv", choices=("unified", "separate"), default="separate")
    a = parser.parse_args()

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)  # must outlive every call
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(a.model.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp can't load {a.model}")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    length = -(-(a.prompt_tokens + a.new_tokens) // 256) * 256 if a.kv == "separate" else a.prompt_tokens + a.new_tokens
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = length * a.batch
    settings.n_batch = settings.n_ubatch = max(512, a.batch)
    settings.n_seq_max = a.batch
    settings.n_threads = settings.n_threads_batch = a.threads
    settings.flash_attn_type = int(a.flash == "on")
    settings.kv_unified = a.kv == "unified"
    settings.no_perf = True
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit("llama.cpp can't make a context")
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(max(512, a.batch), 0, 1)

    def answer(new_tokens: int) -> tuple[float, float]:
        llama_cpp.llama_memory_clear(memory, True)
        begun = time.perf_counter()
        for at in range(0, a.prompt_tokens, 512):  # llama.cpp's own physical batch
            part = range(at, min(at + 512, a.prompt_tokens))
            decode(context, batch, [(100 + i % 20000) % vocabulary for i in part], part, [0] * len(part))
        for s in range(1, a.batch):
            llama_cpp.llama_memory_seq_cp(memory, 0, s, -1, -1)
        llama_cpp.llama_synchronize(context)
        prefilled = time.perf_counter()
        for step in range(new_tokens - 1):
            tokens = [(1000 + (s * 131 + step * 17) % 20000) % vocabulary for s in range(a.batch)]
            decode(context, batch, tokens, [a.prompt_tokens + step] * a.batch, range(a.batch))
        llama_cpp.llama_synchronize(context)
        return prefilled - begun, time.perf_counter() - prefilled

    answer(min(4, a.new_tokens))  # warms caches and pages up
    prefill, decoding = answer(a.new_tokens)
    print(json.dumps({
        "tokens_per_second": a.batch * a.new_tokens / (prefill + decoding),
        "prefill_seconds": prefill,
        "decode_seconds": decoding,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "settings": f"{os.path.basename(a.model).partition('.')[0]}, flash attention {a.flash}, KV {a.kv}",
        "program": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})",
        "instructions": llama_cpp.llama_print_system_info().decode(),
    }))


if __name__ == "__main__":
    main()
