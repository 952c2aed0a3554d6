"""The parts of gpu-check that run on the device and end with yes or no: operations, sanitizers, invariants, golden models,
recipes. Everything goes through the programs a user has: test programs linked with the real CUDA library, and reckon.
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time

from . import models

TOTALS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)
A_PRODUCT = ("bench", "gemm", "--batch", "192", "--columns", "256", "--depth", "128", "--device", "cuda")
OF_PRODUCTS = ("gpu_test_matmul", "gpu_test_head", "gpu_test_distill", "gpu_test_experts", "gpu_test_latent")
OF_POLICIES = ("gpu_test_mixture", "gpu_test_policy", "gpu_test_train")
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")


class Done:
    """How a program ended."""

    def __init__(self, status: int, out: str, err: str, seconds: float, late: bool) -> None:
        self.status, self.out, self.err, self.seconds, self.late = status, out, err, seconds, late

    def why(self) -> str:
        """The most telling line, for a report."""
        if self.late:
            return f"not done after {self.seconds:.0f} s"
        lines = [line for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"^FAIL|error|ERROR|reckon: ", line)]
        return (telling or lines or ["it printed nothing"])[0].strip()[:300]


class Check:
    def __init__(self, root: str, report, python: str, device: str | None) -> None:
        self.root, self.report, self.python, self.device = root, report, python, device
        self.reckon = os.path.join(root, "build", "reckon")
        self.limit = float(os.environ.get("RECKON_TEST_SECONDS", "500"))

    def run(self, command: list[str], limit: float | None = None, **environment: str) -> Done:
        begun, late = time.perf_counter(), False
        try:
            process = subprocess.Popen(command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, errors="replace", env={**os.environ, **environment}, start_new_session=True)
        except OSError as e:
            return Done(127, "", str(e), 0.0, False)
        try:
            out, err = process.communicate(timeout=limit or self.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its children: it leads a group of its own
            out, err = process.communicate()
            late = True
        return Done(process.returncode, out, err, time.perf_counter() - begun, late)

    def json(self, *arguments: str, limit: float | None = None, **environment: str) -> tuple[dict | None, str]:
        """A reckon command's JSON document, or None and why there is none."""
        done = self.run([self.reckon, *arguments, "--json"], limit, **environment)
        if done.status != 0 or done.late:
            return None, f"reckon {arguments[0]}: " + done.why()
        try:
            return json.loads(done.out), ""
        except ValueError:
            return None, f"reckon {arguments[0]} printed no JSON document"

    def build(self, jobs: int) -> bool:
        """The release build with CUDA, and the test programs for a GPU, which it leaves out."""
        self.report.begin("build")
        done = self.run([os.path.join(self.root, "scripts", "build"), "release"], 3600, RECKON_JOBS=str(jobs))
        seconds = done.seconds
        if done.status == 0:
            done = self.run(["cmake", "--build", os.path.join(self.root, "build"), "-j", str(jobs), "--target", "gpu_tests"], 3600)
            seconds += done.seconds
        self.report.row("build", "release with CUDA, gpu_tests", "builds", f"{seconds:.0f} s", done.status == 0, "" if done.status == 0 else done.why())
        self.report.save()
        return done.status == 0

    def opens(self) -> bool:
        """Whether products run on the device at all. On Hopper the first use of wgmma may end in a fault, or in no end, that a trial within
        the process can't survive: then all else is looked at by mma.sync."""
        self.report.begin("device")
        for kind in ("", "mma"):
            more = {"RECKON_CUDA_PRODUCTS": kind} if kind else {}
            out, why = self.json(*A_PRODUCT, limit=120, **more)
            self.report.row("device", "a product" + (" by mma.sync" if kind else ""), "runs", "ran" if out else "-", bool(out), why)
            if out:
                os.environ.update(more)
                break
        self.report.save()
        return bool(out)

    def programs(self, policies: bool) -> list[str]:
        """The test programs for a GPU: those of single operations, or those of whole policies and runs."""
        found = sorted(p for p in glob.glob(os.path.join(self.root, "build", "tests", "gpu_test_*")) if os.access(p, os.X_OK))
        return [p for p in found if (os.path.basename(p) in OF_POLICIES) == policies]

    def programs_pass(self, part: str, programs: list[str]) -> None:
        if not programs:
            self.report.row(part, "test programs", "some", "none", False, "build/tests has no such gpu_test_*: nvcc wasn't found when build/ was made")
        for program in programs:
            done = self.run([program])
            totals = TOTALS.search(done.out)
            passed = [int(n) for n in totals.groups()] if totals else [0, 0, 0]
            met = done.status == 0 and not done.late and passed[0] > 0 and passed[1] == 0
            found = f"{passed[0]} passed, {passed[1]} failed, {passed[2]} skipped in {done.seconds:.1f} s"
            self.report.row(part, os.path.basename(program), "all pass", found, met, "" if met else done.why())
            for name, why in re.findall(r"^skip ([^:]+): (.*)$", done.out, re.MULTILINE):
                self.report.row(part, name, "passes", "-", None, why)


