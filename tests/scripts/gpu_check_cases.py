"""The cases of tests/scripts/test_gpu_check: python3 gpu_check_cases.py RECKON. No GPU and no nvcc are needed: the assembler's
account is a recorded one, and the parts that need a device run their comparisons on the CPU."""
import contextlib
import glob
import importlib.machinery
import importlib.util
import io
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
from gpu_check import device, models, report, speed, static  # noqa: E402

loader = importlib.machinery.SourceFileLoader("gpu_check_command", os.path.join(ROOT, "scripts", "gpu-check"))
command = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(command)

RECORDED = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z14rmsnorm_kernelILb1EfEv11RmsnormArgs' for 'sm_90a'
ptxas info    : Function properties for _Z14rmsnorm_kernelILb1EfEv11RmsnormArgs
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers
ptxas info    : Compile time = 14.2 ms
ptxas info    : Compiling entry function 'spilling_kernel' for 'sm_90a'
ptxas info    : Function properties for spilling_kernel
    336 bytes stack frame, 540 bytes spill stores, 556 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 336 bytes cumulative stack size, 256 bytes smem
ptxas info    : Compile time = 20.794 ms
ptxas info    : Function properties for _Z6helperPfi
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
rows.cu(12): warning #177-D: variable "x" was declared but never referenced
"""
scratch = tempfile.TemporaryDirectory()
reckon = os.path.abspath(sys.argv[1])


class Skip(Exception):
    """Why a case can't be looked at here."""


def equal(got, want) -> None:
    assert got == want, f"got {got!r}, want {want!r}"


