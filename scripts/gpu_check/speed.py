"""The part of gpu-check that measures: decoding, training, a GRPO step, single operations, each beside PyTorch in the same run
where a python with torch is at hand. Targets are stated for one H100, and an H200 is held to them too; on other devices figures
are told and not judged.
"""
import ctypes
import json
import os

from . import models

# Dense bf16 peak of the tensor cores, FLOP/s. Bandwidth is computed from the device's own clock and width.
PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
              "RTX 4090": 165e12, "RTX 5090": 210e12}
MEMORY_CLOCK_KHZ, MEMORY_BUS_BITS = 36, 37  # CUdevice_attribute


def peak_flops(device: str) -> float | None:
    return next((PEAK_FLOPS[name] for name in sorted(PEAK_FLOPS, key=len, reverse=True) if name in device), None)


def bandwidth() -> float | None:
    """Bytes per second at most, of the first device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    clock, width = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetAttribute(ctypes.byref(clock), MEMORY_CLOCK_KHZ, 0):
        return None
    if driver.cuDeviceGetAttribute(ctypes.byref(width), MEMORY_BUS_BITS, 0):
        return None
    return clock.value * 1e3 * 2 * width.value / 8 or None


class Speed:
    def __init__(self, check) -> None:
        self.check, self.bandwidth, self.flops = check, bandwidth(), peak_flops(check.device)
        self.judged = "H100" in check.device or "H200" in check.device
        self.results = check.report.parts["speed"].get("results", [])  # with those of earlier calls
        self.folder = os.path.join(check.report.folder, "models")
        done = check.run([check.python, "-c", "import torch, transformers; print(torch.cuda.is_available())"], 120)
        self.no_peer = "" if done.status == 0 and "True" in done.out else "this python has no torch and transformers that see the device"

    def ours(self, *arguments: str, **environment: str) -> tuple[dict | None, str]:
        out, why = self.check.json("bench", *arguments, "--device", "cuda", **environment)
        if out:
            self.results.append({"command": ["bench", *arguments], "result": out})
        return out, why

    def peer(self, kind: str, **options) -> tuple[dict | None, str]:
        if self.no_peer:
            return None, self.no_peer
        command = [self.check.python, os.path.join(self.check.root, "tests", "bench", "peer_gpu.py"), kind]
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        done = self.check.run(command)
        if done.status != 0 or done.late:
            return None, done.why()
        out = json.loads(done.out.strip().splitlines()[-1])
        self.results.append({"command": command[1:], "result": out})
        return out, ""

    def row(self, name: str, target: str, found: str, met: bool | None, why: str = "") -> None:
        """`met` counts only on the device that the target is stated for."""
        if met is not None and not self.judged:
            met, why = None, f"the target is stated for one H100; {why}" if why else "the target is stated for one H100"
        self.check.report.row("speed", name, target, found, met, why)

    def beside(self, name: str, factor: float, ours: float | None, peer: tuple[dict | None, str], unit: str) -> None:
        theirs, why = peer
        target = f"at least {factor:g} times the peer"
        if not theirs or ours is None:
            self.row(name, target, "-", None, why or "ours didn't run")
            return
        ratio = ours / theirs["figure"]
        self.row(name, target, f"{ratio:.2f} times: {ours:.4g} {unit} beside {theirs['figure']:.4g} ({theirs['settings']}{memory_text(theirs)})",
                 ratio >= factor)

    def cost_of_invariance(self, name: str, figure: str, ours: float, *arguments: str) -> None:
        """The same with products by whatever algorithm cuBLASLt proposes for each shape, so that bits may depend on the number of rows."""
        free, why = self.ours(*arguments, RECKON_CUDA_ALGORITHMS="free")
        ratio = ours / free[figure] if free else None
        self.row(f"{name}, beside our own free choice of algorithms", "at least 0.9 times it", f"{ratio:.2f} times" if free else "-",
                 ratio >= 0.9 if free else None, why)

    def roofline(self, out: dict, steps: int, counted: int) -> float | None:
        """The least time that `steps` of the `counted` steps of decoding could take, by bytes or by FLOPs, as a share of what they took."""
        if not self.bandwidth or not self.flops:
            return None
        least = max(out["bytes_per_second"] / self.bandwidth, out["flops_per_second"] / self.flops) * out["total_seconds"]
        return least * steps / counted / out["seconds"]["decode"]


def memory_text(out: dict) -> str:
    """What was held of the device's memory at most, ours and PyTorch's counted by their own allocators."""
    return f", {out['peak_device_bytes'] / 2**30:.1f} GiB" if out.get("peak_device_bytes") else ""


# ---- decoding --------------------------------------------------------------------------------------------
NEW_TOKENS = 256  # tokens a sequence; the first comes from the prompt's pass


def decode(s: Speed) -> None:
    for size, batch, share, factor in (("0.5B", 1, 0.40, None), ("0.5B", 64, None, 10), ("0.5B", 256, 0.55, 10), ("0.5B", 1024, 0.55, None),
                                       ("1.5B", 1, 0.60, None), ("1.5B", 256, None, None)):
        model, name = models.random_model(s.folder, size), f"decode {size}, {batch} sequences"
        command = ("decode", "--model", model, "--batch", str(batch), "--prompt-tokens", "256", "--new-tokens", str(NEW_TOKENS))
        out, why = s.ours(*command)
        if not out:
            s.row(name, "runs", "-", False, why)
            continue
        rate, reached = batch * (NEW_TOKENS - 1) / out["seconds"]["decode"], s.roofline(out, NEW_TOKENS - 1, NEW_TOKENS)
        found = f"{rate:.0f} tokens/s{memory_text(out)}" + (f", {100 * reached:.0f} % of the roofline" if reached else "")
        s.row(name, f"at least {100 * share:.0f} % of the roofline" if share else "a figure", found, reached >= share if share and reached else None,
              "" if reached or not share else "this device's bandwidth or peak isn't known")
        if size == "0.5B":
            s.cost_of_invariance(name, "tokens_per_second", out["tokens_per_second"], *command)
        if factor:
            s.beside(f"{name}, beside transformers' generate", factor, rate,
                     s.peer("decode", config=os.path.join(model, "config.json"), batch=batch, prompt_tokens=256, new_tokens=64), "tokens/s")


# ---- training --------------------------------------------------------------------------------------------
def train(s: Speed) -> None:
    for size in ("0.5B", "1.5B"):
        model, name = models.random_model(s.folder, size), f"training {size}, 8 x 1024 tokens"
        command = ("train", "--model", model, "--batch", "8", "--new-tokens", "1024", "--warm-up", "2")
        out, why = s.ours(*command)
        if not out:
            s.row(name, "runs", "-", False, why)
            continue
        share = out["flops_per_second"] / s.flops if s.flops else None
        found = f"{out['tokens_per_second']:.0f} tokens/s{memory_text(out)}" + (f", MFU {100 * share:.0f} %" if share else "")
        s.row(name, "MFU at least 50 %", found, share >= 0.5 if share else None, "" if share else "this device's peak isn't in the table")
        s.cost_of_invariance(name, "tokens_per_second", out["tokens_per_second"], *command)
        s.beside(f"{name}, beside PyTorch with flash attention", 1.5, out["tokens_per_second"],
                 s.peer("train", config=os.path.join(model, "config.json"), batch=8, new_tokens=1024), "tokens/s")


def step(s: Speed) -> None:
    name = "a GRPO step on 0.5B, 64 prompts of 256 tokens x 16 samples x 512 new tokens"
    out, why = s.ours("step", "--model", models.random_model(s.folder, "0.5B"), "--prompts", "64", "--group", "16", "--prompt-tokens", "256",
                      "--new-tokens", "512")
    if not out:
        s.row(name, "6 s at most", "-", False, why)
        return
    stages = ", ".join(f"{key} {value:.2f}" for key, value in out["seconds"].items())
    s.row(name, "6 s at most", f"{out['total_seconds']:.2f} s ({stages}){memory_text(out)}", out["total_seconds"] <= 6)


# ---- single operations -----------------------------------------------------------------------------------
def gemm(s: Speed) -> None:
    for rows, columns, depth in ((1, 9728, 896), (64, 9728, 896), (256, 9728, 896), (8192, 9728, 896), (8192, 896, 4864), (8192, 17920, 1536)):
        name = f"matrix product {rows} x {columns} x {depth}"
        command = ("gemm", "--batch", str(rows), "--columns", str(columns), "--depth", str(depth))
        out, why = s.ours(*command)
        if not out:
            s.row(name, "runs", "-", False, why)
            continue
        s.cost_of_invariance(name, "flops_per_second", out["flops_per_second"], *command)
        s.beside(f"{name}, beside PyTorch's, which is cuBLAS", 0.9, out["flops_per_second"] / 1e12,
                 s.peer("gemm", batch=rows, columns=columns, depth=depth), "TFLOP/s")
        other, why = s.ours(*command, RECKON_CUDA_PRODUCTS="mma")
        s.row(f"{name}, by mma.sync", "a figure", f"{other['flops_per_second'] / 1e12:.4g} TFLOP/s" if other else "-", None, why)


def operations(s: Speed, name: str = "gpu_time_operations", *arguments: str) -> None:
    """Each operation alone: share of the bandwidth where memory bounds it; attention beside PyTorch's."""
    program = os.path.join(os.path.dirname(s.check.reckon), "tests", name)
    done = s.check.run([program, *arguments]) if os.path.exists(program) else None
    if not done or done.status != 0 or done.late:
        s.row("operations alone", "runs", "-", None if not done else False, done.why() if done else f"{program} isn't there")
        return
    for line in done.out.splitlines():
        timed = json.loads(line)
        s.results.append({"command": [os.path.basename(program)], "result": timed})
        name = f"{timed['name']}, {timed['shape']}"
        if timed["flops"]:
            peer = s.peer("attention", **timed["peer"]) if timed.get("peer") else (None, "no peer")
            s.beside(name, 0.8, timed["flops"] / timed["seconds"] / 1e12, peer, "TFLOP/s")
            continue
        if not timed["bytes"]:
            s.row(name, "a figure", f"{timed['seconds'] * 1e6:.1f} us", None)
            continue
        reached = timed["bytes"] / timed["seconds"]
        s.row(name, "at least 70 % of the bandwidth", f"{reached / 1e9:.0f} GB/s, {timed['seconds'] * 1e6:.1f} us",
              reached / s.bandwidth >= 0.7 if s.bandwidth else None, "" if s.bandwidth else "the bandwidth isn't known")


WORKS = {"decode": decode, "train": train, "step": step, "gemm": gemm, "operations": operations}


def run(check, items: set[str]) -> None:
    s = Speed(check)
    for name, work in WORKS.items():
        if not items or name in items:
            work(s)
            check.report.attach("speed", "results", s.results)
            check.report.save()