# ---- operations ------------------------------------------------------------------------------------------
def operations(check: Check, items: set[str]) -> None:
    """Each test program of the CUDA operations, against the slow twins."""
    programs = [p for p in check.programs(False) if not items or any(item in os.path.basename(p) for item in items)]
    check.programs_pass("ops", programs)
    for program in programs:
        if os.path.basename(program) == "gpu_test_matmul":
            kinds_of_products(check, program)


def by_mma_only() -> bool:
    """Whether all is looked at by mma.sync (Check.opens)."""
    return os.environ.get("RECKON_CUDA_PRODUCTS") == "mma"


def kinds_of_products(check: Check, program: str) -> None:
    """Products by either kind of tensor-core instruction, whichever the device would choose."""
    for kind in ("mma",) if by_mma_only() else ("wgmma", "mma"):
        done = check.run([program], RECKON_CUDA_PRODUCTS=kind)
        totals = TOTALS.search(done.out)
        passed, failed, _ = (int(n) for n in totals.groups()) if totals else (0, 0, 0)
        met = None if "has none, 9.0 does" in done.out else done.status == 0 and not done.late and passed > 0 and failed == 0
        check.report.row("ops", f"gpu_test_matmul by {kind}", "all pass", f"{passed} passed, {failed} failed", met, "" if met else done.why())


def sanitizers(check: Check, items: set[str]) -> None:
    """The same programs under compute-sanitizer, arrays without bands so that each ends where it ends. Where the device has wgmma, those that
    multiply by mma.sync too."""
    tool = shutil.which("compute-sanitizer") or next((p for p in ["/usr/local/cuda/bin/compute-sanitizer"] if os.path.exists(p)), None)
    wanted = [kind for kind in SANITIZERS if not items or kind in items]
    by_wgmma = bool(tool) and not by_mma_only() and check.json(*A_PRODUCT, limit=120, RECKON_CUDA_PRODUCTS="wgmma")[0] is not None
    for kind in wanted:
        if not tool:
            check.report.row("sanitizer", kind, "clean", "-", None, "compute-sanitizer isn't installed")
            continue
        for program in check.programs(False):
            sanitize(check, tool, kind, program)
            if by_wgmma and os.path.basename(program) in OF_PRODUCTS:
                sanitize(check, tool, kind, program, "mma")


def sanitize(check: Check, tool: str, kind: str, program: str, products: str = "") -> None:
    more = {"RECKON_CUDA_PRODUCTS": products} if products else {}
    done = check.run([tool, "--tool", kind, "--error-exitcode", "9", "--print-limit", "10", program], RECKON_CUDA_EXACT="1", **more)
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.out + done.err)
    name = f"{kind}, {os.path.basename(program)}" + (f" by {products}" if products else "")
    if done.late:
        check.report.row("sanitizer", name, "clean", "-", None, done.why())
        return
    totals = TOTALS.search(done.out)
    clean = done.status == 0 and bool(summary) and bool(totals) and int(totals[1]) > 0  # where all cases are skipped nothing was looked at
    check.report.row("sanitizer", name, "clean", summary[-1] if summary else f"exit status {done.status}", clean, "" if clean else done.why())


# ---- invariants ------------------------------------------------------------------------------------------
def bits(values: list[float]) -> list[bytes]:
    import struct
    return [struct.pack("<f", value) for value in values]


def same_logprobs(check: Check, name: str, folder: str, precision: str, tokens: int, scratch: str) -> None:
    """Sample i is the same, to the bit, whoever else is decoded; and its logprobs are the training forward's. Samples of one prompt,
    whose pages they share, and of as many prompts of different lengths."""
    prompts = [[(17 * i + 3 * n + 3) % 250 + 1 for i in range(37 + n % 5)] for n in range(300)]
    ids = os.path.join(scratch, "ids.json")
    common = ["--ids", ids, "--precision", precision, "--device", "cuda"]

    def write(lists: list) -> None:
        with open(ids, "w") as f:
            json.dump(lists, f)

    for shared in (True, False):
        which, runs = name + (", one prompt" if shared else ", a prompt each"), {}
        for batch in (300, 64, 7, 1):
            write(prompts[0] if shared else prompts[:batch])
            out, why = check.json("generate", folder, *common, "-n", str(batch if shared else 1), "--max-tokens", str(tokens), "--ignore-eos")
            if not out:
                check.report.row("invariants", f"{which}: batch {batch}", "runs", "-", False, why)
                return
            runs[batch] = out["completions"]
        for batch in (64, 7, 1):
            same = len(runs[batch]) == batch and all(a["ids"] == b["ids"] and bits(a["logprobs"]) == bits(b["logprobs"])
                                                     for a, b in zip(runs[batch], runs[300]))
            check.report.row("invariants", f"{which}: batch {batch} beside 300", "the same tokens and bits", "the same" if same else "different", same)
        # Alone and packed: the training forward of eight whole sequences.
        write([prompts[0 if shared else i] + c["ids"] for i, c in enumerate(runs[300][:8])])
        out, why = check.json("score", folder, *common)
        if not out:
            check.report.row("invariants", f"{which}: training forward", "runs", "-", False, why)
            return
        scored = [s["logprobs"][-tokens:] for s in out["sequences"]]
        differ = sum(a != b for s, c in zip(scored, runs[300]) for a, b in zip(bits(s), bits(c["logprobs"])))
        check.report.row("invariants", f"{which}: decoding beside the training forward", "the same bits",
                         f"{differ} of {8 * tokens} differ" if differ else f"{8 * tokens} logprobs, all the same", differ == 0)