def silently(call, *arguments):
    """The call's result, and what it wrote on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            result = call(*arguments)
        except SystemExit as e:
            result = e.code
    return result, out.getvalue(), err.getvalue()


def new_report(name: str, commit: str = "one") -> report.Report:
    return report.Report(os.path.join(scratch.name, name), {"date": "2026-01-02", "commit": commit, "device": None})


# ---- the assembler's account -----------------------------------------------------------------------------
def reads_the_account():
    kernels, complaints = static.parse(RECORDED)
    equal([k["kernel"] for k in kernels], ["_Z14rmsnorm_kernelILb1EfEv11RmsnormArgs", "spilling_kernel", "_Z6helperPfi"])
    equal([k["registers"] for k in kernels], [31, 32, None])
    equal([k["spill_bytes"] for k in kernels], [0, 1096, 8])
    equal([k["stack_bytes"] for k in kernels], [0, 336, 8])
    equal([k["shared_bytes"] for k in kernels], [0, 256, 0])
    equal({k["architecture"] for k in kernels}, {"90a"})
    equal(len(complaints), 1)
    assert "never referenced" in complaints[0], complaints


def an_error_is_a_complaint():
    equal(static.parse("rows.cu(3): error: expected a \";\"\n1 error detected in the compilation of \"rows.cu\".\n")[0], [])
    equal(len(static.parse("ptxas fatal   : (C7600) Port size\n")[1]), 1)
    equal(static.parse("")[1], [])


def spills_are_judged():
    kernels, _ = static.parse(RECORDED)
    equal([k["kernel"] for k in static.judge(kernels, [])], ["spilling_kernel", "_Z6helperPfi"])
    table = [("spilling_kernel", "90a", 1096, "a reason")]
    equal([k["kernel"] for k in static.judge(kernels, table)], ["_Z6helperPfi"])
    equal(len(static.judge(kernels, [("spilling_kernel", "90a", 1095, "a byte too few")])), 2)
    equal(len(static.judge(kernels, [("spilling_kernel", "80", 4096, "another architecture")])), 2)
    equal(len(static.judge(kernels, [("spilling", None, 4096, "a part of a name")])), 2)


def registers_are_judged():
    kernels = [{"kernel": name, "registers": count} for name, count in (("rope_kernel", 65), ("rope_kernel", 64), ("matmul_kernel<1>", 255), ("helper", None))]
    equal([k["registers"] for k in static.too_many_registers(kernels, static.ALLOWED_REGISTERS)], [65])
    equal(len(static.too_many_registers(kernels, [("matmul_kernel", 254, "one too few")])), 2)
    equal(len(static.too_many_registers(kernels, [("matmul", 255, "a part of a name"), ("rope_kernel", 65, "enough")])), 1)


def names_are_short():
    equal(static.short_name("void rmsnorm_kernel<true, unsigned short>(RmsnormArgs)"), "rmsnorm_kernel<true, unsigned short>")
    equal(static.short_name("advance_kernel(AdvanceArgs)"), "advance_kernel")
    equal(static.short_name("spilling_kernel"), "spilling_kernel")


def the_kernels_of_this_build():
    """Where nvcc built them: nothing spills on any architecture, no warning."""
    accounts = static.read_accounts(os.path.join(os.path.dirname(reckon), "kernels"))
    if not accounts:
        raise Skip("this build has no CUDA kernels (nvcc wasn't found)")
    judged = new_report("accounts")
    judged.begin("static")
    silently(static.report_accounts, judged, accounts, static.cuda_sources(ROOT))
    missed = [row for row in judged.parts["static"]["rows"] if row["verdict"] != "met"]
    equal(missed, [])


def the_programs_for_a_gpu_link():
    """Where nvcc built the kernels: what gpu-check runs on a device is there, and says so where there is none."""
    build = os.path.dirname(reckon)
    if not static.read_accounts(os.path.join(build, "kernels")):
        raise Skip("this build has no CUDA kernels (nvcc wasn't found)")
    done = subprocess.run(["cmake", "--build", build, "--target", "gpu_tests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    programs = glob.glob(os.path.join(build, "tests", "gpu_test_*"))
    equal(sorted(os.path.basename(p) for p in programs),
          sorted("gpu_" + os.path.basename(p)[:-2] for p in glob.glob(os.path.join(ROOT, "tests", "cuda", "test_*.c"))))
    if command.find_device()[0] is None:
        done = subprocess.run([os.path.join(build, "tests", "gpu_time_operations"), "small"], capture_output=True, text=True)
        assert done.returncode == 69 and "driver" in done.stderr, (done.returncode, done.stderr)


# ---- the command -----------------------------------------------------------------------------------------
def call(found: tuple, nvcc: str | None, *arguments: str):
    command.find_device, command.find_nvcc = lambda: found, lambda: nvcc
    sys.argv = ["gpu-check", "--out", os.path.join(scratch.name, "command"), *arguments]
    return silently(command.main)


def without_a_gpu():
    status, out, err = call((None, "the driver (libcuda.so.1) isn't here"), "/bin/false")
    equal((status, out), (69, ""))
    assert err.startswith("gpu-check: the driver (libcuda.so.1) isn't here.") and "scripts/gpu-check --static" in err, err


def static_without_nvcc():
    status, out, err = call((None, "no driver"), None, "--static")
    equal((status, out), (69, ""))
    assert "nvcc isn't here" in err, err


def wrong_calls():
    for arguments in (["--only", "speeed"], ["--no-such-option"], ["--jobs", "many"]):
        status, _, err = call((None, "no driver"), None, *arguments)
        equal(status, 64)
        assert err.startswith("gpu-check: ") and "Traceback" not in err, err


def parts_are_narrowed():
    equal(list(command.chosen(None, None)), list(command.PARTS))
    equal(command.chosen("sanitizer.racecheck,ops,sanitizer.memcheck", None), {"sanitizer": {"racecheck", "memcheck"}, "ops": set()})


# ---- the report ------------------------------------------------------------------------------------------
def reports_grow():
    first = new_report("grows")
    first.begin("ops")
    silently(first.row, "ops", "rows", "pass", "4 passed", True)
    first.save()
    second = new_report("grows")
    second.begin("speed")
    silently(second.row, "speed", "decode", "55 %", "40 %", False, "slow")
    silently(second.row, "speed", "train", "50 %", "-", None, "no torch")
    second.save()
    equal(list(second.parts), ["ops", "speed"])
    equal([second.count(v) for v in ("met", "missed", "not run")], [0, 1, 1])  # of this call
    with open(os.path.join(scratch.name, "grows", "gpu-check.md")) as f:
        text = f.read()
    for line in ("| rows | pass | 4 passed | met |", "| decode | 55 % | 40 % | missed: slow |", "| train | 50 % | - | not run: no torch |"):
        assert line in text, text
    equal(list(new_report("grows", "another commit").parts), [])
    third = new_report("grows")  # narrowed down: the other rows stay, in their places
    third.begin("speed", False)
    silently(third.row, "speed", "decode", "55 %", "60 %", True)
    silently(third.row, "speed", "gemm", "0.9", "0.95", True)
    equal([(row["name"], row["verdict"]) for row in third.parts["speed"]["rows"]], [("decode", "met"), ("train", "not run"), ("gemm", "met")])
    equal([third.count(v) for v in ("met", "missed", "not run")], [2, 0, 0])
    third.begin("ops")
    equal(third.parts["ops"]["rows"], [])


# ---- parts for the device, on the CPU --------------------------------------------------------------------
class OnCpu(device.Check):
    tamper = False

    def json(self, *arguments, limit=None):
        out, why = super().json(*("cpu" if a == "cuda" else a for a in arguments), limit=limit)
        if self.tamper and out and "sequences" in out:
            out["sequences"][1]["logprobs"][-1] += 1e-6
        return out, why


def on_cpu(name: str) -> OnCpu:
    check = OnCpu(ROOT, new_report(name), sys.executable, "no device")
    check.reckon = reckon
    os.makedirs(check.report.folder, exist_ok=True)
    return check


def verdicts(check: OnCpu, part: str) -> list[str]:
    return [row["verdict"] for row in check.report.parts[part]["rows"]]


def invariants_hold_on_the_cpu():
    check = on_cpu("invariants")
    check.report.begin("invariants")
    folder = os.path.join(ROOT, "tests", "data", "models", "llama-tied")
    silently(device.same_logprobs, check, "llama-tied", folder, "bf16", 5, check.report.folder)
    equal(verdicts(check, "invariants"), ["met"] * 8)
    check.tamper = True
    silently(device.same_logprobs, check, "llama-tied", folder, "bf16", 5, check.report.folder)
    equal(verdicts(check, "invariants")[8:], (["met"] * 3 + ["missed"]) * 2)


def golden_models_on_the_cpu():
    check = on_cpu("golden")
    check.report.begin("golden")
    silently(device.golden, check, {"llama-tied"})
    equal(verdicts(check, "golden"), ["met"] * 4)


def a_missing_program_is_a_failure():
    check = on_cpu("missing")
    check.reckon = os.path.join(scratch.name, "nothing")
    check.root = scratch.name
    for part, run, *more in (("ops", device.operations, set()), ("sanitizer", device.sanitizers, set()),
                             ("invariants", device.same_logprobs, "none", check.root, "fp32", 4, check.root)):
        check.report.begin(part)
        silently(run, check, *more)
    equal((verdicts(check, "ops"), verdicts(check, "invariants")), (["missed"], ["missed"]))
    assert "missed" not in verdicts(check, "sanitizer")


def random_weights_are_a_model():
    kept = models.SHAPES["0.5B"], dict(models.SHARED)
    models.SHAPES["0.5B"] = {**kept[0], "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    models.SHARED.update(vocab_size=300, bos_token_id=0, eos_token_id=1)
    check = on_cpu("random")
    try:
        folder = models.random_model(check.report.folder, "0.5B")
    finally:
        models.SHAPES["0.5B"] = kept[0]
        models.SHARED.update(kept[1])
    check.report.begin("invariants")
    silently(device.same_logprobs, check, "random", folder, "bf16", 4, check.report.folder)
    equal(verdicts(check, "invariants"), ["met"] * 8)


def shapes_have_their_sizes():
    for size, parameters in (("0.5B", 494032768), ("1.5B", 1543714304)):
        count = 0
        for _, shape in models.tensors(models.SHAPES[size]):
            count += shape[0] * (shape[1] if len(shape) > 1 else 1)
        equal(count, parameters)


def peaks_are_found():
    equal(speed.peak_flops("NVIDIA H100 80GB HBM3"), 989e12)
    equal(speed.peak_flops("NVIDIA H100 PCIe"), 756e12)
    equal(speed.peak_flops("NVIDIA GeForce GT 710"), None)


class Canned(speed.Speed):
    """Both sides' figures as if measured on an H100 of 3.35 TB/s."""

    def __init__(self, check, seconds: float) -> None:
        self.check, self.bandwidth, self.flops, self.judged, self.results, self.folder, self.seconds = check, 3.35e12, 989e12, True, [], "none", seconds

    def ours(self, *arguments: str, **environment: str):
        free = environment.get("RECKON_CUDA_ALGORITHMS") == "free"  # 5 % faster, or half as fast again
        return {"seconds": {"decode": self.seconds, "prefill": 0.0}, "bytes_per_second": 3.35e12 * 256 / 255 / self.seconds,
                "flops_per_second": 525e12 if free else 500e12, "total_seconds": self.seconds,
                "tokens_per_second": 1e5 * (1 + 0.05 * self.seconds if free else 1), "peak_device_bytes": 3 << 30}, ""

    def peer(self, kind: str, **options):
        return {"figure": 1.0, "settings": "canned", "peak_device_bytes": 5 << 30}, ""


