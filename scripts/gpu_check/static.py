"""What can be said about the kernels without a GPU: every .cu file compiles for every architecture without a warning, and
the assembler's account of each kernel: registers, static shared memory, stack, spills. (Dynamic shared memory is chosen at
the launch and isn't in that account.) The build keeps the accounts beside its objects (scripts/gpu_check/account).
"""
import os
import re
import shutil
import subprocess

ARCHITECTURES = ("80", "89", "90a", "100a", "120a")

# Spills that are accepted: (kernel's name, architecture or None for all, bytes at most, why).
ALLOWED_SPILLS: list[tuple[str, str | None, int, str]] = [
    ("attention_plain_kernel", None, 32, "the path of odd shapes, one value or two, with registers to spare: the assembler's choice"),
    ("rope_kernel", None, 16, "one address, with registers to spare: the assembler's choice"),
    ("latent_rope_kernel", "100a", 16, "one address, with registers to spare: the assembler's choice"),
    ("attention_decode_kernel", None, 52, "128 registers, so that four blocks fit a multiprocessor"),
    ("attention_tile_kernel", "100a", 8, "255 registers are the most a thread can have; only Blackwell spills"),
    ("attention_tile_kernel", "120a", 140, "255 registers are the most a thread can have; only Blackwell spills"),
    ("matmul_kernel", "100a", 324, "255 registers are the most a thread can have; the tile is sized for Ampere to Hopper"),
    ("matmul_kernel", "120a", 256, "255 registers are the most a thread can have; the tile is sized for Ampere to Hopper"),
    ("tile_kernel<FloatProduct", None, 12, "fp32's, one value: the assembler's choice"),
    ("gradient_kernel", None, 8, "255 registers are the most a thread can have"),
]

# Registers a thread may have: with 64, a multiprocessor holds the 1,024 threads that memory's latency wants. More is for those that
# compute (kernel's name, registers at most, why).
REGISTERS = 64
SUMS = "it holds a tile's sums in registers"
ALLOWED_REGISTERS: list[tuple[str, int, str]] = [
    *((name, 255, SUMS) for name in ("matmul_kernel", "matmul_copied_kernel", "gradient_kernel", "tile_kernel", "distill_kernel",
                                     "attention_tile_kernel", "attention_rows_kernel", "attention_pages_kernel", "latent_attention_kernel")),
    ("attention_decode_kernel", 224, "it holds the queries and sums of a group's heads; those of widths up to 96 stay at 128"),
    ("latent_rows_kernel", 160, "a warp holds a head's row: up to 32 columns a lane"),
    ("attention_pages_plain_kernel", 128, "a warp holds the gradients of four positions"),
    ("attention_plain_kernel", 96, "a warp holds a row: 8 columns a lane"),
    ("attention_rows_plain_kernel", 80, "a warp holds a row: 8 columns a lane"),
    ("chain_kernel", 80, SUMS),
    ("redraw_kernel", 128, SUMS),
    ("draw_kernel", 96, "sums in double"),
    ("truncate_kernel", 80, "384 threads of it are one row's"),
]