def invariants(check: Check, items: set[str]) -> None:
    scratch = os.path.join(check.report.folder, "invariants")
    os.makedirs(scratch, exist_ok=True)
    if not items or "policies" in items:
        check.programs_pass("invariants", check.programs(True))
    if not items or "bits" in items:
        for precision in ("fp32", "bf16"):
            for golden_model in ("llama-tied", "qwen2"):
                folder = os.path.join(check.root, "tests", "data", "models", golden_model)
                same_logprobs(check, f"{golden_model} {precision}", folder, precision, 24, scratch)
        same_logprobs(check, "Qwen2.5-0.5B's shape bf16", models.random_model(scratch, "0.5B"), "bf16", 40, scratch)
    if not items or "twice" in items:
        same_weights_twice(check, scratch)
    if not items or "resume" in items:
        done = check.run([os.path.join(check.root, "tests", "faults", "test_kill_resume"), check.reckon], RECKON_DEVICE="cuda")
        totals = TOTALS.search(done.out)
        met = bool(totals) and done.status == 0 and totals[2] == "0"
        check.report.row("invariants", "killed and resumed", "the bits of the undisturbed run", totals[0] if totals else "-",
                         None if done.late else met, "" if met else done.why())


def train(check: Check, recipe: str, run: str, *more: str, limit: float | None = None) -> str:
    """Trains into a new folder; empty, or why it failed."""
    shutil.rmtree(run, ignore_errors=True)
    done = check.run([check.reckon, "train", recipe, "--run", run, *more], limit)
    return "" if done.status == 0 and not done.late else done.why()


SHORT = ["--set", "stages.1.steps=40", "--set", "stages.1.optimizer.warmup=5", "--set", "stages.2.steps=4", "--set", "evaluate.items=10",
         "--set", "compare.items=0"]


def same_weights_twice(check: Check, scratch: str) -> None:
    recipe, heads = os.path.join(check.root, "scripts", "recipes", "quickstart.lua"), []
    for name in ("first", "second"):
        run = os.path.join(scratch, name)
        why = train(check, recipe, run, *SHORT, "--device", "cuda")
        head = check.run([check.reckon, "audit", run, "--head"])
        if why or head.status != 0:
            check.report.row("invariants", "the same weights twice", "one head of the chain", "-", False, why or head.why())
            return
        heads.append(head.out.strip())
    check.report.row("invariants", "the same weights twice", "one head of the chain", " and ".join(sorted(set(heads))), heads[0] == heads[1] != "")


# ---- golden models ---------------------------------------------------------------------------------------
def golden(check: Check, items: set[str]) -> None:
    """Logprobs and gradient norms of small checkpoints against transformers in double precision, as on the CPU."""
    scratch = os.path.join(check.report.folder, "golden")
    os.makedirs(scratch, exist_ok=True)
    for config in sorted(glob.glob(os.path.join(check.root, "tests", "data", "models", "*", "config.json"))):
        folder = os.path.dirname(config)
        name = os.path.basename(folder)
        if not os.path.exists(os.path.join(folder, "cases.json")):
            continue
        with open(os.path.join(folder, "cases.json")) as f:
            cases = json.load(f)
        with open(config) as f:
            routed = "expert" in f.read()  # in bf16 a token on a border goes to another expert
        for precision, tolerance, gradient_tolerance in (("fp32", 1e-4, 1e-3), ("bf16", 0.3, 0.25) if routed else ("bf16", 0.15, 0.1)):
            if not items or name in items:
                golden_model(check, f"{name} {precision}", folder, cases, precision, tolerance, gradient_tolerance, scratch)


