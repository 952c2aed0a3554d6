"""What can be said about the kernels without a GPU: every .cu file compiles for every architecture without a warning, and
the assembler's account of each kernel: registers, static shared memory, stack, spills. (Dynamic shared memory is chosen at
the launch and isn't in that account.)
"""
import concurrent.futures
import os
import re
import shutil
import subprocess

ARCHITECTURES = ("80", "89", "90a", "100a", "120a")
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v"]

# Spills that are accepted: (kernel's name, architecture or None for all, bytes at most, why).
ALLOWED_SPILLS: list[tuple[str, str | None, int, str]] = []

ENTRY = re.compile(r"Compiling entry function '([^']+)' for 'sm_(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def parse(text: str) -> tuple[list[dict], list[str]]:
    """The account of ptxas -v: a row for each kernel, and every line that is a warning or an error.

    A function that was not inlined has properties of its own and no registers; its spills are listed under its name.
    """
    kernels: dict[str, dict] = {}
    complaints, current, architecture, entry = [], None, "", None
    for line in text.splitlines():
        if re.search(r"\b(warning|error|fatal)\b", line, re.IGNORECASE):
            complaints.append(line.strip())
        if found := ENTRY.search(line):
            entry, architecture = found.groups()
            current = kernels.setdefault(entry, empty(entry, architecture))
        elif found := PROPERTIES.search(line):
            current = kernels.setdefault(found[1], empty(found[1], architecture))
        elif (found := STACK.search(line)) and current:
            current["stack_bytes"] = int(found[1])
            current["spill_bytes"] = int(found[2]) + int(found[3])
        elif (found := USED.search(line)) and entry:
            kernels[entry]["registers"] = int(found[1])
            if shared := SHARED.search(line):
                kernels[entry]["shared_bytes"] = int(shared[1])
    return list(kernels.values()), complaints


def empty(name: str, architecture: str) -> dict:
    return {"kernel": name, "architecture": architecture, "registers": None, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0}


def allowed(kernel: str, architecture: str, table) -> tuple[int, str]:
    for name, where, most, why in table:
        if re.search(rf"\b{re.escape(name)}\b", kernel) and where in (None, architecture):
            return most, why
    return 0, ""


def judge(kernels: list[dict], table) -> list[dict]:
    """The kernels that spill more than they may."""
    return [k for k in kernels if k["spill_bytes"] > allowed(k["kernel"], k["architecture"], table)[0]]


def demangle(names: list[str]) -> list[str]:
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if not tool or not names:
        return names
    done = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True)
    plain = done.stdout.splitlines()
    return plain if done.returncode == 0 and len(plain) == len(names) else names


def short_name(plain: str) -> str:
    """`void rmsnorm_kernel<true, float>(RmsnormArgs)` without its return type and arguments."""
    found = re.match(r"(?:void )?([\w:]+(?:<.*>)?)\(", plain)
    return found[1] if found else plain


def compile_one(root: str, nvcc: str, source: str, architecture: str, folder: str) -> dict:
    target = os.path.join(folder, f"{os.path.basename(source)}.{architecture}.o")
    command = [nvcc, *FLAGS, f"-gencode=arch=compute_{architecture},code=sm_{architecture}",
               *(f"-I{os.path.join(root, place)}" for place in ("kernels", "kernels/base", "kernels/cuda")), "-c", source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    kernels, complaints = parse(done.stdout + done.stderr)
    if done.returncode != 0 and not complaints:
        complaints = [f"nvcc ended with status {done.returncode}"]
    for kernel, plain in zip(kernels, demangle([k["kernel"] for k in kernels])):
        kernel.update(kernel=short_name(plain), file=os.path.basename(source), architecture=architecture)
    return {"source": os.path.basename(source), "architecture": architecture, "kernels": kernels, "complaints": complaints}


def run(report, root: str, nvcc: str, folder: str, jobs: int) -> None:
    report.begin("static")
    place = os.path.join(root, "kernels", "cuda")
    sources = sorted(os.path.join(place, name) for name in os.listdir(place) if name.endswith(".cu"))
    sources += [path for path in [os.path.join(root, "kernels", "ops_cuda.cu")] if os.path.exists(path)]
    os.makedirs(folder, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda pair: compile_one(root, nvcc, *pair, folder), [(s, a) for a in ARCHITECTURES for s in sources]))
    for architecture in ARCHITECTURES:
        of_it = [r for r in results if r["architecture"] == architecture]
        complaints = [f"{r['source']}: {line}" for r in of_it for line in r["complaints"]]
        report.row("static", f"sm_{architecture} compiles", f"{len(of_it)} files, no warning",
                   f"{len(complaints)} warnings or errors" if complaints else f"{len(of_it)} files", not complaints, "; ".join(complaints[:3]))
        kernels = [k for r in of_it for k in r["kernels"]]
        spilling = judge(kernels, ALLOWED_SPILLS)
        worst = ", ".join(f"{k['kernel']} {k['spill_bytes']} bytes" for k in spilling[:4])
        report.row("static", f"sm_{architecture} spills", "none beyond the table of allowed ones",
                   f"{len(spilling)} of {len(kernels)} kernels" if spilling else f"none in {len(kernels)} kernels", not spilling, worst)
    report.attach("static", "kernels", sorted((k for r in results for k in r["kernels"]),
                                              key=lambda k: (k["file"], k["kernel"], ARCHITECTURES.index(k["architecture"]))))
    report.attach("static", "allowed_spills", [{"kernel": n, "architecture": a, "bytes": b, "why": w} for n, a, b, w in ALLOWED_SPILLS])