ENTRY = re.compile(r"Compiling entry function '([^']+)' for 'sm_(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def parse(text: str) -> tuple[list[dict], list[str]]:
    """The account of ptxas -v: a row for each kernel, and every line that is a warning or an error.

    A function that was not inlined has properties of its own and no registers; its spills are listed under its name.
    """
    kernels: dict[tuple[str, str], dict] = {}
    complaints, current, architecture, entry = [], None, "", None
    for line in text.splitlines():
        if re.search(r"\b(warning|error|fatal|potential performance loss)\b", line, re.IGNORECASE):
            complaints.append(line.strip())
        if found := ENTRY.search(line):
            entry, architecture = found.groups()
            current = kernels.setdefault((entry, architecture), empty(entry, architecture))
        elif found := PROPERTIES.search(line):
            current = kernels.setdefault((found[1], architecture), empty(found[1], architecture))
        elif (found := STACK.search(line)) and current:
            current["stack_bytes"] = int(found[1])
            current["spill_bytes"] = int(found[2]) + int(found[3])
        elif (found := USED.search(line)) and entry:
            kernels[entry, architecture]["registers"] = int(found[1])
            if shared := SHARED.search(line):
                kernels[entry, architecture]["shared_bytes"] = int(shared[1])
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


def too_many_registers(kernels: list[dict], table) -> list[dict]:
    most = lambda name: next((most for known, most, _ in table if re.search(rf"\b{re.escape(known)}\b", name)), REGISTERS)
    return [k for k in kernels if (k["registers"] or 0) > most(k["kernel"])]


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


def read_accounts(folder: str) -> list[dict]:
    """One for each compiled file below `folder`: its kernels on all architectures, and what the compiler complained about."""
    accounts = []
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(n for n in names if n.endswith(".cu.o.account")):
            with open(os.path.join(place, name), errors="replace") as f:
                kernels, complaints = parse(f.read())
            source = name.removesuffix(".o.account")
            for kernel, plain in zip(kernels, demangle([k["kernel"] for k in kernels])):
                kernel.update(kernel=short_name(plain), file=source)
            accounts.append({"source": source, "kernels": kernels, "complaints": complaints})
    return accounts


def build(root: str, jobs: int) -> str:
    """Builds the kernels; the folder, or why it couldn't."""
    for command in (["cmake", "--preset", "release", "-DRECKON_CUDA=ON"], ["cmake", "--build", "build", "-j", str(jobs), "--target", "kernels_cuda"]):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode != 0:
            return "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
    return ""


def report_accounts(report, accounts: list[dict], sources: list[str]) -> None:
    complaints = [f"{a['source']}: {line}" for a in accounts for line in a["complaints"]]
    missing = sorted(set(sources) - {a["source"] for a in accounts})
    complaints += [f"{name}: no account" for name in missing]
    report.row("static", "all files compile", f"{len(sources)} files, no warning",
               f"{len(complaints)} complaints" if complaints else f"{len(accounts)} files", not complaints, "; ".join(complaints[:3]))
    for architecture in ARCHITECTURES:
        kernels = [k for a in accounts for k in a["kernels"] if k["architecture"] == architecture]
        spilling = judge(kernels, ALLOWED_SPILLS)
        worst = ", ".join(f"{k['kernel']} {k['spill_bytes']} bytes" for k in spilling[:4])
        report.row("static", f"sm_{architecture} spills", "none beyond the table of allowed ones",
                   f"{len(spilling)} of {len(kernels)} kernels" if spilling else f"none in {len(kernels)} kernels",
                   not spilling and len(kernels) > 0, worst or ("" if kernels else "no kernel was compiled for it"))
        large = too_many_registers(kernels, ALLOWED_REGISTERS)
        report.row("static", f"sm_{architecture} registers", f"at most {REGISTERS}, but for the table of those that compute",
                   f"{len(large)} of {len(kernels)} kernels have more" if large else f"{max((k['registers'] or 0 for k in kernels), default=0)} at most",
                   not large and len(kernels) > 0, ", ".join(f"{k['kernel']} {k['registers']}" for k in large[:4]))
    report.attach("static", "kernels", sorted((k for a in accounts for k in a["kernels"]),
                                              key=lambda k: (k["file"], k["kernel"], ARCHITECTURES.index(k["architecture"]))))
    report.attach("static", "allowed_spills", [{"kernel": n, "architecture": a, "bytes": b, "why": w} for n, a, b, w in ALLOWED_SPILLS])
    report.attach("static", "allowed_registers", [{"kernel": n, "registers": r, "why": w} for n, r, w in ALLOWED_REGISTERS])


def cuda_sources(root: str) -> list[str]:
    return sorted([name for name in os.listdir(os.path.join(root, "kernels", "cuda")) if name.endswith(".cu")] + ["ops_cuda.cu"])


def run(report, root: str, jobs: int) -> None:
    report.begin("static")
    trouble = build(root, jobs)
    if trouble:
        report.row("static", "all files compile", f"{len(cuda_sources(root))} files", "the build failed", False, trouble)
    else:
        report_accounts(report, read_accounts(os.path.join(root, "build", "kernels")), cuda_sources(root))