def golden_model(check: Check, name: str, folder: str, cases: dict, precision: str, tolerance: float, gradient_tolerance: float, scratch: str) -> None:
    ids = os.path.join(scratch, "ids.json")
    common = [folder, "--ids", ids, "--precision", precision, "--device", "cuda"]
    with open(ids, "w") as f:
        json.dump([s["ids"] for s in cases["sequences"]], f)
    out, why = check.json("score", *common)
    with open(ids, "w") as f:
        json.dump([cases["training"]["ids"]], f)
    trained, why_not = check.json("score", *common, "--grad")
    if not out or not trained:
        check.report.row("golden", name, "runs", "-", False, why or why_not)
        return
    worst = max(abs(a - b) for s, c in zip(out["sequences"], cases["sequences"]) for a, b in zip(s["logprobs"], c["next_logprobs_f64"]))
    check.report.row("golden", f"{name}: logprobs", f"within {tolerance:g}", f"{worst:.3g}", worst <= tolerance)
    wanted = {key: value["l2"] for key, value in cases["training"]["grads"].items()}
    worst = max(abs(trained["grad_norms"][key] / l2 - 1) for key, l2 in wanted.items() if l2 > 0)
    check.report.row("golden", f"{name}: gradient norms", f"within {gradient_tolerance:g} of each", f"{worst:.3g}", worst <= gradient_tolerance)


# ---- recipes ---------------------------------------------------------------------------------------------
def accuracies(check: Check, target: str, device: str, items: int, *more: str) -> tuple[dict, str]:
    """(mode, kind, level) -> (low, accuracy, high)."""
    out, why = check.json("eval", target, "--items", str(items), "--device", device, *more)
    found = {}
    for e in out["evaluations"] if out else []:
        for level in e["replayable"]["levels"]:
            found[e["replayable"]["mode"], level["kind"], level["level"]] = (level["low"], level["accuracy"], level["high"])
    return found, why


def recipes(check: Check, items: set[str]) -> None:
    scratch = os.path.join(check.report.folder, "runs")
    os.makedirs(scratch, exist_ok=True)
    if not items or "tiny" in items:
        learns_as_on_cpu(check, scratch)
    if not items or "smollm2" in items:
        smollm2_learns(check, scratch)


def learns_as_on_cpu(check: Check, scratch: str) -> None:
    """The quickstart on both devices: the 95 % intervals of each mode and level have something in common."""
    recipe = os.path.join(check.root, "scripts", "recipes", "quickstart.lua")
    found = {}
    for device in ("cuda", "cpu"):
        run = os.path.join(scratch, f"quickstart-{device}")
        why = train(check, recipe, run, "--device", device, "--set", "compare.items=0")
        found[device], why_not = accuracies(check, run, device, 400) if not why else ({}, why)
        if not found[device]:
            check.report.row("recipes", f"quickstart on {device}", "learns", "-", None if "not done after" in why_not else False, why_not)
            return
    for key in sorted(found["cuda"], key=str):
        low, here, high = found["cuda"][key]
        other_low, there, other_high = found["cpu"][key]
        check.report.row("recipes", f"quickstart, {key[0]}, {key[1]} {key[2]}", f"as on the CPU, {100 * there:.1f} %", f"{100 * here:.1f} %",
                         low <= other_high and other_low <= high)


# What the recipe came to on the CPU, by level (README.md): low, accuracy, high.
SMOLLM2_ON_CPU = {1: (0.833, 0.885, 0.922), 2: (0.880, 0.925, 0.954), 3: (0.014, 0.030, 0.064)}


def smollm2_learns(check: Check, scratch: str) -> None:
    model = os.path.join(check.root, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
    recipe = os.path.join(check.root, "scripts", "recipes", "smollm2_arithmetic.lua")
    if not os.path.exists(model):
        check.report.row("recipes", "SmolLM2 learns to add", "accuracy rises", "-", None, "models/ has no SmolLM2 (scripts/get-model smollm2-135m)")
        return
    run = os.path.join(scratch, "smollm2")
    before, why = accuracies(check, model, "cuda", 200, "--recipe", recipe, "--mode", "direct")
    why = why or train(check, recipe, run, "--device", "cuda")
    after, why_not = accuracies(check, run, "cuda", 200, "--mode", "direct") if not why else ({}, why)
    if not after:
        check.report.row("recipes", "SmolLM2 learns to add", "accuracy rises", "-", None if "not done after" in why_not else False, why_not)
        return
    for key in sorted(after, key=str):
        low, found, high = after[key]
        other_low, there, other_high = SMOLLM2_ON_CPU[key[2]]
        check.report.row("recipes", f"SmolLM2, {key[1]} {key[2]}", f"as on the CPU, {100 * there:.1f} %", f"{100 * before[key][1]:.1f} %, then {100 * found:.1f} %",
                         low <= other_high and other_low <= high)
