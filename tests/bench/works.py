"""What tests/bench/run measures: a row a piece of work, with our command, the peers' scripts and settings, and the aim."""
from dataclasses import dataclass, field

LLAMA_SETTINGS = [["--flash", f, "--kv", k] for f in ("on", "off") for k in ("separate", "unified")]
# A step at once, or in microbatches, as ours are made.
TRAIN_SETTINGS = [["--weights", w, *m] for w in ("bf16", "autocast") for m in ([], ["--microbatch", "4"])]
# Eager and compiled, in each precision, the fastest of them in microbatches too. The first passes of compiled code compile it.
TINY_SETTINGS = [["--weights", w, "--adamw", a, "--warm-up", "3", *c] for w in ("bf16", "fp32")
                 for a, c in (("fused", []), ("foreach", ["--compile"]), ("fused", ["--compile"]))]
TINY_SETTINGS += [["--weights", "bf16", "--adamw", "fused", "--warm-up", "3", "--compile", "--microbatch", m] for m in ("8", "16")]


RUNS = ["--runs", "3"] # of which each process tells the median, as the peers' scripts do


@dataclass
class Peer:
    name: str
    script: str            # beside this file; "start": the compiled llama_start.c
    form: str              # of the model: "bf16", "q8_0" (GGUF), "hf"
    settings: list         # command lines to choose from
    instructions: str = "" # "avx2": the llama.cpp that was built for AVX2 only


@dataclass
class Work:
    name: str
    what: str
    ours: list             # `reckon bench` and its options; ["start"]: `reckon generate`
    size: list             # options that both sides know
    peers: list
    figure: str            # tokens_per_second, seconds (all), or a stage: decode, prefill
    aim: float | None      # times as fast
    model: str = "smollm2" # or a name of random_model.py
    choose: list = field(default_factory=list) # options that make a peer's trial of its settings shorter
    environment: dict = field(default_factory=dict) # ours


def shape(**options) -> list:
    return [t for name, value in options.items() for t in ("--" + name.replace("_", "-"), str(value))]


def llama(aim_q8: bool = True, **more) -> list:
    forms = ("bf16", "q8_0") if aim_q8 else ("bf16",)
    return [Peer(f"llama.cpp {form}", "peer_llama_cpp.py", form, LLAMA_SETTINGS, **more) for form in forms]


def decode(name: str, batch: int, prompt: int, new: int, aim: float, note: str = "", **more) -> Work:
    size = shape(batch=batch, prompt_tokens=prompt, new_tokens=new)
    what = f"decode, {batch} sequence{'s' * (batch > 1)}, {prompt}-token prompt, {new} new tokens, bf16{note}"
    return Work(name, what, ["decode"], size, more.pop("peers", None) or llama(), "tokens_per_second", aim,
                choose=["--new-tokens", str(max(2, new // 4))], **more)


def train(name: str, batch: int, length: int, aim: float, settings: list, note: str = "", **more) -> Work:
    return Work(name, f"forward, backward and AdamW, {batch} x {length} tokens, bf16{note}", ["train", *RUNS],
                shape(batch=batch, new_tokens=length), [Peer("PyTorch", "peer_torch_train.py", "hf", settings)],
                "tokens_per_second", aim, **{"choose": ["--steps", "1"], **more})


def works(tiny: bool) -> list[Work]:
    def at(full: int, small: int) -> int:
        return small if tiny else full

    prompt, new = at(32, 8), at(64, 4)
    rows = [decode(f"decode{b}", min(b, at(b, 4)), prompt, new, 1.0 if b == 1 else 1.5) for b in (64, 16, 256, 1)]
    size = shape(batch=at(64, 4), prompt_tokens=prompt, new_tokens=new)
    rows.append(Work("transformers", f"decode, {at(64, 4)} sequences, {prompt}-token prompt, {new} new tokens, bf16", ["decode"], size,
                     [Peer("transformers", "peer_transformers.py", "hf", [[]])], "tokens_per_second", 5.0))
    size = shape(batch=at(16, 2), prompt_tokens=at(2048, 64), new_tokens=at(32, 4))
    rows.append(Work("context2048", "decode alone, {1} sequences that share {3} tokens of context, {5} new tokens, bf16".format(*size),
                     ["decode"], size, llama(), "decode", 1.3, choose=["--new-tokens", str(at(8, 4))]))
    size = shape(batch=1, prompt_tokens=at(512, 64), new_tokens=2)
    rows.append(Work("prompt512", "a prompt of {3} tokens alone, bf16".format(*size), ["decode"], size, llama(), "prefill", 1.3))
    rows.append(train("train", at(8, 2), at(256, 32), 1.4, TRAIN_SETTINGS))
    size = shape(prompts=2, group=at(8, 2), prompt_tokens=prompt, new_tokens=new)
    rows.append(Work("step", "a GRPO step, {1} prompts x {3} samples x {7} new tokens, bf16".format(*size), ["step", *RUNS], size,
                     [Peer("TRL", "peer_trl_step.py", "hf", [[]])], "seconds", 4.0))
    # Minutes on TRL's side, so that one step is measured from cold, on ours too.
    size = shape(prompts=at(8, 2), group=at(16, 2), prompt_tokens=at(256, 8), new_tokens=at(256, 4), flat_groups=at(4, 1), warm_up=0)
    rows.append(Work("bigstep", "a GRPO step, {1} prompts of {5} tokens x {3} samples x {7} new tokens, {9} groups without variance, "
                     "bf16".format(*size), ["step"], size,
                     [Peer("TRL", "peer_trl_step.py", "hf", [["--microbatch", str(at(8, 2)), "--steps", "1"]])], "seconds", 5.0))
    rows.append(decode("qwen-decode64", at(64, 2), prompt, at(64, 2), 1.5, ", shape of Qwen2.5-0.5B, random weights", model="qwen2.5-0.5b"))
    rows.append(train("qwen-train", at(4, 1), at(256, 8), 1.4, TRAIN_SETTINGS, ", shape of Qwen2.5-0.5B, random weights", model="qwen2.5-0.5b"))
    for name in ("tiny-1m", "tiny-3m", "tiny-10m"):
        rows.append(train(name, at(32, 4), at(128, 16), 2.0, TINY_SETTINGS[:1] if tiny else TINY_SETTINGS,
                          f", {name[5:-1]} M parameters, random weights", model=name, choose=["--steps", "9"])) # steps are short
    rows.append(Work("start", "process start to first token, GGUF in bf16", ["start"], [], [Peer("llama.cpp", "start", "bf16", [[]])], "seconds", 1.0))
    rows.append(decode("avx2", at(64, 4), prompt, new, 0.9, ", AVX2 only", environment={"RECKON_CPU": "avx2"},
                       peers=llama(instructions="avx2")))
    return rows