def speed_is_judged():
    kept = models.random_model
    models.random_model = lambda folder, size: f"{folder}-{size}"
    found = {}
    try:
        for seconds in (1.0, 10.0):  # the roofline's own time, and ten times that, but for the FLOPs
            check = on_cpu(f"speed-{seconds}")
            check.report.begin("speed")
            for work in ("decode", "train", "step", "gemm"):
                silently(speed.WORKS[work], Canned(check, seconds))
            found[seconds] = {row["name"]: (row["verdict"], row["found"]) for row in check.report.parts["speed"]["rows"]}
    finally:
        models.random_model = kept
    assert found[1.0]["decode 0.5B, 256 sequences"] == ("met", "65280 tokens/s, 3.0 GiB, 100 % of the roofline"), found[1.0]
    assert found[1.0]["decode 0.5B, 256 sequences, beside transformers' generate"][0] == "met", found[1.0]
    step = next(name for name in found[1.0] if "GRPO step" in name)
    equal([found[t][step][0] for t in (1.0, 10.0)], ["met", "missed"])
    # 500 TFLOP/s are half the peak: where bytes would take a tenth of the time, FLOPs bound what can be reached.
    equal(found[10.0]["decode 0.5B, 1024 sequences"], ("missed", "26112 tokens/s, 3.0 GiB, 50 % of the roofline"))
    equal(found[1.0]["training 0.5B, 8 x 1024 tokens"][0], "met")
    free = "beside our own free choice of algorithms"
    equal([found[t][f"decode 0.5B, 256 sequences, {free}"] for t in (1.0, 10.0)], [("met", "0.95 times"), ("missed", "0.67 times")])
    equal([found[t][f"training 1.5B, 8 x 1024 tokens, {free}"][0] for t in (1.0, 10.0)], ["met", "missed"])
    equal(found[10.0][f"matrix product 64 x 9728 x 896, {free}"], ("met", "0.95 times"))
    assert "5.0 GiB" in found[1.0]["training 0.5B, 8 x 1024 tokens, beside PyTorch with flash attention"][1], found[1.0]


def operations_are_timed():
    check = on_cpu("operations")
    check.report.begin("speed")
    s = Canned(check, 1.0)
    program = os.path.join(os.path.dirname(reckon), "tests", "cuda_time_operations")
    if not os.path.exists(program):
        raise Skip("this build has no emulated device")
    silently(speed.operations, s, "cuda_time_operations", "small")
    rows = check.report.parts["speed"]["rows"]
    equal(len(rows), 22)
    assert all(any(unit in row["found"] for unit in ("GB/s", "TFLOP/s", " us")) for row in rows), rows


def a_device_that_hangs_on_wgmma():
    class Hopper(OnCpu):
        def json(self, *arguments, limit=None, **environment):
            return ({}, "not done after 120 s") if not environment else ({"flops_per_second": 1.0}, "")

    check = Hopper(ROOT, new_report("hangs"), sys.executable, "no device")
    kept = os.environ.pop("RECKON_CUDA_PRODUCTS", None)
    try:
        equal(silently(check.opens)[0], True)
        equal((verdicts(check, "device"), os.environ.get("RECKON_CUDA_PRODUCTS")), (["missed", "met"], "mma"))
    finally:
        os.environ.pop("RECKON_CUDA_PRODUCTS", None)
        if kept:
            os.environ["RECKON_CUDA_PRODUCTS"] = kept


CASES = [reads_the_account, an_error_is_a_complaint, spills_are_judged, registers_are_judged, names_are_short, the_kernels_of_this_build,
         the_programs_for_a_gpu_link, without_a_gpu, static_without_nvcc, wrong_calls,
         parts_are_narrowed, reports_grow, invariants_hold_on_the_cpu, golden_models_on_the_cpu, a_missing_program_is_a_failure,
         random_weights_are_a_model, shapes_have_their_sizes, peaks_are_found, speed_is_judged,
         operations_are_timed, a_device_that_hangs_on_wgmma]
passed = skipped = 0
for case in CASES:
    name = case.__name__.replace("_", " ")
    try:
        case()
        passed += 1
        print(f"ok   {name}")
    except Skip as why:
        skipped += 1
        print(f"skip {name}: {why}")
    except Exception as e:  # a case that breaks is a case that failed
        print(f"FAIL {name}: {type(e).__name__}: {e}")
failed = len(CASES) - passed - skipped
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(failed != 0)
